"""Model files that earlier versions wrote are read, and predict what they did; those of later versions say so."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

import featx
from featx.errors import ModelFileError
from featx.features import Features
from featx.model import archive

DATA = Path(__file__).parent / "data" / "models"
FILES = sorted(DATA.glob("*.featx"))


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """What the script that wrote the files predicted."""
    from data.models.make import pixels, tables

    here = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("tables"))
    try:
        vectors, maps, arrays = tables()
    finally:
        os.chdir(here)
    return {"conv": maps, "arrays": arrays, "finetuned": pixels()}, vectors


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_a_file_of_format_1_predicts_what_it_did_when_it_was_written(path, sources):
    own, vectors = sources
    source = own.get(path.stem, vectors)
    how = {} if isinstance(source, Features) else {"workers": 0, "engine": "eager"}
    model = featx.load(path)

    np.testing.assert_allclose(
        model.predict_proba(source, **how), np.load(DATA / "expected.npz")[path.stem], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_a_file_of_format_1_is_written_again_with_the_same_report(path, tmp_path):
    written = json.loads(archive.read(path)["model.json"])
    again = json.loads(archive.read(featx.load(path).save(tmp_path / "m.featx"))["model.json"])

    assert again["members"] == written["members"]
    assert written["report"].pop("seconds") >= 0  # which differs from fit to fit, and is written no more
    # A second of the two ways in which an interval was computed differs in the last digit.
    for part in ("train", "val", "test"):
        for report in (again["report"], written["report"]):
            if report[part]:
                report[part]["ci95"] = [round(bound, 9) for bound in report[part]["ci95"]]
    assert again["report"] == written["report"]


def test_a_newer_format_says_how_to_read_it(tmp_path):
    fields = json.loads(archive.read(FILES[0])["model.json"])
    members = {**archive.read(FILES[0]), "model.json": json.dumps(fields | {"format": 2}).encode()}
    archive.write(tmp_path / "m.featx", members)

    with pytest.raises(ModelFileError, match=r"of format 2, this featx reads 1.*pip install --upgrade featx"):
        featx.load(tmp_path / "m.featx")
