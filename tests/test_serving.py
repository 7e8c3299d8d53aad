"""A service says what the model says, to many at once, and is not brought down by those who mean it ill."""

import base64
import http.client
import json
import re
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from toy_images import write_photos

import featx
from featx.cli import main
from featx.errors import OptionError
from featx.serving import Server, Serving, server
from featx.serving.app import application
from featx.serving.line import Busy, Stopped

HOW = {"engine": "eager", "workers": 1, "port": 0}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("served") / "photos")


@pytest.fixture(scope="module")
def model(photos, tmp_path_factory):
    options = {"backbone": "timm/test_resnet", "weights": "none", "image_size": 32, "engine": "eager", "workers": 0}
    table = featx.extract(photos, cache=tmp_path_factory.mktemp("cache"), **options)
    return featx.fit(table, head="ridge", val=0)


@pytest.fixture
def serve(model):
    """Start a service of the model in a thread, with some options, and return a client of it."""
    ends = []

    def started(of=model, **how):
        running = Server(of, Serving(**HOW | how))
        thread = threading.Thread(target=running.run)
        thread.start()
        client = httpx.Client(base_url=running.address, timeout=20)
        ends.append((client, running, thread))
        return client

    yield started
    for client, running, thread in ends:
        client.close()
        running.stop()
        thread.join()
        running.__exit__(None, None, None)


def files(photos):
    return sorted(photos.rglob("*.jpg"))


def form(*paths):
    return [("image", (path.name, path.read_bytes())) for path in paths]


def test_all_ways_of_asking_get_what_predict_says(model, serve, photos):
    client, paths = serve(), files(photos)
    expected = model.classify(paths, engine="eager", workers=0).to_dict(2)
    sent = [base64.b64encode(path.read_bytes()).decode() for path in paths]

    in_form = client.post("/predict?top=2", files=form(*paths)).json()
    in_json = client.post("/predict?top=2", json={"images": [{"id": "a", "data": sent[0]}, *sent[1:]]}).json()
    alone = client.post("/predict?top=2", content=paths[3].read_bytes(), headers={"Content-Type": "image/jpeg"}).json()

    for answer in (in_form, in_json):
        assert [row["label"] for row in answer["predictions"]] == [row["label"] for row in expected["predictions"]]
        found, right = ([row["probability"] for row in one["predictions"]] for one in (answer, expected))
        np.testing.assert_allclose(found, right, atol=1e-4)
        assert answer["classes"] == expected["classes"]
    assert [row["id"] for row in in_form["predictions"]] == [path.name for path in paths]
    assert [row["id"] for row in in_json["predictions"]][:2] == ["a", "image 2"]
    assert alone["predictions"][0]["label"] == in_form["predictions"][3]["label"]
    assert len(alone["predictions"][0]["top"]) == 2


def test_many_who_ask_at_once_get_their_own_answers(serve, photos):
    client, paths = serve(), files(photos)
    alone = [client.post("/predict", files=form(path)).json()["predictions"][0] for path in paths]
    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(lambda i: client.post("/predict", files=form(paths[i % 12])).json(), range(96)))

    for i, answer in enumerate(said):
        assert answer["predictions"][0]["label"] == alone[i % 12]["label"]
        assert answer["predictions"][0]["probability"] == pytest.approx(alone[i % 12]["probability"], abs=1e-4)
    counted = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
    }
    assert counted["featx_requests_total", "200"] == 108
    assert counted["featx_images_total", "read"] == counted["featx_batch_images_sum",] == 108
    assert counted["featx_batch_images_count",] < 108  # some went together


def test_an_image_that_cannot_be_read_is_a_row_with_its_reason(serve, photos, tmp_path):
    client, good = serve(max_pixels=5000), files(photos)[0]
    (tmp_path / "bad.jpg").write_bytes(good.read_bytes()[:200])
    Image.new("RGB", (200, 100)).save(tmp_path / "large.png")
    mixed = client.post("/predict", files=form(tmp_path / "bad.jpg", good, tmp_path / "large.png"))
    reasons = [row["error"] for row in mixed.json()["predictions"]]

    assert mixed.status_code == 200
    assert reasons[1] is None
    assert reasons[0].startswith("damaged or truncated")
    assert reasons[2].startswith("decompression bomb: 200 × 100 pixels, more than the 5,000")
    assert client.post("/predict", files=form(tmp_path / "bad.jpg")).status_code == 422
    assert client.post("/predict", files=form(tmp_path / "large.png")).status_code == 413


