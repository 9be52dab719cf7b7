import pytest

from headstart.network.backbones import BACKBONES, build
from headstart.network.cut import boundary_of
from headstart.network.summary import backbones_text, stages, suffix_multiply_adds, summary_text


def test_the_table_lists_every_backbone_and_what_is_here():
    lines = backbones_text().splitlines()
    assert [line.split()[0] for line in lines[1:21]] == list(BACKBONES)
    assert lines[1].split() == ["lite0", "224", "4,652,008", "3,371,008", "74.8", "package", "yes"]
    assert "hub" in lines[6]


@pytest.mark.parametrize(("name", "million"), [("b0", 390), ("lite0", 407)])
def test_multiply_adds_are_those_of_the_papers(name, million):
    row = BACKBONES[name]
    found = stages(build(row, 10), 17, row.image_size)
    assert sum(stage.multiply_adds for stage in found) / 1e6 == pytest.approx(million, rel=0.06)
    assert sum(stage.parameters for stage in found) == row.parameters_without_top
    assert [stage.name for stage in found] == ["stem", *(f"stage{n}" for n in range(1, 8)), "head"]
    assert found[-1].output == (1280, 7, 7) and found[0].output == (32, 112, 112)


def test_what_trains_is_told():
    network = build(BACKBONES["lite0"], 10)
    found = {stage.name: stage for stage in stages(network, boundary_of(network, 2), 64)}
    assert (found["stage6"].trainable_units, found["stage7"].trainable_units, found["stem"].trainable_units) == (
        1,
        1,
        0,
    )
    text = summary_text(BACKBONES["b0"], 2, 120)
    assert "the last 1 of 4 train" in text and "frozen" in text
    assert "removed top: average pool, dropout, dense 1,280 -> 1,000 (1,281,000 parameters)" in text
    assert "dense 1,280 -> 120 (153,720 parameters)" in text


def test_multiply_adds_from_a_boundary_are_counted_to_the_logits():
    network = build(BACKBONES["lite0"], 10).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    classifier, head = 1280 * 10, 320 * 1280 * 7 * 7
    # The last block: 192 channels at 7 x 7 expand to 1,152, a depthwise 3 x 3, and project to 320.
    block = (192 * 1152 + 1152 * 3 * 3 + 1152 * 320) * 7 * 7
    assert [suffix_multiply_adds(network, boundary, 224) for boundary in (18, 17, 16)] == [
        classifier,
        classifier + head,
        classifier + head + block,
    ]
    whole = sum(stage.multiply_adds for stage in stages(build(BACKBONES["lite0"], 10).eval(), 0, 224))
    assert suffix_multiply_adds(network, 0, 224) == classifier + whole
    assert network.training and all((value == before[name]).all() for name, value in network.state_dict().items())
