"""The audit of a catalog: what is wrong with photos and labels, found before anything is trained on them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from headstart.console import Console
from headstart.photos.catalog import Catalog
from headstart.photos.classes import class_findings, folder_findings
from headstart.photos.defects import file_findings, look_findings, unreadable
from headstart.photos.duplicates import (
    Features,
    Pairs,
    copies_by_features,
    copy_groups,
    duplicate_findings,
    near_copies,
)
from headstart.photos.facts import PhotoFacts, facts_or_reason
from headstart.photos.findings import Finding, finding_table
from headstart.photos.loading import spread
from headstart.photos.shortcuts import shortcut_findings


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    `facts` are the catalog's rows of photos that can be read, with the fields of `PhotoFacts` as further columns;
    `copies` are pairs of its rows that show the same picture, (pairs, 2); `findings` is all but copies.
    """

    facts: pd.DataFrame
    copies: Pairs
    findings: list[Finding]

    @cached_property
    def problems(self) -> pd.DataFrame:
        """A row a problem, most important first: path, problem, severity, detail, suggestion.

        `path` is a photo's, relative to the catalog's root, or a class, or "." for all photos.
        """
        return finding_table([*self.findings, *duplicate_findings(self.facts, self.copies)])

    @property
    def originals(self) -> dict[str, str]:
        """By each photo's digest, the least digest of all copies of its picture: these belong into one split."""
        groups = copy_groups(self.facts, self.copies)
        least = self.facts["digest"].groupby(groups).transform("min")
        return dict(zip(self.facts["digest"], least, strict=True))

    def compared(self, root: Path, features: Features) -> Audit:
        """Return the audit with the copies that are found by their features, (len(facts), num_features)."""
        return replace(self, copies=copies_by_features(root, self.facts, features, self.copies))


def audit(catalog: Catalog, console: Console | None = None, known: pd.DataFrame | None = None) -> Audit:
    """Look at every photo once, and at the classes as a whole.

    Args:
        catalog: the photos with their labels, and their splits where the user gave them.
        console: shows progress.
        known: facts of photos from an earlier audit, by digest; these are not read again.
    """
    photos, findings = examine(catalog, console or Console(quiet=True), known)
    findings += [unreadable(path, why) for path, why in catalog.problems[["path", "detail"]].to_numpy(str)]
    findings += [*file_findings(photos), *look_findings(photos)]
    facts = facts_table(catalog, photos)
    copies, more = near_copies(catalog.root, facts)
    findings += [*more, *class_findings(catalog, facts), *folder_findings(catalog), *shortcut_findings(facts)]
    return Audit(facts, copies, findings)


def examine(
    catalog: Catalog, console: Console, known: pd.DataFrame | None = None, among: int = 0
) -> tuple[list[tuple[str, PhotoFacts]], list[Finding]]:
    """Read all photos: the facts of those that can be read, and a finding for each of the others.

    Photos that are a sample are read as those that they are `among` would be.
    """
    photos, findings = [], []
    remembered = known_facts(known)
    digests = dict(zip(catalog.photos["path"], catalog.photos["digest"], strict=True))

    paths = catalog.photos["path"].tolist()
    new = [catalog.root / path for path in paths if digests[path] not in remembered]
    read = spread(new, facts_or_reason, max(len(new), among))
    with console.progress("photos", len(paths)) as advance:
        for path in paths:
            result = remembered.get(digests[path]) or next(read)
            if isinstance(result, PhotoFacts):
                photos.append((path, result))
            else:
                findings.append(unreadable(path, result))
            advance(1)
    return photos, findings


def known_facts(table: pd.DataFrame | None) -> dict[str, PhotoFacts]:
    """Return the facts of an earlier audit's table by the digest of each photo."""
    if table is None:
        return {}
    names = [field.name for field in fields(PhotoFacts)]
    rows = zip(*(table[name].tolist() for name in names), strict=True)
    return {digest: PhotoFacts(*row) for digest, row in zip(table["digest"], rows, strict=True)}


def facts_table(catalog: Catalog, photos: list[tuple[str, PhotoFacts]]) -> pd.DataFrame:
    """Return the catalog's rows of photos that can be read, with the fields of `PhotoFacts` as further columns."""
    columns = [field.name for field in fields(PhotoFacts)]
    table = pd.DataFrame([[getattr(facts, name) for name in columns] for _, facts in photos], columns=columns)
    rows = catalog.photos[catalog.photos["path"].isin({path for path, _ in photos})]
    return pd.concat([rows.reset_index(drop=True), table], axis=1)
