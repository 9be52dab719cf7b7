import base64
import json
import socket

import numpy as np
import pytest
from PIL import Image

from making import landscape
from serve.conftest import TOKEN
from serve.serving import code, encoded, everything, post_head

PNG, JSON = {"Content-Type": "image/png"}, {"Content-Type": "application/json"}
FORM = {"Content-Type": "multipart/form-data; boundary=x"}
PART = b'--x\r\nContent-Disposition: form-data; name="p"; filename="a.png"\r\n\r\ndata'


@pytest.mark.parametrize(
    ("path", "content", "headers", "expected"),
    [
        ("", b"", PNG, (400, "no_photos")),
        ("", b'{"photos": []}', JSON, (400, "no_photos")),
        ("", b"--x--\r\n", FORM, (400, "no_photos")),
        ("", b'--x\r\nContent-Disposition: form-data; name="p"\r\n\r\ndata\r\n--x--\r\n', FORM, (400, "no_photos")),
        ("", b"{", JSON, (400, "bad_request")),
        ("", b"\xff\xfe\xff", JSON, (400, "bad_request")),
        ("", b"[" * 100_000, JSON, (400, "bad_request")),
        ("", b"[1]", JSON, (400, "bad_request")),
        ("", b'{"photos": "x"}', JSON, (400, "bad_request")),
        ("", b'{"photos": [1]}', JSON, (400, "bad_request")),
        ("", b'{"photos": ["*"]}', JSON, (400, "bad_request")),
        ("", '{"photos": ["é"]}'.encode(), JSON, (400, "bad_request")),
        ("", b'{"photos": [{"name": 1, "data": ""}]}', JSON, (400, "bad_request")),
        ("", PART, FORM, (400, "bad_request")),
        ("", PART, {"Content-Type": "multipart/form-data"}, (400, "bad_request")),
        ("", b"no form at all", FORM, (400, "bad_request")),
        ("", b"--x\r\nno headers\r\n--x--", FORM, (400, "bad_request")),
        ("", PART[:-4] + b"\r\n--x--", FORM, (415, "not_an_image")),
        ("", b"--x\r\n\r\nfield\r\n" * 100 + b"--x--", FORM, (413, "too_many_photos")),
        ("?top_k=0", b"x", PNG, (400, "bad_request")),
        ("?top_k=two", b"x", PNG, (400, "bad_request")),
        ("?model=%ff", b"x", PNG, (400, "bad_request")),
        ("?model=none", b"x", PNG, (404, "unknown_model")),
        ("", b"a=b", {"Content-Type": "application/x-www-form-urlencoded"}, (415, "unsupported_media_type")),
        ("", b"hello", PNG, (415, "not_an_image")),
        ("", b'{"photos": [""]}', JSON, (415, "not_an_image")),
        ("", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", PNG, (415, "not_an_image")),
        ("", b"x" * ((1 << 20) + 1), PNG, (413, "too_large")),
        ("", json.dumps({"photos": [""] * 5}).encode(), JSON, (413, "too_many_photos")),
        ("", (PART + b"\r\n") * 5 + b"--x--\r\n", FORM, (413, "too_many_photos")),
    ],
)
def test_a_refused_request(server, path, content, headers, expected):
    assert code(server.client.post(f"/v1/predict{path}", content=content, headers=headers)) == expected


def test_more_pixels_than_allowed_are_not_decoded(server):
    bomb = encoded(Image.new("1", (6000, 5000)))
    answer = server.client.post("/v1/predict", content=bomb, headers=PNG)
    assert code(answer) == (422, "bomb") and "6000 x 5000 pixels, at most 26,000,000" in answer.text


def test_half_a_photo_is_damaged(server):
    data = encoded(landscape(200, 200), "JPEG")
    assert code(server.client.post("/v1/predict", content=data[: len(data) // 2], headers=PNG)) == (422, "damaged")


@pytest.mark.parametrize(
    "path", ["/nothing", "/v1", "/v1/predict/", "/static/nothing.js", "/docs", "/static/../app.py"]
)
def test_an_address_without_anything(server, path):
    assert code(server.client.get(path)) == (404, "not_found")


def test_a_method_that_there_is_not(server):
    answer = server.client.get("/v1/predict")
    assert code(answer) == (405, "method_not_allowed") and answer.headers["allow"] == "POST"
    assert code(server.client.delete("/v1/models")) == (405, "method_not_allowed")


def test_what_is_no_http(server):
    with server.connect() as connection:
        connection.sendall(b"hello\r\n\r\n")
        head, body = everything(connection).split(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ") and json.loads(body)["error"]["code"] == "bad_request"


def test_endless_headers(server):
    with server.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n" + b"".join(b"a%d: b\r\n" % number for number in range(10_000)))
        head = everything(connection)
    assert head.startswith(b"HTTP/1.1 400 ")


def test_a_large_body_without_its_length_is_cut_off(server):
    """The answer comes although the client never stops, and no more is received than the limit and what lingers."""
    pieces = (b"x" * 1000 for _ in range(3000))
    answer = server.client.post("/v1/predict", content=pieces, headers=PNG)
    assert code(answer) == (413, "too_large") and answer.headers["connection"] == "close"


@pytest.mark.parametrize("sent", [b"POST /v1/predict HT", post_head(1000), post_head(1000) + b"x" * 10])
def test_a_slow_sender_is_told_and_holds_nothing_up(server, photo, sent):
    with server.connect() as connection:
        connection.sendall(sent)
        others = server.client.post("/v1/predict", content=photo.read_bytes(), headers=PNG)
        assert others.status_code == 200
        connection.setblocking(False)
        with pytest.raises(BlockingIOError):
            connection.recv(1)  # it still waits for the slow one meanwhile
        connection.settimeout(30)
        head, body = everything(connection).split(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ") and json.loads(body)["error"]["code"] == "timeout"


@pytest.mark.parametrize("shown", [None, "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer é"])
def test_without_the_token_nothing_is_done(guarded, photo, shown):
    headers = {} if shown is None else {b"authorization": shown.encode()}
    for method, path in (("POST", "/v1/predict"), ("GET", "/v1/models"), ("GET", "/metrics"), ("GET", "/nothing")):
        answer = guarded.client.request(method, path, headers=headers, content=b"x" * 100_000)
        assert code(answer) == (401, "unauthorized") and answer.headers["www-authenticate"] == "Bearer"
    refused = guarded.client.get("/v2/models/run", headers=headers)
    assert refused.status_code == 401 and isinstance(refused.json()["error"], str)
    for path in ("/", "/healthz", "/readyz"):
        assert guarded.client.get(path, headers=headers).status_code == 200


def test_with_the_token_everything_is(guarded, photo):
    for kind in ("Bearer", "bearer"):
        shown = {"Authorization": f"{kind} {TOKEN}"}
        answer = guarded.client.post("/v1/predict", content=photo.read_bytes(), headers={**PNG, **shown})
        assert answer.json()["predictions"][0]["label"] == "bee"


def test_the_page_and_its_headers(server):
    answer = server.client.get("/")
    assert answer.status_code == 200 and answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; ")
    assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["referrer-policy"] == "no-referrer"
    assert server.client.get("/static/index.html").headers["content-security-policy"] == policy


def test_addresses_in_a_request_are_never_opened(server, photo):
    """A path, a URL: text like any other, not base64, not an image."""
    with socket.create_server(("127.0.0.1", 0)) as bait:
        for name in (str(photo), f"http://127.0.0.1:{bait.getsockname()[1]}/a.png", f"file://{photo}"):
            text = json.dumps({"photos": [name]})
            assert code(server.client.post("/v1/predict", content=text, headers=JSON)) == (400, "bad_request")
            text = json.dumps({"photos": [base64.b64encode(name.encode()).decode()]})
            assert code(server.client.post("/v1/predict", content=text, headers=JSON)) == (415, "not_an_image")
            answer = server.client.post("/v1/predict", content=name.encode(), headers=PNG)
            assert code(answer) == (415, "not_an_image")
        bait.setblocking(False)
        with pytest.raises(BlockingIOError):
            bait.accept()


def test_files_that_break_image_code(guarded, shared):
    """Each file is answered as `predict` would treat it, quickly, and the server lives on."""
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/octet-stream"}
    statuses: dict[str, set[int]] = {}
    for path in sorted((shared / "nasty").rglob("*.*")):
        answer = guarded.client.post("/v1/predict", content=path.read_bytes(), headers=headers)
        statuses.setdefault(path.parent.name, set()).add(answer.status_code)
        if answer.status_code != 200:
            assert code(answer)[1] in ("no_photos", "not_an_image", "bomb", "damaged")
    assert statuses.pop("bombs") <= {415, 422} | {200}
    assert statuses.pop("must_not_decode") <= {415, 422, 200}
    assert statuses.pop("made_here") == {200, 400, 415, 422}
    assert statuses.pop("decodes_odd_mode") <= {200, 422}  # one of them is broken for some versions of Pillow
    assert statuses == {"decodes_rgb_orientation": {200}, "orientation": {200}}


def test_what_was_refused_is_counted(server):
    before = server.metric('headstart_requests_total{route="/v1/predict",status="415"}')
    server.client.post("/v1/predict", content=b"hello", headers=PNG)
    assert server.metric('headstart_requests_total{route="/v1/predict",status="415"}') == before + 1
    assert np.isfinite(before)
