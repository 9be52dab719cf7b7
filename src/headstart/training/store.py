"""The activation store: what the frozen network computed, kept on disk by content.

A store is a folder with a shelf per kind of activation (preprocessing, network, weights, boundary,
precision). A shelf is a folder of segments. A segment is two files that only its writer appends to: `.rows`
holds float16 rows of one shape, `.index` a 16-byte key and the CRC-32 of each row, in the same order. A row
counts once its index entry is written, after the row itself, so a writer killed at any moment leaves at
worst a torn tail, which readers cut off. Every writer makes a segment of its own, so processes that share a
store never write to the same file.
"""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
import uuid
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from headstart.atomic import write_json
from headstart.errors import HeadstartError

Rows = npt.NDArray[np.float16]

_KEY_BYTES = 16
_ENTRY = np.dtype([("key", f"S{_KEY_BYTES}"), ("crc", "<u4")])
_OPEN, _SEALED = ".open", ".sealed"


def row_key(digest: str, view: str) -> bytes:
    """Return the 16-byte key of one view of the photo with this digest."""
    return hashlib.blake2b(f"{digest}:{view}".encode(), digest_size=_KEY_BYTES).digest()


class Shelf:
    """Rows of one shape, by key; see the module's text for the files.

    Args:
        root: the store's folder.
        kind: everything that the numbers depend on besides the photo and its view; JSON values.
        shape: the shape of one row.
    """

    def __init__(self, root: Path, kind: dict[str, Any], shape: Sequence[int]) -> None:
        self.shape = tuple(shape)
        self._row_bytes = int(np.prod(self.shape)) * 2
        description = {"kind": kind, "shape": list(self.shape), "dtype": "float16"}
        name = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:24]
        self.folder = root / name
        if not (self.folder / "shelf.json").exists():
            write_json(self.folder / "shelf.json", description)
        self._segments: list[_Segment] = []
        self.refresh()

    def refresh(self) -> None:
        """Look again at what is on disk, other processes' segments included."""
        self._segments = []  # another list: rows handed out keep the segments that they lie in
        keys, places = [], []
        for path in sorted(self.folder.glob("*.rows.*")):
            found = _Segment.read(path, self._row_bytes)
            if found is None:
                continue
            segment, number = found, len(self._segments)
            self._segments.append(segment)
            keys.append(segment.keys)
            places.append(np.stack([np.full(len(segment.keys), number), np.arange(len(segment.keys))], axis=1))
        all_keys = np.concatenate(keys) if keys else np.empty(0, f"S{_KEY_BYTES}")
        self._keys, first = np.unique(all_keys, return_index=True)
        self._places = np.concatenate(places)[first] if places else np.empty((0, 2), np.int64)

    def __len__(self) -> int:
        return len(self._keys)

    def has(self, keys: Sequence[bytes]) -> npt.NDArray[np.bool_]:
        """Say for each key whether its row is there (as of the last refresh)."""
        wanted = np.array(keys, f"S{_KEY_BYTES}")
        found = np.searchsorted(self._keys, wanted)
        present = found < len(self._keys)
        present[present] = self._keys[found[present]] == wanted[present]
        return present

    def rows(self, keys: Sequence[bytes]) -> StoredRows:
        """Return the rows of these keys as one array-like, still on disk.

        Raises:
            KeyError: when any is missing.
        """
        if not self.has(keys).all():
            raise KeyError("rows that were never stored")
        places = self._places[np.searchsorted(self._keys, np.array(keys, f"S{_KEY_BYTES}"))]
        return StoredRows(self._segments, places, self.shape)

    @contextmanager
    def writer(self) -> Iterator[ShelfWriter]:
        """Yield a writer to append rows with; they can be read after `refresh`."""
        writer = ShelfWriter(self.folder, self.shape)
        try:
            yield writer
        finally:
            writer.close()
            self.refresh()


class StoredRows:
    """Rows on disk, in a chosen order; `take` brings some of them into memory."""

    def __init__(self, segments: list[_Segment], places: npt.NDArray[np.int64], shape: tuple[int, ...]) -> None:
        self._segments = segments
        self._places = places
        self.shape = (len(places), *shape)

    def __len__(self) -> int:
        return len(self._places)

    def take(self, indices: npt.NDArray[np.int64] | slice) -> Rows:
        """Copy rows into memory: (n, *row shape) float16, in the order of `indices`.

        The pages read are given back at once, so that the process's memory stays flat.
        """
        places = self._places[indices]
        out = np.empty((len(places), *self.shape[1:]), np.float16)
        flat = out.reshape(len(places), -1)
        for number in np.unique(places[:, 0]):
            here = places[:, 0] == number
            segment = self._segments[number]
            flat[here] = segment.array[places[here, 1]]
            segment.release()
        return out


