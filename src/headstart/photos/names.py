"""Class names as people read them; wherever a label is an identifier it stays as it is."""

from __future__ import annotations

import re


def readable(label: str) -> str:
    """Drop a leading WordNet id and turn underscores into spaces: `n02085782-Japanese_spaniel`.

    A label of which nothing would remain stays as it is.
    """
    return re.sub(r"^n[0-9]{8}[-_]", "", label).replace("_", " ").strip() or label


def readable_names(labels: list[str]) -> list[str]:
    """Make every label readable, in their order, or none of them where two would become the same."""
    names = [readable(label) for label in labels]
    return names if len(set(names)) == len(set(labels)) else list(labels)
