"""The explorer's protocol, without a browser: what it answers, whom it refuses, and what it keeps."""

import io
import os
import signal
import subprocess
import sys

import httpx
import numpy as np
import pytest
from model_tables import NAMES, digits, table
from PIL import Image
from starlette.testclient import TestClient
from toy_images import tree

import featx
from featx import Features
from featx.cli import main
from featx.errors import DataError
from featx.exploring import Session, default_log
from featx.exploring.app import make_app
from featx.exploring.guard import Guard
from featx.exploring.maps import curve_order, framed
from featx.exploring.quick_head import QuickHead
from featx.features.label_log import read_labels, standing

TOKEN, PORT = "token", 8000
OWN = {"host": f"127.0.0.1:{PORT}", "x-featx": "1"}


@pytest.fixture
def half(tmp_path):
    """A session on 300 digits, of which those at odd places have no label."""
    X, y, _ = digits(300)
    rows = table(tmp_path / "cache", X, np.where(np.arange(300) % 2, -1, y), [""] * 300)
    session = Session(rows, tmp_path / "labels.csv", pictures=tmp_path / "pictures")
    session.truth = y
    yield session
    session.close()


@pytest.fixture
def ask(half):
    client = TestClient(Guard(make_app(half), TOKEN, PORT), base_url=f"http://127.0.0.1:{PORT}")

    def ask(name, status=200, **body):
        answer = client.post(f"/{TOKEN}/api/{name}", json=body, headers=OWN)
        assert answer.status_code == status, answer.text
        return answer.json()

    ask.client = client
    return ask


# Learning


def test_the_quick_head_learns_and_unlearns_as_if_it_had_been_fitted_anew():
    X, y, _ = digits(400)
    rows, nobody = Features.from_arrays(X), np.zeros(400, bool)
    rng = np.random.default_rng(0)
    head = QuickHead(rows, np.arange(400), nobody)
    for _ in range(6):
        labels = np.where(rng.random(400) < 0.5, rng.integers(0, 10, 400), -1)
        head.learn(labels, 10)
    labels = np.where(rng.random(400) < 0.7, y, -1)
    head.learn(labels, 10)
    anew = QuickHead(rows, np.arange(400), nobody)
    anew.learn(labels, 10)
    anew._penalty, anew._chosen_at = head._penalty, head._chosen_at  # chosen when there were other labels
    anew.learn(labels, 10)

    np.testing.assert_allclose(head.probabilities, anew.probabilities, atol=2e-2)
    assert (head.honest.argmax(1) == y)[labels < 0].mean() > 0.85


def test_no_row_is_judged_by_a_head_that_has_learned_it_or_its_group():
    X, y, _ = digits(300)
    rng = np.random.default_rng(0)
    groups = np.arange(300) // 3
    noise = np.repeat(rng.integers(0, 10, 100), 3)  # labels that only a head that has seen the group can know
    X = np.repeat(rng.standard_normal((100, 64)).astype(np.float32), 3, axis=0)
    head = QuickHead(Features.from_arrays(X), groups, np.zeros(300, bool))
    head.learn(noise, 10)

    assert (head.probabilities.argmax(1) == noise).mean() > 0.6
    assert (head.honest.argmax(1) == noise).mean() < 0.25
    assert all(len(set(head.fold[groups == g])) == 1 for g in range(100))


def test_rows_of_val_and_test_never_teach_and_tell_the_accuracy(tmp_path):
    X, y, splits = digits(400)
    session = Session(table(tmp_path, X, y, splits), tmp_path / "l.csv", pictures=tmp_path / "p")
    session.learn_now()

    assert session.head.n_taught == (splits == "train").sum()
    assert session.learned["accuracy"]["how"] == "val and test"
    assert session.learned["accuracy"]["n"] == (splits == "test").sum()
    assert session.learned["accuracy"]["value"] > 0.85
    session.close()


