import multiprocessing
import os
import signal
import time

import numpy as np
import pytest

from headstart.training.store import Shelf, ShelfWriter, row_key

KIND = {"network": "test"}
SHAPE = (3, 2, 2)


def keys(start: int, end: int) -> list[bytes]:
    return [row_key(str(number), "0") for number in range(start, end)]


def rows(start: int, end: int) -> np.ndarray:
    return (np.arange(start, end) % 2000).astype(np.float32)[:, None, None, None] * np.ones(SHAPE, np.float32)


def fill(shelf: Shelf, start: int, end: int) -> None:
    with shelf.writer() as writer:
        writer.append(keys(start, end), rows(start, end))


def test_rows_come_back_in_the_order_asked_for(tmp_path):
    shelf = Shelf(tmp_path, KIND, SHAPE)
    fill(shelf, 0, 5)
    fill(shelf, 5, 9)
    stored = shelf.rows(keys(2, 7))
    assert stored.shape == (5, *SHAPE)
    taken = stored.take(np.array([4, 0, 3]))
    assert taken.dtype == np.float16
    assert taken[:, 0, 0, 0].tolist() == [6, 2, 5]
    assert stored.take(slice(1, 3))[:, 2, 1, 1].tolist() == [3, 4]


def test_rows_that_are_held_stay_while_more_are_stored(tmp_path):
    shelf = Shelf(tmp_path, KIND, SHAPE)
    fill(shelf, 0, 5)
    held = shelf.rows(keys(0, 5))
    fill(shelf, 5, 9)
    shelf.refresh()
    assert np.array_equal(held.take(slice(None)), rows(0, 5))
    assert np.array_equal(shelf.rows(keys(3, 9)).take(slice(None)), rows(3, 9))


def test_what_is_missing_is_known(tmp_path):
    shelf = Shelf(tmp_path, KIND, SHAPE)
    assert len(shelf) == 0 and not shelf.has(keys(0, 3)).any()
    fill(shelf, 0, 2)
    assert shelf.has(keys(0, 3)).tolist() == [True, True, False]
    with pytest.raises(KeyError):
        shelf.rows(keys(0, 3))


def test_the_key_tells_photos_and_views_apart():
    assert len({row_key("a", "0"), row_key("a", "1"), row_key("b", "0")}) == 3
    assert row_key("a", "0") == row_key("a", "0")


def test_another_kind_or_shape_is_another_shelf(tmp_path):
    fill(Shelf(tmp_path, KIND, SHAPE), 0, 2)
    assert len(Shelf(tmp_path, {"network": "other"}, SHAPE)) == 0
    assert len(Shelf(tmp_path, KIND, (3, 4))) == 0
    assert len(Shelf(tmp_path, KIND, SHAPE)) == 2


def test_values_beyond_float16_are_clipped(tmp_path):
    shelf = Shelf(tmp_path, KIND, (2,))
    with shelf.writer() as writer:
        writer.append(keys(0, 1), np.array([[1e6, -1e6]]))
    assert shelf.rows(keys(0, 1)).take(slice(None)).tolist() == [[65504.0, -65504.0]]


def test_a_wrong_shape_is_refused(tmp_path):
    with Shelf(tmp_path, KIND, SHAPE).writer() as writer, pytest.raises(ValueError, match=r"expected \(2, 3, 2, 2\)"):
        writer.append(keys(0, 2), np.zeros((2, 3)))


def abandoned(tmp_path) -> ShelfWriter:
    """A segment as a killed writer leaves it: open, unlocked."""
    writer = ShelfWriter(Shelf(tmp_path, KIND, SHAPE).folder, SHAPE)
    writer.append(keys(0, 4), rows(0, 4))
    writer._rows.close()
    writer._index.close()
    writer._lock.release()
    return writer


@pytest.mark.parametrize("lost", ["half of a row", "half of an entry", "a damaged row"])
def test_a_torn_tail_is_cut_off_and_the_rest_kept(tmp_path, lost):
    writer = abandoned(tmp_path)
    data, index = writer._path, writer._path.with_suffix("").with_suffix(".index")
    row_bytes = int(np.prod(SHAPE)) * 2
    if lost == "half of a row":
        os.truncate(data, 3 * row_bytes + row_bytes // 2)
    elif lost == "half of an entry":
        os.truncate(index, 3 * 20 + 7)
    else:
        content = bytearray(data.read_bytes())
        content[3 * row_bytes] ^= 0xFF
        data.write_bytes(content)
    shelf = Shelf(tmp_path, KIND, SHAPE)
    assert shelf.has(keys(0, 4)).tolist() == [True, True, True, False]
    assert shelf.rows(keys(0, 3)).take(slice(None))[:, 0, 0, 0].tolist() == [0, 1, 2]
    # It is sealed now, at its whole rows, and what was lost can be stored again.
    sealed = list(shelf.folder.glob("*.rows.sealed"))
    assert [path.stat().st_size for path in sealed] == [3 * row_bytes]
    fill(shelf, 3, 4)
    assert Shelf(tmp_path, KIND, SHAPE).has(keys(0, 4)).all()


def test_a_living_writer_is_left_alone_and_its_rows_are_seen(tmp_path):
    shelf = Shelf(tmp_path, KIND, SHAPE)
    writer = ShelfWriter(shelf.folder, SHAPE)
    writer.append(keys(0, 2), rows(0, 2))
    other = Shelf(tmp_path, KIND, SHAPE)
    assert other.has(keys(0, 2)).all()
    assert writer._path.exists()
    writer.append(keys(2, 3), rows(2, 3))
    writer.close()
    other.refresh()
    assert other.rows(keys(0, 3)).take(slice(None))[:, 0, 0, 0].tolist() == [0, 1, 2]


def _write_forever(root, start):
    shelf = Shelf(root, KIND, SHAPE)
    with shelf.writer() as writer:
        for number in range(start, start + 100_000):
            writer.append(keys(number, number + 1), rows(number, number + 1))
            time.sleep(0.0002)


def test_killed_writers_lose_nothing_that_was_stored_and_do_not_harm_each_other(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_forever, args=(tmp_path, start)) for start in (0, 1_000_000)]
    for writer in writers:
        writer.start()
    deadline = time.monotonic() + 30
    while len(Shelf(tmp_path, KIND, SHAPE)) < 200 and time.monotonic() < deadline:
        time.sleep(0.05)
    before = Shelf(tmp_path, KIND, SHAPE)
    for writer in writers:
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
    after = Shelf(tmp_path, KIND, SHAPE)
    assert len(after) >= len(before) >= 200
    for start in (0, 1_000_000):
        count = int(after.has(keys(start, start + 20_000)).sum())
        assert count > 0
        stored = after.rows(keys(start, start + count)).take(slice(None))
        expected = rows(start, start + count).astype(np.float16)
        assert np.array_equal(stored, expected)
    assert not list(after.folder.glob("*.rows.open"))
