"""Real files that break image code, sorted by what must happen to them; see ../shared/data/README.md."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.errors import PhotoError
from headstart.photos.catalog import read_catalog
from headstart.photos.decode import decode, pillow_warnings_silenced, read_bytes

NASTY = Path(__file__).resolve().parents[3] / "shared" / "data" / "nasty"

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not NASTY.is_dir(), reason=f"the real photos are absent: {NASTY}"),
]

# More than any of these files has, so that no JPEG is reduced.
FULL_SIZE = 5000

DECODES_TO_SIZE = {
    "decodes_odd_mode/image_rs_tests__anim.webp": (200, 200),
    "decodes_odd_mode/image_rs_tests__ball.png": (100, 100),
    "decodes_odd_mode/image_rs_tests__basi0g16.png": (32, 32),
    "decodes_odd_mode/image_rs_tests__tbbn0g04.png.png": (32, 32),
    "decodes_odd_mode/pillow_tests__16bit.cropped.tif": (64, 64),
    "decodes_odd_mode/pillow_tests__1_trns.png": (64, 64),
    "decodes_odd_mode/pillow_tests__chi.gif": (320, 240),
    "decodes_odd_mode/pillow_tests__decompression_bomb_extents.gif": (100, 100),
    "decodes_odd_mode/pillow_tests__dispose_bgnd.gif": (100, 100),
    "decodes_odd_mode/pillow_tests__hopper_bad_exif.jpg": (500, 500),
    "decodes_odd_mode/pillow_tests__hopper_bw_500.png": (500, 500),
    "decodes_odd_mode/pillow_tests__hopper_gray.jpg": (128, 128),
    "decodes_odd_mode/pillow_tests__multiple_exif.jpg": (1, 1),
    "decodes_odd_mode/pillow_tests__pil_sample_cmyk.jpg": (100, 100),
    "decodes_odd_mode/sharp_fixtures__Channel_digital_image_CMYK_color.jpg": (500, 333),
    "decodes_odd_mode/sharp_fixtures__Channel_digital_image_CMYK_color_no_profile.jpg": (500, 333),
    "decodes_rgb_orientation/pillow_tests__exif_imagemagick_orientation.png": (512, 512),
    "decodes_rgb_orientation/pillow_tests__hopper_orientation_6.webp": (128, 128),
    "decodes_rgb_orientation/pillow_tests__orientation_rectangle.jpg": (1, 2),
    "made_here/UPPER.JPG": (320, 240),
    "made_here/extreme_aspect_2000x3.jpg": (2000, 3),
    "made_here/gray16_flat40000.png": (64, 64),
    "made_here/jpeg_named.png": (320, 240),
    "made_here/one_pixel.png": (1, 1),
    "made_here/palette_transparent.png": (320, 240),
    "made_here/png_named.jpg": (320, 240),
    "made_here/spa ce ünïcode 犬.jpg": (320, 240),
}

REFUSED_FOR = {
    "must_not_decode/image_rs_tests__oss-fuzz-36829.jpeg": "damaged: broken data stream",
    "must_not_decode/image_rs_tests__zero-loop-count.gif": "not an image that can be read",
    "must_not_decode/pillow_tests__broken.png": "not an image that can be read",
    "must_not_decode/pillow_tests__syntax_num_frames_zero.png": "damaged: ",
    "must_not_decode/pillow_tests__truncated_image.png": "damaged: image file is truncated",
    "must_not_decode/pillow_tests__truncated_jpeg.jpg": "damaged: image file is truncated",
    "must_not_decode/pillow_tests__unknown_compression_method.png": "not an image that can be read",
    "must_not_decode/pillow_tests__zero_width.gif": "not an image that can be read",
    "must_not_decode/sharp_fixtures__corrupt-header.jpg": "damaged: Truncated File Read",
    "must_not_decode/sharp_fixtures__truncated.jpg": "damaged: image file is truncated",
    "must_not_decode/sharp_fixtures__truncated.png": "damaged: image file is truncated",
    # Its folder says that it decodes; Pillow 13 with its default settings refuses its cut data stream.
    "decodes_odd_mode/pillow_tests__broken_data_stream.png": "damaged: unrecognized data stream",
    "made_here/._resource_fork.jpg": "not an image that can be read",
    "made_here/Thumbs.db": "not an image that can be read",
    "made_here/header_only.jpg": "not an image that can be read",
    "made_here/html_error_page.jpg": "not an image that can be read (starts with b'<!DOCTYP')",
    "made_here/truncated_half.jpg": "damaged: image file is truncated",
    "made_here/zero_byte.jpg": "empty file",
}

BOMBS_REFUSED_FOR = {
    "bombs/image_rs_tests__Bad_reallybig.bmp": "decompression bomb: ",
    "bombs/image_rs_tests__Bad_shortfile.bmp": "damaged: image file is truncated",
    "bombs/image_rs_tests__Bad_width.bmp": "decompression bomb: ",
    "bombs/pillow_tests__decompression_bomb.gif": "decompression bomb: ",
    "bombs/pillow_tests__l2rgb_read.bmp": "damaged: image file is truncated",
    "bombs/pillow_tests__png_decompression_dos.png": "damaged: Decompressed data too large",
    "bombs/sharp_fixtures__65536-uint32-limit.png": "decompression bomb: ",
    "bombs/sharp_fixtures__giant-image.jpg": "decompression bomb: ",
    "made_here/bomb_14000x14000_1bit.png": "decompression bomb: ",
}

JUST_UNDER_THE_BOMB_LIMIT = "made_here/warn_10000x10000_1bit.png"

# What becomes of these depends on how Pillow was built.
DEPENDS_ON_PILLOW = ["must_not_decode/libjpeg_turbo__monkey12.jpg", "must_not_decode/pillow_tests__ultrahdr.jpg"]

ORIENTED = [f"orientation/{name}_{number}.jpg" for name in ("Landscape", "Portrait") for number in range(9)]


def decoded(name, short_side=FULL_SIZE):
    with pillow_warnings_silenced():
        return decode(read_bytes(NASTY / name), short_side)


def grey(image, size):
    return np.asarray(image.convert("L").resize(size)).astype(int)


def test_every_nasty_file_has_its_expectation():
    expected = [*DECODES_TO_SIZE, *REFUSED_FOR, *BOMBS_REFUSED_FOR, JUST_UNDER_THE_BOMB_LIMIT]
    expected += [*DEPENDS_ON_PILLOW, *ORIENTED]
    found = [path.relative_to(NASTY).as_posix() for path in NASTY.rglob("*") if path.is_file()]
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize("name", DECODES_TO_SIZE)
def test_odd_file_decodes_to_rgb(name):
    image = decoded(name)
    assert image.mode == "RGB"
    assert image.size == DECODES_TO_SIZE[name]


@pytest.mark.parametrize("name", REFUSED_FOR)
def test_broken_file_is_refused_by_reason(name):
    with pytest.raises(PhotoError) as caught:
        decoded(name)
    assert str(caught.value).startswith(REFUSED_FOR[name])


def test_known_pixels_of_odd_files():
    assert np.unique(np.asarray(decoded("made_here/gray16_flat40000.png"))).tolist() == [156]
    assert np.asarray(decoded("decodes_odd_mode/image_rs_tests__ball.png"))[0, 0].tolist() == [255, 255, 255]
    # One scene with and without its colour profile, a grey and a 1-bit version of one portrait.
    cmyk = [
        np.asarray(decoded(f"decodes_odd_mode/sharp_fixtures__Channel_digital_image_CMYK_color{end}.jpg")).astype(int)
        for end in ("", "_no_profile")
    ]
    assert np.abs(cmyk[0] - cmyk[1]).mean() < 3
    portrait = grey(decoded("decodes_odd_mode/pillow_tests__hopper_gray.jpg"), (16, 16))
    bilevel = grey(decoded("decodes_odd_mode/pillow_tests__hopper_bw_500.png"), (16, 16))
    assert np.corrcoef(portrait.ravel(), bilevel.ravel())[0, 1] > 0.9


def test_orientation_in_webp_png_and_jpeg_is_applied():
    upright = grey(decoded("decodes_odd_mode/pillow_tests__hopper_gray.jpg"), (128, 128))
    turned = decoded("decodes_rgb_orientation/pillow_tests__hopper_orientation_6.webp")
    assert np.abs(grey(turned, (128, 128)) - upright).mean() < 5
    name = "decodes_rgb_orientation/pillow_tests__exif_imagemagick_orientation.png"
    with Image.open(NASTY / name) as image:
        half_turned = np.asarray(image.convert("RGB").transpose(Image.Transpose.ROTATE_180))
    assert np.array_equal(np.asarray(decoded(name)), half_turned)


@pytest.mark.parametrize(("name", "size"), [("Landscape", (225, 150)), ("Portrait", (150, 225))])
def test_all_nine_oriented_photos_are_alike(name, size):
    photos = [decoded(f"orientation/{name}_{number}.jpg", 150) for number in range(9)]
    assert {photo.size for photo in photos} == {size}
    small = (size[0] // 4, size[1] // 4)
    pixels = [np.asarray(photo.resize(small)).astype(int) for photo in photos]
    # Photo 1 is stored upright.
    assert max(np.abs(other - pixels[1]).mean() for other in pixels) < 4
    flips = [pixels[1][::-1], pixels[1][:, ::-1], pixels[1][::-1, ::-1]]
    assert min(np.abs(flip - pixels[1]).mean() for flip in flips) > 20


@pytest.mark.timeout(60)
def test_photo_just_under_the_bomb_limit_decodes():
    image = decoded(JUST_UNDER_THE_BOMB_LIMIT)
    assert image.mode == "RGB"
    assert image.size == (10_000, 10_000)


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc/self/status")
def test_bombs_are_refused_quickly_in_bounded_memory():
    # In a process of its own, as peak memory never falls and Pillow's is not seen by tracemalloc.
    code = """
