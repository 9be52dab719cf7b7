"""Copies are told from pictures that are merely alike."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from headstart.photos.alignment import SIDE, are_copies
from making import scene


def same(one, other):
    one, other = (np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))[None] for image in (one, other))
    return bool(are_copies(one, other)[0])


CHANGES = {
    "itself": lambda image: image,
    "half the size": lambda image: image.resize((80, 60)),
    "squashed": lambda image: image.resize((100, 100)),
    "brighter": lambda image: image.point(lambda value: 20 + value * 9 // 10),
    "a little blurred": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    "cropped on one side": lambda image: image.crop((12, 0, 160, 120)),
    "cropped all around": lambda image: image.crop((7, 6, 152, 113)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_a_copy_both_ways(change):
    for seed in range(5):
        photo = scene(seed)
        assert same(photo, CHANGES[change](photo)) and same(CHANGES[change](photo), photo)


def test_other_pictures_are_not():
    photos = [scene(seed) for seed in range(12)]
    assert not any(same(one, other) for one, other in zip(photos, photos[1:], strict=False))


def test_the_same_scene_with_another_object_in_it_is_another_picture():
    one, other = scene(3), scene(3)
    ImageDraw.Draw(other).ellipse((60, 40, 90, 70), fill="white", outline="black", width=6)
    ImageDraw.Draw(one).rectangle((60, 40, 90, 70), fill="navy")
    assert not same(one, other)


def test_the_same_shape_in_another_colour_is_another_picture():
    red, blue = Image.new("RGB", (160, 120), "grey"), Image.new("RGB", (160, 120), "grey")
    ImageDraw.Draw(red).ellipse((30, 20, 130, 100), fill=(200, 30, 30))
    ImageDraw.Draw(blue).ellipse((30, 20, 130, 100), fill=(30, 30, 200))
    assert not same(red, blue) and same(red, red)


def test_mirrored_and_turned_pictures_are_not_taken_for_copies():
    assert not same(scene(4), scene(4).transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    assert not same(scene(4), scene(4).transpose(Image.Transpose.ROTATE_180))


def test_a_batch_gives_what_single_pairs_give():
    photos = [scene(seed) for seed in (1, 1, 2)]
    changed = [photos[0].crop((8, 0, 160, 120)), photos[1], photos[0]]
    small = [np.stack([np.asarray(image.resize((SIDE, SIDE))) for image in images]) for images in (photos, changed)]
    assert are_copies(*small).tolist() == [True, True, False]
