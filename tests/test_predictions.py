"""Predictions in memory, as JSON and as CSV."""

import csv
import json

import numpy as np
import pytest

from featx.errors import DataError, MissingDataError, MissingExtraError, OptionError
from featx.model import Predictions, write_csv
from featx.model.outputs import Outputs
from featx.model.tabulate import check_destination, write_rows
from featx.model.target_predictions import LabelPredictions, answers


def make(**changes):
    fields = {
        "ids": ("test/1.jpg", "test/2.jpg", "test/3.jpg"),
        "classes": ("cat", "dog", "owl"),
        "probabilities": np.array([[0.2, 0.5, 0.3], [np.nan] * 3, [0.4, 0.35, 0.25]]),
        "errors": {1: "truncated"},
    }
    return Predictions(**fields | changes)


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_a_bad_image_keeps_its_place_and_never_gets_a_label():
    predictions = make()

    assert predictions.labels == ("dog", None, "cat")
    assert predictions.best.tolist() == [1, -1, 0]
    assert predictions.top(2) == [[("dog", 0.5), ("owl", 0.3)], [], [("cat", 0.4), ("dog", 0.35)]]


def test_all_images_bad():
    predictions = make(probabilities=np.full((3, 3), np.nan), errors=dict.fromkeys(range(3), "empty"))

    assert predictions.labels == (None, None, None)
    assert predictions.best.tolist() == [-1, -1, -1]


def test_below_the_minimum_probability_the_model_abstains_but_shows_its_guess():
    predictions = make(min_probability=0.45)

    assert predictions.labels == ("dog", None, None)
    third = predictions.to_dict()["predictions"][2]
    assert third["label"] is None
    assert third["probability"] == 0.4
    assert third["top"][0] == ["cat", 0.4]


def test_rows_without_a_label_get_the_word_that_is_asked_for_but_not_those_that_cannot_be_read(tmp_path):
    predictions = make(min_probability=0.45, unknown="other")
    for form in ("photos", "wide", "long"):
        write_csv(predictions, tmp_path / f"{form}.csv", form=form)

    assert predictions.labels == ("dog", None, "other")
    assert [row["label"] for row in predictions.to_dict()["predictions"]] == ["dog", None, "other"]
    assert [row[1] for row in rows_of(tmp_path / "photos.csv")] == ["predicted", "dog", "", "other"]
    assert [row[1] for row in rows_of(tmp_path / "wide.csv")] == ["label", "dog", "", "other"]
    assert rows_of(tmp_path / "long.csv")[-1] == ["test/3.jpg", "", "other", "0.4", ""]


def test_several_labels_are_unknown_where_the_row_is_unfamiliar_and_none_where_none_is_probable():
    outputs = Outputs("multilabel", ("cat", "dog"), (0.5, 0.5))
    found = LabelPredictions(
        ids=("a", "b", "c", "d"),
        outputs=outputs,
        array=np.array([[0.9, 0.1], [0.9, 0.1], [0.2, 0.1], [np.nan, np.nan]]),
        familiarity=np.array([0.5, 0.01, 0.5, np.nan]),
        errors={3: "truncated"},
        min_familiarity=0.05,
        unknown="other",
    )

    assert found.labels == (("cat",), ("other",), (), None)
    assert answers(found, "mask").tolist() == [("cat",), ("other",), (), None]
    assert [row[0] for row in found.columns()[1]] == ["cat", "other", "", ""]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"unknown": "other"}, "below --min-probability or --min-familiarity. Say that as well"),
        ({"unknown": "cat", "min_probability": 0.5}, "--unknown 'cat' is a label of the model"),
        ({"unknown": " ", "min_probability": 0.5}, "--unknown ' ' is no word"),
    ],
)
def test_a_word_that_cannot_be_told_from_a_label_is_refused(how, said):
    with pytest.raises(OptionError, match=said):
        make(**how)


def test_json_form_has_the_documented_keys_and_no_nan():
    found = make().to_dict(k=1)

    assert json.loads(json.dumps(found, allow_nan=False)) == {
        "classes": ["cat", "dog", "owl"],
        "predictions": [
            {
                "id": "test/1.jpg",
                "label": "dog",
                "probability": 0.5,
                "familiarity": None,
                "top": [["dog", 0.5]],
                "error": None,
            },
            {
                "id": "test/2.jpg",
                "label": None,
                "probability": None,
                "familiarity": None,
                "top": [],
                "error": "truncated",
            },
            {
                "id": "test/3.jpg",
                "label": "cat",
                "probability": 0.4,
                "familiarity": None,
                "top": [["cat", 0.4]],
                "error": None,
            },
        ],
    }


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_an_impossible_minimum_probability_is_refused(value):
    with pytest.raises(OptionError, match="--min-probability must be a number, at least 0, at most 1"):
        make(min_probability=value)


