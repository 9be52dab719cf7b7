"""The whole audit, on photos with nothing wrong, with planted faults, and on files that break image code."""

import shutil

import pytest
from PIL import Image

from headstart.photos.audit import audit
from headstart.photos.catalog import read_catalog
from making import make_scenes, scene


def problems_of(root):
    table = audit(read_catalog(root)).problems
    return sorted(zip(table["path"], table["problem"], table["severity"], strict=True))


def test_nothing_is_found_where_nothing_is_wrong(tmp_path):
    assert problems_of(make_scenes(tmp_path / "photos")) == []


def test_every_planted_fault_is_found_and_nothing_else(tmp_path):
    root = make_scenes(tmp_path / "photos", count=15)
    (root / "ant" / "page.jpg").write_text("<html>")
    (root / "ant" / "cut.jpg").write_bytes((root / "ant" / "3.jpg").read_bytes()[:900])
    (root / "bee" / "none.png").touch()
    shutil.copy(root / "cat" / "0.jpg", root / "cat" / "0 again.jpg")
    shutil.copy(root / "cat" / "1.jpg", root / "bee" / "1c.jpg")
    scene(5).resize((120, 90)).save(root / "ant" / "small.jpg", quality=70)
    scene(1005).crop((3, 2, 157, 118)).save(root / "cat" / "cropped.jpg")
    Image.new("RGB", (160, 120)).save(root / "bee" / "black.jpg")
    (root / "dog").mkdir()
    assert problems_of(root) == [
        ("ant/cut.jpg", "truncated", "severe"),
        ("ant/page.jpg", "not an image", "severe"),
        ("ant/small.jpg", "near duplicate", "warning"),
        ("bee/1c.jpg", "label conflict", "severe"),
        ("bee/5.jpg", "label conflict", "severe"),
        ("bee/black.jpg", "too dark", "warning"),
        ("bee/none.png", "empty file", "severe"),
        ("cat/0 again.jpg", "exact duplicate", "warning"),
        ("cat/1.jpg", "label conflict", "severe"),
        ("cat/cropped.jpg", "label conflict", "severe"),
        ("dog", "empty class folder", "warning"),
    ]


@pytest.mark.parametrize("planted", ["size", "grey", "quality"])
def test_a_class_saved_in_another_way_is_found(tmp_path, planted):
    root = make_scenes(tmp_path / "photos")
    for path in (root / "bee").iterdir():
        with Image.open(path) as image:
            photo = image.copy()
        photo = {"size": photo.resize((320, 240)), "grey": photo.convert("L"), "quality": photo}[planted]
        photo.save(path, quality=8 if planted == "quality" else 92)
    (found,) = [row for row in audit(read_catalog(root)).problems.itertuples() if row.path == "bee"]
    fact, severity, accuracy = {
        "size": ("resolution", "severe", "1.00"),
        "grey": ("colour", "severe", "1.00"),
        "quality": ("file size", "warning", "0.94"),
    }[planted]
    assert found.problem == "shortcut" and found.severity == severity
    assert found.detail.startswith(f"{fact} alone tells it from the other classes with balanced accuracy {accuracy}")


def test_files_that_cannot_be_opened_are_named_too(tmp_path):
    root = make_scenes(tmp_path / "photos", count=10)
    (root / "ant" / "gone.jpg").symlink_to("nowhere.jpg")
    assert problems_of(root) == [("ant/gone.jpg", "unreadable", "severe")]


def test_no_photo_can_be_read(tmp_path):
    for name in ("a/1.jpg", "b/1.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(name)
    assert problems_of(tmp_path) == [
        ("a", "too few photos", "severe"),
        ("a/1.jpg", "not an image", "severe"),
        ("b", "too few photos", "severe"),
        ("b/1.jpg", "not an image", "severe"),
    ]


@pytest.mark.shared
def test_files_that_break_image_code_are_sorted_by_what_ails_them(shared):
    table = audit(read_catalog(shared / "nasty")).problems
    depends_on_pillow = ["must_not_decode/libjpeg_turbo__monkey12.jpg", "must_not_decode/pillow_tests__ultrahdr.jpg"]
    table = table[~table["path"].isin(depends_on_pillow)]
    found = {problem: rows["path"].tolist() for problem, rows in table.groupby("problem")}
    assert found["decompression bomb"] == [
        "bombs/image_rs_tests__Bad_reallybig.bmp",
        "bombs/image_rs_tests__Bad_width.bmp",
        "bombs/pillow_tests__decompression_bomb.gif",
        "bombs/pillow_tests__png_decompression_dos.png",
        "bombs/sharp_fixtures__65536-uint32-limit.png",
        "bombs/sharp_fixtures__giant-image.jpg",
        "made_here/bomb_14000x14000_1bit.png",
    ]
    assert found["truncated"] == [
        "bombs/image_rs_tests__Bad_shortfile.bmp",
        "bombs/pillow_tests__l2rgb_read.bmp",
        "made_here/truncated_half.jpg",
        "must_not_decode/pillow_tests__truncated_image.png",
        "must_not_decode/pillow_tests__truncated_jpeg.jpg",
        "must_not_decode/sharp_fixtures__corrupt-header.jpg",
        "must_not_decode/sharp_fixtures__truncated.jpg",
        "must_not_decode/sharp_fixtures__truncated.png",
    ]
    assert found["damaged"] == [
        "decodes_odd_mode/pillow_tests__broken_data_stream.png",
        "must_not_decode/image_rs_tests__oss-fuzz-36829.jpeg",
        "must_not_decode/pillow_tests__syntax_num_frames_zero.png",
    ]
    assert found["not an image"] == [
        "made_here/header_only.jpg",
        "made_here/html_error_page.jpg",
        "must_not_decode/image_rs_tests__zero-loop-count.gif",
        "must_not_decode/pillow_tests__broken.png",
        "must_not_decode/pillow_tests__unknown_compression_method.png",
        "must_not_decode/pillow_tests__zero_width.gif",
    ]
    assert found["empty file"] == ["made_here/zero_byte.jpg"]
    assert found["wrong suffix"] == ["made_here/jpeg_named.png", "made_here/png_named.jpg"]
    assert found["exact duplicate"] == ["made_here/jpeg_named.png", "made_here/spa ce ünïcode 犬.jpg"]
    near = set(found["near duplicate"])
    assert near == {
        "decodes_odd_mode/pillow_tests__hopper_gray.jpg",
        "decodes_odd_mode/sharp_fixtures__Channel_digital_image_CMYK_color_no_profile.jpg",
        "made_here/png_named.jpg",
        *(f"orientation/{name}_{number}.jpg" for name in ("Landscape", "Portrait") for number in range(1, 9)),
    }
    turned = [path for path in found["rotated by EXIF"] if path.startswith("orientation/")]
    assert turned == [
        f"orientation/{name}_{number}.jpg" for name in ("Landscape", "Portrait") for number in range(2, 9)
    ]
    assert "made_here/extreme_aspect_2000x3.jpg" in found["odd aspect"]
    assert "leak" not in found
