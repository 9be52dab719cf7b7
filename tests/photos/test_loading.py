import threading
import time
import warnings

import numpy as np
import pytest

from headstart.photos import loading
from headstart.photos.loading import ahead, batched


@pytest.fixture
def window(monkeypatch):
    """Make the pool two threads wide whatever the machine, and return how many jobs it may run ahead."""
    monkeypatch.setattr(loading.os, "cpu_count", lambda: 2)
    return 8


def decoding_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_results_come_in_the_order_of_the_jobs(window):
    def work(number):
        time.sleep(0.002 * (5 - number % 5))
        return number * number

    assert list(ahead(range(40), work)) == [number * number for number in range(40)]


def test_no_jobs_give_no_results():
    assert list(ahead([], abs)) == []


def test_work_runs_in_several_threads_at_once(window):
    both = threading.Barrier(2, timeout=10)
    names = set(ahead(range(2), lambda _: (both.wait(), threading.current_thread().name)[1]))
    assert len(names) == 2
    assert threading.current_thread().name not in names


def test_never_more_than_the_window_ahead_of_the_consumer(window):
    taken, done = [], []

    def jobs():
        for number in range(50):
            taken.append(number)
            yield number

    for consumed, result in enumerate(ahead(jobs(), lambda number: done.append(number) or number)):
        assert result == consumed
        time.sleep(0.001)
        assert len(taken) == min(50, consumed + window)
        assert len(done) <= consumed + window
    assert len(taken) == 50


def test_nothing_starts_before_the_first_result_is_asked_for():
    started = []
    results = ahead([1, 2, 3], started.append)
    time.sleep(0.01)
    assert started == []
    assert len(list(results)) == 3


def test_an_exception_reaches_the_consumer_in_its_turn(window):
    def work(number):
        if number == 5:
            raise ValueError("photo 5")
        return number

    received = []
    with pytest.raises(ValueError, match="^photo 5$"):
        for result in ahead(range(1000), work):
            received.append(result)
    assert received == [0, 1, 2, 3, 4]
    assert decoding_threads() == []


def test_an_exception_of_the_jobs_reaches_the_consumer(window):
    def jobs():
        yield 1
        raise KeyError("jobs")

    with pytest.raises(KeyError, match="jobs"):
        list(ahead(jobs(), abs))
    assert decoding_threads() == []


@pytest.mark.timeout(30)
def test_jobs_not_yet_begun_are_cancelled_when_the_consumer_stops(window):
    begun, go_on = [], threading.Event()

    def work(number):
        begun.append(number)
        if number > 0:
            go_on.wait(10)
        return number

    results = ahead(range(1000), work)
    assert next(results) == 0
    # Two threads hold jobs 1 and 2 until well after the rest has been cancelled.
    timer = threading.Timer(0.3, go_on.set)
    timer.start()
    results.close()
    timer.join()
    assert sorted(begun) == [0, 1, 2]
    assert decoding_threads() == []


def test_warnings_are_as_before_once_the_consumer_is_done_or_stops():
    before = list(warnings.filters)
    assert list(ahead([-1, 2], abs)) == [1, 2]
    assert warnings.filters == before
    results = ahead([-1, 2, 3], abs)
    next(results)
    results.close()
    assert warnings.filters == before


def test_batches_are_stacked_in_order_with_the_rest_last():
    images = [(f"photo {number}", np.full((4, 5, 3), number, np.uint8)) for number in range(7)]
    batches = list(batched(iter(images), 3))
    assert [tags for tags, _ in batches] == [
        ["photo 0", "photo 1", "photo 2"],
        ["photo 3", "photo 4", "photo 5"],
        ["photo 6"],
    ]
    assert [pixels.shape for _, pixels in batches] == [(3, 4, 5, 3), (3, 4, 5, 3), (1, 4, 5, 3)]
    assert all(pixels.dtype == np.uint8 for _, pixels in batches)
    assert np.concatenate([pixels[:, 0, 0, 0] for _, pixels in batches]).tolist() == list(range(7))


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (1, [1]), (4, [4]), (8, [4, 4]), (9, [4, 4, 1])])
def test_batch_sizes(count, sizes):
    images = ((number, np.zeros((2, 2, 3), np.uint8)) for number in range(count))
    assert [len(tags) for tags, _ in batched(images, 4)] == sizes


def test_batches_are_made_as_they_are_asked_for():
    taken = []

    def images():
        for number in range(10):
            taken.append(number)
            yield number, np.zeros((2, 2, 3), np.uint8)

    batches = batched(images(), 2)
    next(batches)
    assert taken == [0, 1]
    next(batches)
    assert taken == [0, 1, 2, 3]
