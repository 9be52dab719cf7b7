import base64
import json

import numpy as np
import pytest

import headstart
from making import landscape
from serve.serving import encoded


def infer(server, body, model="run", headers=None):
    return server.client.post(f"/v2/models/{model}/infer", content=json.dumps(body), headers=headers)


def pixels_of(images: np.ndarray, **more) -> dict:
    tensor = {"name": "pixels", "datatype": "UINT8", "shape": list(images.shape), "data": images.ravel().tolist()}
    return {**tensor, **more}


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 20, 33, 3), dtype=np.uint8)


def test_the_server_and_its_models(server):
    about = server.client.get("/v2").json()
    assert about == {"name": "headstart", "version": headstart.__version__, "extensions": []}
    assert server.client.get("/v2/health/live").json() == {"live": True}
    assert server.client.get("/v2/health/ready").json() == {"ready": True}
    assert server.client.get("/v2/models/other/ready").json() == {"name": "other", "ready": True}
    assert server.client.get("/v2/models/other").json() == {
        "name": "other",
        "versions": [],
        "platform": "headstart_classifier",
        "inputs": [
            {"name": "pixels", "datatype": "UINT8", "shape": [-1, -1, -1, 3]},
            {"name": "photos", "datatype": "BYTES", "shape": [-1]},
        ],
        "outputs": [
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
            {"name": "accepted", "datatype": "BOOL", "shape": [-1]},
        ],
    }


def test_pixels_give_what_predict_proba_gives(server, finished, images):
    classifier = headstart.load(finished[0])
    expected = classifier.predict_proba(images)
    for data in (images.ravel().tolist(), images.tolist()):
        answer = infer(server, {"id": "seven", "inputs": [pixels_of(images, data=data)]}).json()
        assert (answer["model_name"], answer["id"]) == ("run", "seven")
        probabilities, label, accepted = answer["outputs"]
        assert (probabilities["name"], probabilities["datatype"], probabilities["shape"]) == (
            "probabilities",
            "FP32",
            [3, 3],
        )
        np.testing.assert_array_equal(np.array(probabilities["data"], np.float32).reshape(3, 3), expected)
        labels = [classifier.class_names[index] for index in expected.argmax(axis=1)]
        assert label == {"name": "label", "datatype": "BYTES", "shape": [3], "data": labels}
        assert accepted["datatype"] == "BOOL" and [type(value) for value in accepted["data"]] == [bool] * 3


def test_photos_in_base64_and_only_the_outputs_asked_for(server, photo):
    data = [base64.b64encode(photo.read_bytes()).decode()] * 2
    tensor = {"name": "photos", "datatype": "BYTES", "shape": [2], "data": data}
    answer = infer(server, {"inputs": [tensor], "outputs": [{"name": "label"}]}, "other").json()
    outputs = [{"name": "label", "datatype": "BYTES", "shape": [2], "data": ["bee", "bee"]}]
    assert answer == {"model_name": "other", "outputs": outputs}


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"name": "image"}, 400, "pixels or photos"),
        ({"datatype": "FP32"}, 400, "expected UINT8"),
        ({"shape": [3, 20, 33]}, 400, "[n, height, width, 3]"),
        ({"shape": [3, 20, 33, True]}, 400, "[n, height, width, 3]"),
        ({"shape": [3, 20, 11, 9]}, 400, "channels last"),
        ({"shape": [3, 20, 34, 3]}, 400, "expected 6120 whole numbers"),
        ({"data": [0.5] * 5940}, 400, "expected 5940 whole numbers"),
        ({"data": [256] * 5940}, 400, "expected 5940 whole numbers"),
        ({"data": [[1], 2]}, 400, "expected 5940 whole numbers"),
        ({"data": [10**30] * 5940}, 400, "expected 5940 whole numbers"),
        ({"data": "abc"}, 400, "expected 5940 whole numbers"),
        ({"data": None}, 400, "expected 5940 whole numbers"),
        ({"shape": [5, 20, 33, 3]}, 413, "more than 4 photos"),
        ({"shape": [1, 9000, 9000, 3]}, 422, "at most 26,000,000"),
        ({"parameters": {"binary_data_size": 5}}, 400, "binary data extension is not supported"),
    ],
)
def test_a_wrong_tensor(server, images, change, status, said):
    answer = infer(server, {"inputs": [pixels_of(images, **change)]})
    assert answer.status_code == status and set(answer.json()) == {"error"} and said in answer.json()["error"]


@pytest.mark.parametrize(
    "body", [[], {}, {"inputs": []}, {"inputs": [1]}, {"inputs": [{}, {}]}, {"inputs": [{}], "id": 1}, {"inputs": [{}]}]
)
def test_a_wrong_body(server, body):
    answer = infer(server, body)
    assert answer.status_code == 400 and isinstance(answer.json()["error"], str)


def test_outputs_that_there_are_not_and_binary_ones(server, images):
    tensor = pixels_of(images)
    for outputs in ([{"name": "logits"}], "label", [1], [{}]):
        assert infer(server, {"inputs": [tensor], "outputs": outputs}).status_code == 400
    for body in (
        {"inputs": [tensor], "outputs": [{"name": "label", "parameters": {"binary_data": True}}]},
        {"inputs": [tensor], "parameters": {"binary_data_output": True}},
    ):
        assert "binary" in infer(server, body).json()["error"]
    assert "binary" in infer(server, {}, headers={"Inference-Header-Content-Length": "2"}).json()["error"]


def test_errors_are_as_the_protocol_says(server):
    for path in ("/v2/models/none", "/v2/models/none/ready", "/v2/nothing"):
        answer = server.client.get(path)
        assert answer.status_code == 404 and isinstance(answer.json()["error"], str)
    whole = encoded(landscape(200, 200))
    data = whole[: len(whole) // 2]
    tensor = {"name": "photos", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(data).decode()]}
    answer = infer(server, {"inputs": [tensor]})
    assert answer.status_code == 422 and answer.json()["error"].startswith("Damaged")
