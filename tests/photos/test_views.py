import math
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from headstart.photos.views import Preprocessing, augmented_view, evaluation_view

POLICIES = ["crop", "squash", "letterbox"]
MEAN, ROUNDED_MEAN = (123.675, 116.28, 103.53), [124, 116, 104]
RED, BLUE, ORANGE = (255, 0, 0), (0, 0, 255), (200, 120, 40)


def record(policy="squash", size=64):
    return Preprocessing(image_size=size, resize_policy=policy, mean=MEAN, std=(58.395, 57.12, 57.375))


def landscape(width, height):
    """Make a smooth picture that differs everywhere, with known structure and no fine detail."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    waves = [np.sin(6 * x + 2 * y), np.cos(5 * y - x), np.sin(4 * x * y + 1)]
    return Image.fromarray(np.stack([128 + 100 * wave for wave in waves], axis=-1).round().astype(np.uint8))


def halves(width, height):
    """Make a picture red on the left and blue on the right."""
    image = Image.new("RGB", (width, height), BLUE)
    image.paste(RED, (0, 0, width // 2, height))
    return image


def augmented(photo, seed=0, digest="d", view=1, policy="squash", size=64):
    return augmented_view(photo, record(policy, size), "photo", seed, digest, view)


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


# Augmented views


@pytest.mark.parametrize("policy", POLICIES)
def test_same_seed_digest_and_view_give_the_same_bytes(policy):
    photo = landscape(120, 90)
    view = augmented(photo, 7, "ab", 2, policy)
    assert view.shape == (64, 64, 3)
    assert view.dtype == np.uint8
    random.seed(5)
    np.random.default_rng(5)
    assert augmented(photo.copy(), 7, "ab", 2, policy).tobytes() == view.tobytes()


def test_another_seed_digest_or_view_gives_another_picture():
    photo = landscape(120, 90)
    drawn = [
        augmented(photo, seed, digest, view).tobytes()
        for seed in (0, 1, 11)
        for digest in ("a", "1a", "a1")
        for view in (1, 2, 11)
    ]
    assert len(set(drawn)) == 27
    assert evaluation_view(photo, record()).tobytes() not in drawn


@pytest.mark.parametrize("policy", POLICIES)
def test_no_augmentation_gives_the_evaluation_view(policy):
    photo = landscape(120, 90)
    expected = evaluation_view(photo, record(policy))
    for view in (1, 2, 3):
        assert np.array_equal(augmented_view(photo, record(policy), "none", 0, "d", view), expected)


def test_augmented_views_do_not_depend_on_order_or_threads():
    photos = [landscape(120, 90), landscape(64, 64), landscape(33, 200)]
    jobs = [(number, view) for number in range(3) for view in range(1, 9)]

    def draw(job):
        number, view = job
        return augmented(photos[number], 3, f"digest {number}", view).tobytes()

    expected = {job: draw(job) for job in jobs}
    assert len(set(expected.values())) == 24
    assert {job: draw(job) for job in reversed(jobs)} == expected
    with ThreadPoolExecutor(4) as pool:
        assert dict(zip(jobs, pool.map(draw, jobs), strict=True)) == expected


@pytest.mark.parametrize("policy", POLICIES)
def test_about_half_of_the_views_are_mirrored(policy):
    mirrored = 0
    for view in range(1, 101):
        pixels = augmented(halves(96, 96), view=view, policy=policy).astype(int)
        redness = pixels[32, [4, 59], 0] - pixels[32, [4, 59], 2]
        assert abs(redness[1] - redness[0]) > 100
        mirrored += int(redness[1] > redness[0])
    assert 35 <= mirrored <= 65


def test_photo_is_never_turned_upside_down():
    photo = halves(96, 96).transpose(Image.Transpose.ROTATE_270)
    for view in range(1, 101):
        pixels = augmented(photo, view=view).astype(int)
        top, bottom = pixels[4, 20:44].mean(axis=0), pixels[59, 20:44].mean(axis=0)
        assert top[0] - top[2] > bottom[0] - bottom[2]


def test_brightness_contrast_and_saturation_stay_within_a_fifth():
    photo = Image.new("RGB", (96, 96), (100, 100, 100))
    centres = np.array([augmented(photo, view=view)[32, 32] for view in range(1, 101)]).astype(int)
    assert 78 <= centres.min() < 88
    assert 112 < centres.max() <= 122
    assert (centres.max(axis=1) - centres.min(axis=1)).max() <= 2


def test_crop_is_half_to_all_of_the_area_turned_by_ten_degrees_at_most(monkeypatch):
    crops = []
    transform = Image.Image.transform

    def recorded(image, size, method, data, *args, **options):
        crops.append((image.size, data))
        return transform(image, size, method, data, *args, **options)

    monkeypatch.setattr(Image.Image, "transform", recorded)
    for view in range(1, 101):
        augmented(landscape(120, 90), view=view)
    areas, angles = [], []
    for (width, height), (a, b, c, d, e, f) in crops:
        areas.append(abs(a * e - b * d) * 64 * 64 / (width * height))
        angles.append(math.degrees(math.atan(d / a)))
        # The crop's centre leaves it inside the photo before it is turned.
        centre_x, centre_y = (a + b) * 32 + c, (d + e) * 32 + f
        reach_x, reach_y = math.hypot(a, d) * 32, math.hypot(b, e) * 32
        assert reach_x - 0.01 <= centre_x <= width - reach_x + 0.01
        assert reach_y - 0.01 <= centre_y <= height - reach_y + 0.01
    assert len(crops) == 100
    assert 0.5 <= min(areas) < 0.55
    assert 0.9 < max(areas) <= 1.001
    assert -10 <= min(angles) < -9
    assert 9 < max(angles) <= 10


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("photo_size", [(1, 1), (2, 1), (2000, 3), (3, 2000), (30_000, 2), (1, 20_000)])
def test_extreme_photos_are_augmented_in_bounded_memory(monkeypatch, policy, photo_size):
    sizes = []
    resize = Image.Image.resize

    def recorded(image, size, *args, **options):
        sizes.append(size)
        return resize(image, size, *args, **options)

    monkeypatch.setattr(Image.Image, "resize", recorded)
    photo = Image.new("RGB", photo_size, ORANGE)
    for view in range(1, 11):
        pixels = augmented(photo, view=view, policy=policy)
        assert pixels.shape == (64, 64, 3)
        # The middle still shows the photo: red above green above blue.
        assert pixels[32, 32, 0] > pixels[32, 32, 1] > pixels[32, 32, 2]
    assert len(sizes) == 10
    assert max(max(size) for size in sizes) <= 8 * 64
    assert max(width * height for width, height in sizes) <= 16 * 64 * 64
