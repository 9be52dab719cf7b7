from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from headstart.console import Console
from headstart.network.backbones import BACKBONES, build
from headstart.network.cut import prefix
from headstart.network.weights import load_weights
from headstart.photos.augmentation import augmented_view
from headstart.photos.catalog import file_digest, photo_files
from headstart.photos.decode import decode
from headstart.photos.views import evaluation_view
from headstart.training.embedding import Embedder, Photo
from headstart.training.engines import choose_engine

LITE0 = BACKBONES["lite0"]
PREPROCESSING = LITE0.preprocessing("squash", 32)
QUIET = Console(quiet=True)
BOUNDARIES = (16, 18)  # before the last block, and at the pooled features


@pytest.fixture(scope="module")
def network():
    network = build(LITE0, 3)
    load_weights(network, LITE0)
    return network


def new_embedder(network, root: Path, cache: Path, engine="auto", seed=0, precision="float32") -> Embedder:
    identity = {"backbone": "lite0", "weights": "imagenet"}
    # In float32 also where the processor has bfloat16, whose rounding would hide mistakes of a few percent.
    choice = replace(choose_engine(engine), precision=precision)
    return Embedder(root, network, identity, PREPROCESSING, "photo", seed, choice, cache)


def photos_below(root: Path) -> list[Photo]:
    from collections import Counter

    return [Photo(str(file.relative_to(root)), file_digest(file)) for file in photo_files(root, Counter())]


def expected(network, boundary: int, pixels) -> np.ndarray:
    with torch.inference_mode():
        images = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float()
        return prefix(network, boundary, PREPROCESSING)(images)[0].numpy()


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_the_store_holds_what_the_network_computes(network, photos, tmp_path, engine):
    embedder = new_embedder(network, photos, tmp_path / "cache", engine)
    items = photos_below(photos)[:7]  # not a whole number of batches
    problems, computed = embedder.embed(items, range(3), BOUNDARIES, QUIET, "")
    assert len(problems) == 0 and computed == 21
    for boundary in BOUNDARIES:
        for view in range(3):
            stored = embedder.rows(items, view, boundary).take(slice(None)).astype(np.float32)
            for item, found in zip(items, stored, strict=True):
                photo = decode((photos / item.name).read_bytes(), 1000)
                if view:
                    pixels = augmented_view(photo, PREPROCESSING, "photo", 0, item.digest, view)
                else:
                    pixels = evaluation_view(photo, PREPROCESSING)
                wanted = expected(network, boundary, pixels)
                assert np.abs(found - wanted).max() <= 2e-3 * np.abs(wanted).max()


@pytest.mark.skipif(choose_engine().precision != "bfloat16", reason="this processor has no fast bfloat16")
def test_bfloat16_features_point_the_same_way(network, photos, tmp_path):
    items, features = photos_below(photos), []
    for precision in ("float32", "bfloat16"):
        embedder = new_embedder(network, photos, tmp_path / "cache", precision=precision)
        assert embedder.embed(items, range(1), BOUNDARIES, QUIET, "")[1] == len(items)  # its own shelf
        rows = embedder.rows(items, 0, embedder.features_boundary).take(slice(None)).astype(np.float32)
        features.append(rows)
    assert np.median(cosines(*features)) > 0.99 and cosines(*features).min() > 0.9


def test_a_second_run_embeds_nothing_and_new_photos_embed_only_themselves(network, photos, tmp_path):
    items = photos_below(photos)
    assert new_embedder(network, photos, tmp_path / "c").embed(items, range(1), BOUNDARIES, QUIET, "")[1] == 30
    assert new_embedder(network, photos, tmp_path / "c").embed(items, range(1), BOUNDARIES, QUIET, "")[1] == 0
    Image.new("RGB", (20, 20), "red").save(photos / "ant" / "new.png")
    Image.new("RGB", (20, 20), "blue").save(photos / "ant" / "3.png")  # a changed file
    changed = photos_below(photos)
    assert new_embedder(network, photos, tmp_path / "c").embed(changed, range(1), BOUNDARIES, QUIET, "")[1] == 2
    # Another view, seed or engine is something else.
    assert new_embedder(network, photos, tmp_path / "c").embed(items, range(1, 2), BOUNDARIES, QUIET, "")[1] == 30
    assert new_embedder(network, photos, tmp_path / "c", seed=1).embed(items, range(2), BOUNDARIES, QUIET, "")[1] == 30


def test_numbers_do_not_depend_on_order_or_neighbours(network, photos, tmp_path):
    items = photos_below(photos)
    stored = []
    for name, order in (("a", items), ("b", items[::-1]), ("c", items[:1] + items[5:] + items[1:5])):
        embedder = new_embedder(network, photos, tmp_path / name)
        embedder.embed(order, range(2), BOUNDARIES, QUIET, "")
        stored.append([embedder.rows(items, view, embedder.features_boundary).take(slice(None)) for view in range(2)])
    assert np.array_equal(stored[0], stored[1]) and np.array_equal(stored[0], stored[2])


def test_unreadable_photos_are_named_with_all_their_copies(network, photos, tmp_path):
    for name in ("ant/broken.jpg", "bee/copy.jpg"):
        (photos / name).write_bytes(b"<html>not a photo</html>")
    (photos / "ant" / "twin.png").write_bytes((photos / "ant" / "0.png").read_bytes())
    embedder = new_embedder(network, photos, tmp_path / "c")
    problems, computed = embedder.embed(photos_below(photos), range(1), BOUNDARIES, QUIET, "")
    assert problems["path"].tolist() == ["ant/broken.jpg", "bee/copy.jpg"]
    assert set(problems["problem"]) == {"unreadable"}
    assert "not an image" in problems["detail"][0]
    assert computed == 30  # the twin is not computed twice