@pytest.mark.parametrize(
    ("how", "status", "words"),
    [
        ({"content": b"x" * 3000, "headers": {"Content-Type": "image/png"}}, 413, "more than 2,000 bytes"),
        ({"content": iter([b"x" * 1500] * 2), "headers": {"Content-Type": "image/png"}}, 413, "more than 2,000 bytes"),
        ({"files": [("image", ("a", b"x"))] * 3}, 413, "More than 2 images|brings 3 images"),
        ({"json": {"images": ["eA=="] * 3}}, 413, "brings 3 images"),
        ({"json": {"images": []}}, 400, "no image"),
        ({"json": {"images": ["not base64"]}}, 400, "Image 1 is no base64"),
        ({"json": [1]}, 400, "no list of images"),
        ({"content": b"[" * 1900, "headers": {"Content-Type": "application/json"}}, 400, "no JSON"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "cannot be read"),
        ({"content": b"x", "headers": {"Content-Type": "text/plain"}}, 415, "Content-Type is text/plain. Send images"),
        ({"content": b"x", "headers": {"Content-Type": "image/png"}, "params": {"top": "no"}}, 400, "top= takes a"),
    ],
)
def test_what_is_too_much_or_no_request_is_refused_with_a_sentence(how, status, words, refusing):
    said = refusing.post("/predict", **how)

    assert said.status_code == status
    assert re.search(words, said.json()["error"]["message"])


@pytest.fixture(scope="module")
def refusing(model):
    with Server(model, Serving(max_body=2000, max_images=2, **HOW)) as running:
        thread = threading.Thread(target=running.run)
        thread.start()
        with httpx.Client(base_url=running.address) as client:
            yield client
        running.stop()
        thread.join()


def test_only_who_has_the_token_is_answered(serve, photos):
    client = serve(token="s3cret")
    ask = {"files": form(files(photos)[0])}

    assert client.post("/predict", **ask).status_code == 401
    assert client.post("/predict", headers={"Authorization": "Bearer s3cre"}, **ask).status_code == 401
    assert client.get("/metrics").status_code == 401
    assert client.post("/predict", headers={"Authorization": "Bearer s3cret"}, **ask).status_code == 200
    assert client.get("/healthz").json()["status"] == "ok"


