"""Made runs, each for the whole session: read only."""

from pathlib import Path

import pytest

from report.made_run import make_run


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """The run folder of five classes; its photos lie beside it."""
    return make_run(tmp_path_factory.mktemp("made"))
