from types import SimpleNamespace

from headstart.network.backbones import BACKBONES
from headstart.report.card import model_card


def test_the_card_names_classes_as_people_read_them():
    classifier = SimpleNamespace(
        class_names=["n02085782-Japanese_spaniel", "n02087046-toy_terrier"],
        backbone="lite0",
        preprocessing=BACKBONES["lite0"].preprocessing("crop"),
        training={},
        rejection=None,
    )
    assert "a probability for each class: `Japanese spaniel`, `toy terrier`." in model_card(classifier)