import json, sys, time
from pathlib import Path
from PIL import Image
from headstart.errors import PhotoError
from headstart.photos.decode import decode, pillow_warnings_silenced, read_bytes

def peak_mib():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024

Image.init()
results = {}
with pillow_warnings_silenced():
    for name in sys.argv[2:]:
        before, start = peak_mib(), time.perf_counter()
        try:
            reason = repr(decode(read_bytes(Path(sys.argv[1]) / name), 320))
        except PhotoError as error:
            reason = "PhotoError " + str(error)
        results[name] = reason, time.perf_counter() - start, peak_mib() - before
print(json.dumps(results))
"""
    command = [sys.executable, "-W", "error", "-c", code, str(NASTY), *BOMBS_REFUSED_FOR]
    output = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert output.returncode == 0, output.stderr
    assert output.stderr == ""
    results = json.loads(output.stdout)
    assert list(results) == list(BOMBS_REFUSED_FOR)
    for name, (reason, seconds, grown_mib) in results.items():
        assert reason.startswith("PhotoError " + BOMBS_REFUSED_FOR[name]), name
        assert seconds < 3, name
        assert grown_mib < 32, name


def test_catalog_of_nasty_files_lists_all_that_claim_to_be_photos(tmp_path):
    for folder in ("made_here", "must_not_decode"):
        shutil.copytree(NASTY / folder, tmp_path / folder)
    catalog = read_catalog(tmp_path)
    names = {path.name for path in NASTY.glob("made_here/*")} - {"Thumbs.db", "._resource_fork.jpg"}
    assert set(catalog.photos.loc[catalog.photos["label"] == "made_here", "path"]) == {f"made_here/{n}" for n in names}
    assert catalog.photos["label"].value_counts().to_dict() == {"made_here": 14, "must_not_decode": 13}
    assert catalog.ignored == {"hidden files and folders": 2}
    assert catalog.problems.empty
