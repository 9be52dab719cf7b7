"""Copies: exact and near, within a class, across classes, across splits."""

import shutil

import numpy as np
import pytest

from headstart.console import Console
from headstart.photos import duplicates
from headstart.photos.audit import examine, facts_table
from headstart.photos.catalog import read_catalog
from headstart.photos.duplicates import MOST_BITS, candidate_pairs, duplicate_findings, near_copies
from making import make_scenes, scene


def found_in(root):
    catalog = read_catalog(root)
    facts = facts_table(catalog, examine(catalog, Console(quiet=True))[0])
    pairs, findings = near_copies(catalog.root, facts)
    findings += duplicate_findings(facts, pairs)
    return sorted((found.path, found.problem, found.detail) for found in findings)


@pytest.fixture
def scenes(tmp_path):
    return make_scenes(tmp_path / "photos", count=4)


def test_different_photos_are_not_copies(scenes):
    assert found_in(scenes) == []


def test_exact_copies_within_a_class_are_named_beside_the_first(scenes):
    for name in ("1 (2).jpg", "1 copy.jpg"):
        shutil.copy(scenes / "ant" / "1.jpg", scenes / "ant" / name)
    assert found_in(scenes) == [
        ("ant/1 (2).jpg", "exact duplicate", "the same bytes as ant/1.jpg"),
        ("ant/1 copy.jpg", "exact duplicate", "the same bytes as ant/1.jpg"),
    ]


def test_exact_copies_in_two_classes_are_a_conflict_of_both(scenes):
    shutil.copy(scenes / "ant" / "1.jpg", scenes / "bee" / "one.jpg")
    assert found_in(scenes) == [
        ("ant/1.jpg", "label conflict", "the same bytes as bee/one.jpg (bee)"),
        ("bee/one.jpg", "label conflict", "the same bytes as ant/1.jpg (ant)"),
    ]


@pytest.fixture
def split_scenes(tmp_path):
    make_scenes(tmp_path / "photos" / "train", count=4)
    for number, name in enumerate(("ant", "bee", "cat")):
        (tmp_path / "photos" / "test" / name).mkdir(parents=True)
        scene(5000 + number).save(tmp_path / "photos" / "test" / name / "t.jpg")
    return tmp_path / "photos"


def test_exact_copies_in_two_splits_are_a_leak_of_the_training_photo(split_scenes):
    shutil.copy(split_scenes / "test" / "bee" / "t.jpg", split_scenes / "train" / "bee" / "again.jpg")
    detail = "in train; the same bytes as test/bee/t.jpg in test"
    assert found_in(split_scenes) == [("train/bee/again.jpg", "leak", detail)]


def test_near_copies_are_told_by_class_and_split(split_scenes):
    scene(5000).resize((128, 96)).save(split_scenes / "train" / "ant" / "small.jpg")  # test/ant/t.jpg
    scene(1).crop((4, 3, 158, 119)).save(split_scenes / "train" / "ant" / "x.png")  # train/ant/1.jpg
    scene(1002).save(split_scenes / "train" / "cat" / "q.jpg", quality=40)  # train/bee/2.jpg
    alike = "nearly the same picture as"
    assert found_in(split_scenes) == [
        ("train/ant/small.jpg", "leak", f"in train; {alike} test/ant/t.jpg in test"),
        ("train/ant/x.png", "near duplicate", f"{alike} train/ant/1.jpg"),
        ("train/bee/2.jpg", "label conflict", f"{alike} train/cat/q.jpg (cat)"),
        ("train/cat/q.jpg", "label conflict", f"{alike} train/bee/2.jpg (bee)"),
    ]


def test_flat_photos_are_not_copies_of_each_other(scenes, write_photo):
    for number in range(3):
        write_photo(scenes / "ant" / f"flat{number}.png", (200, 200, 200 + number))
    assert found_in(scenes) == []


def test_what_was_not_compared_is_said(scenes, monkeypatch):
    for quality in (30, 50, 70):
        scene(0).save(scenes / "ant" / f"q{quality}.jpg", quality=quality)
    monkeypatch.setattr(duplicates, "LEAST_PAIRS", 1)
    monkeypatch.setattr(duplicates, "PAIRS_PER_PHOTO", 0)
    found = found_in(scenes)
    assert found[0][1] == "near duplicates not all compared" and "the 1 most alike were compared" in found[0][2]
    assert [problem for _, problem, _ in found] == ["near duplicates not all compared", "near duplicate"]


def test_candidates_are_all_pairs_within_the_distance():
    draw = np.random.default_rng(0)
    centres = draw.integers(0, 2**64, 300, dtype=np.uint64)
    flips = [sum(1 << int(bit) for bit in draw.choice(64, count, replace=False)) for count in draw.integers(1, 15, 300)]
    fingerprints = np.concatenate([centres, centres ^ np.array(flips, np.uint64)])
    numbers = [int(value) for value in fingerprints]
    expected = {
        (i, j) for i in range(600) for j in range(i + 1, 600) if (numbers[i] ^ numbers[j]).bit_count() <= MOST_BITS
    }
    pairs = candidate_pairs(fingerprints)
    assert {tuple(pair) for pair in pairs.tolist()} == expected and len(pairs) == len(expected) > 150
    distances = [(numbers[i] ^ numbers[j]).bit_count() for i, j in pairs.tolist()]
    assert distances == sorted(distances)


def test_equal_fingerprints_make_a_chain_and_a_star_and_not_all_pairs():
    pairs = candidate_pairs(np.array([7 << 40, 1, 7 << 40, 7 << 40, 7 << 40], np.uint64))
    assert {tuple(pair) for pair in pairs.tolist() if 1 not in pair} == {(0, 2), (2, 3), (3, 4), (0, 3), (0, 4)}
    assert len(candidate_pairs(np.zeros(50_000, np.uint64))) < 100_000
    assert len(candidate_pairs(np.empty(0, np.uint64))) == 0
