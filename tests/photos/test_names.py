import pytest

from headstart.photos.names import readable, readable_names


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("n02085782-Japanese_spaniel", "Japanese spaniel"),
        ("n02085782_tench", "tench"),
        ("n02095314-wire-haired_fox_terrier", "wire-haired fox terrier"),
        ("Golden_Delicious", "Golden Delicious"),
        ("Arla-Sour-Cream", "Arla-Sour-Cream"),
        ("n02085782", "n02085782"),
        ("n02085782-", "n02085782-"),
        ("n0208578-seven_digits", "n0208578-seven digits"),
        ("n020857829-nine", "n020857829-nine"),
        ("an02085782-pug", "an02085782-pug"),
        ("___", "___"),
        ("7", "7"),
        ("", ""),
    ],
)
def test_a_label_is_readable(label, shown):
    assert readable(label) == shown


def test_names_stay_apart():
    assert readable_names(["n02012849-crane", "n02085782-pug"]) == ["crane", "pug"]
    birds_and_machines = ["n02012849-crane", "n03126707-crane", "n02085782-pug"]
    assert readable_names(birds_and_machines) == birds_and_machines
    assert readable_names(["a_b", "a b"]) == ["a_b", "a b"]
    assert readable_names(["a_b", "a_b"]) == ["a b", "a b"]
    assert readable_names([]) == []
