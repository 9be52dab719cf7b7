import math
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from headstart.photos import augmentation
from headstart.photos.augmentation import augmented_view
from headstart.photos.views import Preprocessing, evaluation_view
from making import halves, landscape

POLICIES = ["crop", "squash", "letterbox"]
AUGMENTATIONS = ["example", "example-full", "photo", "strong"]
MEAN, ORANGE = (123.675, 116.28, 103.53), (200, 120, 40)


def record(policy="squash", size=64):
    return Preprocessing(image_size=size, resize_policy=policy, mean=MEAN, std=(58.395, 57.12, 57.375))


def augmented(photo, seed=0, digest="d", view=1, policy="squash", size=64, augmentation="photo"):
    return augmented_view(photo, record(policy, size), augmentation, seed, digest, view)


def recorded_calls(monkeypatch, owner, name):
    """Let a method note its arguments, and go on as before."""
    calls = []
    method = getattr(owner, name)

    def noted(*args, **options):
        calls.append(args)
        return method(*args, **options)

    monkeypatch.setattr(owner, name, noted)
    return calls


# Every policy


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.parametrize("policy", POLICIES)
def test_same_seed_digest_and_view_give_the_same_bytes(policy, augmentation):
    photo = landscape(120, 90)
    view = augmented(photo, 7, "ab", 2, policy, augmentation=augmentation)
    assert view.shape == (64, 64, 3)
    assert view.dtype == np.uint8
    random.seed(5)
    torch.manual_seed(5)
    assert augmented(photo.copy(), 7, "ab", 2, policy, augmentation=augmentation).tobytes() == view.tobytes()
    assert photo.tobytes() == landscape(120, 90).tobytes()


