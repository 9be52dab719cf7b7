"""Poor photos and odd files."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from headstart.photos.defects import file_findings, look_findings, unreadable
from headstart.photos.facts import read_facts
from making import scene


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    photos = []
    for number in range(12):
        scene(number, (240, 180)).save(folder / f"good{number}.png")
        photos.append((f"good{number}.png", read_facts(folder / f"good{number}.png")))
    return photos


@pytest.fixture
def photos_with(tmp_path, good):
    """Return a function that adds files to twelve good photos and returns the facts of all."""

    def make(**added):
        photos = []
        for name, picture in added.items():
            if isinstance(picture, bytes):
                (tmp_path / name).write_bytes(picture)
            else:
                picture.save(tmp_path / name)
            photos.append((name, read_facts(tmp_path / name)))
        return photos + good

    return make


def looks(photos):
    return {(found.path, found.problem): found.detail for found in look_findings(photos)}


def test_good_photos_have_no_defects(photos_with):
    photos = photos_with()
    assert looks(photos) == {} and list(file_findings(photos)) == []


@pytest.mark.parametrize(
    ("problem", "picture", "detail"),
    [
        ("too dark", scene(40).point(lambda value: value // 6), "99% of it is no brighter than 0.1"),
        ("too dark", Image.new("RGB", (100, 100)), "99% of it is no brighter than 0.00 of white (limit 0.25)"),
        ("too bright", scene(40).point(lambda value: 248 + value // 40), "95% of it is within 0.0"),
        ("low information", Image.new("RGB", (100, 100), "teal"), "entropy 0.00 bits of 8 (limit 2)"),
        ("blurry", scene(40, (240, 180)).filter(ImageFilter.GaussianBlur(9)), "sharpness 0.0"),
        ("tiny", scene(40, (60, 31)), "60 x 31 pixels (limit 32)"),
        ("odd aspect", scene(40, (500, 100)), "500 x 100 pixels: a central square shows 20% of it (limit 33%)"),
        ("odd size", scene(40, (2600, 1950)), "2600 x 1950 pixels: a tenth of the usual or less"),
    ],
)
def test_a_defect_is_named_with_its_score(photos_with, problem, picture, detail):
    (key, said), *others = looks(photos_with(**{"odd.png": picture})).items()
    assert key == ("odd.png", problem) and said.startswith(detail) and others == []


def test_what_all_photos_show_is_one_note(tmp_path, photos_with):
    photos = photos_with(**{f"night{number}.png": Image.new("RGB", (200, 150)) for number in range(12)})
    (found,) = look_findings(photos)
    assert (found.path, found.problem, found.severity) == (".", "too dark", "note")
    assert found.detail.startswith("12 of 24 photos, such as night0.png: 99% of it")


def test_what_is_near_the_usual_of_the_set_is_no_defect(tmp_path):
    """Drawings of two to four tones: the plainest are not poor photos."""
    photos = []
    for number in range(20):
        tones = 3 if number == 0 else 6
        pixels = np.random.default_rng(number).integers(0, tones, (100, 100), dtype=np.uint8) * (250 // tones)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        photos.append((f"{number}.png", read_facts(tmp_path / f"{number}.png")))
    assert photos[0][1].entropy < 2 < photos[1][1].entropy
    assert look_findings(photos) == []


def encoded(image, image_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def test_odd_files_are_named(photos_with):
    turned = Image.Exif()
    turned[0x0112] = 8
    photos = photos_with(
        **{
            "png.jpg": encoded(scene(50), "PNG"),
            "jpeg": encoded(scene(51), "JPEG"),
            "right.JPEG": encoded(scene(52), "JPEG"),
            "turned.jpg": encoded(scene(53), "JPEG", exif=turned),
            "print.jpg": encoded(scene(54).convert("CMYK"), "JPEG"),
            "palette.png": encoded(scene(55).quantize(16), "PNG"),
            "deep.png": Image.fromarray(np.random.default_rng(0).integers(0, 65535, (64, 64), dtype=np.uint16)),
            "alpha.webp": encoded(scene(56).convert("RGBA"), "WEBP"),
            "film.gif": encoded(scene(57).quantize(), "GIF", save_all=True, append_images=[scene(58).quantize()]),
        }
    )
    photos = [(path, facts) for path, facts in photos if not path.startswith("good")]
    assert [(found.path, found.problem, found.detail) for found in file_findings(photos)] == [
        ("png.jpg", "wrong suffix", "PNG named .jpg"),
        ("jpeg", "wrong suffix", "JPEG named without a suffix"),
        ("turned.jpg", "rotated by EXIF", "orientation 8"),
        ("print.jpg", "odd mode", "CMYK"),
        ("palette.png", "odd mode", "palette"),
        ("deep.png", "odd mode", "16 bits a pixel"),
        ("film.gif", "odd mode", "palette"),
        ("film.gif", "animated", "GIF with several frames"),
    ]


def test_reasons_have_names():
    reasons = {
        "decompression bomb: 9 x 9 pixels": "decompression bomb",
        "damaged: image file is truncated (3 bytes not processed)": "truncated",
        "damaged: broken data stream": "damaged",
        "not an image that can be read": "not an image",
        "empty file": "empty file",
        "cannot be read: Permission denied": "unreadable",
        "camera raw file: convert it to JPEG or PNG": "unreadable",
    }
    assert {reason: unreadable("a.jpg", reason).problem for reason in reasons} == reasons
