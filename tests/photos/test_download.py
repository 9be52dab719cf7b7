"""Downloads through the real code, from a server on the loopback interface."""

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from headstart.console import Console
from headstart.errors import HeadstartError
from headstart.photos.download import Archive, download, unpack

DATA = bytes(range(256)) * 5000
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def site(site):
    site.files["/photos.tar"] = DATA
    return site


def archive_at(site) -> Archive:
    return Archive(f"{site.url}/photos.tar", SHA256, len(DATA))


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_a_download_is_checked_and_not_repeated(site, tmp_path, capfd):
    for _ in range(2):
        file = download(archive_at(site), tmp_path / "downloads", Console())
        assert file == tmp_path / "downloads/photos.tar"
        assert file.read_bytes() == DATA
    assert site.requests == [("/photos.tar", None)]
    assert names(file.parent) == ["photos.tar"]
    assert capfd.readouterr() == ("", "")


def test_a_download_that_broke_off_goes_on_where_it_was(site, tmp_path):
    site.cut_after = 700_000
    with pytest.raises(HeadstartError, match=r"the connection broke after 0.7 of 1.3 MB.\nRun the same command again"):
        download(archive_at(site), tmp_path, Console())
    assert names(tmp_path) == ["photos.tar.part"]
    arrived = (tmp_path / "photos.tar.part").stat().st_size
    assert 700_000 - 65_536 < arrived <= 700_000
    site.cut_after = None
    assert download(archive_at(site), tmp_path, Console()).read_bytes() == DATA
    assert site.requests == [("/photos.tar", None), ("/photos.tar", f"bytes={arrived}-")]


def test_a_server_without_ranges_sends_it_all_again(site, tmp_path):
    site.takes_ranges = False
    (tmp_path / "photos.tar.part").write_bytes(DATA[:1000])
    assert download(archive_at(site), tmp_path, Console()).read_bytes() == DATA
    assert site.requests == [("/photos.tar", "bytes=1000-")]


def test_a_download_that_had_only_to_be_checked_asks_for_nothing(site, tmp_path):
    (tmp_path / "photos.tar.part").write_bytes(DATA)
    assert download(archive_at(site), tmp_path, Console()).read_bytes() == DATA
    assert site.requests == []


@pytest.mark.parametrize("part", [b"", b"other" * 2000])
def test_wrong_bytes_are_told_and_deleted(site, tmp_path, part):
    other = site.files["/photos.tar"] = b"other" * (len(DATA) // 5)
    found = hashlib.sha256(other).hexdigest()
    if part:
        (tmp_path / "photos.tar.part").write_bytes(part)
    with pytest.raises(HeadstartError) as error:
        download(archive_at(site), tmp_path, Console())
    assert error.value.problem == (
        f"{site.url}/photos.tar: what was downloaded has the SHA-256 {found}; expected {SHA256}. It is deleted."
    )
    assert names(tmp_path) == []


def test_a_file_that_has_been_damaged_since_is_downloaded_anew(site, tmp_path):
    (tmp_path / "photos.tar").write_bytes(b"damaged")
    assert download(archive_at(site), tmp_path, Console()).read_bytes() == DATA


def test_a_file_without_end_is_not_read_to_its_end(site, tmp_path):
    site.files["/photos.tar"] = DATA * 4
    with pytest.raises(HeadstartError, match="what was downloaded has the SHA-256"):
        download(archive_at(site), tmp_path, Console())
    assert names(tmp_path) == []


def test_a_shorter_file_at_the_source_starts_afresh_next_time(site, tmp_path):
    (tmp_path / "photos.tar.part").write_bytes(DATA[:1000])
    site.files["/photos.tar"] = b"short"
    with pytest.raises(HeadstartError, match="the server answers 416 "):
        download(archive_at(site), tmp_path, Console())
    assert names(tmp_path) == []


def test_an_answer_that_is_no_file_is_told(site, tmp_path):
    site.status = 404
    with pytest.raises(HeadstartError, match=r"photos.tar: the server answers 404 Not Found; expected .* 1.3 MB"):
        download(archive_at(site), tmp_path, Console())
    assert names(tmp_path) == []


def test_a_server_out_of_reach_is_told_with_what_to_do(tmp_path):
    with pytest.raises(HeadstartError) as error:
        download(Archive("http://127.0.0.1:1/photos.tar", SHA256, len(DATA)), tmp_path, Console())
    assert "photos.tar: the server cannot be reached (ConnectionError)" in error.value.problem
    assert "Try again" in error.value.fix and "by hand" in error.value.fix


def test_two_downloads_of_one_file_do_not_mix(site, tmp_path):
    from filelock import FileLock

    with FileLock(tmp_path / "photos.tar.lock"), pytest.raises(HeadstartError, match="another process is downloading"):
        download(archive_at(site), tmp_path, Console())
    assert site.requests == []


def member(name, kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = 4 if kind == tarfile.REGTYPE else 0
    return info


def write_tar(path, *members):
    with tarfile.open(path, "w") as tar:
        for info in (member("good.txt"), *members):
            tar.addfile(info, io.BytesIO(b"good") if info.isfile() else None)
    return path


def test_an_archive_is_unpacked(tmp_path):
    archive = write_tar(tmp_path / "a.tar", member("Images", tarfile.DIRTYPE), member("Images/deep/b.txt"))
    unpack(archive, tmp_path / "out")
    files = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert files == {"good.txt", "Images/deep/b.txt"}
    assert (tmp_path / "out/Images/deep/b.txt").read_bytes() == b"good"


@pytest.mark.parametrize(
    "evil",
    [
        member("../evil"),
        member("a/../../evil"),
        member("/tmp/headstart-evil"),
        member("C:\\evil"),
        member("..\\evil"),
        member("link", tarfile.SYMTYPE, "/etc/passwd"),
        member("link", tarfile.LNKTYPE, "good.txt"),
        member("pipe", tarfile.FIFOTYPE),
        member("device", tarfile.CHRTYPE),
    ],
    ids=lambda info: f"{info.name} {info.type.decode()}",
)
def test_an_archive_that_reaches_outside_is_refused_whole(tmp_path, evil):
    (tmp_path / "out").mkdir()
    archive = write_tar(tmp_path / "a.tar", evil)
    with pytest.raises(HeadstartError) as error:
        unpack(archive, tmp_path / "out")
    assert repr(evil.name) in error.value.problem
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.tar", "out"]
    assert not Path("/tmp/headstart-evil").exists()


@pytest.mark.parametrize("filtered", [True, False])
def test_unpacking_does_not_need_the_filter_of_newer_pythons(tmp_path, monkeypatch, filtered):
    if not filtered:
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    unpack(write_tar(tmp_path / "a.tar"), tmp_path / "out")
    assert (tmp_path / "out/good.txt").read_bytes() == b"good"


@pytest.mark.parametrize("data", [b"<html>no archive</html>", b""])
def test_what_is_no_archive_is_told(tmp_path, data):
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(HeadstartError, match=r"a.tar: cannot be unpacked: .*expected a tar archive"):
        unpack(tmp_path / "a.tar", tmp_path / "out")
