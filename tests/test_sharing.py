"""A model has a card, goes to the Hub and comes back from it as data; new images are held against those it knows."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import yaml
from toy_images import write_photos

import featx
from featx import Features
from featx.cli import main
from featx.errors import DataError, MissingDataError, ModelFileError, OptionError
from featx.evaluation.drifting import shift_of
from featx.model.hub import Address

COMMIT = "a" * 40


class _Hub(BaseHTTPRequestHandler):
    """As much of the Hub as sending and fetching a file asks for; `files` is what it holds."""

    def log_message(self, *args):
        pass

    def answer(self, body=b"", status=200, **headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    @property
    def birds(self):
        return f"http://{self.headers['Host']}/me/birds"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.endswith("/repos/create"):
            self.answer(json.dumps({"url": self.birds}).encode())
        elif self.path.endswith("/validate-yaml"):
            self.answer(b'{"errors": [], "warnings": []}')
        elif "/preupload/" in self.path:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            self.answer(json.dumps({"files": files}).encode())
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            told = {"commitUrl": f"{self.birds}/commit/{COMMIT}", "commitOid": COMMIT, "success": True}
            self.answer(json.dumps(told).encode())
        else:
            self.answer(status=404)

    def do_GET(self):
        self.server.asked.append(self.path)
        name = self.path.split("/resolve/")[-1].partition("/")[2]
        if "/resolve/" not in self.path or name not in self.server.files:
            self.answer(status=404, X_Error_Code="EntryNotFound")
            return
        content = self.server.files[name]
        etag = hashlib.sha256(content).hexdigest()
        self.answer(content, ETag=f'"{etag}"', X_Repo_Commit=COMMIT)

    do_HEAD = do_GET  # noqa: N815 - as http.server calls it


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub on this machine, and a place of its own for what is fetched."""
    import huggingface_hub.constants as constants

    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    server.files, server.asked = {}, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "fetched"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    y = np.arange(400) % 3
    X = (rng.standard_normal((400, 8)) + 2.5 * np.eye(3, 8)[y]).astype(np.float32)
    classes = ["a|b", "<b>bold</b>", "`tick`"]
    return Features.from_arrays(X, y, classes=classes, splits=np.where(np.arange(400) < 200, "train", "val"))


@pytest.fixture(scope="module")
def model(table):
    return featx.fit(table, head="logreg")


def test_a_card_says_what_the_report_says(model):
    text = featx.card(model, name="me/birds", license="mit")
    _, front, body = text.split("---\n", 2)
    told = yaml.safe_load(front)
    (result,) = told["model-index"][0]["results"]

    assert told["library_name"] == "featx"
    assert told["license"] == "mit"
    assert told["pipeline_tag"] == "image-classification"
    assert result["metrics"][0]["value"] == pytest.approx(model.report.val.value, abs=1e-6)
    assert f"accuracy {model.report.val.value:.3f}" in body
    assert 'featx.load("hf://me/birds")' in body
    assert "`<b>bold</b>`" in body  # as code, which is shown as it is
    assert "`` `tick` ``" in body


def test_the_command_writes_a_card(model, tmp_path, capsys):
    path = model.save(tmp_path / "m.featx")

    assert main(["card", str(path), "-o", str(tmp_path / "README.md"), "-q"]) == 0
    assert "# m\n" in (tmp_path / "README.md").read_text()


def test_a_card_that_cannot_be_written_is_one_line(model, tmp_path, capsys):
    path = model.save(tmp_path / "m.featx")

    assert main(["card", str(path), "-o", str(path / "README.md"), "-q"]) == 1
    assert "Cannot write the card to" in capsys.readouterr().err


