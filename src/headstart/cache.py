"""Where Headstart keeps what it has computed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from headstart.errors import HeadstartError

ENVIRONMENT_VARIABLE = "HEADSTART_CACHE"


def cache_folder(wanted: str | Path | None = None) -> Path:
    """Return the cache folder: the one asked for, else $HEADSTART_CACHE, else the platform's own place.

    Raises:
        HeadstartError: when it cannot be made.
    """
    import platformdirs

    chosen = wanted or os.environ.get(ENVIRONMENT_VARIABLE) or platformdirs.user_cache_dir("headstart", False)
    folder = Path(chosen).expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HeadstartError(
            f"--cache {folder}: cannot be made: {error.strerror}; expected a folder that can be written.",
            f"Choose another with --cache or {ENVIRONMENT_VARIABLE}.",
        ) from None
    return folder


def cache_size(folder: Path) -> dict[str, int]:
    """Return the bytes of each part of the cache."""
    return {
        part.name: sum(file.stat().st_size for file in part.rglob("*") if file.is_file())
        for part in sorted(folder.iterdir())
        if part.is_dir()
    }


def clear_cache(folder: Path) -> None:
    """Remove what Headstart has put into the cache folder, and nothing else."""
    for part in ("activations", "engines", "datasets"):
        shutil.rmtree(folder / part, ignore_errors=True)
