import io
import shutil

import pandas as pd
import pytest
from PIL import Image

from headstart.report.album import Album
from headstart.report.selection import select
from headstart.report.tables import read_tables
from headstart.report.thumbnails import _jpeg, _small
from headstart.run_folder import RunFolder
from report.made_run import IMAGE_SIZE, make_pictures, noise


def test_every_photo_shown_has_a_thumbnail_and_those_looked_into_a_heatmap(made):
    folder = RunFolder(made)
    selection = select(read_tables(folder))
    listing = pd.read_csv(folder.pictures / "pictures.csv", keep_default_na=False)
    looked_into = {photo.path for photo in [*selection.right, *selection.wrong]}
    assert set(listing["path"]) == set(selection.paths) | looked_into
    assert set(listing.loc[listing["heatmap"] != "", "path"]) == looked_into
    files = {*listing["thumbnail"], *listing["heatmap"], "pictures.csv"} - {""}
    assert {path.name for path in folder.pictures.iterdir()} == files
    for kind, side in (("thumbnail", 30), ("heatmap", IMAGE_SIZE)):
        for name in listing[kind][listing[kind] != ""]:
            with Image.open(folder.pictures / name) as picture:
                assert picture.format == "JPEG" and min(picture.size) == side


def test_photos_that_cannot_be_read_any_more_are_left_out(made, tmp_path):
    shutil.copytree(made.parent, tmp_path / "copy")
    folder = RunFolder(tmp_path / "copy" / "run")
    gone, broken = select(read_tables(folder)).paths[:2]
    (tmp_path / "copy" / "photos" / gone).unlink()
    (tmp_path / "copy" / "photos" / broken).write_bytes(b"nothing")
    before = set(pd.read_csv(folder.pictures / "pictures.csv")["path"])
    make_pictures(tmp_path / "copy")
    assert set(pd.read_csv(folder.pictures / "pictures.csv")["path"]) == before - {gone, broken}
    shutil.rmtree(tmp_path / "copy" / "photos")
    make_pictures(tmp_path / "copy")
    assert [path.name for path in folder.pictures.iterdir()] == ["pictures.csv"]


@pytest.mark.parametrize(
    ("size", "small"),
    [
        ((400, 300), (160, 120)),
        ((300, 400), (120, 160)),
        ((3000, 10), (16, 10)),
        ((5000, 500), (192, 120)),
        ((1, 1), (1, 1)),
    ],
)
def test_thumbnails_are_small_and_never_very_long(size, small):
    assert _small(Image.new("RGB", size)).size == small


def test_noise_is_compressed_more():
    assert len(_jpeg(noise(0), 9_000)) <= 9_000
    plain = _jpeg(Image.new("RGB", (160, 120), "red"), 9_000)
    with Image.open(io.BytesIO(plain)) as picture:
        red, green, blue = picture.convert("RGB").getpixel((80, 60))
    assert red > 250 and green < 5 and blue < 5


def test_an_album_gives_pictures_while_there_is_room(made, monkeypatch):
    monkeypatch.setattr("headstart.report.album.MOST_CHARACTERS", 4_000)
    album = Album(RunFolder(made))
    paths = select(read_tables(RunFolder(made))).paths
    found = [album.thumbnail(path) for path in paths]
    assert found[0] is not None and (found[0].width, found[0].height) == (40, 30)
    assert 0 < sum(len(picture.uri) for picture in found if picture) <= 4_000
    assert None in found and album.thumbnail("unknown") is None


def test_a_run_without_pictures_has_none(tmp_path):
    assert Album(RunFolder(tmp_path)).thumbnail("a.jpg") is None
