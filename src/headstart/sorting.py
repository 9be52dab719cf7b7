"""`headstart predict --move-to` and `--copy-to`: photos into a folder for each class, and back again.

Nothing is ever overwritten. What is done with a photo is written to a log before it is done, so that a command that was
killed knows what it left half done, and `headstart undo` can put everything back.
"""

from __future__ import annotations

import contextlib
import filecmp
import fnmatch
import glob
import json
import os
import shlex
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TextIO

import pandas as pd

from headstart.atomic import cut_torn_line
from headstart.console import Console
from headstart.errors import HeadstartError, counted, listed
from headstart.sidecars import is_ours, sidecar_of

Action = Literal["move", "copy"]
LOG = "headstart-sorted.jsonl"
# Where photos go whose label is not accepted; those that cannot be read stay where they are.
NOT_ACCEPTED = "not accepted"
_FORBIDDEN = '<>:"/\\|?*'


@dataclass(frozen=True)
class Sorted:
    """A line of the log: what was done with a photo."""

    action: Action
    source: str
    target: str


class Sorter:
    """Puts photos into a folder for each class, below a folder with the log.

    Args:
        root: is made if it is not there.
        action: whether photos leave their place.
        class_names: of the classifier.

    Raises:
        HeadstartError: when the root is a file, or two classes would share a folder.
    """

    def __init__(self, root: Path, action: Action, class_names: list[str]) -> None:
        if root.exists() and not root.is_dir():
            raise HeadstartError(f"--{action}-to {root}: is a file; expected a folder.", "Name another folder.")
        self._folders = {name: folder_name(name) for name in class_names}
        taken: dict[str, str] = {NOT_ACCEPTED: NOT_ACCEPTED}
        for name, folder in self._folders.items():
            if folder.casefold() in taken:
                other = taken[folder.casefold()]
                raise HeadstartError(
                    f"--{action}-to: classes {other!r} and {name!r} would both go to the folder {folder!r}.",
                    "Use -o for a table instead.",
                )
            taken[folder.casefold()] = name
        self._root, self._action = root.absolute(), action
        root.mkdir(parents=True, exist_ok=True)
        self._log = self._root / LOG
        cut_torn_line(self._log, b'{"action": ')
        # What an earlier command began, and may not have finished.
        self._begun = {line.source: line for line in read_log(self._log)} if self._log.exists() else {}
        self.sorted: dict[str, Path] = {}
        self.counts: dict[str, int] = {}
        # Photos that an earlier command put where they are, by their old paths.
        self.there: set[str] = set()

    def __call__(self, rows: pd.DataFrame) -> None:
        """Sort the photos of some rows of predictions; where that was done already, nothing happens."""
        self.sorted = {}
        with self._log.open("a", encoding="utf-8", errors="surrogateescape", newline="") as log:
            for row in rows.to_dict("records"):
                if row["error"]:
                    continue
                rejected = not pd.isna(row["accepted"]) and not row["accepted"]
                folder = NOT_ACCEPTED if rejected else self._folders[row["label"]]
                place = self._sort(Path(row["path"]).absolute(), folder, log)
                if place is not None:
                    self.sorted[row["path"]] = place
                    if str(Path(row["path"]).absolute()) not in self.there:
                        self.counts[folder] = self.counts.get(folder, 0) + 1

    def dealt_with(self, argument: str) -> bool:
        """Say whether an earlier command moved photos away that an argument names: a file, a folder or a pattern."""
        wanted = str(Path(argument).absolute())  # as the log has it
        named = [wanted]
        if os.path.isdir(wanted):
            named = fnmatch.filter(self._begun, os.path.join(glob.escape(wanted), "*"))
        elif wanted not in self._begun and glob.escape(wanted) != wanted:
            named = fnmatch.filter(self._begun, wanted)
        return any([self.was_moved(source) for source in named])

    def was_moved(self, source: str) -> bool:
        """Say whether an earlier command moved a photo away from a path; then it is counted as there already."""
        source = str(Path(source).absolute())
        begun = self._begun.get(source)
        if begun is None or begun.action != "move" or os.path.lexists(source) or not os.path.lexists(begun.target):
            return False
        self.there.add(source)
        return True

    def _sort(self, source: Path, folder: str, log: TextIO) -> Path | None:
        begun = self._begun.get(str(source))
        if begun is not None and os.path.lexists(begun.target):
            if not source.exists():
                if begun.action == "move":
                    _take_sidecar(source, Path(begun.target))  # unless it was killed in between, it is there
                self.there.add(str(source))
                return Path(begun.target)
            if filecmp.cmp(source, begun.target, shallow=False):
                if self._action == "move":
                    source.unlink()  # in its new place, and killed before it left the old one
                    _take_sidecar(source, Path(begun.target))
                else:
                    self.there.add(str(source))
                return Path(begun.target)
        if not source.exists():
            return None
        (self._root / folder).mkdir(exist_ok=True)
        place = _free_place(self._root / folder / source.name)
        line = Sorted(self._action, str(source), str(place))
        log.write(json.dumps(asdict(line), ensure_ascii=False) + "\n")
        log.flush()
        if self._action == "move":
            _moved(source, place)
            _take_sidecar(source, place)
        else:
            _copied(source, place)
        return place

    def told(self) -> str:
        """Say how many photos went where, and how to undo it."""
        counts = sorted(self.counts.items(), key=lambda item: -item[1])
        done = "moved" if self._action == "move" else "copied"
        total = f"{counted(sum(self.counts.values()), 'photo')} {done} to {self._root}"
        there = f", {len(self.there):,} there already" if self.there else ""
        if not counts:
            return total + there
        where = listed([f"{folder} {count:,}" for folder, count in counts], 8)
        return f"{total}{there}: {where}; undo with: headstart undo {shlex.quote(str(self._root))}"


