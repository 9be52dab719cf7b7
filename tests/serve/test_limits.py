from pathlib import Path

import pytest

from headstart.errors import HeadstartError
from headstart.serve.bodies import Bodies
from headstart.serve.errors import Refusal
from headstart.serve.limits import Limits, parse_size
from headstart.serve.server import named_folders


@pytest.mark.parametrize(
    ("text", "size"), [("64MB", 64 << 20), ("1.5 gb", 3 << 29), ("800kb", 800 << 10), ("7", 7), ("7b", 7)]
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-1MB", "1TB", "1 M B", "nan"])
def test_what_is_no_size(text):
    with pytest.raises(HeadstartError, match="--max-body .*: expected a size such as 64MB"):
        parse_size(text)


def test_limits_that_are_none():
    for name in ("max_body", "max_pixels", "max_photos", "receive_timeout"):
        with pytest.raises(HeadstartError, match=f"--{name.replace('_', '-')} 0: expected more than 0"):
            Limits(**{name: 0})
    with pytest.raises(HeadstartError, match="--receive-timeout nan"):
        Limits(receive_timeout=float("nan"))
    assert Limits().all_bodies == 4 * Limits().max_body


def test_names_of_classifiers(tmp_path, monkeypatch):
    (tmp_path / "pets" / "classifier").mkdir(parents=True)
    (tmp_path / "a=b").mkdir()
    monkeypatch.chdir(tmp_path / "pets")
    given = ["classifier", "cats=classifier", str(tmp_path / "a=b"), "x/../../other/", "day=x=y"]
    assert named_folders(given) == {
        "pets": Path("classifier"),
        "cats": Path("classifier"),
        "a=b": tmp_path / "a=b",
        "other": Path("x/../../other"),
        "day": Path("x=y"),
    }
    for wrong in ("=classifier", "a/b=classifier", "a\n=classifier"):
        with pytest.raises(HeadstartError, match="cannot stand in an address"):
            named_folders([wrong])
    with pytest.raises(HeadstartError, match="there is a classifier of the name pets already"):
        named_folders(["classifier", "../pets"])


def test_bodies_of_all_requests_together_are_bounded():
    limits = Limits(max_body=100)
    bodies = Bodies(limits)
    with bodies.room() as first, bodies.room() as second, bodies.room() as third, bodies.room() as fourth:
        for take in (first, second, third):
            take(100)
        fourth(99)
        with bodies.room() as fifth:
            fifth(1)
            with pytest.raises(Refusal, match="bodies of other requests") as caught:
                fifth(1)
            assert caught.value.code == "overloaded" and caught.value.headers == {"Retry-After": "1"}
        assert bodies.held == 399
        with pytest.raises(Refusal, match="more than 100 bytes") as caught:
            first(1)
        assert caught.value.code == "too_large"
    assert bodies.held == 0
