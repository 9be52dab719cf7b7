from pathlib import Path

from headstart.report.figure import Picture

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "example.py"


def test_the_walk_through_the_example_runs(photos, tmp_path):
    source = EXAMPLE.read_text(encoding="utf-8")
    # On a small dataset, and fewer epochs; every call stays.
    source = source.replace(
        'PHOTOS, RUN = "digits", "example-run"', f"PHOTOS, RUN = {str(photos)!r}, {str(tmp_path)!r}"
    )
    source = source.replace("SETTINGS = {}", 'SETTINGS = {"image_size": 64, "num_views": 2, "quiet": True}')
    names: dict = {}
    exec(compile(source, str(EXAMPLE), "exec"), names)
    assert isinstance(names["samples"], Picture) and isinstance(names["views"], Picture)
    assert set(names["scratch"].metrics["stages"]) == {"from scratch"}
    assert set(names["tuned"].metrics["stages"]) == {"example head", "fine-tuning last block"}
    assert names["run"].metrics["test"]["accuracy"] == 1.0
    assert names["classifier"].class_names == ["ant", "bee", "cat"]