def test_the_map_is_framed_and_its_curve_keeps_neighbours_together():
    places = framed(np.random.default_rng(0).standard_normal((4000, 2)).astype(np.float32))
    order = curve_order(places)
    steps = np.linalg.norm(np.diff(places[order], axis=0), axis=1)

    assert sorted(order.tolist()) == list(range(4000))
    assert np.abs(places).max() < 2.0
    assert np.median(steps) < 0.1 * np.median(np.linalg.norm(np.diff(places, axis=0), axis=1))


# Questions


def test_labels_are_on_the_disk_when_they_are_answered_and_a_new_session_has_them(half, ask):
    done = ask("label", rows=[1, 3, 5], label="a new class")
    ask("label", rows=[1], label=None)
    told = ask.client.get(f"/{TOKEN}/api/changes?after=1&wait=0", headers=OWN).json()

    assert done["rows"] == [1, 3, 5]
    assert [entry.label for entry in read_labels(half.log.path)] == ["a new class"] * 3 + [""]
    assert told["classes"][-1] == "a new class"
    assert dict(zip(told["rows"], told["labels"], strict=True)) == {1: -1, 3: 10, 5: 10}
    again = Session(half.table, half.log.path, pictures=half.log.path.parent / "pictures")
    np.testing.assert_array_equal(again.y, half.y)
    assert again.classes == half.classes
    assert ask("undo")["undone"]
    assert half.y[1] == 10
    again.refresh()  # another window, or another person
    np.testing.assert_array_equal(again.y, half.y)
    again.close()


