import io
import struct
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageFile, features

from headstart.errors import HeadstartError, PhotoError
from headstart.photos.decode import MAX_PIXELS, decode, looks_like_photo, pillow_warnings_silenced, read_bytes

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)

# How a picture is stored so that this EXIF orientation shows it upright.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def encoded(image, image_format, **options):
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def png(width, height, depth, colour_type, scanlines):
    """Encode a PNG by hand, for what Pillow does not write: any size, any bit depth."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"IDAT", zlib.compress(b"".join(b"\0" + line for line in scanlines))),
            chunk(b"IEND", b""),
        ]
    )


def pixels_of(data, short_side=32):
    image = decode(data, short_side)
    assert image.mode == "RGB"
    return np.asarray(image)


def one_row(data):
    """Decode an image one pixel high, to a list of colours."""
    rows = pixels_of(data).tolist()
    assert len(rows) == 1
    return [tuple(colour) for colour in rows[0]]


def corners():
    """Make a picture that no flip or turn leaves alike."""
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:24, :32], pixels[:24, 32:], pixels[24:, :32], pixels[24:, 32:] = RED, GREEN, BLUE, WHITE
    return Image.fromarray(pixels)


def noise(width, height):
    generator = np.random.default_rng(0)
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


# Modes


def test_rgb_is_kept_exactly():
    image = noise(40, 30)
    assert pixels_of(encoded(image, "PNG")).tolist() == np.asarray(image).tolist()


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "GIF", "TIFF"])
def test_grey(image_format):
    image = Image.fromarray(np.array([[0, 77, 255]], np.uint8))
    assert one_row(encoded(image, image_format)) == [BLACK, (77, 77, 77), WHITE]


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "GIF", "TIFF"])
def test_one_bit(image_format):
    image = Image.fromarray(np.array([[0, 255, 255, 0]], np.uint8)).convert("1")
    assert one_row(encoded(image, image_format)) == [BLACK, WHITE, WHITE, BLACK]


def palette(*colours):
    image = Image.new("P", (len(colours), 1))
    image.putpalette([value for colour in colours for value in colour])
    image.putdata(range(len(colours)))
    return image


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "GIF", "TIFF"])
def test_palette(image_format):
    colours = [(10, 20, 30), RED, (1, 2, 3), GREEN]
    assert one_row(encoded(palette(*colours), image_format)) == colours


@pytest.mark.parametrize("image_format", ["PNG", "GIF"])
def test_palette_with_one_transparent_colour_is_put_on_white(image_format):
    data = encoded(palette((10, 20, 30), RED, GREEN), image_format, transparency=1)
    assert one_row(data) == [(10, 20, 30), WHITE, GREEN]


def test_palette_with_degrees_of_transparency_is_put_on_white():
    data = encoded(palette(RED, RED, RED), "PNG", transparency=bytes([0, 128, 255]))
    assert one_row(data) == [WHITE, (255, 127, 127), RED]


def test_grey_with_alpha_is_put_on_white():
    image = Image.fromarray(np.array([[[77, 255], [77, 0], [0, 128]]], np.uint8), "LA")
    assert one_row(encoded(image, "PNG")) == [(77, 77, 77), WHITE, (127, 127, 127)]


@pytest.mark.parametrize(
    ("image_format", "options"), [("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {})]
)
def test_rgba_is_put_on_white(image_format, options):
    image = Image.fromarray(np.array([[[9, 8, 7, 255], [9, 8, 7, 0], [0, 0, 0, 128], [255, 0, 0, 51]]], np.uint8))
    expected = [(9, 8, 7), WHITE, (127, 127, 127), (255, 204, 204)]
    assert one_row(encoded(image, image_format, **options)) == expected


def test_rgb_and_grey_with_a_transparent_colour_are_put_on_white():
    image = Image.fromarray(np.array([[RED, GREEN, (254, 0, 0)]], np.uint8))
    assert one_row(encoded(image, "PNG", transparency=RED)) == [WHITE, GREEN, (254, 0, 0)]
    grey = Image.fromarray(np.array([[5, 6]], np.uint8))
    assert one_row(encoded(grey, "PNG", transparency=5)) == [WHITE, (6, 6, 6)]


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_16_bit_grey_is_divided_by_257(image_format):
    values = [0, 128, 129, 257, 257 * 100, 40000, 65535]
    image = Image.fromarray(np.array([values], np.uint16))
    assert image.mode == "I;16"
    assert one_row(encoded(image, image_format)) == [(value,) * 3 for value in [0, 0, 1, 1, 100, 156, 255]]


def test_dark_16_bit_grey_stays_dark():
    image = Image.fromarray(np.array([[0, 100, 255]], np.uint16))
    assert one_row(encoded(image, "PNG")) == [BLACK, BLACK, (1, 1, 1)]


def test_big_endian_16_bit_grey():
    image = Image.frombytes("I;16B", (3, 1), np.array([[0, 257 * 100, 65535]], ">u2").tobytes())
    assert one_row(encoded(image, "TIFF")) == [BLACK, (100, 100, 100), WHITE]


def test_16_bit_colour():
    data = png(2, 1, 16, 2, [struct.pack(">6H", 65535, 0x8000, 0, 257 * 9, 257 * 8, 257 * 7)])
    assert one_row(data) == [(255, 128, 0), (9, 8, 7)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 100, 255], [0, 100, 255]),
        ([0, 257 * 100, 65535], [0, 100, 255]),
        ([0, 500_000, 1_000_000], [0, 128, 255]),
        ([-100, 0, 155], [0, 100, 255]),
        ([7, 7, 7], [7, 7, 7]),
    ],
)
@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bit_and_float_grey(values, expected, dtype):
    image = Image.fromarray(np.array([values], dtype))
    assert image.mode in ("I", "F")
    assert one_row(encoded(image, "TIFF")) == [(value,) * 3 for value in expected]


@pytest.mark.parametrize(
    ("ink", "colour"),
    [((0, 255, 255, 0), RED), ((255, 0, 255, 0), GREEN), ((0, 0, 0, 0), WHITE), ((0, 0, 0, 255), BLACK)],
)
@pytest.mark.parametrize("image_format", ["JPEG", "TIFF"])
def test_cmyk(ink, colour, image_format):
    pixels = pixels_of(encoded(Image.new("CMYK", (16, 16), ink), image_format))
    assert pixels.shape == (16, 16, 3)
    assert np.abs(pixels.astype(int) - colour).max() <= 2


@pytest.mark.parametrize(("image_format", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})])
def test_of_an_animation_the_first_frame_is_taken(image_format, options):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE, GREEN)]
    data = encoded(frames[0], image_format, save_all=True, append_images=frames[1:], duration=100, **options)
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == 3
    pixels = pixels_of(data)
    assert pixels.shape == (8, 8, 3)
    assert (pixels == RED).all()


def test_of_a_tiff_of_several_pages_the_first_is_taken():
    pages = [Image.new("RGB", (8, 8), RED), Image.new("RGB", (4, 4), BLUE)]
    pixels = pixels_of(encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    assert pixels.shape == (8, 8, 3)
    assert (pixels == RED).all()


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_one_pixel(image_format):
    pixels = pixels_of(encoded(Image.new("RGB", (1, 1), (255, 255, 255)), image_format))
    assert pixels.tolist() == [[[255, 255, 255]]]


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF decoder")
def test_avif():
    pixels = pixels_of(encoded(Image.new("RGB", (16, 12), (200, 100, 50)), "AVIF", quality=90))
    assert pixels.shape == (12, 16, 3)
    assert np.abs(pixels.astype(int) - (200, 100, 50)).max() <= 3


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_every_orientation_comes_out_upright(orientation, image_format):
    if image_format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF decoder")
    upright = corners()
    stored = upright if STORED[orientation] is None else upright.transpose(STORED[orientation])
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    pixels = pixels_of(encoded(stored, image_format, exif=exif), 48)
    assert pixels.shape == (48, 64, 3)
    difference = np.abs(pixels.astype(int) - np.asarray(upright))
    if image_format in ("PNG", "TIFF"):
        assert difference.max() == 0
    else:
        assert difference[4:20, 4:28].max() <= 6
        assert difference.mean() < 4


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_orientation_is_applied_in_every_mode(mode):
    grey = np.zeros((4, 6), np.uint8)
    grey[0, :] = 255
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    pixels = pixels_of(encoded(image, "PNG", exif=exif))
    assert pixels.shape == (6, 4, 3)
    assert (pixels[:, 3] == 255).all()
    assert (pixels[:, :3] == 0).all()


@pytest.mark.parametrize(
    "exif",
    [
        pytest.param(b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0\0\0\0\0", id="orientation 99"),
        pytest.param(b"Exif\0\0", id="empty"),
        pytest.param(b"Exif\0\0garbage", id="no TIFF header"),
        pytest.param(b"Exif\0\0II", id="cut in the header"),
        pytest.param(b"Exif\0\0II*\0\xff\xff\xff\x7f", id="points outside"),
        pytest.param(b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01", id="cut in the tags"),
    ],
)
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_damaged_exif_data_does_not_damage_the_picture(exif, image_format):
    data = encoded(corners(), image_format, exif=exif)
    with pillow_warnings_silenced():
        pixels = pixels_of(data, 48)
    assert pixels.shape == (48, 64, 3)
    assert np.abs(pixels.astype(int) - np.asarray(corners())).mean() < 4


# Reduced size


@pytest.mark.parametrize(
    ("short_side", "size"),
    [
        (1, (200, 150)),
        (150, (200, 150)),
        (151, (400, 300)),
        (300, (400, 300)),
        (301, (800, 600)),
        (600, (800, 600)),
        (601, (1600, 1200)),
        (1200, (1600, 1200)),
        (5000, (1600, 1200)),
    ],
)
def test_large_jpeg_is_decoded_at_the_least_size_that_is_enough(short_side, size):
    data = encoded(Image.new("RGB", (1600, 1200), (200, 100, 50)), "JPEG")
    image = decode(data, short_side)
    assert image.size == size
    assert np.abs(np.asarray(image).astype(int) - (200, 100, 50)).max() <= 2


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_large_jpeg_of_another_mode_is_reduced_too(mode):
    assert decode(encoded(Image.new(mode, (1600, 1200)), "JPEG"), 150).size == (200, 150)


def test_large_turned_jpeg_is_reduced_and_upright():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image = decode(encoded(corners().resize((1600, 1200)), "JPEG", exif=exif), 150)
    assert image.size == (150, 200)
    assert np.abs(np.asarray(image)[10, 140].astype(int) - RED).max() <= 3


def test_large_phone_photo_with_a_second_picture_is_reduced_too():
    large, preview = Image.new("RGB", (1600, 1200), RED), Image.new("RGB", (400, 300), BLUE)
    data = encoded(large, "MPO", save_all=True, append_images=[preview])
    image = decode(data, 150)
    assert np.abs(np.asarray(image).astype(int) - RED).max() <= 2
    assert image.size == (200, 150)


def test_rounding_of_the_long_side_does_not_stop_the_reduction():
    assert decode(encoded(Image.new("RGB", (1708, 1280)), "JPEG"), 160).size == (214, 160)


def test_no_photo_is_reduced_below_the_short_side():
    for height in range(300, 340):
        image = decode(encoded(Image.new("L", (613, height)), "JPEG"), 75)
        assert 75 <= image.height <= 85


def test_long_thin_jpeg_keeps_its_short_side():
    assert decode(encoded(Image.new("RGB", (2000, 3)), "JPEG"), 100).size == (2000, 3)


def test_png_is_decoded_at_full_size():
    assert decode(encoded(Image.new("RGB", (1600, 1200)), "PNG"), 10).size == (1600, 1200)


# Refusals


def test_photo_error_is_a_headstart_error():
    assert issubclass(PhotoError, HeadstartError)


def test_missing_file(tmp_path):
    with pytest.raises(PhotoError, match="^no such file$"):
        read_bytes(tmp_path / "gone.jpg")


def test_folder_instead_of_a_file(tmp_path):
    with pytest.raises(PhotoError, match="^is a folder$"):
        read_bytes(tmp_path)


def test_empty_file(tmp_path):
    (tmp_path / "a.jpg").touch()
    with pytest.raises(PhotoError, match="^empty file$"):
        read_bytes(tmp_path / "a.jpg")


def test_file_that_the_system_cannot_open(tmp_path):
    with pytest.raises(PhotoError, match="^cannot be read: File name too long$"):
        read_bytes(tmp_path / ("x" * 300))


@pytest.mark.parametrize("suffix", [".cr2", ".NEF", ".dng", ".ARW"])
def test_camera_raw_file(tmp_path, suffix):
    (tmp_path / f"a{suffix}").write_bytes(b"II*\0 raw")
    with pytest.raises(PhotoError, match="^camera raw file: convert it to JPEG or PNG$"):
        read_bytes(tmp_path / f"a{suffix}")


def test_bytes_are_read_by_path_or_name(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"bytes")
    assert read_bytes(tmp_path / "a.jpg") == read_bytes(str(tmp_path / "a.jpg")) == b"bytes"


@pytest.mark.parametrize("data", [b"<!DOCTYPE html><html></html>", b"\0" * 100, b"x", b"%PDF-1.7 ..."])
def test_what_is_no_image(data):
    with pytest.raises(PhotoError) as caught:
        decode(data, 32)
    assert str(caught.value) == f"not an image that can be read (starts with {data[:8]!r})"


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_half_a_file_is_damaged(image_format):
    data = encoded(noise(64, 48), image_format)
    with pytest.raises(PhotoError, match=r"^(damaged: \S|not an image that can be read )"):
        decode(data[: len(data) // 2], 32)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF", "BMP"])
def test_a_file_cut_anywhere_gives_a_picture_or_a_photo_error(image_format):
    data = encoded(noise(24, 16), image_format)
    refused = 0
    with pillow_warnings_silenced():
        for length in range(1, len(data), 13):
            try:
                assert decode(data[:length], 32).mode == "RGB"
            except PhotoError as error:
                assert str(error)
                refused += 1
    assert refused >= 0.9 * len(range(1, len(data), 13))


def test_png_with_a_flipped_byte_is_damaged():
    data = bytearray(encoded(noise(64, 48), "PNG"))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(PhotoError, match=r"^damaged: \S"):
        decode(bytes(data), 32)


@pytest.mark.parametrize("damage", [MemoryError(), ValueError("odd"), IndexError(), SyntaxError("odd"), TypeError()])
def test_whatever_pillow_raises_becomes_a_photo_error(monkeypatch, damage):
    def fail(image):
        raise damage

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(PhotoError, match=rf"^damaged: {str(damage) or type(damage).__name__}$"):
        decode(encoded(corners(), "PNG"), 32)


def test_a_keyboard_interrupt_is_not_swallowed(monkeypatch):
    def interrupt(image):
        raise KeyboardInterrupt

    monkeypatch.setattr(ImageFile.ImageFile, "load", interrupt)
    with pytest.raises(KeyboardInterrupt):
        decode(encoded(corners(), "PNG"), 32)


# Decompression bombs
_MOST = "at most 178,956,970 allowed; save it with fewer, or leave it out"


@pytest.mark.parametrize(
    ("width", "height", "found"),
    [(20_000, 20_000, "400,000,000"), (13_378, 13_378, "178,970,884"), (2_000_000_000, 1, "2,000,000,000")],
)
def test_bomb_is_refused_before_it_is_expanded(monkeypatch, width, height, found):
    data = png(width, height, 1, 0, [b"\0"])
    expanded = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", expanded.append)
    start = time.perf_counter()
    with pytest.raises(PhotoError, match=f"^decompression bomb: {found} pixels, {_MOST}$"):
        decode(data, 32)
    assert time.perf_counter() - start < 1
    assert expanded == []
    assert len(data) < 100


def test_bomb_is_refused_where_another_library_lifted_the_limit_of_pillow(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    expanded = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", expanded.append)
    with pytest.raises(PhotoError, match=f"^decompression bomb: 20000 x 20000 pixels, {_MOST}$"):
        decode(png(20_000, 20_000, 1, 0, [b"\0"]), 32)
    assert expanded == []


def test_the_limit_is_the_one_of_pillow():
    assert MAX_PIXELS == 2 * Image.MAX_IMAGE_PIXELS == 178_956_970


def test_png_with_an_immense_text_chunk_is_refused():
    text = zlib.compress(b"\0" * (65 << 20))
    body = b"zTXt" + b"key\0\0" + text
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    data = encoded(corners(), "PNG")
    with pytest.raises(PhotoError, match="^damaged: Decompressed data too large"):
        decode(data[:33] + chunk + data[33:], 32)


# Warnings


def test_warnings_of_pillow_are_silenced_and_no_others():
    before = list(warnings.filters)
    data = encoded(corners(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01")
    with pillow_warnings_silenced():
        assert decode(data, 48).size == (64, 48)
        warnings.warn("large", Image.DecompressionBombWarning, stacklevel=1)
        with pytest.raises(UserWarning, match="ours"):
            warnings.warn("ours", UserWarning, stacklevel=1)
    assert warnings.filters == before


# Which files claim to be photos


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF"])
@pytest.mark.parametrize("name", ["photo", "photo.dat", "photo.txt"])
def test_images_are_known_by_their_first_bytes(image_format, name):
    if image_format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF encoder")
    assert looks_like_photo(Path(name), encoded(corners(), image_format)[:32])


@pytest.mark.parametrize(
    ("name", "head", "expected"),
    [
        ("a.jpg", b"<!DOCTYPE html>", True),
        ("a.JPEG", b"", True),
        ("a.HEIC", b"", True),
        ("a.heic", b"\0\0\0\x18ftypheic", True),
        ("a", b"\0\0\0\x18ftypheic\0\0\0\0mif1", True),
        ("a", b"\0\0\0\x18ftypmp42", False),
        ("a.CR2", b"II*\0", True),
        ("a", b"MM\0*", True),
        ("a.txt", b"plain text", False),
        ("a.csv", b"path,label\n", False),
        ("a.txt", b"BMW is a car maker in Bavaria, they", False),
        ("a.svg", b"<svg xmlns=", False),
        ("a.pdf", b"%PDF-1.7", False),
        ("a.wav", b"RIFF\0\0\0\0WAVEfmt ", False),
        ("jpg", b"", False),
        ("a", b"", False),
    ],
)
def test_what_claims_to_be_a_photo(name, head, expected):
    assert looks_like_photo(Path(name), head) is expected


def test_the_kind_of_problem_is_told_to_programs(tmp_path):
    whole = io.BytesIO()
    Image.new("RGB", (50, 40), "red").save(whole, "PNG")
    data = whole.getvalue()
    (tmp_path / "empty.png").touch()
    (tmp_path / "photo.nef").write_bytes(data)
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    for kind, work in {
        "missing": lambda: read_bytes(tmp_path / "nothing.png"),
        "folder": lambda: read_bytes(tmp_path),
        "empty": lambda: read_bytes(tmp_path / "empty.png"),
        "raw": lambda: read_bytes(tmp_path / "photo.nef"),
        "not_an_image": lambda: decode(b"hello", 32),
        "bomb": lambda: decode(data, 32, max_pixels=1999),
        "damaged": lambda: decode(data[: len(data) // 2], 32),
    }.items():
        with pytest.raises(PhotoError) as caught:
            work()
        assert caught.value.kind == kind
    with pytest.raises(PhotoError, match="EPS is not a format of photos"):
        decode(eps, 32)
    with pytest.raises(PhotoError, match="50 x 40 pixels, at most 1,999 allowed"):
        decode(data, 32, max_pixels=1999)
    assert decode(data, 32, max_pixels=2000).size == (50, 40)
