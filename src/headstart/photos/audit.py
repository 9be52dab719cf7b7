"""The audit of a catalog: what is wrong with photos and labels, found before anything is trained on them."""

from __future__ import annotations

from dataclasses import fields

import pandas as pd

from headstart.console import Console
from headstart.errors import PhotoError
from headstart.photos.catalog import Catalog
from headstart.photos.classes import class_findings, folder_findings
from headstart.photos.defects import file_findings, look_findings, unreadable
from headstart.photos.duplicates import duplicate_findings
from headstart.photos.facts import PhotoFacts, read_facts
from headstart.photos.findings import Finding, finding_table
from headstart.photos.loading import ahead
from headstart.photos.shortcuts import shortcut_findings


def audit(catalog: Catalog, console: Console | None = None) -> pd.DataFrame:
    """Look at every photo once, and at the classes as a whole.

    Args:
        catalog: the photos with their labels, and their splits where the user gave them.
        console: shows progress.

    Returns:
        A row a problem, most important first: path (of a photo relative to the catalog's root, a class, or "." for all
        photos), problem, severity (severe, warning, note), detail, suggestion.
    """
    photos, findings = examine(catalog, console or Console(quiet=True))
    findings += [Finding(path, "unreadable", why) for path, why in catalog.problems[["path", "detail"]].to_numpy(str)]
    findings += [*file_findings(photos), *look_findings(photos)]
    facts = facts_table(catalog, photos)
    findings += duplicate_findings(catalog.root, facts)
    findings += [*class_findings(catalog, facts), *folder_findings(catalog)]
    findings += shortcut_findings(facts)
    return finding_table(findings)


def examine(catalog: Catalog, console: Console) -> tuple[list[tuple[str, PhotoFacts]], list[Finding]]:
    """Read all photos in threads: the facts of those that can be read, and a finding for each of the others."""
    photos, findings = [], []
    with console.progress("photos", len(catalog.photos)) as advance:
        results = ahead(catalog.photos["path"], lambda path: _facts_or_reason(catalog, path))
        for path, result in zip(catalog.photos["path"], results, strict=True):
            if isinstance(result, PhotoFacts):
                photos.append((path, result))
            else:
                findings.append(unreadable(path, result))
            advance(1)
    return photos, findings


def facts_table(catalog: Catalog, photos: list[tuple[str, PhotoFacts]]) -> pd.DataFrame:
    """Return the catalog's rows of photos that can be read, with the fields of `PhotoFacts` as further columns."""
    columns = [field.name for field in fields(PhotoFacts)]
    table = pd.DataFrame([[getattr(facts, name) for name in columns] for _, facts in photos], columns=columns)
    rows = catalog.photos[catalog.photos["path"].isin({path for path, _ in photos})]
    return pd.concat([rows.reset_index(drop=True), table], axis=1)


def _facts_or_reason(catalog: Catalog, path: str) -> PhotoFacts | str:
    try:
        return read_facts(catalog.root / path)
    except PhotoError as error:
        return str(error)
