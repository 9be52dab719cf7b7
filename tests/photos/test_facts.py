"""What is known of one photo."""

import math

import numpy as np
import pytest
from PIL import Image, ImageFilter

from headstart.errors import PhotoError
from headstart.photos.facts import THUMBNAIL_SIDE, read_facts
from making import scene


@pytest.fixture
def facts_of(tmp_path):
    """Return a function that saves a picture and reads its facts."""

    def read(image, name="photo.png", **options):
        image.save(tmp_path / name, **options)
        return read_facts(tmp_path / name)

    return read


def bits(one, other):
    return (one.fingerprint ^ other.fingerprint).bit_count()


def test_the_file_is_described(facts_of, tmp_path):
    facts = facts_of(scene(1), "photo.jpg")
    assert (facts.file_format, facts.mode, facts.width, facts.height) == ("JPEG", "RGB", 160, 120)
    assert facts.file_size == (tmp_path / "photo.jpg").stat().st_size
    assert (facts.orientation, facts.animated, facts.transparent, facts.grey) == (1, False, False, False)
    assert facts.camera == "" and math.isnan(facts.taken)


def test_size_is_that_of_the_whole_upright_photo_though_it_is_decoded_smaller(facts_of):
    exif = Image.Exif()
    exif[0x0112] = 6
    facts = facts_of(scene(1, (1600, 1200)), "photo.jpg", exif=exif)
    assert (facts.width, facts.height, facts.orientation) == (1200, 1600, 6)


def test_camera_and_date_are_read_from_exif(facts_of):
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0132] = "Canon\0", "Canon EOS 550D", "1970:01:03 12:00:00"
    facts = facts_of(scene(1), "photo.jpg", exif=exif)
    assert (facts.camera, facts.taken) == ("Canon EOS 550D", 2.5)
    exif[0x010F], exif[0x0132] = "Maker", "    :  :     :  :  "
    facts = facts_of(scene(1), "photo.jpg", exif=exif)
    assert facts.camera == "Maker Canon EOS 550D" and math.isnan(facts.taken)
    exif.get_ifd(0x8769)[0x9003] = "1970:01:02 00:00:00"
    assert facts_of(scene(1), "photo.jpg", exif=exif).taken == 1.0


def test_brightness_and_information_of_flat_pictures_are_exact(facts_of):
    for level in (0, 51, 255):
        facts = facts_of(Image.new("RGB", (200, 150), (level,) * 3))
        assert facts.dark == facts.bright == level / 255
        assert facts.entropy == facts.contrast == facts.sharpness == 0
    checks = np.kron(np.indices((16, 16)).sum(axis=0) % 2, np.ones((8, 8))).astype(np.uint8) * 255
    facts = facts_of(Image.fromarray(checks).convert("RGB"))
    assert (facts.dark, facts.bright, facts.entropy, facts.contrast) == (1.0, 0.0, 1.0, 0.5)
    assert facts.sharpness == 2.0  # at corners, two of four neighbours are of the other colour


def test_sharpness_falls_with_blur_and_not_with_contrast(facts_of):
    sharp = scene(3, (400, 300))
    values = [facts_of(sharp.filter(ImageFilter.GaussianBlur(radius))).sharpness for radius in (0, 2, 4, 8)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.3 and values[3] < 0.1
    assert facts_of(sharp.point(lambda value: 60 + value // 4)).sharpness == pytest.approx(values[0], rel=0.1)


def test_grey_is_told_from_colour_despite_compression(facts_of):
    assert facts_of(scene(2).convert("L").convert("RGB"), "photo.jpg", quality=60).grey
    assert facts_of(scene(2).convert("L")).grey
    assert not facts_of(scene(2), "photo.jpg").grey


def test_fingerprint_stays_near_through_what_happens_to_copies(facts_of):
    original = facts_of(scene(5))
    assert bits(original, facts_of(scene(5), "a.jpg", quality=30)) <= 6
    assert bits(original, facts_of(scene(5).resize((90, 70)))) <= 6
    assert bits(original, facts_of(scene(5).crop((2, 2, 157, 118)))) <= 10
    assert min(bits(original, facts_of(scene(seed))) for seed in range(6, 26)) > 14
    assert original.fingerprint % 2 == 0


def test_animation_transparency_and_modes(facts_of):
    frames = [scene(number).quantize() for number in range(2)]
    gif = facts_of(frames[0], "photo.gif", save_all=True, append_images=frames[1:])
    assert (gif.file_format, gif.mode, gif.animated) == ("GIF", "P", True)
    assert facts_of(scene(1).convert("RGBA")).transparent
    assert facts_of(scene(1).convert("CMYK"), "photo.jpg").mode == "CMYK"
    assert facts_of(Image.fromarray(np.full((40, 40), 40000, np.uint16))).mode == "I;16"


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (THUMBNAIL_SIDE * 20, 2)])
def test_degenerate_sizes_are_no_trouble(facts_of, size):
    facts = facts_of(Image.new("RGB", size, "red"))
    assert (facts.width, facts.height) == size
    assert math.isnan(facts.sharpness)


def test_what_cannot_be_read_is_an_error(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"<html>")
    with pytest.raises(PhotoError, match="not an image"):
        read_facts(tmp_path / "photo.jpg")
