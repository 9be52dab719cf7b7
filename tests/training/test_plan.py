import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import headstart
from headstart import HeadstartError
from headstart.network.backbones import Backbone
from headstart.recipe import Plan, Recipe, Step
from headstart.training import costs as costs_module
from headstart.training import data as data_module
from headstart.training import plan as module
from headstart.training.costs import Costs, Rung
from headstart.training.plan import choose_steps, count_in_time, ladders_of, size_in_time, time_limit
from making import make_photo

RUNGS = [Rung("stage6", 12, 150, 500, 40_000), Rung("stage4", 6, 60, 500, 60_000), Rung("all", 0, 30, 500, 0)]
LADDERS = [RUNGS[:3], RUNGS[:2], RUNGS[:1]]
RECIPE = Recipe.make(photos="x")


def costs(photos: int = 1000, free_bytes: int = 10**12) -> Costs:
    return Costs(photos, photos // 5, photos // 5, 500, 2000, 1e7, free_bytes, True, 16, 10, True)


def needed(steps: list[Step], of: Costs) -> float:
    """Return what steps take with the epochs of the last one's refit, but without fitting a head after that."""
    rungs = [rung for size in ladders_of(RUNGS, 256, of, RECIPE) for rung in size]
    return of.needed(steps, rungs) - steps[-1].head_seconds


def assert_classifies_as_measured(run: headstart.Run, photos: Path) -> None:
    predictions = pd.read_csv(run.folder / "predictions.csv")
    probabilities = run.classifier.predict_proba([photos / path for path in predictions["path"]])
    stored = predictions[[f"p({name})" for name in run.classifier.class_names]].to_numpy()
    assert np.abs(probabilities - stored).max() < 0.01


@pytest.mark.parametrize(("seconds", "parts"), [(5, []), (80, ["stage6"]), (250, ["stage6", "stage4"])])
def test_more_time_goes_deeper_and_no_plan_takes_longer_than_there_is(seconds, parts):
    steps = choose_steps(LADDERS, costs(), seconds, RECIPE)
    assert [step.unfreeze for step in steps] == parts
    assert not steps or needed(steps, costs()) <= seconds


def test_the_last_step_is_the_longest_and_more_time_makes_it_longer():
    short, long = (choose_steps(LADDERS, costs(), seconds, RECIPE) for seconds in (400, 900))
    assert [step.unfreeze for step in long] == ["stage6", "stage4", "all"]
    assert long[-1].epochs > long[0].epochs
    assert len(long) > len(short) or long[-1].epochs > short[-1].epochs
    without_end = choose_steps(LADDERS, costs(), math.inf, RECIPE)
    # 1,000 photos in batches of 16 are 63 updates an epoch; more than 16 epochs gain nothing.
    assert without_end[-1].epochs == 16 and without_end[0].epochs == 6


def test_where_nothing_else_fits_the_refit_is_shorter():
    (usual,) = choose_steps([RUNGS[:1]], costs(), 100, RECIPE)
    assert usual.refit_epochs == round(usual.epochs / 2)
    # 120 updates of 16 photos are five epochs of 400.
    few = costs(400)
    least = few.step(RUNGS[0], 5, 2)
    (short,) = choose_steps(LADDERS, few, needed([least], few) - 1, RECIPE)
    assert (short.epochs, short.num_views, short.refit_epochs) == (5, 2, 1)
    # Without a refit nothing can be saved on it, and epochs that were asked for are refitted as usual.
    unfitted = replace(few, refit=False)
    assert choose_steps(LADDERS, unfitted, unfitted.seconds(least, RUNGS[0]) - 1, RECIPE) == []
    (asked,) = choose_steps([RUNGS[:1]], costs(), 1, Recipe.make(photos="x", epochs=8))
    assert (asked.epochs, asked.refit_epochs) == (8, 4)


def test_views_that_are_there_cost_the_probe_nothing():
    evaluations = costs_module.SEARCH_EVALUATIONS + costs_module.FIT_EVALUATIONS
    once = costs().probe_seconds(1, 5000)
    assert once == pytest.approx(costs_module.PROBE_SECONDS + evaluations * 12_000 / 1e7)
    assert costs().probe_seconds(3, 5000) - once == pytest.approx(2 * 1200 / 500 + 2 * evaluations * 12_000 / 1e7)


def test_a_search_on_many_rows_takes_a_share_of_the_time():
    assert costs().searched_rows(math.inf) == costs_module.MOST_SEARCHED
    assert replace(costs(), num_classes=1000).searched_rows(1) == costs_module.FEWEST_SEARCHED
    rows = replace(costs(), num_classes=100).searched_rows(240)
    assert costs_module.SEARCH_EVALUATIONS * rows * 100 / 1e7 == pytest.approx(
        costs_module.SEARCH_SHARE * 240, rel=1e-3
    )
    of_a_part = costs(100_000).probe_seconds(1, 6000) - costs(100_000).probe_seconds(1, 5000)
    assert of_a_part == pytest.approx(costs_module.SEARCH_EVALUATIONS * 1000 * 10 / 1e7)


def test_few_photos_get_more_epochs_because_updates_count():
    steps = choose_steps(LADDERS, costs(160), math.inf, RECIPE)
    assert steps[0].epochs == 16 and steps[-1].epochs == 50  # 160 and 500 updates of 16 photos
    assert choose_steps(LADDERS, costs(20), math.inf, RECIPE)[-1].epochs == 60


def test_views_are_stored_as_far_as_there_is_room():
    roomy = choose_steps(LADDERS, costs(160), math.inf, RECIPE)
    assert [(step.epochs, step.num_views) for step in roomy] == [(16, 4), (16, 4), (50, 1)]  # from pixels: made anew
    # A third of the disk may be taken: 15.4 MB a view of 256 photos at stage4.
    tight = choose_steps(LADDERS, costs(160, free_bytes=3 * 2 * 15_400_000), math.inf, RECIPE)
    assert [step.num_views for step in tight] == [3, 2, 1]
    assert [step.num_views for step in choose_steps(LADDERS, costs(), math.inf, RECIPE)] == [2, 2, 1]
    none = choose_steps([RUNGS[:1]], costs(free_bytes=1000), math.inf, RECIPE)
    assert none == []


def test_a_depth_that_was_asked_for_and_finds_no_room_is_an_error():
    given = Recipe.make(photos="x", unfreeze="stage4")
    told = "--unfreeze stage4: its activations take 0.1 GB a view; of 0.2 GB free, 0.1 GB may be used."
    with pytest.raises(HeadstartError) as error:
        choose_steps([RUNGS[1:2]], costs(free_bytes=2 * 10**8), math.inf, given)
    assert str(error.value).startswith(told) and "or `all`, which stores nothing" in str(error.value)
    assert [step.num_views for step in choose_steps([RUNGS[2:]], costs(free_bytes=0), math.inf, given)] == [1]


def test_a_full_disk_is_told_as_the_reason_for_no_fine_tuning(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    headstart.train(photos, tmp_path / "run", image_size=64, budget="5m")
    assert "no fine-tuning: its activations find no room on the disk" in capsys.readouterr().out


def test_what_is_given_is_kept_however_long_it_takes():
    given = Recipe.make(photos="x", unfreeze="stage4", epochs=7, num_views=3)
    (step,) = choose_steps([RUNGS[1:2]], costs(), 1.0, given)
    assert (step.unfreeze, step.epochs, step.num_views) == ("stage4", 7, 3)
    assert step.seconds == pytest.approx(7 * 1000 / 60 + 11 * 200 / 180, abs=0.1)
    depth_alone = Recipe.make(photos="x", unfreeze="stage4")
    short, long = (choose_steps([RUNGS[1:2]], costs(), seconds, depth_alone) for seconds in (1, 400))
    assert short[0].epochs == 2 and long[0].epochs > 5


def sizes_and_depths(recipe: Recipe, rungs: list[Rung] = RUNGS, own_size: int = 256) -> list[tuple[int | None, str]]:
    ladders = ladders_of(rungs, own_size, costs(), recipe)
    assert all(len({rung.image_size for rung in ladder}) == 1 for ladder in ladders)
    return [(ladder[-1].image_size, ladder[-1].part) for ladder in ladders]


def test_smaller_photos_come_last():
    names = ["all", "stage4", "stage6"]
    assert sizes_and_depths(RECIPE) == [(size, name) for size in (None, 192, 160) for name in names]
    # What was asked for stays as it is, and so does what is small already.
    for asked in ({"image_size": 256}, {"epochs": 5}, {"head": "example"}):
        assert sizes_and_depths(Recipe.make(photos="x", **asked)) == [(None, name) for name in names]
    assert sizes_and_depths(RECIPE, own_size=128) == [(None, name) for name in names]
    assert sizes_and_depths(RECIPE, own_size=144) == [(size, name) for size in (None, 128) for name in names]
    asked = Recipe.make(photos="x", unfreeze="all")
    assert sizes_and_depths(asked, RUNGS[2:]) == [(None, "all"), (192, "all"), (160, "all")]


def test_smaller_photos_make_a_step_fit_that_would_not():
    own, _, smaller = ladders_of(RUNGS[:1], 256, costs(), RECIPE)
    assert smaller[0].photos_per_second > 2 * own[0].photos_per_second
    assert 1.5 < smaller[0].embedded_per_second / own[0].embedded_per_second < 256**2 / 160**2  # decoding takes as long
    assert smaller[0].row_bytes == math.ceil(own[0].row_bytes * 160**2 / 256**2)
    seconds = needed([costs().step(own[0], 2, 2, costs_module.SHORT_REFIT)], costs()) - 1
    (step,) = choose_steps([own, smaller], costs(), seconds, RECIPE)
    assert (step.unfreeze, step.image_size) == ("stage6", 160)
    (step,) = choose_steps([own, smaller], costs(), 10 * seconds, RECIPE)
    assert step.image_size is None
    # Few photos have to be seen more often to be worth it: 180 updates of 16.
    (step,) = choose_steps([smaller], costs(320), math.inf, RECIPE)
    assert step.epochs > 9
    (step,) = choose_steps([smaller], costs(320), needed([costs(320).step(smaller[0], 9, 2)], costs(320)), RECIPE)
    assert step.epochs == 9
    assert choose_steps([smaller], costs(320), needed([costs(320).step(smaller[0], 6, 2)], costs(320)), RECIPE) == []


MANY = replace(costs(10_000), in_parts={2: 5000, 4: 2600})


def test_of_many_photos_a_part_is_seen_once_where_more_takes_too_long():
    def chosen(seconds: float, recipe: Recipe = RECIPE) -> tuple[int, int, int, int | None, int]:
        ladders = ladders_of(RUNGS[:1], 256, MANY, recipe)
        (step,) = choose_steps(ladders, MANY, seconds, recipe)
        within = MANY.needed([step], [rung for of in ladders for rung in of]) <= seconds
        assert within or recipe != RECIPE
        return step.epochs, step.num_views, step.refit_epochs, step.image_size, step.one_in

    # 10,000 photos in batches of 16 are 625 updates an epoch.
    assert chosen(1000) == (7, 2, 4, None, 1)
    assert chosen(270) == (2, 2, 0, None, 1)
    assert chosen(180) == (1, 1, 0, None, 1)
    assert chosen(110) == (1, 1, 0, None, 2)
    assert chosen(60) == (1, 1, 0, 192, 2)
    asked = Recipe.make(photos="x", image_size=256, unfreeze="stage6")  # that size however long it takes
    assert chosen(60, asked) == (1, 1, 0, None, 1)
    assert chosen(60, Recipe.make(photos="x", epochs=1)) == (1, 1, 1, None, 1)


def test_what_is_not_in_a_part_is_measured_afterwards():
    part = MANY.of_part(4)
    assert (part.train_photos, part.validation_photos, part.test_photos) == (2600, 500, 2000 + 1500)
    assert MANY.of_part(1) is MANY
    step = part.step(replace(RUNGS[0], one_in=4), 1, 1, 0.0)
    assert (step.one_in, step.refit_epochs) == (4, 0)
    assert step.seconds == pytest.approx(2600 / 150 + 500 * 5 / 450, abs=0.1)
    testing = 3500 * (1 / 500 + 1 / 450)
    assert part.seconds(step, RUNGS[0]) == pytest.approx(step.seconds + step.head_seconds + 3100 / 500 + testing)


def test_a_step_on_a_part_of_the_photos_ends_in_a_classifier(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(module, "ONE_IN", (2,))
    monkeypatch.setattr(costs_module, "UPDATES_OF_MANY", 0.5)
    monkeypatch.setattr(module, "UPDATES_OF_MANY", 0.5)
    monkeypatch.setattr(data_module, "_LEAST_OF_A_PART", 2)
    choose = module.choose_steps
    monkeypatch.setattr(
        module, "choose_steps", lambda ladders, *others: choose([of for of in ladders if of[0].one_in == 2], *others)
    )
    given = {"budget": "1h", "image_size": 64, "keep": "last", "cache": tmp_path / "cache", "profile": True}
    run = headstart.train(photos, tmp_path / "run", **given)
    told = capsys.readouterr().out
    assert "1. stage6 and what follows: 1 epoch of 1 in 2 photos (9), batches of 8, 1 view stored" in told
    assert "from 1 stored view of 1 in 2 photos" in told
    kept = run.metrics["kept"]
    assert kept["stage"] == "fine-tuning stage6" and run.metrics["stages"]["fine-tuning stage6"]["epochs"] == 1
    assert "Refit       left out, for lack of time" in told
    # Validated on a part, the whole of the validation photos is what is told in the end.
    assert run.metrics["stages"]["fine-tuning stage6"]["validation"]["photos"] == 3
    assert run.metrics["validation"]["photos"] == 6
    assert {row["stage"]: row["floor"] for row in run.metrics["profile"]}["fine-tuning"] > 0
    assert "1 epoch, 1 view of 1 in 2 photos" in (tmp_path / "run" / "report.html").read_text()
    assert_classifies_as_measured(run, photos)


def test_a_step_on_smaller_photos_ends_in_a_classifier_for_them(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Backbone, "transfer_size", 96)
    monkeypatch.setattr(module, "SMALLEST_IMAGE", 64)
    choose = module.choose_steps
    monkeypatch.setattr(module, "choose_steps", lambda ladders, *others: choose([ladders[-1]], *others))
    monkeypatch.setattr(costs_module, "EPOCHS_OF_LAST", (2, 2))
    monkeypatch.setattr(costs_module, "UPDATES_OF_LAST", (2, 2))
    monkeypatch.setattr(costs_module, "LEAST_UPDATES_SMALLER", 2)
    run = headstart.train(photos, tmp_path / "run", budget="1h", keep="last", cache=tmp_path / "cache", profile=True)
    told = capsys.readouterr().out
    assert "1. stage6 and what follows, at 64 pixels: 2 epochs" in told
    assert "at 96 pixels these steps would take too long" in told
    kept = run.metrics["kept"]
    assert (kept["stage"], kept["image_size"]) == ("fine-tuning stage6", 64)
    assert run.classifier.preprocessing.image_size == 64
    assert {row["stage"]: row["floor"] for row in run.metrics["profile"]}["fine-tuning"] > 0
    assert "stage6 and what follows, at 64 pixels: 2 epochs" in (tmp_path / "run" / "report.html").read_text()
    # What the run measured at that size is what the classifier does.
    assert_classifies_as_measured(run, photos)
    # And what it grows by is seen at that size, too.
    (tmp_path / "more" / "dog").mkdir(parents=True)
    for number in range(8):
        make_photo(800 + number, 1).convert("L").save(tmp_path / "more" / "dog" / f"{number}.png")
    grown = headstart.add(tmp_path / "run", tmp_path / "more", tmp_path / "grown", quiet=True)
    assert grown.classifier.preprocessing.image_size == 64


def test_steps_share_the_time_that_is_left():
    steps = tuple(Step(unfreeze=part, epochs=1, num_views=1, seconds=seconds) for part, seconds in ((1, 10), (2, 30)))
    plan = Plan(image_size=224, probe_views=1, steps=steps, seconds=60)
    recipe = Recipe.make(photos="x", budget="100s", refit=False)
    assert time_limit(plan, 0, recipe, elapsed=56.0) == pytest.approx(10)  # 4 s are for the report
    assert time_limit(plan, 1, recipe, elapsed=56.0) == pytest.approx(40)
    assert time_limit(plan, 1, recipe, elapsed=200.0) == 1
    assert time_limit(plan, 0, recipe.changed(budget="none"), elapsed=56.0) is None
    assert time_limit(plan, 0, recipe.changed(epochs=3), elapsed=56.0) is None
    # What fitting heads takes is not to be shared: one after each step, and after the refit of the last.
    heads = tuple(step.model_copy(update={"head_seconds": 2.0}) for step in steps)
    timed = plan.model_copy(update={"steps": heads})
    assert time_limit(timed, 0, recipe, elapsed=52.0) == pytest.approx(10)
    refitted = Recipe.make(photos="x", budget="100s")
    assert time_limit(timed, 1, refitted, elapsed=50.0) == pytest.approx(42 * 30 / (30 + 1.2 * 30))


def test_a_head_fitted_anew_costs_a_forward_pass_and_a_search():
    step = costs().step(RUNGS[0], 3, 2)
    expected = 1000 / (3 * 150) + costs_module.SEARCH_EVALUATIONS * 1000 * 10 / 1e7
    assert step.head_seconds == pytest.approx(expected, abs=0.05)
    without = replace(costs(), blends=False)
    bare = without.step(RUNGS[0], 3, 2)
    assert bare.head_seconds == 0
    assert costs().seconds(step, RUNGS[0]) - without.seconds(bare, RUNGS[0]) == pytest.approx(step.head_seconds)
    many = costs(100_000).step(RUNGS[0], 3, 2)  # of which 10,000 are used
    assert many.head_seconds == pytest.approx(10 * step.head_seconds, rel=0.02)


def test_very_many_photos_are_embedded_smaller():
    assert size_in_time(256, 10_000, 500, 300) == 256
    assert size_in_time(256, 240_000, 500, 300) == 128
    assert size_in_time(256, 10**9, 500, 300) == 128
    assert size_in_time(256, 120_000, 500, 300) == 160  # half the time: 256 / sqrt(2), on a grid of 32
    assert size_in_time(256, 10**9, 500, math.inf) == 256


def test_of_too_many_photos_a_part_is_used():
    # 0.7 of 300 s, of which each photo takes 1/500 for embedding and 100 * 100 / 1e7 for the probe.
    assert count_in_time(500, 1e7, 100, 300) == 70_000
    assert count_in_time(500, 1e7, 100, math.inf) > 10**15


@pytest.mark.parametrize(
    ("given", "seconds"), [("90s", 90), ("5m", 300), ("1.5h", 5400), ("90", 90), ("None", math.inf), (20, 20)]
)
def test_budgets_are_times(given, seconds):
    assert Recipe.make(photos="x", budget=given).budget_seconds == seconds


@pytest.mark.parametrize("wrong", ["soon", "5 minutes", "0s", "-3m", "m", "0", "1d"])
def test_a_budget_that_is_no_time_is_named(wrong):
    with pytest.raises(HeadstartError, match="--budget .*expected a time such as 90s, 5m or 1h, or none"):
        Recipe.make(photos="x", budget=wrong)


def test_where_there_is_hardly_any_time_nothing_is_measured(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(module, "_measured", lambda *arguments: pytest.fail("measured"))
    run = headstart.train(photos, tmp_path / "run", image_size=64, budget="5s")
    assert "the probe alone, nothing is measured" in capsys.readouterr().out
    assert set(run.metrics["stages"]) == {"probe"} and run.metrics["kept"]["stage"] == "probe"


def test_a_plan_goes_with_its_recipe_and_not_with_another_budget(photos, tmp_path, capsys):
    first = headstart.train(photos, tmp_path / "run", image_size=64, epochs=1, unfreeze="stage6", num_views=2)
    told = capsys.readouterr().out
    assert "Plan        " in told and "1. stage6 and what follows: 1 epoch, batches of 8, 2 views stored" in told
    recipe = Recipe.read(tmp_path / "run" / "recipe.toml")
    assert recipe.plan is not None and recipe.plan.image_size == 64
    assert [(step.unfreeze, step.epochs, step.num_views) for step in recipe.plan.steps] == [("stage6", 1, 2)]
    assert recipe.changed(seed=3).plan == recipe.plan
    assert recipe.changed(budget="10m").plan is None
    assert first.metrics["seconds"]["total"] > 0


def test_a_resumed_run_follows_the_plan_that_was_made(photos, tmp_path, capsys, monkeypatch):
    choices = {"image_size": 64, "unfreeze": "stage6"}

    def stopped(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("headstart.run.tune_suffix", stopped)
        with pytest.raises(KeyboardInterrupt):
            headstart.train(photos, tmp_path / "run", budget="1h", **choices)
    planned = Recipe.read(tmp_path / "run" / "recipe.toml").plan
    assert planned is not None
    monkeypatch.setattr(costs_module, "EPOCHS_OF_LAST", (1, 1))  # another plan would be made now
    short = planned.model_copy(update={"steps": (planned.steps[0].model_copy(update={"epochs": 2}),)})
    recipe = Recipe.read(tmp_path / "run" / "recipe.toml").model_copy(update={"plan": short})
    (tmp_path / "run" / "recipe.toml").write_text(recipe.to_toml())
    capsys.readouterr()
    run = headstart.train(photos, tmp_path / "run", budget="1h", **choices)
    assert "Plan  " not in capsys.readouterr().out
    assert (run.history["stage"] == "fine-tuning stage6").sum() == 2


def test_time_that_no_step_can_use_goes_to_the_probe(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(costs_module, "PROBE_SHARE", 0.0)
    monkeypatch.setattr(module, "choose_steps", lambda *arguments: [])
    headstart.train(photos, tmp_path / "run", image_size=64, budget="5m")
    told = capsys.readouterr().out
    assert "a head on 3 views of each photo" in told and "no fine-tuning: the shortest step would take" in told
