"""The errors that a user can mend."""

from __future__ import annotations

from typing import Literal

PhotoProblem = Literal["missing", "folder", "unreadable", "empty", "raw", "not_an_image", "bomb", "damaged"]


class HeadstartError(Exception):
    """A mistake in what the user gave, told in two lines at most.

    The first line names the file or option and says what was received and what was expected; the second
    says how to mend it. The command line prints them without a traceback and exits with code 2.
    """

    def __init__(self, problem: str, fix: str = "") -> None:
        super().__init__(f"{problem}\n{fix}" if fix else problem)
        self.problem = problem
        self.fix = fix


class PhotoError(HeadstartError):
    """A photo that cannot be read; its text is the reason, which ends up beside the photo's path.

    `kind` says the same to a program: `missing`, a `folder`, `unreadable` (by permission or a broken disk), `empty`,
    camera `raw`, `not_an_image` by content, a `bomb` of more pixels than allowed, or `damaged`.
    """

    def __init__(self, problem: str, kind: PhotoProblem) -> None:
        super().__init__(problem)
        self.kind = kind


def listed(names: list[str], limit: int = 5) -> str:
    """Join names for an error message: the first few, then how many more there are."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def counted(number: int, noun: str) -> str:
    """Write a count with its noun in the right number: `1 photo`, `1,200 photos`, `2 classes`."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun}{'es' if noun.endswith('s') else 's'}"
