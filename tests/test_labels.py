"""Labels that people give: nothing of them is lost, nothing of the data changed, and every command takes them."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_tables import digits, table
from toy_images import tree

import featx
from featx.cli import main
from featx.errors import DataError
from featx.features import LabelLog, relabelled
from featx.features.label_log import COLUMNS, Entry, read_labels, standing

#: Names with all that a line, a cell or a column could stumble over.
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
LABELS = st.text(st.characters(codec="utf-8"), max_size=12).map(str.strip)


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    return table(tmp_path_factory.mktemp("numbers"), *digits(100))


def of(table, rows):
    return [(str(table.ids[row]), table.item_ids[row].tobytes().hex()) for row in rows]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(NAMES, LABELS), min_size=1, max_size=8), st.data())
def test_whatever_was_written_is_read_and_a_torn_line_costs_itself(tmp_path_factory, pairs, data):
    log = LabelLog(tmp_path_factory.mktemp("log") / "labels.csv", by="ann")
    for name, label in pairs:
        log.label([(name, "")], label)
    whole = log.path.read_bytes()
    expected = [(name, label) for name, label in pairs]

    assert [(entry.id, entry.label) for entry in read_labels(log.path)] == expected
    cut = data.draw(st.integers(0, len(whole)))
    log.path.write_bytes(whole[:cut])
    kept = whole[:cut].count(b"\n") - 1
    again = LabelLog(log.path, by="ben")
    again.label([("later", "")], "new")
    found = [(entry.id, entry.label) for entry in read_labels(log.path)]
    assert found[-1] == ("later", "new")
    assert found[:-1] in (expected[: max(kept, 0)], expected[: kept + 1])  # a line but for its end may be whole


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([*"xyz", "undo"]), st.sampled_from("cd"))))
def test_undo_and_its_own_undo_take_back_what_one_person_did_last(tmp_path_factory, gestures):
    path = tmp_path_factory.mktemp("log") / "labels.csv"
    logs = {by: LabelLog(path, by=by) for by in "ab"}
    done = []  # (by, image, label), those taken back removed
    for by, gesture, label in gestures:
        if gesture != "undo":
            logs[by].label([(gesture, "")], label)
            done.append((by, gesture, label))
            continue
        logs[by].undo()
        mine = [i for i, one in enumerate(done) if one[0] == by]
        if mine:
            del done[mine[-1]]
    expected = {image: label for _, image, label in done}

    assert {entry.id: entry.label for entry in standing(logs["a"].entries())} == expected
    assert {entry.id: entry.label for entry in standing(read_labels(*([path] if path.exists() else [])))} == expected


def test_logs_of_two_people_are_merged_by_time_in_any_order(tmp_path, capsys):
    ann, ben = LabelLog(tmp_path / "ann.csv", by="ann"), LabelLog(tmp_path / "ben.csv", by="ben")
    ann.label([("1", ""), ("2", "")], "cat")
    time.sleep(0.001)
    ben.label([("2", ""), ("3", "")], "dog")
    time.sleep(0.001)
    ann.label([("3", "")], "bird")
    assert main(["labels", "merge", str(ben.path), str(ann.path), "-o", str(tmp_path / "both.csv"), "--json"]) == 0

    assert json.loads(capsys.readouterr().out)["by"] == {"ann": 2, "ben": 1}
    for paths in [
        (ann.path, ben.path),
        (ben.path, ann.path),
        (tmp_path / "both.csv",),
        (tmp_path / "both.csv", ann.path),
    ]:
        assert {entry.id: entry.label for entry in standing(read_labels(*paths))} == {
            "1": "cat",
            "2": "dog",
            "3": "bird",
        }


WRITER = """
import sys
from featx.features import LabelLog
log = LabelLog(sys.argv[1], by=sys.argv[2])
for i in range(100_000):
    log.label([(f"{sys.argv[2]}-{i}-{j}", "") for j in range(3)], "cat")
    print(i, flush=True)
