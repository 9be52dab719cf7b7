"""What is said of the probe that judged labels."""

from headstart.evaluation.second_opinion import likely_right, opinion_text

OPINION = {
    "photos": 240,
    "probe_accuracy": 0.89,
    "network_accuracy": 0.983,
    "doubted": 10,
    "confirmed": 9,
    "training": 22,
}


def test_the_share_that_the_network_confirms_goes_for_training_photos_too():
    assert likely_right(OPINION) == 20
    assert likely_right(OPINION | {"confirmed": 0}) == 0
    assert likely_right(OPINION | {"doubted": 4, "confirmed": 4}) == 0  # too few to go by
    assert likely_right(None) == 0


def test_it_is_told_in_plain_words():
    assert opinion_text(OPINION) == (
        "The training photos were judged by a probe on frozen features, because the fine-tuned network has learnt "
        "their labels. The probe errs more often here: it contradicts 11% of the labels of 240 validation and test "
        "photos, the network 2%. Of 10 labels there that the probe doubts, the network confirms 9. So of the 22 "
        "training photos named, about 20 are likely labelled rightly."
    )
    assert opinion_text(OPINION | {"doubted": 1, "confirmed": 1}).endswith(
        "Of 1 label there that the probe doubts, the network confirms 1."
    )
    assert opinion_text(OPINION | {"doubted": 0}).endswith("the network 2%.")