def folder_name(label: str) -> str:
    """Return a class name as the name of a folder that every system can hold, and that lies where it seems to."""
    name = "".join("_" if character in _FORBIDDEN or ord(character) < 32 else character for character in label)
    name = name.strip().rstrip(".")
    return f"_{name}" if not name or name.startswith(".") or name == NOT_ACCEPTED else name


def undo(log: Path, console: Console) -> int:
    """Put back what a log says was moved, and remove the copies that it names; the last first.

    Sidecars that Headstart wrote beside them go. A copy that differs from its photo, or whose photo is gone, is left.

    Args:
        log: the log in the folder that photos were sorted into, or that folder.
        console: says what is left as it is.

    Returns:
        The number of photos put back or removed. The log goes when nothing of it is left.

    Raises:
        HeadstartError: when there is no log.
    """
    path = log / LOG if log.is_dir() else log
    left, done, folders = [], 0, set()
    for line in reversed(list(read_log(path))):
        source, target = Path(line.source), Path(line.target)
        if not os.path.lexists(target):
            continue  # undone already, or never done
        folders.add(target.parent)
        try:
            problem = _undo_one(line, source, target)
        except OSError as error:
            problem = error.strerror or str(error)
        if problem:
            left.append(line)
            console.warn(f"{target}: left where it is: {problem}")
        else:
            done += 1
    if left:
        lines = "".join(json.dumps(asdict(line), ensure_ascii=False) + "\n" for line in reversed(left))
        path.write_text(lines, encoding="utf-8", errors="surrogateescape")
    else:
        path.unlink()
    for folder in (*folders, path.parent):
        with contextlib.suppress(OSError):  # it holds something else
            folder.rmdir()
    return done


def _undo_one(line: Sorted, source: Path, target: Path) -> str:
    """Undo one line; return why that cannot be done, or nothing."""
    if line.action == "copy":
        if not source.exists():
            return f"the photo that it is a copy of is gone ({source})"
        if not filecmp.cmp(source, target, shallow=False):
            return "it is not the same as the photo that it is a copy of"
        target.unlink()
    elif os.path.lexists(source):
        return f"there is another file at {source}"
    else:
        source.parent.mkdir(parents=True, exist_ok=True)
        _moved(target, source)
    sidecar = sidecar_of(target)
    if sidecar.exists() and is_ours(sidecar):
        sidecar.unlink()
    elif line.action == "move":
        _take_sidecar(target, source)
    return ""


def read_log(path: Path) -> Iterator[Sorted]:
    """Yield the lines of a log; a last one that was cut short is left out, because what it says was not begun.

    Raises:
        HeadstartError: when there is none, or it is something else.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines(keepends=True)
    except OSError as error:
        raise HeadstartError(
            f"{path}: cannot be read: {error.strerror}; expected the {LOG} of a sorted folder.", "Name that folder."
        ) from None
    for line in lines:
        if not line.endswith("\n"):
            return
        try:
            yield Sorted(**json.loads(line))
        except (ValueError, TypeError):
            raise HeadstartError(
                f"{path}: is not a log of sorted photos.", f"Name the {LOG} of a sorted folder."
            ) from None


def _take_sidecar(photo: Path, place: Path) -> None:
    """Move the sidecar of a photo that has moved after it: a photo manager would lose its edits."""
    if os.path.lexists(sidecar_of(photo)) and not os.path.lexists(sidecar_of(place)):
        _moved(sidecar_of(photo), sidecar_of(place))


def _free_place(wanted: Path) -> Path:
    """Return the path, or the same with the first number that makes it and its sidecar's free."""
    place, number = wanted, 2
    while os.path.lexists(place) or os.path.lexists(sidecar_of(place)):
        place = wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}")
        number += 1
    return place


def _moved(source: Path, place: Path) -> None:
    """Move a file to a place where nothing is, also where something has just appeared there: then it raises."""
    try:
        os.link(source, place, follow_symlinks=False)  # renaming would replace
    except FileExistsError:
        raise
    except OSError:  # another disk, or one without links
        _copied(source, place)
    os.unlink(source)


def _copied(source: Path, place: Path) -> None:
    """Copy a file, with its times, whole or not at all."""
    draft = place.with_name(f".{uuid.uuid4().hex[:8]}{place.suffix}")
    try:
        shutil.copy2(source, draft)
        try:
            os.link(draft, place)
        except FileExistsError:
            raise
        except OSError:  # no links on this disk
            if os.path.lexists(place):
                raise FileExistsError(f"{place} is there already") from None
            os.rename(draft, place)
    finally:
        draft.unlink(missing_ok=True)
