"""Groups (patients, sites, films): no split, fold or hold-out that any command or head makes goes through one."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

import featx
from featx.cli import main
from featx.comparison.subsets import keep_shots, with_validation
from featx.curation import out_of_fold
from featx.datasets import ValidationShare, draw_validation, open_dataset
from featx.errors import DataError, OptionError
from featx.evaluation import mcnemar
from featx.features import Features
from featx.model import Accuracy
from featx.model.fitter import HeadFitter
from featx.model.near_groups import with_near_groups
from featx.model.rows import choose_rows
from featx.model.scaling import FeatureScaler
from featx.protocols import run_protocol

HOW = {"backbone": "alexnet", "weights": "none", "image_size": 64, "workers": 0}


@st.composite
def grouped_rows(draw):
    """Labels, groups and contents: groups of one, of many, across classes, one of more than half; some images twice."""
    n = draw(st.integers(4, 120))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    labels = rng.integers(0, draw(st.integers(2, 5)), n)
    numbers = rng.integers(0, draw(st.integers(2, n)), n)
    if draw(st.booleans()):
        numbers[rng.permutation(n)[: n // 2 + 1]] = 0
    groups = np.array([f"g{k}" if k >= 0 else "" for k in numbers - draw(st.integers(0, 1))])
    contents = rng.integers(0, draw(st.sampled_from([n // 2 + 1, 10 * n])), n)
    item_ids = rng.integers(1, 256, (10 * n, 32)).astype(np.uint8)[contents]
    return labels, groups, item_ids


@settings(max_examples=150, deadline=None)
@given(grouped_rows(), st.floats(0.02, 0.7), st.integers(0, 50))
def test_the_draw_goes_through_no_group_and_leaves_each_class_in_train(rows, fraction, seed):
    labels, groups, item_ids = rows
    how = {"splits": np.full(len(labels), ""), "labels": labels, "classes": "abcde", "item_ids": item_ids}
    try:
        drawn = draw_validation(ValidationShare(fraction, seed=seed), **how, groups=groups)
    except DataError as error:
        assert "Every group holds all images of some class" in str(error)  # noqa: PT017 - whether it comes is drawn
        return

    for units in (groups[groups != ""], [content.tobytes() for content in item_ids]):
        of = drawn[groups != ""] if len(units) == (groups != "").sum() else drawn
        sides = set(zip(units, of, strict=True))
        assert len({unit for unit, _ in sides}) == len(sides)
    # Of identical images the first class counts, so a class whose every image is also of another may go.
    first = [label == labels[(item_ids == item_ids[i]).all(axis=1)].min() for i, label in enumerate(labels)]
    assert set(labels[first]) == set(labels[first & (drawn == "train")])
    again = np.random.default_rng(seed).permutation(len(labels))
    shuffled = draw_validation(
        ValidationShare(fraction, seed=seed), **how | {"labels": labels[again], "item_ids": item_ids[again]},
        groups=groups[again],
    )  # fmt: skip
    np.testing.assert_array_equal(shuffled, drawn[again])  # whatever the order of the rows


def test_of_the_last_rows_those_of_earlier_groups_stay_in_train():
    rows = {"splits": np.full(10, ""), "labels": np.zeros(10, int), "classes": "a", "item_ids": None}
    drawn = draw_validation(ValidationShare(0.4, last=True), **rows, groups=np.array([*"aabbbcb", "", "c", "d"]))
    assert "".join(split[0] for split in drawn) == "ttttttt" + "vtv"


def test_the_share_of_many_small_groups_is_met_in_each_class():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(500), rng.integers(1, 5, 500))
    labels = (group * 7 + rng.integers(0, 2, len(group))) % 4
    drawn = draw_validation(
        ValidationShare(0.2),
        splits=np.full(len(group), ""),
        labels=labels,
        classes="abcd",
        item_ids=rng.integers(1, 256, (len(group), 32)).astype(np.uint8),
        groups=group.astype(str),
    )
    for label in range(4):
        assert (drawn[labels == label] == "val").mean() == pytest.approx(0.2, abs=0.02)


@pytest.fixture(scope="module")
def patients(tmp_path_factory):
    """Folder of 24 patients with two to four photos each, every patient of one class but two; with a CSV of them."""
    root, rng = tmp_path_factory.mktemp("patients"), np.random.default_rng(0)
    lines = ["file,diagnosis,patient"]
    for patient in range(24):
        for k in range(2 + patient % 3):
            sick = patient % 2 if patient > 1 else k % 2
            pixels = rng.integers(0, 160, (12, 12, 3)) + 90 * np.uint8(sick)
            Image.fromarray(pixels.astype(np.uint8)).save(root / f"p{patient:02}_{k}.png")
            lines.append(f"p{patient:02}_{k}.png,{'sick' if sick else 'well'},{patient:02}")
    (root / "patients.csv").write_text("\n".join(lines))
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def table(patients, cache):
    return featx.extract(patients / "patients.csv", group_column="patient", cache=cache, **HOW)


def patients_of(table: Features, item_ids: np.ndarray) -> set[str]:
    known = {item.tobytes(): group for item, group in zip(table.item_ids, table.groups, strict=True)}
    return {known[item.tobytes()] for item in item_ids}


def test_column_regex_folder_and_list_make_the_same_groups(patients, table, tmp_path):
    names = [row.split(",")[2] for row in (patients / "patients.csv").read_text().splitlines()[1:]]
    assert table.groups.tolist() == names
    by_name = open_dataset(patients, group_regex=r"p(?P<group>\d+)_")
    assert by_name.groups.tolist() == names
    assert by_name.notes[-1] == "24 groups of 2 to 4 images: no split is drawn through one."
    assert open_dataset(sorted(map(str, patients.glob("*.png"))), groups=names).groups.tolist() == names
    for name, patient in zip(by_name.ids, names, strict=True):
        (tmp_path / "a" / patient).mkdir(parents=True, exist_ok=True)
        (tmp_path / "a" / patient / name).write_bytes((patients / name).read_bytes())
    assert open_dataset(tmp_path, group_by="folder").groups.tolist() == [f"a/{patient}" for patient in names]


def test_parquet_and_frames_have_group_columns(patients, tmp_path):
    pd = pytest.importorskip("pandas")
    files = sorted(patients.glob("*.png"))
    names = [file.name[1:3] for file in files]
    frame = pd.DataFrame({"image": [file.read_bytes() for file in files], "y": [0, 1] * 36, "who": names})
    frame.to_parquet(tmp_path / "t.parquet")
    assert open_dataset(tmp_path / "t.parquet", label_column="y", group_column="who").groups.tolist() == names
    frame["image"] = list(map(str, files))
    assert open_dataset(frame, label_column="y", group_column="who").groups.tolist() == names


def test_every_way_to_hold_rows_out_keeps_patients_whole(patients, table, cache, tmp_path):
    drawn = featx.extract(
        patients / "patients.csv", group_column="patient", val="0.25", name="drawn", cache=cache, **HOW
    )
    assert not set(drawn.groups[drawn.splits == "val"]) & set(drawn.groups[drawn.splits == "train"])
    assert (drawn.splits == "val").any()

    fitted = featx.fit(table, "logreg", val=0.25, cv=3)
    tuned = featx.finetune(
        patients / "patients.csv", group_column="patient", val="0.25", epochs=1, init_head="none", cache=cache, **HOW
    )
    featx.compare(
        patients / "patients.csv", group_column="patient", backbones=["alexnet"], heads=["centroid"], val="0.25",
        output=tmp_path, cache=cache, weights="none", image_size=64, workers=0,
    )  # fmt: skip
    compared = featx.load(next((tmp_path / "models").iterdir()))
    for model in (fitted, tuned, compared):
        assert patients_of(table, model.chosen_on) == set(drawn.groups[drawn.splits == "val"])
        assert not patients_of(table, model.chosen_on) & patients_of(table, model.trained_on)


def test_folds_keep_patients_whole(table, monkeypatch):
    seen = []
    split = StratifiedGroupKFold.split

    def watched(self, X, y=None, groups=None):
        for train, held in split(self, X, y, groups):
            seen.append((np.asarray(groups)[train], np.asarray(groups)[held]))
            yield train, held

    monkeypatch.setattr(StratifiedGroupKFold, "split", watched)
    featx.fit(table, "ridge", cv=3)
    featx.fit(table, "logreg-cv", val=0)  # its own folds
    featx.fit(table, "mlp", val=0, settings={"early_stopping": True, "epochs": 2})  # its own hold-out
    out_of_fold(table)

    assert len(seen) >= 3 + 3 + 1 + 2
    for train, held in seen:
        assert len(held)
        assert not set(train) & set(held)
        assert len(set(train) | set(held)) <= 24  # patients, not photos


def test_tables_keep_their_groups_and_follow_changed_ones(patients, table, cache, tmp_path):
    assert Features.open(table.export(tmp_path / "t.h5")).groups.tolist() == table.groups.tolist()
    assert np.load(table.export(tmp_path / "t.npz"))["groups"].tolist() == table.groups.tolist()
    assert table.select([5, 3]).groups.tolist() == table.groups[[5, 3]].tolist()
    again = featx.extract(patients / "patients.csv", cache=cache, **HOW)
    assert again.path == table.path
    assert set(again.groups.tolist()) == {""}
    featx.extract(patients / "patients.csv", group_column="patient", cache=cache, **HOW)


def test_given_splits_through_a_group_are_warned_of():
    rng = np.random.default_rng(0)
    table = Features.from_arrays(
        rng.normal(size=(80, 4)), [0, 1] * 40, splits=["train"] * 50 + ["val"] * 30,
        groups=[str(k % 60) for k in range(80)],
    )  # fmt: skip
    warning, gap = featx.fit(table, "ridge").report.warnings
    assert "on 20 rows of groups that were trained on" in gap
    assert warning == (
        "20 groups, '0' for one, are in several splits (train, val), as these were given: scores there are too good."
    )


def test_groups_that_hold_a_whole_class_cannot_be_drawn():
    X, y = np.random.default_rng(0).normal(size=(40, 4)), [0, 1] * 20
    one_each = Features.from_arrays(X, y, groups=["left", "right"] * 20)
    with pytest.raises(DataError, match="Every group holds all images of some class"):
        featx.fit(one_each, "ridge")
    assert featx.fit(one_each, "ridge", val=0).report.val is None
    with pytest.raises(OptionError, match="--cv 3 needs 3 groups of images in train, and there are 2"):
        featx.fit(one_each, "ridge", val=0, cv=3)
    thirds = Features.from_arrays(X, y, groups=[str(k // 14) for k in range(40)])
    assert len(choose_rows(thirds, 0.1).val) == 12  # one of three large groups is better than none


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--group-regex", "("], "--group-regex '(' is no regular expression"),
        (["--group-regex", "zebra"], "--group-regex finds no group in the name of any image, 'p00_0.png' for one"),
        (["--group-regex", "p", "--group-by", "folder"], "--group-regex and --group-by both make groups"),
        (["--group-column", "pateint"], "has no column 'pateint'. It has: file, diagnosis, patient"),
    ],
)
def test_wrong_groups_get_one_helpful_line(patients, tmp_path, capsys, options, message):
    code = main(["extract", str(patients / "patients.csv"), *options, "--dry-run", "--cache", str(tmp_path)])
    said = capsys.readouterr().err
    assert code
    assert message in said
    assert said.count("\n") == 1


def test_the_command_line_says_what_the_groups_are(patients, tmp_path, capsys):
    options = [f"--{name.replace('_', '-')}={value}" for name, value in HOW.items()]
    options += ["--cache", str(tmp_path), "-o", str(tmp_path / "m.featx"), "--json"]
    code = main(["fit", str(patients / "patients.csv"), "--group-column", "patient", "--head", "ridge", *options])
    out, said = capsys.readouterr()
    assert code == 0, said
    assert "24 groups of 2 to 4 images: no split is drawn through one." in said
    assert json.loads(out)["val"]["n"] > 1


def test_intervals_know_that_rows_of_a_group_are_right_or_wrong_together():
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(40), 25)
    covered = {True: 0, False: 0}
    for _ in range(200):
        of_patient = rng.beta(4, 1, 40)  # 80 % right on average, patients unlike each other
        right = rng.random(1000) < of_patient[patient]
        for by_group in covered:
            low, high = Accuracy.of(right, patient if by_group else None).ci95
            covered[by_group] += low <= 0.8 <= high
    assert covered[True] >= 180
    assert covered[False] <= 150

    alone = Accuracy.of(right, np.arange(1000))  # groups of one row change next to nothing
    assert alone.ci95 == pytest.approx(Accuracy.of(right).ci95, abs=1e-3)
    again = Accuracy.from_dict(json.loads(json.dumps(Accuracy.of(right, patient).to_dict())))
    assert again == Accuracy.of(right, patient)
    assert Accuracy.of(np.ones(100, bool), np.arange(100) // 50).ci95[0] < 0.4  # two patients


def test_reports_and_evaluations_give_intervals_over_patients(table, tmp_path):
    model = featx.fit(table, "ridge", val=0.3)
    plain = Accuracy(model.report.val.n, model.report.val.n_correct)
    assert model.report.val.n_effective < plain.n
    assert featx.load(model.save(tmp_path / "m.featx")).report.val == model.report.val
    found = featx.evaluate(model, table).accuracy
    assert (found.n, found.n_effective) == (model.report.val.n, model.report.val.n_effective)


@settings(max_examples=40, deadline=None)
@given(grouped_rows(), st.integers(2, 4), st.booleans(), st.integers(0, 20))
def test_no_fold_or_part_that_a_fit_makes_goes_through_a_group(rows, k, timed, seed):
    labels, groups, item_ids = rows
    rng = np.random.default_rng(seed)
    table = Features.from_arrays(
        rng.normal(size=(len(labels), 2)), labels, classes=list("abcde"), groups=groups.tolist(),
        times=rng.integers(0, 9, len(labels)) if timed else None,
    )  # fmt: skip
    table = Features(dataclasses.replace(table.plain_table, item_ids=item_ids))
    contents = np.array([content.tobytes().hex() for content in item_ids])
    try:
        parts = choose_rows(table, 0.3, seed)
        folds = HeadFitter(table, FeatureScaler("none"), "ridge", None, seed)._folds(parts.train, k)
    except (DataError, OptionError):  # too few to draw from, which other tests are about
        return
    for one, other in [(parts.train, parts.val), *folds]:
        assert not set(groups[one].tolist()) & set(groups[other].tolist()) - {""}
        assert not set(contents[one].tolist()) & set(contents[other].tolist())
        if timed:
            assert table.times[one].max() <= table.times[other].min()
            assert not set(table.times[one].tolist()) & set(table.times[other].tolist())


def test_every_head_that_holds_rows_out_by_itself_is_given_the_groups(table, monkeypatch):
    """Heads with folds or hold-outs of their own take groups, whatever the name; none draws them without."""
    drawn = []
    for kind in (StratifiedGroupKFold, GroupKFold):
        split = kind.split

        def watched(self, X, y=None, groups=None, split=split):
            for train, held in split(self, X, y, groups):
                drawn.append(set(np.asarray(groups)[train]) & set(np.asarray(groups)[held]))
                yield train, held

        monkeypatch.setattr(kind, "split", watched)

    def refuse(*_, **__):
        raise AssertionError("rows were held out one by one")

    for kind in (StratifiedKFold, KFold):
        monkeypatch.setattr(kind, "split", refuse)
    monkeypatch.setattr("sklearn.model_selection.train_test_split", refuse)
    quick = {"mlp": {"epochs": 1, "early_stopping": True}, "xgboost": {"n_estimators": 2}}
    for name in ("mlp", "logreg", "logreg-cv", "ridge", "knn", "centroid", "xgboost"):
        for val in (0, 0.3):
            featx.fit(table, name, val=val, settings=quick.get(name))
    featx.fit(table, "auto", settings={"heads": "ridge,centroid"}, cv=None, val=0.3)
    featx.fit(table, "ridge", val=0.3, cv=3, search="alpha=1,10")

    assert len(drawn) >= 3
    assert not any(drawn)


def test_few_shot_subsets_and_protocols_keep_groups_whole(table, patients):
    dataset = with_validation(open_dataset(patients / "patients.csv", group_column="patient", val=0.25))
    few = keep_shots(dataset, 5, seed=0)
    sides = {split: set(few.groups[few.splits == split]) for split in ("train", "val")}
    assert sides["val"]
    assert not sides["train"] & sides["val"]
    tested = Features(dataclasses.replace(table.whole(), splits=np.where(table.groups > "17", "test", "train")))
    for name in ("dinov2-logreg", "clip-lp"):
        model = run_protocol(tested, name)
        chosen = {row.tobytes() for row in model.chosen_on}
        others = [row for row in model.trained_on if row.tobytes() not in chosen]  # it was refitted on both
        assert not patients_of(table, model.chosen_on) & patients_of(table, others)


def test_times_decide_what_validates_and_folds_look_back_only(patients, tmp_path):
    times = np.array([3.0, 1, 2, 5, 5, 4, np.nan, 6])
    rows = {"splits": np.full(8, ""), "labels": np.zeros(8, int), "classes": "a", "item_ids": None}
    drawn = draw_validation(ValidationShare(0.25), **rows, times=times)
    assert "".join(split[0] for split in drawn) == "tttvvttv"  # both of moment 5, or neither
    groups = np.array(["", "", "", "g", "", "g", "", ""])
    drawn = draw_validation(ValidationShare(0.25), **rows, times=times, groups=groups)
    assert drawn.tolist()[3:5] == ["", "val"]  # its group began before

    lines = (patients / "patients.csv").read_text().splitlines()
    dated = [f"{line},2024-{1 + k % 12:02}-0{1 + k % 9}" for k, line in enumerate(lines[1:])]
    (patients / "dated.csv").write_text("\n".join([f"{lines[0]},taken", *dated]))
    dataset = open_dataset(patients / "dated.csv", label_column="diagnosis", time_column="taken", val=0.2)
    late = dataset.splits == "val"
    assert dataset.times[late].min() > dataset.times[~late].max()
    with pytest.raises(DataError, match="is no time. Write dates as 2024-05-31"):
        open_dataset(patients / "dated.csv", label_column="patient", time_column="diagnosis")


def test_the_gap_of_groups_on_both_sides_is_named():
    rng = np.random.default_rng(0)
    who, y = np.repeat(np.arange(60), 4), np.repeat(rng.integers(0, 2, 60), 4)
    X = rng.normal(size=(60, 200))[who] + 0.3 * rng.normal(size=(240, 200))  # patients are known, diseases are not
    splits = np.where(who >= 50, "test", np.where(np.arange(240) % 4 == 3, "test", "train"))
    table = Features.from_arrays(X, y, splits=splits.tolist(), groups=who.astype(str).tolist())
    gap = featx.fit(table, "ridge", val=0, test=True).report.warnings[-1]
    assert gap.startswith("test: 100.0 % on 50 rows of groups that were trained on, ")
    assert "on 40 of new ones, a gap of " in gap
    numbers = Features.from_arrays(
        X[:200], targets=rng.normal(size=50)[who[:200]], splits=splits[:200].tolist(), groups=who[:200].astype(str)
    )
    told = featx.fit(numbers, "ridge", val=0, test=True).report.warnings[-1]
    assert told.startswith("Every test row is of a group that was trained on")


def test_mcnemar_counts_patients_where_rows_of_one_agree():
    truth = np.zeros(40, int)
    a, b, patient = truth, np.repeat([1, 0], [20, 20]), np.arange(40) // 10
    assert mcnemar(truth, a, b).p_value < 1e-5
    assert mcnemar(truth, a, b, patient).p_value == 0.5  # two patients say so
    assert mcnemar(truth, a, b, np.arange(40)).p_value < 1e-3


def test_near_duplicates_are_one_group_with_what_they_are_linked_to():
    rng = np.random.default_rng(0)
    X = np.repeat(rng.normal(size=(40, 16)), 3, axis=0) + 0.01 * rng.normal(size=(120, 16))
    y = np.repeat(np.arange(40) % 2, 3)
    groups = [f"g{k // 6}" if k < 12 else "" for k in range(120)]
    table = Features.from_arrays(X, y, groups=groups)
    near, told = with_near_groups(table, 0.99)
    assert "120 images in 40 clusters" in told
    clusters = near.groups.reshape(40, 3)
    assert (clusters == clusters[:, :1]).all()
    assert len(set(clusters[:, 0])) == 38  # two of the first four clusters are of one group, and two of another
    model = featx.fit(table, "ridge", val=0.3, group_near_duplicates=0.99)
    assert model.report.val.n % 3 == 0
    assert told == model.report.warnings[0]
    with pytest.raises(OptionError, match="--group-near-duplicates"):
        featx.fit(table, "ridge", group_near_duplicates=2)
