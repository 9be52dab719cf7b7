"""What an audit finds: one row a problem, with one meaning for each problem's name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from headstart.photos.catalog import natural_key

SEVERE, WARNING, NOTE = "severe", "warning", "note"
SEVERITIES = (SEVERE, WARNING, NOTE)
COLUMNS = ["path", "problem", "severity", "detail", "suggestion"]
# The path of a finding about all photos.
EVERYTHING = "."


@dataclass(frozen=True)
class Kind:
    """How grave a problem is, what to do about it, and whether a clean copy leaves the photo out."""

    severity: str
    suggestion: str
    left_out: bool = False


_FILE = "Get the photo again from where it came, or delete it; training leaves it out."
_LOOK = "Look at it; delete it if even you cannot tell its class."

# In the order in which they are told, within a severity.
KINDS = {
    "label conflict": Kind(SEVERE, "Decide which class is right, and delete the other copies.", True),
    "leak": Kind(SEVERE, "Delete this copy, or what is measured on the other split flatters.", True),
    "shortcut": Kind(
        WARNING,
        "Take and save the photos of all classes alike, and test on photos from elsewhere.",
    ),
    "decompression bomb": Kind(SEVERE, "Delete it, or save it again with fewer pixels; training leaves it out.", True),
    "truncated": Kind(SEVERE, _FILE, True),
    "damaged": Kind(SEVERE, _FILE, True),
    "not an image": Kind(SEVERE, _FILE, True),
    "empty file": Kind(SEVERE, _FILE, True),
    "unreadable": Kind(SEVERE, _FILE, True),
    "too few photos": Kind(WARNING, "Add photos of this class, or leave the class out."),
    "empty class folder": Kind(WARNING, "Put photos into it, or delete it."),
    "folder without photos": Kind(WARNING, "Move it away if it is not a class; else look at its files."),
    "class missing from a split": Kind(WARNING, "Add photos of the class, or nothing is measured on it there."),
    "similar class names": Kind(WARNING, "If they are one class, give both the same name."),
    "unbalanced classes": Kind(NOTE, "Add photos to the small classes; mind macro F1 more than accuracy."),
    "exact duplicate": Kind(WARNING, "Delete one of them: copies count twice.", True),
    "near duplicate": Kind(WARNING, "Keep one of them, or keep them in the same split: accuracy on copies flatters."),
    "too dark": Kind(WARNING, _LOOK),
    "too bright": Kind(WARNING, _LOOK),
    "blurry": Kind(WARNING, _LOOK),
    "low information": Kind(WARNING, _LOOK),
    "tiny": Kind(WARNING, "Get a larger version: a network sees little in it."),
    "odd size": Kind(NOTE, "Look whether it belongs to the others."),
    "odd aspect": Kind(NOTE, "Crop it, or train with --resize-policy letterbox, which keeps all of it."),
    "wrong suffix": Kind(NOTE, "Rename it: Headstart goes by the content, other programs may not."),
    "rotated by EXIF": Kind(NOTE, "Nothing to do: Headstart turns it upright, other programs may not."),
    "odd mode": Kind(NOTE, "Nothing to do if it looks right in `headstart show`: it becomes 8-bit RGB."),
    "transparency": Kind(NOTE, "Nothing to do if a white background suits it."),
    "animated": Kind(NOTE, "Only its first frame is used; save others as files of their own."),
    "ignored": Kind(NOTE, "Nothing to do if that is meant."),
    "near duplicates not all compared": Kind(NOTE, "Delete the near duplicates that are named, and check again."),
}


@dataclass(frozen=True)
class Finding:
    """A problem of one photo, of a class (its name or folder stands for the path) or of all (`EVERYTHING`)."""

    path: str
    problem: str
    detail: str
    severity: str = ""


def finding_table(findings: Iterable[Finding]) -> pd.DataFrame:
    """Make the table of an audit, most important first: path, problem, severity, detail, suggestion."""
    order = {name: number for number, name in enumerate(KINDS)}
    rows = [
        (found.path, found.problem, found.severity or KINDS[found.problem].severity, found.detail) for found in findings
    ]
    rows.sort(key=lambda row: (SEVERITIES.index(row[2]), order[row[1]], natural_key(row[0])))
    table = pd.DataFrame(rows, columns=COLUMNS[:4], dtype=str)
    table["suggestion"] = [KINDS[name].suggestion for name in table["problem"]]
    return table.astype(str)


def left_out(table: pd.DataFrame) -> set[str]:
    """Return the paths that a clean copy leaves out: unreadable, surplus copies, leaks, contradictory labels."""
    gone = {name for name, kind in KINDS.items() if kind.left_out}
    return set(table.loc[table["problem"].isin(gone), "path"])