@pytest.mark.parametrize("augmentation", ["example", "example-full", "photo"])
def test_another_seed_digest_or_view_gives_another_picture(augmentation):
    photo = landscape(120, 90)
    drawn = [
        augmented(photo, seed, digest, view, augmentation=augmentation).tobytes()
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


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_augmented_views_do_not_depend_on_order_or_threads(augmentation):
    photos = [landscape(120, 90), landscape(64, 64), landscape(33, 200)]
    jobs = [(number, view) for number in range(3) for view in range(1, 9)]

    def draw(job):
        number, view = job
        return augmented(photos[number], 3, f"digest {number}", view, augmentation=augmentation).tobytes()

    expected = {job: draw(job) for job in jobs}
    assert len(set(expected.values())) == 24
    assert {job: draw(job) for job in reversed(jobs)} == expected
    with ThreadPoolExecutor(4) as pool:
        assert dict(zip(jobs, pool.map(draw, jobs), strict=True)) == expected


@pytest.mark.parametrize("augmentation", ["none", *AUGMENTATIONS])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("photo_size", [(1, 1), (5000, 1), (1, 5000), (3, 2)])
def test_extreme_photos_have_views_of_the_right_shape(photo_size, policy, augmentation):
    for view in range(1, 21):
        pixels = augmented(Image.new("RGB", photo_size, ORANGE), 0, "d", view, policy, 32, augmentation)
        assert pixels.shape == (32, 32, 3)
        assert pixels.dtype == np.uint8


# The default policy


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
    assert len(sizes) == 20  # first across, then down
    assert max(max(size) for size in sizes[1::2]) <= 8 * 64
    assert max(width * height for width, height in sizes[1::2]) <= 16 * 64 * 64


# The example's policies


def test_example_turns_by_up_to_54_degrees_either_way(monkeypatch):
    rotations = recorded_calls(monkeypatch, Image.Image, "rotate")
    for view in range(1, 201):
        augmented(landscape(90, 90), view=view, augmentation="example")
    angles = [angle for _, angle, *_ in rotations]
    assert len(angles) == 200
    assert -54 <= min(angles) < -50
    assert 50 < max(angles) <= 54


@pytest.mark.parametrize("augmentation", ["example", "example-full"])
def test_example_flips_both_ways_each_half_of_the_times(augmentation):
    mirrored = {"left to right": 0, "top to bottom": 0}
    for name, photo in (
        ("left to right", halves(96, 96)),
        ("top to bottom", halves(96, 96).transpose(Image.Transpose.ROTATE_270)),
    ):
        for view in range(1, 201):
            pixels = augmented(photo, view=view, augmentation=augmentation).astype(int)
            redness = pixels[..., 0] - pixels[..., 2]
            axis = 1 if name == "left to right" else 0
            line = redness.mean(axis=1 - axis)
            mirrored[name] += int(line[32:].mean() > line[:32].mean())
    assert all(70 <= count <= 130 for count in mirrored.values())


@pytest.mark.parametrize("augmentation", ["example", "example-full"])
def test_example_fills_by_reflection(augmentation):
    for view in range(1, 51):
        pixels = augmented(Image.new("RGB", (90, 60), "white"), view=view, augmentation=augmentation)
        assert (pixels == 255).all()


def test_example_is_its_evaluation_view_turned_and_flipped(monkeypatch):
    monkeypatch.setattr(random.Random, "uniform", lambda draw, low, high: 0.0)
    photo = landscape(120, 90)
    still = evaluation_view(photo, record("crop"))
    flips = {still[::up, ::left].tobytes() for up in (1, -1) for left in (1, -1)}
    views = {augmented(photo, view=view, policy="crop", augmentation="example").tobytes() for view in range(1, 41)}
    assert views == flips


def test_example_full_moves_by_up_to_three_tenths_and_changes_contrast_by_a_tenth(monkeypatch):
    crops = recorded_calls(monkeypatch, Image.Image, "crop")
    contrasts = recorded_calls(monkeypatch, ImageEnhance.Contrast, "enhance")
    for view in range(1, 201):
        augmented(landscape(90, 90), view=view, augmentation="example-full")
    moves = [box[:2] for image, box in crops if image.size == (64 + 2 * 19, 64 + 2 * 19)]
    assert len(moves) == len(contrasts) == 200
    for axis in (0, 1):
        assert {min(move[axis] for move in moves), max(move[axis] for move in moves)} == {0, 38}
    factors = [factor for _, factor in contrasts]
    assert 0.9 <= min(factors) < 0.91
    assert 1.09 < max(factors) <= 1.1


# The strong policy


def test_strong_resizes_a_crop_of_half_to_all_of_the_area_and_mirrors_half_of_them(monkeypatch):
    resized = recorded_calls(monkeypatch, augmentation, "resize")
    mirrored = recorded_calls(monkeypatch, ImageOps, "mirror")
    for view in range(1, 101):
        augmented(landscape(120, 90), view=view, augmentation="strong")
    boxes = [box for _, _, box in resized]
    assert len(boxes) == 100
    assert all(0 <= left < right <= 120 and 0 <= top < bottom <= 90 for left, top, right, bottom in boxes)
    areas = [(right - left) * (bottom - top) / (120 * 90) for left, top, right, bottom in boxes]
    assert 0.5 <= min(areas) < 0.55 and 0.9 < max(areas) <= 1
    assert 35 <= len(mirrored) <= 65


def test_a_strong_view_that_no_operation_changes_is_the_crop_resized(monkeypatch):
    resized = recorded_calls(monkeypatch, augmentation, "resize")
    mirrored = recorded_calls(monkeypatch, ImageOps, "mirror")
    monkeypatch.setattr(random.Random, "choice", lambda draw, operations: operations[0])
    photo = landscape(120, 90)
    for view in range(1, 11):
        resized.clear()
        mirrored.clear()
        pixels = augmented(photo, view=view, augmentation="strong")
        ((_, _, box),) = resized
        expected = np.asarray(photo.resize((64, 64), Image.Resampling.BICUBIC, box))
        assert np.abs((expected[:, ::-1] if mirrored else expected).astype(int) - pixels).max() <= 3


def test_strong_applies_every_operation_of_the_wide_set_as_often(monkeypatch):
    enhancers = [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color, ImageEnhance.Sharpness]
    enhanced = [recorded_calls(monkeypatch, enhancer, "enhance") for enhancer in enhancers]
    names = ["posterize", "solarize", "autocontrast", "equalize"]
    others = {name: recorded_calls(monkeypatch, ImageOps, name) for name in names}
    turned, transformed = (recorded_calls(monkeypatch, Image.Image, name) for name in ("rotate", "transform"))
    for view in range(1, 1401):
        augmented(Image.new("RGB", (40, 40), ORANGE), view=view, size=32, augmentation="strong")
    # Turning is a transformation too, in which both slants are there.
    moved = [data for image, size, _, data, *_ in transformed if image.size == size and 0 in (data[1], data[3])]
    # Slants and translations, two ways each; the 14th operation leaves the view as it is.
    assert 320 <= len(moved) <= 480
    assert all(65 <= len(found) <= 140 for found in (*enhanced, *others.values(), turned))
    angles = [angle for _, angle, *_ in turned]
    assert -135 <= min(angles) < -100 and 100 < max(angles) <= 135
    factors = [factor for found in enhanced for _, factor in found]
    assert 0.009 < min(factors) < 0.1 and 1.9 < max(factors) <= 1.99
    assert {bits for _, bits in others["posterize"]} == {2, 3, 4, 5, 6, 7, 8}
    for place, most in ((1, 0.99), (3, 0.99), (2, 5), (5, 5)):  # shifts are of up to a seventh of 32 pixels
        values = [data[place] for data in moved]
        assert -most <= min(values) < -0.8 * most + 1e-9 and 0.8 * most - 1e-9 < max(values) <= most


def test_strong_fills_with_the_mean_colour(monkeypatch):
    monkeypatch.setattr(random.Random, "choice", lambda draw, operations: operations[5])  # the rotation
    corners = [augmented(Image.new("RGB", (64, 64)), view=view, augmentation="strong")[0, 0] for view in range(1, 31)]
    assert [124, 116, 104] in np.array(corners).tolist()
