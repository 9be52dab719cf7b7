"""The commands of a page of documentation, run as they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


def blocks_of(page: str) -> list[tuple[str, str]]:
    """The page's blocks of shell commands and Python, in order."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(r"^```(sh|python)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def environment() -> dict[str, str]:
    """One in which `headstart` and `python` are those of the tests."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def run_block(kind: str, text: str, folder: Path) -> str:
    """Run a block in a folder and return what it printed; installing is left out, because that is done."""
    lines = [line for line in text.splitlines() if not line.startswith("pip install")]
    code = "\n".join(lines)
    command = [sys.executable, "-c", code] if kind == "python" else ["bash", "-euo", "pipefail", "-c", code]
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, f"{code}\n{done.stderr}"
    return done.stdout
