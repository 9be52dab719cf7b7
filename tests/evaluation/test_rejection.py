"""None of these: the rule of acceptance on made-up numbers, and on photos of other things."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from headstart import HeadstartError, load
from headstart.console import Console
from headstart.evaluation.outsiders import measure_outsiders, outsider_photos
from headstart.evaluation.rejection import (
    Rejection,
    accepted_of,
    class_directions,
    coverage_curve,
    distances_to,
    fit_rejection,
    least_probability,
    told_apart,
)
from making import scene


def drawn(centre: np.ndarray, count: int, seed: int) -> np.ndarray:
    return (centre + 0.1 * np.random.default_rng(seed).normal(size=(count, len(centre)))).astype(np.float32)


@pytest.fixture
def rejection() -> Rejection:
    centres = np.eye(3, 8)
    labels = np.repeat(np.arange(3), 40)
    train = [drawn(centre, 40, number) for number, centre in enumerate(centres)]
    directions = class_directions(train, labels, 3)
    validation = np.concatenate([drawn(centre, 40, 10 + number) for number, centre in enumerate(centres)])
    probabilities = np.full((120, 3), 0.02, np.float32)
    probabilities[np.arange(120), labels] = 0.96
    return fit_rejection(directions, distances_to(directions, validation), probabilities, labels, 0.95)


def test_directions_are_the_classes_means_as_unit_vectors():
    features = np.array([[2, 0], [4, 0], [0, 3]], np.float32)
    assert class_directions([features[:1], features[1:]], np.array([0, 0, 1]), 2).tolist() == [[1, 0], [0, 1]]


def test_distances_run_from_none_to_opposite():
    directions = np.array([[1, 0]], np.float32)
    features = np.array([[3, 0], [0, 2], [-1, 0]], np.float32)
    assert distances_to(directions, features).tolist() == [0, 1, 2]


def test_own_photos_are_accepted_and_others_are_not(rejection):
    sure = np.full(200, 0.99, np.float32)
    own = distances_to(rejection.directions, drawn(np.eye(3, 8)[1], 200, 99))
    other = distances_to(rejection.directions, drawn(np.eye(8)[6], 200, 98))
    assert rejection.accepts(sure, own).mean() >= 0.95
    assert not rejection.accepts(sure, other).any()
    assert told_apart(rejection.strangeness(sure, own), rejection.strangeness(sure, other)) == 1.0


def test_what_is_improbable_is_rejected_however_near():
    rejection = Rejection(np.eye(2, dtype=np.float32), 0.8, 1.0, (0.0, 1.0), 0.95, True)
    assert rejection.accepts(np.array([0.79, 0.81]), np.array([0.0, 0.0])).tolist() == [False, True]
    near, far = rejection.strangeness(np.array([0.9, 0.9]), np.array([0.1, 0.9]))
    sure, unsure = rejection.strangeness(np.array([0.9, 0.5]), np.array([0.1, 0.1]))
    assert near < far and sure < unsure


def test_the_threshold_is_the_lowest_that_is_right_often_enough():
    confidence = np.linspace(0.99, 0.5, 100)
    right = np.arange(100) < 80
    least, reached = least_probability(confidence, right, 0.9)
    accepted = confidence >= least
    assert reached and 0.88 <= right[accepted].mean() <= 0.93 and accepted.sum() > 80


def test_nothing_is_rejected_where_all_are_right_and_sure():
    assert least_probability(np.full(50, 0.99), np.ones(50, bool), 0.95) == (0.0, True)


def test_an_accuracy_out_of_reach_is_said():
    least, reached = least_probability(np.linspace(0.9, 0.5, 20), np.arange(20) % 2 == 0, 0.99)
    assert not reached and 0.5 <= least <= 0.9
    rejection = Rejection(np.eye(2, dtype=np.float32), least, 1.0, (0.0, 1.0), 0.99, False)
    assert "an accuracy of 99% is not reached" in rejection.told()


def test_the_curve_ends_at_all_photos():
    curve = coverage_curve(np.array([3.0, 1.0, 2.0, 4.0]), np.array([True, True, False, False]))
    assert curve[0] == {"coverage": 0.25, "accuracy": 1.0}
    assert curve[-1] == {"coverage": 1.0, "accuracy": 0.5}


def test_where_nothing_is_accepted_there_is_no_accuracy():
    found = accepted_of(np.zeros(4, bool), np.ones(4, bool))
    assert found == {"photos": 4, "accepted": 0, "coverage": 0.0, "accuracy": None}


def test_settings_come_back(rejection):
    again = Rejection.read(rejection.settings(), rejection.directions)
    assert again.settings() == rejection.settings() and again.log_distance == rejection.log_distance


def test_a_trained_classifier_rejects_photos_of_other_things(finished, tmp_path):
    run, photos = finished
    for number in range(12):
        scene(number).save(tmp_path / f"{number}.jpg")
    classifier = load(run)
    others = classifier.predict(sorted(tmp_path.iterdir()))
    own = classifier.predict(sorted(photos.rglob("*.png")))
    assert others["accepted"].dtype == "boolean" and not others["accepted"].any()
    assert own["accepted"].mean() > 0.8
    found = measure_outsiders(classifier, tmp_path, pd.read_csv(run / "predictions.csv"), Console(quiet=True))
    assert found == {"photos": 12, "auroc": 1.0, "accepted": 0.0}


def test_outsiders_must_be_a_folder_with_photos(tmp_path):
    with pytest.raises(HeadstartError, match=r"--outsiders .*nowhere: no such folder"):
        outsider_photos(tmp_path / "nowhere")
    with pytest.raises(HeadstartError, match="holds no photos"):
        outsider_photos(tmp_path)


def test_the_rule_names_a_probability_only_where_one_is_asked_for():
    directions = np.eye(2, 4, dtype=np.float32)
    rule = Rejection(directions, 0.625, 0.4, (-2.0, 0.3), 0.9, True)
    like = "no further from the training photos than 99% of photos like them"
    assert rule.told() == f"accepted: probability 62% or more, and {like}"
    assert dataclasses.replace(rule, least_probability=0.0).told() == f"accepted: {like}"