def test_accuracy_rises_as_images_are_labelled(half, ask):
    half.head.learn(np.full(300, -1), 10)
    assert not half.head.probabilities.size
    seen = []
    for batch in range(3):
        rows = [row for row in range(1, 300, 2) if row // 100 == batch]
        for digit in range(10):
            mine = [row for row in rows if half.truth[row] == digit]
            ask("label", rows=mine, label=NAMES[digit])
        half.learn_now()
        seen.append(half.learned["accuracy"]["value"])

    assert seen[-1] > 0.8
    assert half.learned["n_labelled"] == 300
    assert [one["n"] for one in half.history][-1] == 300


def test_next_are_unlabelled_and_unlike_and_doubts_have_reasons(half, ask):
    first = ask("next", n=12)
    assert "stand for all" in first["note"]
    half.learn_now()
    found = ask("next", n=12)
    assert len(set(found["rows"])) == 12
    assert all(half.y[row] < 0 for row in found["rows"])
    assert " or " in found["why"][0]
    wrong = [0, 2, 4, 6]
    for row in wrong:
        half.log.label([half.places.names[row]], NAMES[(half.truth[row] + 1) % 10])
    half.refresh()
    half.learn_now()
    half.touched[:] = False  # as if the data had come so
    doubts = ask("doubts", n=20)

    assert set(wrong) & set(doubts["rows"][:8])
    assert "neighbours" in doubts["why"][0]
    ask("keep", rows=[doubts["rows"][0]])
    assert doubts["rows"][0] not in ask("doubts", n=20)["rows"]


def test_search_finds_what_featx_search_finds(half, ask):
    found = ask("search", like=[4], unlike=[7], k=10)
    expected = featx.search(half.table, 4, unlike=[str(half.table.ids[7])], k=10)

    assert found["rows"] == expected.rows.tolist()
    assert "alike" in found["why"][0]
    assert "drop a photo" in ask("search", 400, like=[])["error"]


def test_slices_duplicates_outliers_and_names(half, ask):
    half.learn_now()
    slices = ask("slices", column="label")["slices"]
    assert {one["value"] for one in slices} == set(NAMES)
    assert sum(one["n"] for one in slices) == 150
    assert all(0 <= one["low"] <= one["accuracy"] <= one["high"] <= 1 for one in slices)
    assert "no column 'x'" in ask("slices", 400, column="x")["error"]
    assert len(ask("outliers", n=5)["rows"]) == 5
    assert "clusters" in ask("duplicates", near=0.999)["note"]
    assert ask("find", text="0012")["rows"] == [12]
    assert ask("rows", rows=[2])["rows"][0]["id"] == "0002.png"


def test_arrays_come_as_numbers(half, ask):
    half.learn_now()
    kinds = {"map-principal": (np.float32, 600), "map-learned": (np.float32, 600), "rank": (np.uint32, 300)}
    kinds |= {
        "label": (np.int16, 300),
        "prediction": (np.int16, 300),
        "doubt": (np.float32, 300),
        "unsure": (np.float32, 300),
    }
    for name, (kind, n) in kinds.items():
        data = ask.client.get(f"/{TOKEN}/api/array/{name}", headers=OWN).content
        assert np.frombuffer(data, kind).shape == (n,), name
    assert ask.client.get(f"/{TOKEN}/api/array/classes", headers=OWN).status_code == 400


@pytest.mark.parametrize(
    ("name", "body"),
    [("label", {"rows": [300], "label": "x"}), ("label", {"rows": [], "label": "x"}), ("label", {"rows": [0], "label": 5}),
     ("label", {"rows": ["0"], "label": "x"}), ("label", {"rows": [0], "label": ""}), ("label", {"rows": [0], "label": "x" * 201}),
     ("search", {"like": [{"photo": 3}]}), ("search", {"like": [-1]}), ("search", {"like": "all"}), ("rows", {"rows": [9999]})],
)  # fmt: skip
def test_nonsense_is_answered_in_words_and_changes_nothing(half, ask, name, body):
    assert ask(name, 400, **body)["error"]
    assert not half.log.path.exists()


# Who is let in


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (f"/{TOKEN}/", {}, 200),
        ("/", {}, 404),
        ("/wrong/", {}, 404),
        ("/wrong/api/changes?after=0&wait=0", {}, 404),
        (f"/{TOKEN}/", {"host": "evil.example:8000"}, 421),
        (f"/{TOKEN}/", {"host": "127.0.0.1:9999"}, 421),
        (f"/{TOKEN}/", {"origin": "https://evil.example"}, 403),
        (f"/{TOKEN}/", {"sec-fetch-site": "cross-site"}, 403),
        (f"/{TOKEN}/", {"sec-fetch-site": "same-site"}, 403),
        (f"/{TOKEN}/page/../app.py", {}, 404),
        (f"/{TOKEN}/page/..%2fapp.py", {}, 404),
        (f"/{TOKEN}/page//etc/passwd", {}, 404),
        (f"/{TOKEN}/api/page/999999.jpg", {}, 404),
        (f"/{TOKEN}/api/image/999999.jpg", {}, 404),
    ],
)
def test_only_the_page_of_this_machine_is_answered(ask, path, headers, status):
    answer = ask.client.get(path, headers={"host": OWN["host"]} | headers)

    assert answer.status_code == status
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("lacking", ["x-featx", "origin"])
def test_another_page_cannot_write(half, ask, lacking):
    headers = {name: value for name, value in OWN.items() if name != lacking}
    headers |= {"origin": "null"} if lacking == "origin" else {}
    answer = ask.client.post(f"/{TOKEN}/api/label", json={"rows": [0], "label": "x"}, headers=headers)

    assert answer.status_code == 403
    assert not half.log.path.exists()
    assert ask.client.request("PUT", f"/{TOKEN}/api/label", headers=OWN).status_code == 405


# Pictures


