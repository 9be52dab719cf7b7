"""The page about many photos: its commands run, in order."""

import shutil
import signal
import subprocess
import time

import pandas as pd
import pytest

from docs.commands import blocks_of, environment, run_block
from making import make_photos


@pytest.fixture
def folder(finished, tmp_path):
    """What the page presumes: a run, photos, and a folder that a camera writes to."""
    shutil.copytree(finished[0], tmp_path / "run")
    make_photos(tmp_path / "new-photos", count=2)
    (tmp_path / "new-photos" / "a.jpg").write_bytes((tmp_path / "new-photos" / "ant" / "0.png").read_bytes())
    make_photos(tmp_path / "camera", ("ant",), 2)
    return tmp_path


def test_the_commands_of_the_page_run(folder):
    plain, listed, sort, metadata, watch = [text for kind, text in blocks_of("predict.md") if kind == "sh"]
    run_block("sh", plain, folder)
    assert len(pd.read_csv(folder / "predictions.csv")) == 7
    run_block("sh", listed, folder)
    assert len(pd.read_json(folder / "predictions.jsonl", lines=True)) == 1
    assert run_block("sh", sort, folder) == "7 photos put back or removed\n" * 2
    assert not (folder / "sorted").exists()
    run_block("sh", metadata, folder)
    assert len(list((folder / "new-photos").rglob("*.xmp"))) == 7
    watcher = subprocess.Popen(
        ["bash", "-c", f"exec {watch.strip()}"], cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True
    )
    try:
        until = time.monotonic() + 120
        while not (folder / "rows.csv").exists():
            assert watcher.poll() is None and time.monotonic() < until
            time.sleep(0.02)
    finally:
        watcher.send_signal(signal.SIGINT)
    assert "2 photos classified" in watcher.communicate(timeout=60)[1] and watcher.returncode == 0
