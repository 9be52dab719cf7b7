import importlib.util
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import headstart
from headstart import HeadstartError
from headstart.console import Console
from headstart.network.backbones import BACKBONES, build
from headstart.network.cut import boundary_of
from headstart.recipe import Plan, Recipe, Step
from headstart.training import engines
from headstart.training import int8 as module
from headstart.training.engines import EngineChoice
from headstart.training.int8 import choose_int8_views, pays

CHOICES = {"image_size": 64, "epochs": 1, "num_views": 2, "unfreeze": 1, "probe_views": 2, "engine": "openvino"}
FLOAT32 = EngineChoice("openvino", "cpu", "float32", "a test")


@pytest.mark.parametrize(
    ("photos", "rate", "seconds_left", "expected"),
    [
        (8000, 150, 280, True),
        (8000, 150, 100, False),  # trying would take more than a tenth
        (8000, 1000, 280, False),  # little is spared
        (1500, 150, 3600, False),
        (3000, 150, 280, True),  # with the probe's views, which find the time
        (3000, 150, 130, False),  # and without them
    ],
)
def test_it_is_tried_where_it_should_spare_more_than_it_takes(photos, rate, seconds_left, expected):
    assert pays(photos, rate, seconds_left) is expected


@pytest.fixture
def on_a_slow_processor(monkeypatch):
    """Have runs take this processor for one with VNNI and without bfloat16, on which trying always pays."""
    monkeypatch.setattr(engines, "_openvino_has_bfloat16", lambda: False)
    monkeypatch.setattr(module, "multiplies_int8", lambda: True)
    monkeypatch.setattr(module, "pays", lambda *given: True)
    monkeypatch.setattr(module, "LEAST_GAIN", 0.0)


def rows(run):
    return run.history.drop(columns="seconds").to_csv()


def test_a_run_says_what_8_bits_gained_and_its_recipe_repeats_it(on_a_slow_processor, photos, tmp_path, capsys):
    run = headstart.train(photos, tmp_path / "run", cache=tmp_path / "cache", **CHOICES)
    told = capsys.readouterr().out
    assert "Int8        augmented views in 8-bit integers: " in told
    assert "validation photos so seen" in told
    recipe = Recipe.read(run.folder / "recipe.toml")
    assert recipe.plan is not None and recipe.plan.int8_views
    again = headstart.train(recipe=run.folder / "recipe.toml", output=tmp_path / "again", cache=tmp_path / "other")
    told = capsys.readouterr().out
    assert "Int8" not in told  # what is planned is not measured
    assert rows(again) == rows(run)
    # And without, numbers are others, and the plan goes.
    without = {"cache": tmp_path / "cache", "int8_views": False, "quiet": True}
    usual = headstart.train(recipe=run.folder / "recipe.toml", output=tmp_path / "usual", **without)
    assert rows(usual) != rows(run)
    assert not Recipe.read(usual.folder / "recipe.toml").plan.int8_views


def test_views_stay_as_they_are_where_the_probe_loses_by_it(on_a_slow_processor, monkeypatch, photos, tmp_path, capsys):
    usual = headstart.train(photos, tmp_path / "usual", cache=tmp_path / "c", quiet=True, int8_views=False, **CHOICES)
    monkeypatch.setattr(module, "MOST_LOSS", -2.0)
    run = headstart.train(photos, tmp_path / "run", cache=tmp_path / "c", **CHOICES)
    assert "Int8        not used for augmented views: " in capsys.readouterr().out
    assert rows(run) == rows(usual)
    assert not Recipe.read(run.folder / "recipe.toml").plan.int8_views


def chosen(choice=FLOAT32, console=None, plan=None, embedder=None, network=None, **choices):
    """Choose for photos of which nothing may be asked but how fast they are seen."""
    embedder = embedder or SimpleNamespace(choice=choice, speed=lambda photos, views: 100.0)
    photos = {"train": [], "train and validation": []}
    recipe = Recipe.make(photos="x", **choices).model_copy(update={"plan": plan})
    data = SimpleNamespace(embedder=embedder, photos=photos)
    return choose_int8_views(data, network, recipe, np.ones(2, np.float32), 0.0, console or Console(quiet=True))


def test_it_is_not_tried_where_it_cannot_be_of_use(on_a_slow_processor, monkeypatch):
    assert not chosen(replace(FLOAT32, precision="bfloat16"))
    assert not chosen(EngineChoice("torch", "cpu", "float32", ""))
    assert not chosen(int8_views=False)
    assert not chosen(weights="none")
    monkeypatch.setattr(module, "multiplies_int8", lambda: False)
    assert not chosen()


def test_a_plan_that_somebody_has_changed_finds_its_boundaries(on_a_slow_processor):
    asked = []
    network = build(BACKBONES["lite0"], 2)
    step = Step(unfreeze=2, epochs=1, num_views=2, seconds=1.0)
    plan = Plan(image_size=64, probe_views=2, steps=(step,), seconds=1.0, int8_views=True)
    embedder = SimpleNamespace(
        choice=FLOAT32, features_boundary=18, put_views_in_int8=lambda photos, boundaries: asked.append(boundaries)
    )
    assert chosen(plan=plan, embedder=embedder, network=network)
    depths = {boundary_of(network, part) for part in ("stage4", "stage6", 2)}
    assert asked == [sorted(depths | {18})] and boundary_of(network, "all") == 0


def test_without_nncf_it_is_recommended_and_a_plan_that_has_it_is_refused(on_a_slow_processor, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "nncf" else find(name))
    assert not chosen(console=Console())
    assert "pip install 'headstart[int8]'" in capsys.readouterr().out
    plan = Plan(image_size=64, probe_views=2, steps=(), seconds=1.0, int8_views=True)
    with pytest.raises(HeadstartError, match="nncf") as refused:
        chosen(plan=plan)
    assert "pip install 'headstart[int8]'" in str(refused.value)
    # A GPU computes views in a precision of its own.
    assert not chosen(EngineChoice("torch", "cuda", "float16", ""), plan=plan)
