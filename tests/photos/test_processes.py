import math
import os
import signal
import subprocess
import sys
import time
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest

from headstart.classifier import Classifier
from headstart.errors import HeadstartError
from headstart.network.backbones import backbone_named, build
from headstart.photos import loading, processes
from headstart.photos.drawing import Drawing, Job, Photo
from headstart.photos.views import Preprocessing
from making import make_photos

pytestmark = pytest.mark.skipif(not processes.AVAILABLE, reason="Windows decodes in threads alone")


def preprocessing(image_size=64):
    return Preprocessing(image_size=image_size, mean=(124, 116, 104), std=(58, 57, 57))


@pytest.fixture
def by_processes(monkeypatch):
    monkeypatch.setattr(loading, "FEWEST_CORES", 2)
    monkeypatch.setattr(loading, "num_workers", lambda: 2)


@pytest.fixture
def photos(tmp_path):
    root = make_photos(tmp_path / "photos")
    (root / "ant" / "damaged.jpg").write_bytes(b"\xff\xd8\xff nothing")
    return root, [Photo(str(path.relative_to(root)), path.name) for path in sorted(root.rglob("*.*"))]


@pytest.mark.parametrize("image_size", [64, 1024])  # of which 8 photos are more than a slot holds
def test_processes_draw_what_threads_draw(by_processes, photos, image_size):
    root, items = photos
    drawing = Drawing(root, preprocessing(image_size), "strong", 3)
    jobs = [Job(photo, (0, 2)) for photo in items]
    drawn = list(loading.spread(jobs, drawing.draw, loading.FEWEST_PHOTOS))
    expected = list(loading.ahead(jobs, drawing.draw))
    assert [found.job for found in drawn] == jobs
    for found, wanted in zip(drawn, expected, strict=True):
        assert found.problem == wanted.problem
        assert len(found.pixels) == (0 if found.problem else 2)
        assert all(np.array_equal(*views) for views in zip(found.pixels, wanted.pixels, strict=True))
    assert [found.job.photo.name for found in drawn if found.problem] == ["ant/damaged.jpg"]
    assert np.array_equal(loading.all_of(jobs[3:5], drawing.draw, 10**6)[1].pixels[0], expected[4].pixels[0])


def test_many_photos_are_for_processes_and_few_for_threads(by_processes):
    jobs = ["__import__('os').getpid()"] * 20
    few = set(loading.spread(jobs, eval, loading.FEWEST_PHOTOS - 1))
    many = set(loading.spread(jobs, eval, loading.FEWEST_PHOTOS))
    assert few == {os.getpid()} and os.getpid() not in many and 1 <= len(many) <= 2


def test_paths_from_an_iterator_are_taken_no_further_than_needed(by_processes):
    taken = []
    numbers = (taken.append(number) or number for number in range(10**6))
    found = loading.spread(numbers, abs, loading.FEWEST_PHOTOS)
    assert [next(found) for _ in range(3)] == [0, 1, 2] and len(taken) < 100
    found.close()


def test_a_classifier_sees_the_same_in_processes(by_processes, monkeypatch, photos):
    root, items = photos
    monkeypatch.setattr(loading, "FEWEST_PHOTOS", len(items))
    network = build(backbone_named("lite0"), 2)
    classifier = Classifier(network, ["ant", "bee"], preprocessing(), "lite0", {}, "torch")
    paths = [root / item.name for item in items]
    monkeypatch.setattr(processes, "start", counted := Mock(side_effect=processes.start))
    many = classifier.predict(paths)
    assert counted.call_count == math.ceil(len(items) / 8)
    one_by_one = pd.DataFrame([vars(prediction) for prediction in classifier.stream(iter(paths))])
    assert counted.call_count == math.ceil(len(items) / 8)
    assert many["path"].tolist() == one_by_one["path"].tolist() == [str(path) for path in paths]
    assert many["error"].tolist() == one_by_one["error"].tolist() and (many["error"] != "").sum() == 1
    found = one_by_one["probabilities"].dropna()
    assert np.allclose([row.max() for row in found], many["probability"].dropna(), atol=1e-5)


def test_more_answers_than_slots_come_whole_and_slots_are_given_back(by_processes):
    arrays = [np.full(1000, number, np.float32) for number in range(40)]
    for _ in range(3):
        answers = [processes.start(np.negative, [array], 2) for array in arrays]  # of eight slots
        answers[5].abandon()
        found = [answer.results()[0] for number, answer in enumerate(answers) if number != 5]
        assert all((array == array[0]).all() for array in found)
        assert [-array[0] for array in found] == [number for number in range(40) if number != 5]
    room = processes._room(8)
    slots = [room.take() for _ in range(8)]
    assert sorted(slots) == list(range(8)) and room.take() is None
    for slot in slots:
        room.give_back(slot)


def test_an_error_in_the_work_is_raised_here(by_processes):
    with pytest.raises(ValueError, match="invalid literal"):
        list(loading.spread(["1", "two"], int, loading.FEWEST_PHOTOS))


def test_a_process_that_ends_is_told_and_others_take_its_place(by_processes):
    with pytest.raises(HeadstartError, match="a process that reads photos ended"):
        list(loading.spread(["__import__('os')._exit(1)"], eval, loading.FEWEST_PHOTOS))
    assert list(loading.spread([-1, 2], abs, loading.FEWEST_PHOTOS)) == [1, 2]


SCRIPT = """
import sys
from headstart.photos import loading, processes
print("the script runs", flush=True)
loading.FEWEST_CORES, processes._IDLE_SECONDS = 2, 2
found = list(loading.spread(list(range(64)), abs, loading.FEWEST_PHOTOS))
print(found == list(range(64)), *processes._pool(loading.num_workers())._processes, flush=True)
sys.stdin.read()
"""


def test_a_script_needs_no_guard_and_its_processes_end_with_it(tmp_path):
    """Even where it is killed: what waits for work ends when none has come for a while."""
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as script:
        lines = [script.stdout.readline().split() for _ in range(2)]
        script.send_signal(signal.SIGKILL)
        script.wait()
    assert lines[0] == ["the", "script", "runs"] and lines[1][0] == "True"
    workers = [int(process) for process in lines[1][1:]]
    assert workers
    deadline = time.monotonic() + 90
    while any(_lives(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(1)
    assert not any(_lives(worker) for worker in workers)


def _lives(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