def test_the_description_names_what_is_there_and_the_page_asks_nobody_else(serve):
    client = serve()
    about, page = client.get("/openapi.json").json(), client.get("/")

    assert set(about["paths"]) == {"/predict", "/healthz", "/metrics"}
    row = about["paths"]["/predict"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert {"label", "probability", "familiarity"} <= set(row["properties"]["predictions"]["items"]["properties"])
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.findall(r"(?:src|href|url\()=?[\"']?https?:", page.text)


def speak(client, text):
    """Say something to the service, and return what it answers until it hangs up."""
    with socket.create_connection((client.base_url.host, client.base_url.port), 10) as line:
        line.sendall(text)
        answer = b""
        while part := line.recv(4096):
            answer += part
        return answer


def test_who_sends_too_slowly_is_cut_off(serve, photos, monkeypatch):
    monkeypatch.setattr(server, "_HEAD_SECONDS", 0.3)
    client = serve(timeout=0.5)
    head = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: 10\r\n"

    assert speak(client, head).startswith(b"HTTP/1.1 408")  # the head never ends
    assert speak(client, b"").startswith(b"HTTP/1.1 408")
    assert speak(client, head + b"\r\n123").startswith(b"HTTP/1.1 408")  # nor does the body
    assert speak(client, head + b"x: " + b"y" * 70_000).startswith(b"HTTP/1.1 431")
    assert client.post("/predict", files=form(files(photos)[0])).status_code == 200


class Stuck:
    """A line that is full, or ending."""

    n_waiting = 0

    def __init__(self, model, error):
        self.model, self.error = model, error

    async def classify(self, images, ids):
        raise self.error


@pytest.mark.parametrize(
    ("error", "status"), [(Busy("7 wait"), 429), (Stopped("ending"), 503), (TimeoutError(), 503), (OSError("x"), 500)]
)
def test_a_line_that_cannot_take_more_says_so(error, status, model, caplog):
    app = application(Stuck(model, error), Serving())

    async def asked():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a") as client:
            return await client.post("/predict", content=b"x", headers={"Content-Type": "image/png"})

    import asyncio

    said = asyncio.run(asked())
    assert said.status_code == status
    assert said.json()["error"]["message"]
    assert ("retry-after" in said.headers) == isinstance(error, Busy | Stopped)


def test_more_than_may_wait_are_refused_and_the_others_answered(serve, photos, model, monkeypatch):
    started, go = threading.Event(), threading.Event()
    said = type(model).answers

    def slow(self, *args, **how):
        started.set()
        go.wait(10)
        return said(self, *args, **how)

    client = serve(queue=2)
    monkeypatch.setattr(type(model), "answers", slow)
    path = files(photos)[0]
    with ThreadPoolExecutor(200) as pool:
        asked = [pool.submit(client.post, "/predict", files=form(path)) for _ in range(99)]
        assert started.wait(10)
        deadline = time.monotonic() + 10
        while not any(one.done() for one in asked) and time.monotonic() < deadline:
            time.sleep(0.01)
        go.set()
        statuses = [one.result().status_code for one in asked]

    assert set(statuses) == {200, 429}


def test_sigterm_answers_what_is_under_way_and_ends(model, photos, tmp_path, start):
    model.save(tmp_path / "m.featx")
    command = ["serve", "m.featx", "--port", "0", "--engine", "eager", "--workers", "1", "--json"]
    process = start([sys.executable, "-m", "featx", *command], cwd=tmp_path)
    address = httpx.URL(json.loads(process.stdout.readline())["address"])
    body = files(photos)[0].read_bytes()
    idle = socket.create_connection((address.host, address.port))
    connection = http.client.HTTPConnection(address.host, address.port, timeout=20)
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Type", "image/jpeg")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body[:100])
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    with pytest.raises(ConnectionRefusedError):  # nobody new is let in
        socket.create_connection((address.host, address.port))
    connection.send(body[100:])
    answer = connection.getresponse()

    assert answer.status == 200
    assert json.loads(answer.read())["predictions"][0]["error"] is None
    assert process.wait(20) == 0
    idle.close()


def test_models_of_labels_and_of_numbers_are_served(serve, photos, tmp_path):
    lines = ["file,weight,length", *(f"{p.parent.name}/{p.name},{i / 4},{i % 3}" for i, p in enumerate(files(photos)))]
    (tmp_path / "sizes.csv").write_text("\n".join(lines))
    options = {"backbone": "timm/test_resnet", "weights": "none", "image_size": 32, "engine": "eager", "workers": 0}
    table = featx.extract(
        tmp_path / "sizes.csv", images=photos, label_column="weight,length", cache=tmp_path / "cache", **options
    )
    numbers = featx.fit(table, head="ridge", val=0)
    said = serve(numbers).post("/predict", files=form(files(photos)[0])).json()
    expected = numbers.classify([files(photos)[0]], engine="eager", workers=0).to_dict()

    assert said["task"] == "regress"
    assert said["predictions"][0]["values"] == pytest.approx(expected["predictions"][0]["values"], abs=1e-3)


def test_an_address_that_is_taken_and_a_model_of_rows_are_refused_at_once(model):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OptionError, match="Cannot listen on 127"):
        Server(model, Serving(port=taken.getsockname()[1]))
    rows = featx.Features.from_arrays(np.random.default_rng(0).standard_normal((20, 4)), np.arange(20) % 2)
    with pytest.raises(OptionError, match="without a recipe"):
        Server(featx.fit(rows, head="ridge", val=0), Serving(port=0))


def test_a_service_says_the_word_for_rows_without_a_label_and_refuses_what_its_model_cannot(model, photos, serve):
    said = serve(min_probability=1.0, unknown="other").post("/predict", files=form(files(photos)[0])).json()
    assert said["predictions"][0]["label"] == "other"
    for how, why in (
        ({"min_familiarity": 0.1}, "cannot tell how familiar"),
        ({"unknown": "other"}, "Say that as well"),
    ):
        with pytest.raises(OptionError, match=why):
            Server(model, Serving(**HOW | how))


def test_bad_values_are_refused_as_they_are_typed(capsys):
    assert main(["serve", "no.featx", "--max-body", "huge"]) == 1
    assert "A size is a number of bytes" in capsys.readouterr().err
    assert main(["serve", "no.featx", "--port", "0"]) == 1
    assert "no.featx" in capsys.readouterr().err