def test_training_the_network_afterwards_does_not_change_what_is_embedded(network, photos, tmp_path):
    import copy

    trained = copy.deepcopy(network)
    embedder = new_embedder(trained, photos, tmp_path / "c")
    with torch.no_grad():
        trained.conv_head.weight.zero_()
    items = photos_below(photos)[:2]
    embedder.embed(items, range(1), BOUNDARIES, QUIET, "")
    found = embedder.rows(items, 0, embedder.features_boundary).take(slice(None))
    photo = decode((photos / items[0].name).read_bytes(), 1000)
    wanted = expected(network, embedder.features_boundary, evaluation_view(photo, PREPROCESSING))
    assert np.abs(found[0] - wanted).max() <= 2e-3 * np.abs(wanted).max()


def test_passes_tell_what_was_computed_and_the_speeds_are_measured_aside(network, photos, tmp_path):
    embedder = new_embedder(network, photos, tmp_path / "cache")
    items = photos_below(photos)[:6]
    embedder.embed(items, range(1), (18,), QUIET, "photos")
    embedder.embed(items, range(3), (18,), QUIET, "views")
    embedder.embed(items, range(3), (18,), QUIET, "views")  # nothing is missing
    embedder.embed(items, range(1), (), QUIET, "test")
    assert embedder.decoding_speed(items, (1, 2)) > 0 and embedder.engine_speed((18,)) > 0 and embedder.speed(items) > 0
    told = [(done.label, done.boundaries, done.views, done.photo_views) for done in embedder.passes]
    assert told == [("photos", (18,), 6, (0,)), ("views", (18,), 12, (1, 2)), ("test", (), 6, (0,))]
    assert all(done.decoding_seconds > 0 for done in embedder.passes)
    with pytest.raises(ValueError, match="got none"):
        embedder.engine_speed(())


def features_of(embedder, items, view):
    return embedder.rows(items, view, 18).take(slice(None)).astype(np.float32)


def cosines(one, other):
    return (one * other).sum(axis=1) / (np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1))


def test_augmented_views_in_8_bits_are_close_and_plain_ones_stay_as_they_are(network, photos, tmp_path):
    items = photos_below(photos)
    usual, coarse = (new_embedder(network, photos, tmp_path / "cache", "openvino") for _ in range(2))
    usual.embed(items, range(2), BOUNDARIES, QUIET, "")
    coarse.put_views_in_int8(items, BOUNDARIES)
    assert coarse.embed(items, range(3), BOUNDARIES, QUIET, "")[1] == 60  # the plain ones are there
    assert np.array_equal(features_of(usual, items, 0), features_of(coarse, items, 0))
    views = [features_of(embedder, items, 1) for embedder in (usual, coarse)]
    assert not np.array_equal(*views)
    assert np.median(cosines(*views)) > 0.97 and cosines(*views).min() > 0.7
    # Of plain views they can be looked at, and are not kept.
    aside = coarse.features_in_int8(items)
    assert aside.shape == (30, 1280) and not np.array_equal(aside, features_of(coarse, items, 0))
    coarse.put_views_back()
    assert coarse.embed(items, range(2), BOUNDARIES, QUIET, "")[1] == 0
    assert np.array_equal(views[0], features_of(coarse, items, 1))


def test_the_network_is_quantised_once_for_all_boundaries_and_cut(network, photos, tmp_path):
    items, rows = photos_below(photos), {}
    for name, passes in (("together", [BOUNDARIES]), ("apart", [BOUNDARIES[:1], BOUNDARIES[1:]])):
        embedder = new_embedder(network, photos, tmp_path / name, "openvino")
        embedder.put_views_in_int8(items, BOUNDARIES)
        for boundaries in passes:
            embedder.embed(items, range(1, 2), boundaries, QUIET, "")
        assert len(list((tmp_path / name / "engines").glob("*-int8-*/model.xml"))) == 1
        rows[name] = [embedder.rows(items, 1, boundary).take(slice(None)) for boundary in BOUNDARIES]
    for together, apart in zip(*rows.values(), strict=True):
        # Not to the bit: where an output lies between two layers, they are fused otherwise.
        assert cosines(*(rows.reshape(30, -1).astype(np.float32) for rows in (together, apart))).min() > 0.98


def test_other_photos_give_other_ranges_and_the_order_is_nothing_to_them(network, photos, tmp_path):
    items = photos_below(photos)
    embedder = new_embedder(network, photos, tmp_path / "cache", "openvino")
    for given, computed in ((items[:20], 3), (items[:20][::-1], 0), (items[:10], 3)):
        embedder.put_views_in_int8(given, BOUNDARIES)
        assert embedder.embed(items[:3], range(1, 2), (18,), QUIET, "")[1] == computed


def test_passes_in_two_precisions_are_told_apart(network, photos, tmp_path):
    embedder = new_embedder(network, photos, tmp_path / "cache", "openvino")
    items = photos_below(photos)[:8]
    embedder.put_views_in_int8(items, (18,))
    embedder.embed(items, range(3), (18,), QUIET, "views")
    told = [(done.views, done.photo_views) for done in embedder.passes]
    assert told == [(8, (0,)), (16, (1, 2))]
    assert embedder.engine_speed((18,), (1,)) > 0 and embedder.speed(items, (0, 1)) > 0
    # Smaller photos are another matter: of those views are as they were.
    assert embedder.at(64).embed(items, range(2), (18,), QUIET, "")[1] == 16
    assert len(list((tmp_path / "cache" / "engines").glob("*-int8-*"))) == 1