def test_pictures_are_those_of_the_rows_and_others_are_not_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photos = tree(tmp_path / "photos", *(f"{c}/{i}.png" for c in "ab" for i in range(4)))
    rows = featx.extract(photos, backbone="timm/test_resnet", weights="none", image_size=32, workers=0, engine="eager")
    (photos / "a" / "0.png").write_bytes((photos / "b" / "3.png").read_bytes())  # another image under its name
    session = Session(rows, tmp_path / "l.csv", pictures=tmp_path / "kept")
    client = TestClient(Guard(make_app(session), TOKEN, PORT), base_url=f"http://127.0.0.1:{PORT}")
    sheet = client.get(f"/{TOKEN}/api/page/0.jpg").content
    row = rows.ids.tolist().index("b/1.png")

    pixels = np.asarray(Image.open(io.BytesIO(sheet)))
    cell = int(session.rank[row])
    shown = pixels[80 * (cell // 16) + 40, 80 * (cell % 16) + 40].astype(int)
    original = np.asarray(Image.open(photos / "b" / "1.png"))[0, 0].astype(int)
    assert np.abs(shown - original).max() < 25
    gone = int(session.rank[rows.ids.tolist().index("a/0.png")])
    assert np.abs(pixels[80 * (gone // 16) + 40, 80 * (gone % 16) + 40].astype(int) - 128).max() < 12
    assert client.get(f"/{TOKEN}/api/image/{row}.jpg").headers["content-type"] == "image/jpeg"
    assert client.get(f"/{TOKEN}/api/image/{rows.ids.tolist().index('a/0.png')}.jpg").status_code == 404
    photo = client.post(f"/{TOKEN}/api/photo", content=(photos / "b" / "2.png").read_bytes(), headers=OWN).json()
    found = client.post(f"/{TOKEN}/api/search", json={"like": [photo], "k": 1}, headers=OWN).json()
    assert found["rows"] == [rows.ids.tolist().index("b/2.png")]
    bad = client.post(f"/{TOKEN}/api/photo", content=b"no image", headers=OWN)
    assert (bad.status_code, "cannot be read" in bad.json()["error"]) == (400, True)
    assert default_log(rows) == tmp_path / "photos.labels.csv"
    session.close()


# The command


def start(folder, *words):
    """Start the command, and return it with its address."""
    command = [sys.executable, "-m", "featx", "explore", *words, "--no-browser", "-q"]
    env = os.environ | {"XDG_CACHE_HOME": str(folder / "xdg")}
    server = subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, text=True)
    return server, server.stdout.readline().strip()


def test_a_killed_server_loses_no_label_and_an_ended_one_leaves_nothing_running(tmp_path):
    X, y, _ = digits(200)
    rows = table(tmp_path / "cache", X, np.full(200, -1), [""] * 200)
    server, address = start(tmp_path, str(rows.path), "--labels", "l.csv")
    assert address.startswith("http://127.0.0.1:")
    assert len(address.split("/")[3]) >= 20
    try:
        for row in range(0, 40, 4):
            done = httpx.post(
                f"{address}api/label", json={"rows": [row], "label": NAMES[y[row]]}, headers={"x-featx": "1"}
            )
            assert done.status_code == 200
    finally:
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
        server.stdout.close()
    assert {entry.id for entry in standing(read_labels(tmp_path / "l.csv"))} == {
        f"{row:04}.png" for row in range(0, 40, 4)
    }
    server, address = start(tmp_path, str(rows.path), "--labels", "l.csv")
    try:
        about = httpx.post(f"{address}api/start", json={}, headers={"x-featx": "1"}).json()
        assert about["n_labelled"] == 10
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(20) in (0, 130)
        server.stdout.close()


def test_what_cannot_be_explored_says_what_to_type(tmp_path, capsys):
    rows = Features.from_arrays(np.eye(4), [0, 1, 0, 1])
    with pytest.raises(DataError, match="--labels FILE"):
        default_log(rows)
    numbers = Features.from_arrays(np.eye(4, dtype=np.float32), targets=[0.5, 1.5, 2.5, 3.5])
    numbers.export(tmp_path / "n.h5")
    assert main(["explore", str(tmp_path / "n.h5"), "--no-browser", "--cache", str(tmp_path)]) == 1
    assert "one class an image" in capsys.readouterr().err