def test_long_form_lists_guesses_below_one_another(tmp_path):
    write_csv(make(), tmp_path / "out.csv", form="long", top=2)

    assert rows_of(tmp_path / "out.csv") == [
        ["id", "rank", "label", "probability", "error"],
        ["test/1.jpg", "1", "dog", "0.5", ""],
        ["test/1.jpg", "2", "owl", "0.3", ""],
        ["test/2.jpg", "", "", "", "truncated"],
        ["test/3.jpg", "1", "cat", "0.4", ""],
        ["test/3.jpg", "2", "dog", "0.35", ""],
    ]


def test_wide_form_has_a_column_a_class(tmp_path):
    write_csv(make(min_probability=0.45), tmp_path / "out.csv", form="wide")

    assert rows_of(tmp_path / "out.csv") == [
        ["id", "label", "probability", "error", "cat", "dog", "owl"],
        ["test/1.jpg", "dog", "0.5", "", "0.2", "0.5", "0.3"],
        ["test/2.jpg", "", "", "truncated", "", "", ""],
        ["test/3.jpg", "", "0.4", "", "0.4", "0.35", "0.25"],
    ]


def test_submission_takes_order_and_names_from_the_sample(tmp_path):
    sample = tmp_path / "sample.csv"
    sample.write_text("\ufeffimage,owl,cat,dog\n3,0,0,0\n1,0,0,0\n2,0,0,0\n", encoding="utf-8")

    uniform = write_csv(make(), tmp_path / "out.csv", form="submission", sample=sample)

    header, third, first, second = rows_of(tmp_path / "out.csv")
    assert header == ["image", "owl", "cat", "dog"]
    assert third == ["3", "0.25", "0.4", "0.35"]
    assert first == ["1", "0.3", "0.2", "0.5"]
    assert [float(p) for p in second[1:]] == [pytest.approx(1 / 3)] * 3
    assert uniform == ("test/2.jpg",)


def test_submission_without_a_sample_uses_bare_names(tmp_path):
    write_csv(make(), tmp_path / "out.csv", form="submission")

    assert [row[0] for row in rows_of(tmp_path / "out.csv")] == ["id", "1", "2", "3"]


def test_a_full_name_is_preferred_to_another_images_short_one(tmp_path):
    sample = tmp_path / "sample.csv"
    sample.write_text("id,cat,dog,owl\n1,0,0,0\n", encoding="utf-8")

    write_csv(make(ids=("1.jpg", "x.jpg", "1")), tmp_path / "out.csv", form="submission", sample=sample)

    assert rows_of(tmp_path / "out.csv")[1] == ["1", "0.4", "0.35", "0.25"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("id,cat,dog,wolf\n1,0,0,0\n", "'wolf' is in only one"),
        ("id,cat,dog\n1,0,0\n", "'owl' is in only one"),
        ("id,cat,dog,owl,owl\n1,0,0,0,0\n", "a column is there twice"),
        ("id,cat,dog,owl\n9,0,0,0\n", "'9' matches 0 of the 3 images"),
        ("", "not a CSV with a header"),
    ],
)
def test_a_sample_that_does_not_fit_is_explained(tmp_path, text, reason):
    sample = tmp_path / "sample.csv"
    sample.write_text(text, encoding="utf-8")

    with pytest.raises(DataError, match=reason):
        write_csv(make(), tmp_path / "out.csv", form="submission", sample=sample)


def test_an_ambiguous_sample_id_is_refused(tmp_path):
    sample = tmp_path / "sample.csv"
    sample.write_text("id,cat,dog,owl\n1,0,0,0\n", encoding="utf-8")

    with pytest.raises(DataError, match="'1' matches 2 of the 3 images"):
        write_csv(make(ids=("a/1.jpg", "b/1.jpg", "c.jpg")), tmp_path / "out.csv", form="submission", sample=sample)


