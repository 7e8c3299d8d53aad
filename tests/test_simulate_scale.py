"""The simulation of large scales runs, its numbers scale, and the planner stays within a few gigabytes for 100 million."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "examples" / "simulate_scale.py"


def simulate(*words):
    done = subprocess.run(
        [sys.executable, SCRIPT, *map(str, words)], capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("simulate_scale", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A simulation on few rows, as JSON in a file."""
    path = tmp_path_factory.mktemp("scale") / "scale.json"
    how = ["--images-per-second", 300, "--rows", 3000, "--features", 64, "--plan", 50_000]
    path.write_text(simulate(*how, "--images", 1_000_000, 100_000_000, 10_000_000_000, "--json"))
    return path


def test_costs_grow_with_the_images_and_the_catalog_with_their_square(small):
    found = json.loads(small.read_text())
    one, two, three = found["scales"]

    assert found["plan"]["items"] == 50_000
    assert found["plan"]["segments"] == -(-50_000 // found["costs"]["segment_rows"])
    assert one["compute_hours"] == pytest.approx(1e6 / 300 / 3600)
    for name in ("compute_hours", "list_hours", "publish_hours", "disk_bytes", "plan_bytes", "list_bytes", "files"):
        assert one[name] > 0
        assert two[name] == pytest.approx(100 * one[name], rel=0.02)
        assert three[name] == pytest.approx(10_000 * one[name], rel=0.02)
    assert two["index_hours"] == pytest.approx(1e4 * one["index_hours"], rel=0.02)
    assert one["disk_bytes"] > 1e6 * 64 * 4 + one["table_bytes"]


def test_what_breaks_first_comes_first_and_more_memory_moves_it(small):
    few = json.loads(simulate("--costs", small, "--plan", 1000, "--memory", "1GiB", "--json"))["breaks"]
    much = json.loads(simulate("--costs", small, "--plan", 1000, "--memory", "64GiB", "--json"))["breaks"]

    assert [one["images"] for one in few] == sorted(one["images"] for one in few)
    assert {one["part"] for one in few} == {one["part"] for one in much}
    found = {one["part"]: one["images"] for one in few}
    moved = {one["part"]: one["images"] for one in much}
    assert moved["publish"] == pytest.approx(64 * found["publish"])
    assert moved["catalog"] == found["catalog"]


def test_the_table_for_readers_names_the_first_to_break(small):
    text = simulate("--costs", small, "--plan", 1000, "--machines", 4, "--images", 5_000_000)

    assert "5,000,000" in text
    assert "memory: plan" in text
    assert "\nFirst: " in text


def test_a_plan_takes_a_few_dozen_bytes_an_item(script):
    plan = script.plan_apart(3_000_000, 10_000)

    assert plan.segments == 300
    assert plan.n_bytes < 130 * plan.items