def test_a_model_goes_to_the_hub_with_its_card_and_comes_back(model, table, tmp_path, hub, capsys):
    path = model.save(tmp_path / "m.featx")

    assert main(["push", str(path), "hf://me/birds", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["commit"].endswith(COMMIT)
    assert set(hub.files) == {"model.featx", "README.md"}
    assert hub.files["model.featx"] == path.read_bytes()
    again = featx.load("hf://me/birds")
    assert again.predict(table).tolist() == model.predict(table).tolist()
    assert {asked.rpartition("/")[2] for asked in hub.asked} == {"model.featx"}  # and nothing else
    with pytest.raises(MissingDataError, match=r"Cannot fetch other.featx of me/birds"):
        featx.load("hf://me/birds/other.featx")


def test_code_neither_goes_to_the_hub_nor_comes_from_it(table, tmp_path, hub):
    from sklearn.tree import DecisionTreeClassifier

    model = featx.fit(table, head="sklearn.tree:DecisionTreeClassifier")
    assert isinstance(model.head, DecisionTreeClassifier)
    path = model.save(tmp_path / "m.featx", unsafe_pickle=True)
    with pytest.raises(ModelFileError, match="pickle"):
        featx.push(path, "hf://me/birds")
    assert hub.files == {}
    hub.files["model.featx"] = path.read_bytes()
    with pytest.raises(ModelFileError, match="pickle"):
        featx.load("hf://me/birds")
    with pytest.raises(OptionError, match="data alone"):
        featx.load("hf://me/birds", unsafe_pickle=True)
    with pytest.raises(OptionError, match=r"run.py is no model file"):
        featx.load("hf://me/birds/run.py")


@pytest.mark.parametrize("wrong", ["hf://birds", "hf://me/birds/../../x.featx@", "hf://me/birds name"])
def test_an_address_that_is_none_is_refused(wrong):
    with pytest.raises(OptionError, match="hf://owner/name"):
        Address.parse(wrong)


def test_images_as_before_have_not_drifted_and_others_have(model, table):
    rng = np.random.default_rng(1)
    y = np.arange(300) % 3
    same = (rng.standard_normal((300, 8)) + 2.5 * np.eye(3, 8)[y]).astype(np.float32)
    alike = featx.drift(model, Features.from_arrays(same), reference=table)
    one_class = featx.drift(model, Features.from_arrays(same[y == 0]), reference=table)
    elsewhere = featx.drift(model, Features.from_arrays(same - 20 * np.eye(8)[7]), reference=table)

    assert not alike.drifted, str(alike)
    assert {shift.name for shift in one_class.shifts if shift.is_drift(0.25)} == {"predictions"}
    assert "familiarity" in {shift.name for shift in elsewhere.shifts if shift.is_drift(0.25)}
    assert alike.unfamiliar < 0.05
    assert not featx.drift(model, Features.from_arrays(same[y == 0]), reference=table, max_psi=20).drifted


def test_a_small_shift_of_few_rows_may_be_chance():
    few = shift_of("x", list("abcdefghij"), np.full(10, 10), np.array([8, 2, 1, 5, 1, 4, 3, 1, 2, 3]))

    assert few.psi > 0.25
    assert not few.is_drift(0.25)


def test_pipelines_hear_of_a_drift_by_the_exit_status(tmp_path, capsys):
    photos = write_photos(tmp_path / "photos")
    options = {"backbone": "timm/test_resnet", "weights": "none", "image_size": 32, "engine": "eager", "workers": 0}
    table = featx.extract(photos, cache=tmp_path / "cache", **options)
    path = featx.fit(table, head="ridge", val=0).save(tmp_path / "m.featx")
    X, y = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8), np.arange(40) % 3
    np.savez(tmp_path / "noise.npz", X=X, y=y)
    np.savez(tmp_path / "dark.npz", X=X // 4 + np.array([180, 0, 0], np.uint8), y=y)
    words = ["drift", str(path), str(tmp_path / "noise.npz"), "--workers", "0", "--engine", "eager", "--json"]
    words += ["--cache", str(tmp_path / "cache"), "--reference"]

    assert main([*words, str(tmp_path / "noise.npz")]) == 0
    assert json.loads(capsys.readouterr().out)["drifted"] is False
    assert main([*words, str(tmp_path / "dark.npz")]) == 3
    assert json.loads(capsys.readouterr().out)["shifts"][0]["drifted"] is True
    with pytest.raises(DataError, match="12 images can be read"):
        featx.drift(featx.load(path), photos, workers=0, engine="eager")
