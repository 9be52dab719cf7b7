"""What all pictures have in common: how they are shown, captioned and written."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.figure import Figure

from headstart.atomic import written_whole

_DOTS_PER_INCH = 130


class Picture(Figure):
    """A figure that a notebook shows where it is the value of a cell.

    It belongs to no pyplot session, so that many can be made in any thread and none has to be closed.
    """

    def _repr_png_(self) -> bytes:
        # What IPython asks a value for; matplotlib itself answers for pyplot's figures only.
        data = io.BytesIO()
        self.savefig(data, format="png", dpi=_DOTS_PER_INCH)
        return data.getvalue()


def shortened(name: str, longest: int) -> str:
    """Shorten a long name."""
    return name if len(name) <= longest else name[: longest - 1] + "…"


def caption(name: str, longest: int = 24) -> str:
    """Shorten a long name, and keep matplotlib from reading dollar signs in it as mathematics."""
    return shortened(name, longest).replace("$", r"\$")


def write_picture(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file, whole or not at all."""
    with written_whole(path) as draft:
        figure.savefig(draft, format="png", dpi=_DOTS_PER_INCH)
