"""Small real photos for every test, made here; the cache is each session's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from making import make_photos

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

# Tiny networks gain nothing from a second thread, and wait for it where the machine is busy.
torch.set_num_threads(1)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of three classes, ten photos each."""
    return make_photos(tmp_path / "photos")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for the whole session: the converted networks in it are the same for every test."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _cache_of_the_session(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(cache))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # for processes that tests start


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photos, where there is one."""
    if not SHARED.is_dir():
        pytest.skip("the real photos of ../shared/data are not here")
    return SHARED


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[tuple[Path, Path]]:
    """A finished run on small photos: (run folder, photos folder). Read only."""
    import headstart

    root = tmp_path_factory.mktemp("finished")
    folder = make_photos(root / "photos")
    os.environ["HEADSTART_CACHE"] = str(cache)
    headstart.train(folder, root / "run", cache=cache, quiet=True, image_size=64, epochs=2, num_views=2)
    yield root / "run", folder
