"""A short run of the fuzzer of model files: nothing but featx's own errors, whatever a sealed file says."""

import runpy
from pathlib import Path

FUZZ = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "fuzz_models.py"))


def test_changed_model_files_are_refused_or_used():
    found = FUZZ["fuzz"](150, seed=3, quiet=True)

    assert not [outcome for outcome in found if outcome.startswith("fault")], found
    assert found["refused"] > 50
    assert found["used"] > 10
