"""`headstart predict --write-metadata`: a photo's label in an XMP sidecar, which photo managers read.

`photo.jpg` gets `photo.jpg.xmp`, the name that darktable and digiKam use. The photo itself is not touched. The keyword
stands in `dc:subject`; what the classifier said, in a namespace of its own, by which a sidecar is known to be ours.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd

from headstart.atomic import written_whole

_NAMESPACES = {
    "x": "adobe:ns:meta/",
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "dc": "http://purl.org/dc/elements/1.1/",
    "headstart": "https://headstart.invalid/xmp/1.0/",
}


class SidecarWriter:
    """Writes a sidecar for each row of predictions.

    `written` counts them; `passed` lists the photos that have a sidecar of another program, which is left alone.

    Args:
        place_of: says where a photo is now, by its path in the table; None where it is not any more.
    """

    def __init__(self, place_of: Callable[[str], Path | None]) -> None:
        self._place_of = place_of
        self.written = 0
        self.passed: list[str] = []

    def __call__(self, rows: pd.DataFrame) -> None:
        """Write the sidecars of some rows; the same rows again give the same files."""
        for row in rows.to_dict("records"):
            place = None if row["error"] else self._place_of(row["path"])
            if place is None:
                continue
            sidecar = sidecar_of(place)
            if sidecar.exists() and not is_ours(sidecar):
                self.passed.append(str(sidecar))
                continue
            accepted = None if pd.isna(row["accepted"]) else bool(row["accepted"])
            with written_whole(sidecar) as draft:
                draft.write_bytes(xmp(row["label"], row["probability"], accepted))
            self.written += 1


def sidecar_of(photo: Path) -> Path:
    """Return where a photo's sidecar lies."""
    return photo.with_name(f"{photo.name}.xmp")


def xmp(label: str, probability: float, accepted: bool | None) -> bytes:
    """Return a sidecar's text. A label that is not accepted is not a keyword."""
    for prefix, uri in _NAMESPACES.items():
        ElementTree.register_namespace(prefix, uri)
    root = ElementTree.Element(_named("x:xmpmeta"))
    rdf = ElementTree.SubElement(root, _named("rdf:RDF"))
    description = ElementTree.SubElement(rdf, _named("rdf:Description"), {_named("rdf:about"): ""})
    if accepted is not False:
        subject = ElementTree.SubElement(description, _named("dc:subject"))
        bag = ElementTree.SubElement(subject, _named("rdf:Bag"))
        ElementTree.SubElement(bag, _named("rdf:li")).text = _printable(label)
    ElementTree.SubElement(description, _named("headstart:label")).text = _printable(label)
    ElementTree.SubElement(description, _named("headstart:probability")).text = f"{probability:.4f}"
    if accepted is not None:
        ElementTree.SubElement(description, _named("headstart:accepted")).text = str(accepted)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def is_ours(sidecar: Path) -> bool:
    """Say whether a sidecar was written here and holds nothing else."""
    try:
        description = ElementTree.parse(sidecar).getroot().find(f"{_named('rdf:RDF')}/{_named('rdf:Description')}")
    except (ElementTree.ParseError, OSError):
        return False
    if description is None or description.find(_named("headstart:label")) is None:
        return False
    own = f"{{{_NAMESPACES['headstart']}}}"
    return all(part.tag.startswith(own) or part.tag == _named("dc:subject") for part in description)


def _named(name: str) -> str:
    prefix, local = name.split(":")
    return f"{{{_NAMESPACES[prefix]}}}{local}"


def _printable(text: str) -> str:
    """Leave out what XML cannot hold."""
    return "".join(
        character for character in text if character in "\t\n" or (character >= " " and character.isprintable())
    )
