import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import headstart
from headstart import HeadstartError
from headstart.photos.augmentation import augmented_view
from headstart.photos.catalog import file_digest
from headstart.photos.views import evaluation_view
from headstart.report.figure import Picture, caption, write_picture
from making import make_photo, make_photos


def cells(figure) -> list[tuple[str, np.ndarray]]:
    """Return the caption and the pixels of every cell that shows something."""
    return [(axes.get_title(), axes.images[0].get_array()) for axes in figure.axes if axes.images]


def labels(figure) -> list[str]:
    return [name for name, _ in cells(figure)]


# Samples


def test_samples_come_from_different_classes_as_far_as_there_are(tmp_path):
    classes = tuple(f"n0208578{number}-kind_{number}" for number in range(3))
    root = make_photos(tmp_path / "photos", classes, 10)
    found = labels(headstart.show_samples(root))
    assert {name: found.count(name) for name in found} == {"kind 0": 3, "kind 1": 3, "kind 2": 3}
    assert all(sorted(found[start : start + 3]) == ["kind 0", "kind 1", "kind 2"] for start in (0, 3, 6))


def test_samples_show_their_own_photo(tmp_path):
    root = make_photos(tmp_path / "photos", ("red", "green", "blue"))
    for name, pixels in cells(headstart.show_samples(root, seed=4)):
        assert pixels.shape == (30, 40, 3)
        assert pixels.mean(axis=(0, 1)).argmax() == ["red", "green", "blue"].index(name)