def test_wrong_options_are_refused(tmp_path):
    with pytest.raises(OptionError, match="--format must be one of photos, long, wide, submission; got 'tall'"):
        write_csv(make(), tmp_path / "out.csv", form="tall")
    with pytest.raises(OptionError, match="--sample gives a submission its form"):
        write_csv(make(), tmp_path / "out.csv", form="wide", sample="sample.csv")
    with pytest.raises(MissingDataError, match="No sample submission at"):
        write_csv(make(), tmp_path / "out.csv", form="submission", sample=tmp_path / "none.csv")
    with pytest.raises(OptionError, match="--top must be at least 1"):
        make().top(0)


def test_commas_quotes_and_unicode_survive_the_csv(tmp_path):
    write_csv(
        make(ids=('a, "b".jpg', "ü.jpg", "c\n.jpg"), classes=("чай", "a,b", '"')),
        tmp_path / "o.csv",
        form="long",
        top=1,
    )

    assert [row[:3] for row in rows_of(tmp_path / "o.csv")[1:]] == [
        ['a, "b".jpg', "1", "a,b"],
        ["ü.jpg", "", ""],
        ["c\n.jpg", "1", "чай"],
    ]


def test_the_long_form_names_no_class_where_the_model_abstains(tmp_path):
    predictions = make(min_probability=0.999)
    write_csv(predictions, tmp_path / "p.csv", form="long")
    rows = {row[0]: row for row in rows_of(tmp_path / "p.csv")[1:]}
    unsure = [i for i, label in enumerate(predictions.labels) if label is None and i not in predictions.errors]

    assert unsure
    for i in unsure:
        assert rows[predictions.ids[i]] == [predictions.ids[i], "", "", str(predictions.confidence[i]), ""]


def test_by_default_each_photo_is_a_row(tmp_path):
    write_csv(make(), tmp_path / "p.csv")

    assert rows_of(tmp_path / "p.csv") == [
        ["file", "predicted", "probability", "error"],
        ["test/1.jpg", "dog", "0.5", ""],
        ["test/2.jpg", "", "", "truncated"],
        ["test/3.jpg", "cat", "0.4", ""],
    ]


def test_the_columns_of_the_csv_that_named_the_photos_are_kept(tmp_path):
    (tmp_path / "labels.csv").write_text("site;photo;probability\nforest;3;x\nlake;1;y\nlake;9;z\n")
    write_csv(make(), tmp_path / "p.csv", beside=tmp_path / "labels.csv")

    assert rows_of(tmp_path / "p.csv") == [
        ["site", "photo", "probability", "predicted", "probability_by_model", "error"],
        ["forest", "3", "x", "cat", "0.4", ""],
        ["lake", "1", "y", "dog", "0.5", ""],
        ["lake", "9", "z", "", "", "not among the photos predicted"],
    ]


def test_a_name_that_is_a_formula_is_quoted_but_for_machines(tmp_path):
    harmful = make(ids=("=1+1.jpg", "@x.jpg", "c.jpg"), classes=("-a", "+b", "c"))
    write_csv(harmful, tmp_path / "p.csv")
    write_csv(harmful, tmp_path / "raw.csv", raw=True)
    write_csv(harmful, tmp_path / "s.csv", form="submission")

    assert [row[:2] for row in rows_of(tmp_path / "p.csv")[1:]] == [
        ["'=1+1.jpg", "'+b"],
        ["'@x.jpg", ""],
        ["c.jpg", "'-a"],
    ]
    assert [row[0] for row in rows_of(tmp_path / "raw.csv")[1:]] == ["=1+1.jpg", "@x.jpg", "c.jpg"]
    assert rows_of(tmp_path / "s.csv")[0] == ["id", "-a", "+b", "c"]


def test_parquet_is_parquet(tmp_path):
    import pyarrow.parquet as pq

    write_csv(make(), tmp_path / "p.parquet")

    found = pq.read_table(tmp_path / "p.parquet").to_pydict()
    assert found["file"] == ["test/1.jpg", "test/2.jpg", "test/3.jpg"]
    assert found["probability"] == [0.5, None, 0.4]


def test_excel_is_excel_or_refused_beforehand(tmp_path):
    try:
        import openpyxl
    except ImportError:
        with pytest.raises(MissingExtraError, match=r"pip install 'featx\[excel\]'"):
            check_destination(tmp_path / "p.xlsx")
    else:
        write_rows(tmp_path / "p.xlsx", ["file", "p"], [["=a", 0.5]])
        assert list(openpyxl.load_workbook(tmp_path / "p.xlsx").active.values) == [("file", "p"), ("'=a", 0.5)]
    with pytest.raises(OptionError, match=r"\.xls is not written"):
        check_destination(tmp_path / "p.xls")
