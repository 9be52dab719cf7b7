"""The folder of an export: whole or not at all, and never in the place of anything else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headstart.atomic import folder_written_whole
from headstart.errors import HeadstartError, listed


@contextmanager
def export_folder(folder: Path, files: tuple[str, ...]) -> Iterator[Path]:
    """Yield a new folder to fill with `files`; when the block ends well, it takes the place of `folder`.

    Raises:
        HeadstartError: when there is something other than an earlier export already.
    """
    others = sorted(path.name for path in folder.iterdir() if path.name not in files) if folder.is_dir() else []
    if others or folder.is_file():
        what = f"holds {listed(others)}" if others else "is a file"
        raise HeadstartError(
            f"-o {folder}: {what}; expected a new folder or an earlier export.", "Name another folder."
        )
    with folder_written_whole(folder) as draft:
        yield draft
