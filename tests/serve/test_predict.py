import base64
import io
import json
import math
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

import headstart
from making import landscape, make_photo
from serve.serving import code, encoded


def test_the_answers_are_those_of_headstart_predict(server, finished, tmp_path):
    run, folder = finished
    paths = sorted(folder.rglob("*.png"))[:28:7]
    landscape(900, 600).save(tmp_path / "large.jpg")
    make_photo(7, 2, (50, 70)).convert("CMYK").save(tmp_path / "cmyk.jpg")
    for chosen in (paths, [tmp_path / "large.jpg", tmp_path / "cmyk.jpg"]):
        table = headstart.load(run).predict(chosen, top_k=3)
        form = [("photos", (path.name, path.read_bytes())) for path in chosen]
        answer = server.client.post("/v1/predict?top_k=3", files=form).json()
        assert answer["model"] == "run"
        for row, (_, expected), path in zip(answer["predictions"], table.iterrows(), chosen, strict=True):
            top = [{"label": expected["label"], "probability": expected["probability"]}]
            top += [{"label": expected[f"label_{n}"], "probability": expected[f"probability_{n}"]} for n in (2, 3)]
            accepted = bool(expected["accepted"])
            # Equal to the bit: the same engine, the same pixels, whoever else is in the batch.
            assert row == {"name": path.name, **top[0], "accepted": accepted, "top": top}


@pytest.mark.parametrize("content_type", ["image/png", "image/jpeg", "application/octet-stream"])
def test_a_raw_body_is_one_photo(server, photo, content_type):
    answer = server.client.post("/v1/predict", content=photo.read_bytes(), headers={"Content-Type": content_type})
    (row,) = answer.json()["predictions"]
    assert answer.status_code == 200 and row["name"] is None and row["label"] == "bee" and len(row["top"]) == 3
    assert math.isclose(sum(ranked["probability"] for ranked in row["top"]), 1, abs_tol=1e-6)


def test_json_with_names_and_without(server, photo, finished):
    data = base64.b64encode(photo.read_bytes()).decode()
    photos = [data, {"name": "../../etc/passwd", "data": data}, {"data": data}, {"name": "\ud800", "data": data}]
    answer = server.client.post(
        "/v1/predict?model=other&top_k=1",
        content=json.dumps({"photos": photos}),
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 200 and answer.json()["model"] == "other"
    rows = answer.json()["predictions"]
    # A name is what comes back, and nothing more.
    assert [row["name"] for row in rows] == [None, "../../etc/passwd", None, "\ud800"]
    assert [row["label"] for row in rows] == ["bee"] * 4 and {len(row["top"]) for row in rows} == {1}


def test_a_photo_that_cannot_be_read_is_a_row_among_others(server, photo):
    data = photo.read_bytes()
    form = [("a", ("ü 犬.png", data)), ("b", ("half.png", data[: len(data) // 2])), ("c", ("page.jpg", b"<html>"))]
    answer = server.client.post("/v1/predict", files=form)
    good, half, page = answer.json()["predictions"]
    assert answer.status_code == 200 and (good["name"], good["label"]) == ("ü 犬.png", "bee")
    assert (half["name"], half["error"]["code"]) == ("half.png", "damaged")
    assert (page["name"], page["error"]["code"]) == ("page.jpg", "not_an_image")
    assert code(server.client.post("/v1/predict", files=form[1:])) == (422, "damaged")
    assert code(server.client.post("/v1/predict", files=form[2:])) == (415, "not_an_image")


def test_fields_that_are_no_files_are_left_alone(server, photo):
    answer = server.client.post("/v1/predict", files={"p": ("a.png", photo.read_bytes())}, data={"comment": "hello"})
    assert [row["name"] for row in answer.json()["predictions"]] == ["a.png"]


def test_a_body_of_unknown_length(server, photo):
    data = photo.read_bytes()
    chunked = server.client.post("/v1/predict", content=iter([data[:100], data[100:]]), headers={"Content-Type": ""})
    assert "content-length" not in chunked.request.headers and chunked.json()["predictions"][0]["label"] == "bee"


def test_models_and_limits(server, finished):
    answer = server.client.get("/v1/models").json()
    classifier = headstart.load(finished[0])
    assert [model["name"] for model in answer["models"]] == ["run", "other"]
    assert answer["models"][0] == {
        "name": "run",
        "backbone": "lite0",
        "image_size": 64,
        "resize_policy": "crop",
        "class_names": ["ant", "bee", "cat"],
        "engine": str(classifier.engine_choice).split(" (")[0],
        "accepts": classifier.rejection.told(),
        "accuracy": classifier.training["test"]["accuracy"],
    }
    assert answer["limits"] == {"max_photos": 4, "max_body_bytes": 1 << 20, "max_pixels": 26_000_000}


@pytest.mark.parametrize(("query", "label"), [("", "bee"), ("?label=cat&model=other", "cat")])
def test_explain_draws_a_picture(server, photo, query, label):
    answer = server.client.post(f"/v1/explain{query}", files={"p": ("a.png", photo.read_bytes())})
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/png"
    assert unquote(answer.headers["x-label"]) == label
    picture = Image.open(io.BytesIO(answer.content))
    assert picture.size == (64, 64) and picture.mode == "RGB" and np.asarray(picture).std() > 0


def test_explain_takes_one_photo_and_a_class_that_there_is(server, photo):
    data = photo.read_bytes()
    two = [("p", ("a.png", data)), ("p", ("b.png", data))]
    png = {"Content-Type": "image/png"}
    assert code(server.client.post("/v1/explain", files=two)) == (400, "bad_request")
    assert code(server.client.post("/v1/explain?label=dog", content=data, headers=png)) == (422, "unknown_label")
    assert code(server.client.post("/v1/explain", content=b"text", headers=png)) == (415, "not_an_image")


def test_a_photo_in_every_form_that_predict_takes(server):
    picture = make_photo(1, 1)
    for form in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"):
        answer = server.client.post(
            "/v1/predict", content=encoded(picture, form), headers={"Content-Type": "application/octet-stream"}
        )
        assert answer.status_code == 200, form