def test_samples_are_the_seeds(photos):
    first, again, other = (
        [pixels.tobytes() for _, pixels in cells(headstart.show_samples(photos, seed))] for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_a_title_tells_what_there_is_and_few_photos_are_few_cells(tmp_path):
    root = make_photos(tmp_path / "$my$ photos", ("ant", "bee"), 2)
    figure = headstart.show_samples(root)
    assert len(cells(figure)) == 4
    assert figure.get_suptitle() == r"\$my\$ photos: 4 of 4 photos in 2 classes"
    figure.draw_without_rendering()


def test_files_that_cannot_be_read_are_passed_over(tmp_path):
    root = make_photos(tmp_path / "photos", ("ant", "bee"), 1)
    for number in range(20):
        (root / "ant" / f"broken {number}.jpg").write_bytes(b"nothing")
    assert sorted(labels(headstart.show_samples(root))) == ["ant", "bee"]
    for name in ("ant", "bee"):
        (root / name / "0.png").write_bytes(b"nothing")
    with pytest.raises(HeadstartError, match="none of its photos could be read"):
        headstart.show_samples(root)


@pytest.mark.parametrize("size", [(1, 1), (5000, 1), (1, 5000), (3000, 2000)])
def test_photos_of_any_shape_hang_from_captions_in_line(tmp_path, size):
    root = make_photos(tmp_path / "photos", ("ant", "bee"), 1)
    Image.new("RGB", size, "red").save(root / "ant" / "0.png")
    figure = headstart.show_samples(root)
    figure.draw_without_rendering()
    odd, other = (axes.title.get_window_extent() for axes in figure.axes[:2])
    assert odd.y0 == pytest.approx(other.y0, abs=1)
    for axes in figure.axes[:2]:
        assert 0 < axes.title.get_window_extent().y0 - axes.get_window_extent().y1 < 10
        assert max(axes.images[0].get_array().shape) <= 320


def test_no_photos_is_an_error(tmp_path):
    with pytest.raises(HeadstartError, match="holds no photos"):
        headstart.show_samples(tmp_path)


# Views


@pytest.mark.parametrize("augmentation", ["none", "example", "example-full", "photo", "strong"])
def test_views_are_those_that_training_draws(tmp_path, augmentation):
    from headstart.network.backbones import BACKBONES

    path = tmp_path / "a.png"
    photo = make_photo(0, 0, (90, 60))
    photo.save(path)
    figure = headstart.show_views(path, augmentation, image_size=48, resize_policy="squash", seed=3)
    shown = cells(figure)
    assert [name for name, _ in shown] == ["evaluation view", *(f"view {number}" for number in range(1, 9))]
    preprocessing = BACKBONES["lite0"].preprocessing("squash", 48)
    assert np.array_equal(shown[0][1], evaluation_view(photo, preprocessing))
    for number in range(1, 9):
        expected = augmented_view(photo, preprocessing, augmentation, 3, file_digest(path), number)
        assert np.array_equal(shown[number][1], expected)
    assert figure.get_suptitle() == f"a.png\naugmentation {augmentation}, squash, 48 pixels, seed 3"


def test_the_photo_is_drawn_by_the_seed_or_named(photos, monkeypatch):
    drawn = {headstart.show_views(photos, image_size=32, seed=seed).get_suptitle().split("\n")[0] for seed in range(9)}
    assert len(drawn) > 2
    assert all(title.split(", ")[0] in ("ant", "bee", "cat") for title in drawn)
    monkeypatch.chdir(photos / "bee")
    for name in ("cat/7.png", photos / "cat" / "7.png", "7.png"):
        figure = headstart.show_views(photos, photo=name, image_size=32)
        assert figure.get_suptitle().startswith("7.png\n")
        # The photos of bee are green and those of cat blue; the folder at hand comes first.
        assert cells(figure)[0][1].mean(axis=(0, 1)).argmax() == (1 if name == "7.png" else 2)


def test_mistakes_in_views_are_told(photos, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    for arguments, message in (
        ({"photo": "gone.png"}, "gone.png: no such file"),
        ({"photo": tmp_path / "broken.jpg"}, "broken.jpg: not an image"),
        ({"image_size": 8}, "--image-size 8: expected greater than or equal to 32"),
        ({"augmentation": "wild"}, "--augmentation wild: expected 'none', 'example'"),
    ):
        with pytest.raises(HeadstartError, match=message):
            headstart.show_views(photos, **arguments)


# Curves


def test_history_is_drawn_from_a_run_its_folder_its_file_or_its_table(finished):
    run, _ = finished
    table = pd.read_csv(run / "history.csv")
    for source in (headstart.Run(run, {}), run, str(run), run / "history.csv", table):
        figure = headstart.plot_history(source)
        assert isinstance(figure, Picture)
        assert [axes.get_ylabel() for axes in figure.axes] == ["accuracy (%)", "cross-entropy loss"]


def test_history_that_is_none_is_refused(tmp_path):
    with pytest.raises(HeadstartError, match=r"holds no history.csv"):
        headstart.plot_history(tmp_path)
    with pytest.raises(HeadstartError, match="has no column stage, train_loss, validation_accuracy, validation_loss"):
        headstart.plot_history(pd.DataFrame({"train_accuracy": [1.0]}))


# Showing and writing


def test_a_notebook_shows_a_picture(photos):
    figure = headstart.show_samples(photos)
    with Image.open(io.BytesIO(figure._repr_png_())) as image:
        assert image.format == "PNG"
        assert min(image.size) > 600


def test_ipython_shows_a_picture(photos):
    pytest.importorskip("IPython", reason="IPython is not installed")
    from IPython.core.formatters import DisplayFormatter

    data, _ = DisplayFormatter().format(headstart.show_samples(photos))
    assert data["image/png"].startswith(b"\x89PNG")


def test_captions_are_short_and_plain():
    assert caption("a" * 24) == "a" * 24
    assert caption("a" * 25) == "a" * 23 + "…"
    assert caption("$a$") == r"\$a\$"


def test_a_picture_is_written_as_png(photos, tmp_path):
    write_picture(headstart.show_samples(photos), tmp_path / "new" / "samples.png")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["samples.png"]
    with Image.open(tmp_path / "new" / "samples.png") as image:
        assert image.format == "PNG"