class ShelfWriter:
    """Appends rows to a segment of its own."""

    def __init__(self, folder: Path, shape: tuple[int, ...]) -> None:
        self._shape = shape
        base = folder / uuid.uuid4().hex
        self._path = base.with_suffix(f".rows{_OPEN}")
        # The lock tells other processes that this segment's writer lives; the system drops it with the process.
        self._lock = FileLock(base.with_suffix(".lock"))
        self._lock.acquire()
        self._rows = self._path.open("xb", buffering=0)
        self._index = base.with_suffix(".index").open("xb", buffering=0)

    def append(self, keys: Sequence[bytes], rows: npt.NDArray[Any]) -> None:
        """Append rows under their keys; values beyond float16's range are clipped to it.

        Raises:
            HeadstartError: when the disk is full.
        """
        if rows.shape != (len(keys), *self._shape):
            raise ValueError(f"rows of shape {rows.shape}; expected {(len(keys), *self._shape)}")
        if rows.dtype != np.float16:
            limit = float(np.finfo(np.float16).max)
            rows = np.clip(rows, -limit, limit)
        half = np.ascontiguousarray(rows, dtype="<f2")
        entries = np.empty(len(keys), _ENTRY)
        entries["key"] = keys
        entries["crc"] = [zlib.crc32(row.data) for row in half.reshape(len(keys), -1)]
        try:
            _write_all(self._rows.fileno(), half.data.cast("B"))
            _write_all(self._index.fileno(), memoryview(entries.tobytes()))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise HeadstartError(
                f"{self._path.parent}: the disk is full; the activation store needs more room.",
                "Free some space, clear it with `headstart cache --clear`, or put it elsewhere with --cache.",
            ) from None

    def close(self) -> None:
        """Seal the segment: its rows are complete and need no checking any more."""
        for file in (self._rows, self._index):
            os.fsync(file.fileno())
            file.close()
        _seal(self._path)
        self._lock.release()
        Path(self._lock.lock_file).unlink(missing_ok=True)


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _seal(path: Path) -> None:
    os.replace(path, path.with_suffix(_SEALED))


class _Segment:
    """One segment open for reading: its keys and a memory-mapped array of its whole rows."""

    def __init__(self, keys: npt.NDArray[np.bytes_], mapped: mmap.mmap, row_bytes: int) -> None:
        self.keys = keys
        self._mapped = mapped
        flat = np.frombuffer(mapped, "<f2", count=len(keys) * row_bytes // 2)
        self.array = flat.reshape(len(keys), row_bytes // 2)

    @classmethod
    def read(cls, path: Path, row_bytes: int) -> _Segment | None:
        """Open a segment; of one that is not sealed, keep the rows whose checksum holds.

        Returns:
            None when it holds no whole row, or was cleared away meanwhile.
        """
        index = path.with_suffix("").with_suffix(".index")
        try:
            raw = index.read_bytes()
            with _open_rows(path) as file:
                size = os.fstat(file.fileno()).st_size
                count = min(len(raw) // _ENTRY.itemsize, size // row_bytes)
                if count == 0:
                    return None
                mapped = mmap.mmap(file.fileno(), count * row_bytes, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            return None
        entries = np.frombuffer(raw, _ENTRY, count=count)
        segment = cls(entries["key"], mapped, row_bytes)
        if path.suffix == _OPEN:
            segment = segment._whole_rows(entries["crc"], row_bytes)
            _seal_if_abandoned(path, index, len(segment.keys) * row_bytes)
        return segment

    def _whole_rows(self, checksums: npt.NDArray[np.uint32], row_bytes: int) -> _Segment:
        """Keep the rows before the first one whose checksum does not hold."""
        count = 0
        while count < len(checksums) and zlib.crc32(self.array[count].data) == checksums[count]:
            count += 1
        self.release()
        return _Segment(self.keys[:count], self._mapped, row_bytes)

    def release(self) -> None:
        """Give the pages read so far back to the system; they stay in its page cache."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._mapped.madvise(mmap.MADV_DONTNEED)


def _open_rows(path: Path) -> Any:
    """Open a segment's rows; its writer may have sealed it since the folder was listed."""
    try:
        return path.open("rb")
    except FileNotFoundError:
        return path.with_suffix(_SEALED).open("rb")


def _seal_if_abandoned(path: Path, index: Path, whole_bytes: int) -> None:
    """Seal the segment of a writer that was killed, cut to its whole rows."""
    lock = FileLock(path.with_suffix("").with_suffix(".lock"))
    try:
        with lock.acquire(blocking=False):
            if not path.exists():
                return
            os.truncate(path, whole_bytes)
            _seal(path)
    except (Timeout, OSError):
        return
    Path(lock.lock_file).unlink(missing_ok=True)
