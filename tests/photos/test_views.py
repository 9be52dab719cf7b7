import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from headstart.photos.views import Preprocessing, evaluation_view, resize
from making import halves, landscape

POLICIES = ["crop", "squash", "letterbox"]
MEAN, ROUNDED_MEAN = (123.675, 116.28, 103.53), [124, 116, 104]
RED, BLUE, ORANGE = (255, 0, 0), (0, 0, 255), (200, 120, 40)


def record(policy="squash", size=64):
    return Preprocessing(image_size=size, resize_policy=policy, mean=MEAN, std=(58.395, 57.12, 57.375))


# The record


@pytest.mark.parametrize(("size", "short_side"), [(32, 46), (224, 320), (256, 366), (300, 429)])
def test_decoding_leaves_a_quarter_more_than_the_resized_short_side(size, short_side):
    assert record(size=size).decode_short_side == short_side


@pytest.mark.parametrize(
    "wrong", [{"image_size": 31}, {"image_size": 1025}, {"resize_policy": "stretch"}, {"mean": (1, 2)}, {"colour": 1}]
)
def test_record_refuses_what_it_does_not_know(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Preprocessing.model_validate(record().model_dump() | wrong)


def test_record_survives_json_and_is_immutable():
    made = record("crop", 240)
    assert Preprocessing.model_validate_json(made.model_dump_json()) == made
    with pytest.raises(ValidationError, match="frozen"):
        made.image_size = 100


# The evaluation view


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("photo_size", [(64, 64), (1, 1), (2000, 3), (3, 2000), (640, 480), (37, 91)])
def test_evaluation_view_of_a_plain_photo(policy, photo_size):
    view = evaluation_view(Image.new("RGB", photo_size, ORANGE), record(policy))
    assert view.shape == (64, 64, 3)
    assert view.dtype == np.uint8
    if policy == "letterbox":
        width, height = (max(1, round(64 * side / max(photo_size))) for side in photo_size)
        left, top = (64 - width) // 2, (64 - height) // 2
        expected = np.full((64, 64, 3), ROUNDED_MEAN)
        expected[top : top + height, left : left + width] = ORANGE
        assert view.tolist() == expected.tolist()
    else:
        assert (view == ORANGE).all()


@pytest.mark.parametrize("policy", POLICIES)
def test_evaluation_view_does_not_change_the_photo(policy):
    photo = landscape(120, 90)
    before = photo.copy()
    first = evaluation_view(photo, record(policy))
    assert np.array_equal(first, evaluation_view(photo, record(policy)))
    assert np.array_equal(np.asarray(photo), np.asarray(before))


@pytest.mark.parametrize("policy", ["squash", "letterbox"])
def test_photo_of_the_right_size_is_kept_exactly(policy):
    photo = landscape(64, 64)
    assert np.array_equal(evaluation_view(photo, record(policy)), np.asarray(photo))


def test_crop_loses_the_border():
    photo = Image.new("RGB", (800, 800), RED)
    photo.paste(BLUE, (40, 40, 760, 760))
    assert (evaluation_view(photo, record("crop")) == BLUE).all()
    assert (evaluation_view(photo, record("squash"))[0, 0] == RED).all()


def test_crop_loses_the_ends_of_the_long_side():
    photo = Image.new("RGB", (1200, 400), RED)
    photo.paste(BLUE, (410, 0, 790, 400))
    assert (evaluation_view(photo, record("crop")) == BLUE).all()
    assert (evaluation_view(photo.transpose(Image.Transpose.TRANSPOSE), record("crop")) == BLUE).all()


@pytest.mark.parametrize("photo_size", [(512, 512), (640, 480), (480, 640), (100, 130), (3000, 2000)])
def test_crop_is_resizing_the_short_side_and_cropping_the_centre(photo_size):
    photo = landscape(*photo_size)
    scale = 256 / min(photo_size)
    resized = photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.BICUBIC)
    left, top = round((resized.width - 224) / 2), round((resized.height - 224) / 2)
    expected = np.asarray(resized.crop((left, top, left + 224, top + 224))).astype(int)
    difference = np.abs(evaluation_view(photo, record("crop", 224)) - expected)
    assert difference.mean() < 0.6
    assert difference.max() <= 3


def test_squash_keeps_both_ends():
    view = evaluation_view(halves(100, 300), record("squash"))
    assert (view[:, :30] == RED).all()
    assert (view[:, 34:] == BLUE).all()


def test_letterbox_pads_with_the_mean_and_keeps_the_aspect():
    view = evaluation_view(halves(200, 100), record("letterbox"))
    assert (view[:16] == ROUNDED_MEAN).all()
    assert (view[48:] == ROUNDED_MEAN).all()
    assert (view[16:48, :30] == RED).all()
    assert (view[16:48, 34:] == BLUE).all()
    upright = evaluation_view(halves(100, 200), record("letterbox"))
    assert (upright[:, :16] == ROUNDED_MEAN).all()
    assert (upright[:, 48:] == ROUNDED_MEAN).all()
    assert (upright[:, 16:30] == RED).all()
    assert (upright[:, 34:48] == BLUE).all()


@pytest.mark.parametrize("policy", POLICIES)
def test_large_photo_is_antialiased(policy):
    stripes = np.zeros((1000, 1000, 3), np.uint8)
    stripes[:, ::2] = 254
    view = evaluation_view(Image.fromarray(stripes), record(policy)).astype(int)
    assert np.abs(view[:, 2:-2] - 127).max() <= 3


@pytest.mark.parametrize("photo_size", [(348, 464), (464, 348), (100, 300), (300, 100), (1200, 1000), (3, 2000)])
def test_resizing_goes_across_and_then_down_whatever_the_shape(photo_size):
    """As float64 sums, rounded to 8 bits after each direction: an exported graph relies on the order."""
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*photo_size[::-1], 3), dtype=np.uint8))
    box = (10.5, 20.25, photo_size[0] - 3.0, photo_size[1] - 7.5) if min(photo_size) > 40 else (0, 0, *photo_size)
    across, down = (_weights(photo_size[axis], 64, box[axis], box[axis + 2]) for axis in (0, 1))
    pixels = np.asarray(photo, np.float64)
    pixels = np.clip(np.floor(np.einsum("ow,hwc->hoc", across, pixels) + 0.5), 0, 255)
    pixels = np.clip(np.floor(np.einsum("oh,hwc->owc", down, pixels) + 0.5), 0, 255)
    found = np.asarray(resize(photo, (64, 64), box), np.float64)
    # Pillow's weights are whole numbers of 2^-22: now and then a half is rounded the other way.
    assert np.abs(found - pixels).max() <= 1 and (found != pixels).mean() < 1e-3


def _weights(length: int, size: int, start: float, end: float) -> np.ndarray:
    """The (size, length) weights of Pillow's bicubic filter on a box."""
    weights = np.zeros((size, length))
    scale = (end - start) / size
    wide = max(1.0, scale)
    for place in range(size):
        centre = start + (place + 0.5) * scale
        first, last = max(0, int(centre - 2 * wide + 0.5)), min(length, int(centre + 2 * wide + 0.5))
        x = np.abs((np.arange(first, last) + 0.5 - centre) / wide)
        row = np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, np.where(x < 2, ((-0.5 * x + 2.5) * x - 4) * x + 2, 0))
        weights[place, first:last] = row / row.sum()
    return weights
