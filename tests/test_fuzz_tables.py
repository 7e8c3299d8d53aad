"""Tables and segments that were changed by someone who means harm are refused in plain words, or read as they are."""

import importlib.util
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "examples" / "fuzz_tables.py"


def test_changed_files_with_valid_seals_raise_nothing_but_what_featx_raises_on_purpose():
    spec = importlib.util.spec_from_file_location("fuzz_tables", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = script
    spec.loader.exec_module(script)

    counts, faults = script.fuzz(60, seed=7)

    assert faults == []
    assert sum(counts.values()) == 60