"""


def test_a_killed_writer_loses_nothing_that_it_was_told_is_written(tmp_path):
    path = tmp_path / "labels.csv"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), by], stdout=subprocess.PIPE, text=True)
        for by in ("ann", "ben")
    ]
    told = [[writer.stdout.readline() for _ in range(20)] for writer in writers]
    for writer in writers:
        os.kill(writer.pid, signal.SIGKILL)
    told = [len(lines) + len(writer.stdout.readlines()) for lines, writer in zip(told, writers, strict=True)]
    for writer in writers:
        writer.stdout.close()
        writer.wait()
    found = {entry.id for entry in read_labels(path)}

    for by, n in zip(("ann", "ben"), told, strict=True):
        assert {f"{by}-{i}-{j}" for i in range(n) for j in range(3)} <= found
    times = [entry.when for entry in read_labels(path)]
    assert all(times.count(when) <= 3 for when in set(times))  # no two gestures share a time


def test_a_clock_set_back_does_not_put_a_label_before_the_one_it_follows(tmp_path):
    path = tmp_path / "labels.csv"
    late = Entry("2999-01-01T00:00:00.000000Z", "ann", "1", "", "cat", "")
    path.write_text(f"{','.join(COLUMNS)}\n{late.line()}\n")
    LabelLog(path, by="ann").label([("1", "")], "dog")

    assert [entry.label for entry in standing(read_labels(path))] == ["dog"]


def test_any_other_file_is_refused_and_left_alone(tmp_path):
    (tmp_path / "labels.csv").write_text("id,label\n1,cat\n")

    with pytest.raises(DataError, match=r"is no log of labels.*featx extract"):
        read_labels(tmp_path / "labels.csv")
    with pytest.raises(DataError, match="featx explore TABLE --labels"):
        read_labels(tmp_path / "none.csv")


def test_a_label_follows_the_content_whatever_the_image_is_called(numbers, tmp_path):
    log = LabelLog(tmp_path / "labels.csv")
    ((_, item),) = of(numbers, [7])
    log.label([("another-name.png", item)], "a new class")
    log.label(of(numbers, [8]), "")
    log.label([(str(numbers.ids[9]), "ab" * 32)], "four")  # another image under an old name
    found = relabelled(numbers, log.path)

    assert found.classes == (*numbers.classes, "a new class")
    assert np.flatnonzero(found.y != numbers.y).tolist() == [7, 8]
    assert (found.classes[found.y[7]], found.y[8]) == ("a new class", -1)
    assert found.path == numbers.path
    np.testing.assert_array_equal(found.X, numbers.X)


def test_a_log_of_other_images_is_refused(numbers, tmp_path):
    LabelLog(tmp_path / "labels.csv").label([("x", "ab" * 32)], "cat")

    with pytest.raises(DataError, match="none of them is a row of the table"):
        relabelled(numbers, tmp_path / "labels.csv")


def test_fit_and_evaluate_take_a_log_in_python_and_typed(numbers, tmp_path, capsys):
    unlabelled = table(tmp_path / "none", numbers.X, np.full(100, -1), numbers.splits)
    log = LabelLog(tmp_path / "labels.csv")
    for k, name in enumerate(numbers.classes):
        log.label(of(numbers, np.flatnonzero(numbers.y == k)), name)
    model = featx.fit(unlabelled, "ridge", labels=log.path)
    typed = ["fit", str(unlabelled.path), "--head", "ridge", "--labels", str(log.path), "-o", str(tmp_path / "m.featx")]
    assert main([*typed, "--json"]) == 0
    fitted = json.loads(capsys.readouterr().out)
    assert main(["evaluate", str(tmp_path / "m.featx"), str(unlabelled.path), "--labels", str(log.path), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)

    assert fitted["train"]["n"] == model.report["train"]["n"]
    assert scores["accuracy"] == featx.evaluate(model, unlabelled, labels=log.path).accuracy.value
    assert scores["accuracy"] == featx.evaluate(model, numbers).accuracy.value


def test_applied_labels_are_a_new_csv_or_folder_and_the_photos_stay(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photos = tree(tmp_path / "photos", "cat/1.png", "cat/2.png", "cat/3.png", "dog/1.png", "dog/2.png")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in photos.rglob("*.*")}
    rows = featx.extract(photos, backbone="timm/test_resnet", weights="none", image_size=32, workers=0, engine="eager")
    LabelLog("l.csv").label(of(rows, [0]), "../../evil: <b>")
    base = ["labels", "apply", str(rows.path), "l.csv", "--json", "-o"]
    assert main([*base, "new.csv"]) == 0
    assert main([*base, "view"]) == 0
    capsys.readouterr()
    lines = Path("new.csv").read_text().splitlines()
    written = {row["file"]: row["label"] for row in csv.DictReader(lines)}

    assert written == {str(rows.ids[0]): "../../evil: <b>"} | {str(i): i.split("/")[0] for i in rows.ids[1:].tolist()}
    links = sorted(path for path in (tmp_path / "view").rglob("*") if path.is_symlink())
    assert {path.resolve() for path in links} == set(before)
    assert {path.parent.name for path in links} >= {"cat", "dog"}
    assert len({path.parent for path in links}) == 3
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in photos.rglob("*.*")} == before
    assert main([*base, "view"]) == 1
    assert "nothing is overwritten" in capsys.readouterr().err
