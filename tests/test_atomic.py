import json

import pytest

from headstart.atomic import folder_written_whole, write_json, write_text, written_whole


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_file_takes_its_place_when_the_block_ends(tmp_path):
    target = tmp_path / "new/folder/model.bin"
    with written_whole(target) as draft:
        draft.write_bytes(b"whole")
        assert not target.exists()
        assert draft.parent == target.parent
    assert target.read_bytes() == b"whole"
    assert names_in(target.parent) == ["model.bin"]


def test_draft_is_hidden_unique_and_keeps_the_suffix(tmp_path):
    target = tmp_path / "plot.png"
    with written_whole(target) as one, written_whole(target) as other:
        assert one != other
        assert one.name.startswith(".plot.")
        assert one.suffix == other.suffix == ".png"
        one.write_bytes(b"1")
        other.write_bytes(b"2")
    assert target.read_bytes() == b"1"
    assert names_in(tmp_path) == ["plot.png"]


def test_file_is_replaced_only_at_the_end(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with written_whole(target) as draft:
        draft.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_failure_leaves_the_old_file_and_no_draft(tmp_path, error):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(error), written_whole(target) as draft:
        draft.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert names_in(tmp_path) == ["a.txt"]


def test_block_that_writes_nothing_leaves_the_old_file(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(FileNotFoundError), written_whole(target):
        pass
    assert target.read_text() == "old"
    assert names_in(tmp_path) == ["a.txt"]


def test_folder_takes_its_place_when_the_block_ends(tmp_path):
    target = tmp_path / "deep/run"
    with folder_written_whole(target) as draft:
        (draft / "sub").mkdir()
        (draft / "sub/a.txt").write_text("a")
        assert not target.exists()
    assert (target / "sub/a.txt").read_text() == "a"
    assert names_in(tmp_path / "deep") == ["run"]


def test_folder_is_replaced_as_a_whole(tmp_path):
    target = tmp_path / "run"
    target.mkdir()
    (target / "old.txt").write_text("old")
    with folder_written_whole(target) as draft:
        (draft / "new.txt").write_text("new")
        assert names_in(target) == ["old.txt"]
    assert names_in(target) == ["new.txt"]
    assert names_in(tmp_path) == ["run"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_failure_leaves_the_old_folder_and_no_draft(tmp_path, error):
    target = tmp_path / "run"
    target.mkdir()
    (target / "old.txt").write_text("old")
    with pytest.raises(error), folder_written_whole(target) as draft:
        (draft / "half.txt").write_text("half")
        raise error
    assert names_in(target) == ["old.txt"]
    assert names_in(tmp_path) == ["run"]


def test_failure_leaves_no_folder_where_there_was_none(tmp_path):
    with pytest.raises(ValueError), folder_written_whole(tmp_path / "run"):
        raise ValueError
    assert names_in(tmp_path) == []


def test_text_is_utf_8(tmp_path):
    write_text(tmp_path / "a.txt", "crème 犬\n")
    assert (tmp_path / "a.txt").read_bytes() == "crème 犬\n".encode()


def test_json_is_indented_utf_8_with_a_last_newline(tmp_path):
    write_json(tmp_path / "a.json", {"name": "犬", "list": [1, 2.5, None]})
    text = (tmp_path / "a.json").read_bytes().decode("utf-8")
    assert text == '{\n  "name": "犬",\n  "list": [\n    1,\n    2.5,\n    null\n  ]\n}\n'


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
    assert names_in(tmp_path) == ["a.json"]
