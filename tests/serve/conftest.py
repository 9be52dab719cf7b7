from collections.abc import Iterator
from pathlib import Path

import pytest

from serve.serving import Serving

TOKEN = "correct-horse"


@pytest.fixture(scope="session")
def server(finished) -> Iterator[Serving]:
    """Two models, no token, small limits."""
    run, _ = finished
    limits = (
        "--max-body",
        "1MB",
        "--max-photos",
        4,
        "--queue",
        4,
        "--receive-timeout",
        1,
        "--max-pixels",
        26_000_000,
    )
    serving = Serving(run, f"other={run / 'classifier'}", *limits)
    yield serving
    # Whatever clients did, no request failed inside the server.
    assert serving.stop() == ""


@pytest.fixture(scope="session")
def guarded(finished) -> Iterator[Serving]:
    """One model, behind a token."""
    serving = Serving(finished[0], "--token", TOKEN, "--log-requests")
    yield serving
    assert serving.stop() == ""


@pytest.fixture
def photo(finished) -> Path:
    """A photo of the class bee."""
    return finished[1] / "bee" / "0.png"
