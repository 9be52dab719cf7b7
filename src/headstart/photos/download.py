"""Archives from the internet: downloaded in as many sittings as it takes, checked, and unpacked within a folder."""

from __future__ import annotations

import os
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from headstart.console import Console
from headstart.errors import HeadstartError, listed

# A block that has not wholly arrived when the connection breaks is lost.
_BLOCK_BYTES = 1 << 16
_MEGABYTE = 1_000_000
# Seconds without a byte, after which a connection counts as lost.
_PATIENCE = 60


@dataclass(frozen=True)
class Archive:
    """A file on the internet: its address, its SHA-256 in hex and its length in bytes."""

    url: str
    sha256: str
    size: int

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.url.rsplit("/", 1)[-1]


def download(archive: Archive, folder: Path, console: Console) -> Path:
    """Download an archive into a folder, and check it.

    What has arrived is kept in a `.part` file, from which the next call goes on by an HTTP range request where
    the server takes one. An archive that is there already is only checked.

    Returns:
        The file, whose bytes have the archive's SHA-256.

    Raises:
        HeadstartError: when the server cannot be reached, refuses, or breaks off, and when the bytes are wrong,
            in which case they are deleted.
    """
    import pooch
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{archive.name}.part"

    def fetch(url: str, output_file: str, _: Any) -> None:
        _fetch(archive, part, console)
        found = pooch.file_hash(str(part), alg="sha256")
        if found != archive.sha256:
            part.unlink()
            raise HeadstartError(
                f"{url}: what was downloaded has the SHA-256 {found}; expected {archive.sha256}. It is deleted.",
                "Try again; if it stays so, the file has been changed at its source.",
            )
        os.replace(part, output_file)

    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("WARNING")  # pooch tells where it downloads to; the progress bar does.
    try:
        with FileLock(part.with_suffix(".lock"), timeout=0):
            return Path(pooch.retrieve(archive.url, archive.sha256, archive.name, str(folder), downloader=fetch))
    except Timeout:
        raise HeadstartError(f"{archive.url}: another process is downloading it.", "Wait for it to end.") from None
    finally:
        logger.setLevel(level)


def _fetch(archive: Archive, part: Path, console: Console) -> None:
    """Append to `part` what is missing of the archive."""
    import requests

    have = _size(part)
    if have == archive.size:
        return
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    answered = False
    try:
        with requests.get(archive.url, headers=headers, stream=True, timeout=_PATIENCE) as response:
            if response.status_code not in (200, 206):
                if response.status_code == 416:
                    part.unlink()  # It is longer than what the server has.
                raise _unreachable(archive, f"the server answers {response.status_code} {response.reason}")
            answered = True
            _append(response, archive, part, console)
    except requests.RequestException as error:
        if not answered:
            raise _unreachable(archive, f"the server cannot be reached ({type(error).__name__})") from None
        raise _broken_off(archive, _size(part)) from None
    if _size(part) < archive.size:
        raise _broken_off(archive, _size(part))


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _append(response: Any, archive: Archive, part: Path, console: Console) -> None:
    """Write the answer's bytes where they belong: after those that are there, or from the start."""
    resumed = response.status_code == 206
    done = _size(part) if resumed else 0
    total = archive.size // _MEGABYTE
    with part.open("ab" if resumed else "wb") as file, console.progress(archive.name, total, "MB") as advance:
        advance(done // _MEGABYTE)
        for block in response.iter_content(_BLOCK_BYTES):
            file.write(block)
            advance((done + len(block)) // _MEGABYTE - done // _MEGABYTE)
            done += len(block)
            if done > archive.size:
                break  # It is another file, as its checksum will tell.


def _unreachable(archive: Archive, reason: str) -> HeadstartError:
    return HeadstartError(
        f"{archive.url}: {reason}; expected a download of {archive.size / _MEGABYTE:,.1f} MB.",
        "Try again when it is within reach; or get the photos by hand, and give the folder of class folders.",
    )


def _broken_off(archive: Archive, arrived: int) -> HeadstartError:
    return HeadstartError(
        f"{archive.url}: the connection broke after {arrived / _MEGABYTE:,.1f} of {archive.size / _MEGABYTE:,.1f} MB.",
        "Run the same command again: it goes on from there.",
    )


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar archive into a folder, if all that it holds are files and folders that stay within it.

    Raises:
        HeadstartError: when it holds a path that leads elsewhere, a link or a device (nothing is written then),
            or is not a whole tar archive.
    """
    try:
        with tarfile.open(archive) as tar:
            members = tar.getmembers()
            unsafe = [member.name for member in members if not _is_safe(member)]
            if unsafe:
                raise HeadstartError(
                    f"{archive}: holds what no archive of photos does: {listed([repr(name) for name in unsafe])}; "
                    "expected files and folders that stay within the archive.",
                    "It is not unpacked. Get it from a source that you trust.",
                )
            # Python 3.10 and 3.11 have the filter only from some patch release on; the check above needs none.
            options: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            tar.extractall(folder, members, **options)
    except (tarfile.TarError, EOFError) as error:
        reason = str(error).partition("\n")[0].rstrip(":")
        raise HeadstartError(
            f"{archive}: cannot be unpacked: {reason}; expected a tar archive.", "Delete it and try again."
        ) from None


def _is_safe(member: tarfile.TarInfo) -> bool:
    """Say whether a member is a file or folder whose path stays within the archive, on any system."""
    posix, windows = PurePosixPath(member.name), PureWindowsPath(member.name)
    leads_away = posix.is_absolute() or windows.drive or windows.root or ".." in posix.parts + windows.parts
    return (member.isfile() or member.isdir()) and not leads_away
