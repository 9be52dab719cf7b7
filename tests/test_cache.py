import pytest

from headstart import HeadstartError
from headstart.cache import cache_folder


def test_the_option_wins_over_the_variable_and_that_over_the_platform(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "variable"))
    assert cache_folder(tmp_path / "option") == tmp_path / "option"
    assert cache_folder() == tmp_path / "variable"
    assert (tmp_path / "option").is_dir() and (tmp_path / "variable").is_dir()
    monkeypatch.delenv("HEADSTART_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "platform"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder().name == "headstart" and cache_folder().is_relative_to(tmp_path)


def test_a_place_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(HeadstartError, match=r"--cache .*file/cache: cannot be made"):
        cache_folder(tmp_path / "file" / "cache")
