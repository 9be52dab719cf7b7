import json

import pytest

import headstart
from headstart.network.backbones import BACKBONES, build
from headstart.network.cut import boundary_of
from headstart.network.summary import suffix_multiply_adds
from headstart.profiling import FLOORS, Row, profile_rows, profile_text, training_work
from headstart.recipe import Recipe
from headstart.run_folder import RunFolder

STAGES = list(FLOORS)
SMALL = ["--image-size", "64", "--epochs", "2", "--num-views", "2"]


def test_ratio_is_seconds_over_floor():
    assert Row("scanning", 3.0, 2.0, "").ratio == 1.5
    assert Row("planning", 3.0, None, "").ratio is None and Row("probing", 3.0, 0.0, "").ratio is None


def test_training_takes_three_forward_passes_and_from_pixels_decoding():

    def multiply_adds(boundary: int, image_size: int) -> int:
        return {0: 1000, 16: 100}[boundary] * image_size // 224

    assert training_work([(16, 224, 70, 3)], multiply_adds) == (3 * 2 * 100 * 70 * 3, 0)
    assert training_work([(16, 224, 70, 3), (0, 112, 70, 2)], multiply_adds) == (126_000 + 420_000, 140)


def test_every_stage_has_a_row_and_what_is_in_none_is_the_rest():
    seconds = {"scanning": 1.0, "decoding": 2.0, "embedding": 4.0, "planning": 0.5}
    floors = {"scanning": (0.5, "1.0 MB"), "decoding": (1.0, ""), "embedding": (3.0, ""), "probing": (9.0, "")}
    rows = {row.stage: row for row in profile_rows(seconds, floors, total=7.0)}
    assert list(rows) == STAGES
    assert rows["scanning"] == Row("scanning", 1.0, 0.5, "1.0 MB")
    assert rows["planning"] == Row("planning", 0.5, None, "")
    assert rows["probing"] == Row("probing", 0.0, None, "not done")
    assert rows["starting"] == Row("starting", 0.0, None, "not done")
    assert rows["other"] == Row("other", 1.5, None, "") and rows["total"] == Row("total", 7.0, 3.5, "")


def test_the_table_is_aligned():
    lines = profile_text([Row("scanning", 1.0, 0.25, "1.0 MB"), Row("planning", 12.5, None, "")]).splitlines()
    assert lines[:4] == [
        "Profile      seconds    floor   ratio",
        "scanning        1.00    0.250     4.0  1.0 MB",
        "planning       12.50        -       -",
        "",
    ]
    assert [line.split()[0] for line in lines[5:]] == STAGES


def test_a_busier_computer_while_measuring_is_told():
    told = "A ratio below 1: other programs were busier"
    assert told in profile_text([Row("scanning", 1.0, 2.0, "")]).splitlines()[-1]
    assert told not in profile_text([Row("scanning", 2.0, 2.0, ""), Row("other", 1.0, None, "")])


@pytest.fixture(scope="module")
def profiled(finished, tmp_path_factory):
    """The run of `finished` with --profile: its folder, and what the command printed."""
    from typer.testing import CliRunner

    from headstart.cli import app

    folder = tmp_path_factory.mktemp("profiled")
    places = ["-o", str(folder / "run"), "--cache", str(folder / "cache")]
    result = CliRunner().invoke(app, ["train", str(finished[1]), *places, *SMALL, "--profile"])
    assert result.exit_code == 0, result.output
    return folder / "run", result.stdout


def test_the_table_ends_what_the_command_prints(profiled):
    lines = profiled[1].splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("Profile"))
    assert lines[start - 2].startswith("Classifier")
    assert [line.split()[0] for line in lines[start + 1 : start + 1 + len(STAGES)]] == STAGES
    floors = lines.index("Floors:") + 1
    assert [line.split()[0] for line in lines[floors : floors + len(STAGES)]] == STAGES


def test_floors_are_of_what_the_run_did(profiled):
    metrics = RunFolder(profiled[0]).read_metrics()
    rows = {row["stage"]: row for row in metrics["profile"]}
    assert list(rows) == STAGES
    for row in rows.values():
        assert row["seconds"] > 0, row
        assert (row["floor"] is None) == (row["stage"] in ("starting", "planning", "other")), row
        told = row["floor"] and row["floor"] >= 5e-4  # less is printed as nothing
        assert row["ratio"] == (row["seconds"] / row["floor"] if told else None)
    plan = Recipe.read(profiled[0] / "recipe.toml").plan
    # 30 photos; more views of 24 of them, which the probe is fitted on; the two views of these that a step trains on.
    views = 30 + 24 * (plan.probe_views - 1) + 24 * 2
    assert rows["embedding"]["remark"].startswith(f"{views} views, at best ")
    assert rows["decoding"]["remark"].startswith(f"{views} views, at best ")
    network = build(BACKBONES["lite0"], 3)
    # Two epochs of 18 photos, forwards and backwards.
    operations = 6 * suffix_multiply_adds(network, boundary_of(network, "stage6"), 64) * 18 * 2
    assert rows["fine-tuning"]["remark"].startswith(f"{operations / 1e9:.1f} GFLOP, at best ")
    assert rows["evaluation"]["remark"] == "12 photos"
    assert rows["total"]["seconds"] >= metrics["seconds"]["total"]
    assert float(rows["writing"]["remark"].split()[0]) > 10  # MB: the weights


def test_a_run_is_the_same_with_and_without(finished, profiled):
    plain, run = finished[0], profiled[0]
    for name in ("predictions.csv", "catalog.csv", "classifier/weights.safetensors"):
        assert (run / name).read_bytes() == (plain / name).read_bytes()
    ours, theirs = RunFolder(run).read_metrics(), RunFolder(plain).read_metrics()
    assert set(ours) - set(theirs) == {"profile"}
    assert [ours[part] for part in ("validation", "test", "kept")] == [
        theirs[part] for part in ("validation", "test", "kept")
    ]
    assert "profile" not in (run / "recipe.toml").read_text()


def test_a_finished_run_shows_its_profile_again(finished, profiled, capsys):
    choices = {"image_size": 64, "epochs": 2, "num_views": 2}
    before = (profiled[0] / "metrics.json").read_bytes()
    headstart.train(finished[1], profiled[0], profile=True, **choices)
    table = profiled[1][profiled[1].index("Profile ") :]
    assert capsys.readouterr().out.endswith(table)
    assert (profiled[0] / "metrics.json").read_bytes() == before
    headstart.train(finished[1], finished[0], profile=True, **choices)
    assert capsys.readouterr().out.endswith("Profile     none: the run was made without --profile\n")
    assert "profile" not in json.loads((finished[0] / "metrics.json").read_text())


def test_from_scratch_photos_are_decoded_for_every_epoch(photos, tmp_path):
    run = headstart.train(photos, tmp_path / "run", weights="none", image_size=32, epochs=1, profile=True, quiet=True)
    rows = {row["stage"]: row for row in run.metrics["profile"]}
    assert rows["probing"]["remark"] == rows["refitting"]["remark"] == "not done"
    assert rows["embedding"]["remark"].startswith("30 views")
    assert rows["fine-tuning"]["floor"] > 0 and rows["evaluation"]["floor"] > 0
