"""The code keeps its own rules: lint, format, types, import directions, a face that is complete."""

import ast
import importlib
import inspect
import os
import runpy
import subprocess
import sys
from pathlib import Path

import click
import pytest

import featx
from featx.cli import cli
from featx.cli.common import COMMON
from featx.comparison.settings import Compare
from featx.datasets import Source
from featx.evaluation.drifting import Drifting
from featx.extraction import ComputeOptions, Extract, Options
from featx.features.export import Export
from featx.finetuning.settings import FineTune
from featx.model.settings import Classify, Ensemble, EvaluatingTable, Fit, Guesses, Loading, Reporting, Saving
from featx.packing import Packing
from featx.serving import Serving
from featx.settings import options_of

ROOT = Path(__file__).parents[1]

#: Rooms from the bottom up: each imports only from rooms before it.
ROOMS = [
    "importing", "errors", "machine", "devices", "files", "progress", "settings", "targets", "recipe", "images", "augment",
    "datasets", "backbones", "probe", "engines", "store", "features", "metrics", "heads", "extraction", "transformer", "model",
    "evaluation", "curation", "finetuning", "comparison", "protocols", "cluster", "packing", "attribution", "plots", "reporting",
    "exploring", "sharing", "serving",
    "testing",
    "cli",
]  # fmt: skip
PILLARS = [{"images", "augment", "datasets"}, {"backbones", "engines", "probe"}, {"store", "features", "heads"}]


@pytest.mark.parametrize(
    "command",
    [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]],
    ids=["lint", "format", "types"],
)
def test_tools_find_nothing(command):
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False, timeout=500
    )

    assert done.returncode == 0, done.stdout + done.stderr


def _room(path: Path) -> str:
    return path.relative_to(ROOT / "featx").parts[0].removesuffix(".py")


def _imports(path: Path) -> set[str]:
    """Return the rooms that a file imports, wherever in the file it does."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the room"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        rooms |= {name.split(".")[1] for name in names if name.startswith("featx.")}
    return rooms - {"__version__"}


def test_rooms_import_only_from_rooms_above():
    wrong = []
    for path in sorted((ROOT / "featx").rglob("*.py")):
        room = _room(path)
        if room in ("__init__", "__main__"):
            continue
        below = [other for other in _imports(path) - {room} if ROOMS.index(other) > ROOMS.index(room)]
        wrong += [f"{path.relative_to(ROOT)} imports {other}" for other in below]

    assert wrong == []


def test_the_three_pillars_do_not_know_each_other():
    wrong = []
    for path in sorted((ROOT / "featx").rglob("*.py")):
        for pillar in PILLARS:
            strangers = set().union(*PILLARS) - pillar
            if _room(path) in pillar:
                wrong += [f"{path.relative_to(ROOT)} imports {other}" for other in _imports(path) & strangers]

    assert wrong == []


def test_every_public_name_is_there_and_sorted():
    assert featx.__all__[1:] == sorted(featx.__all__[1:])
    assert all(getattr(featx, name) is not None for name in featx.__all__)


def test_type_checkers_see_every_public_name():
    (seen,) = (
        [alias.asname for line in node.body for alias in line.names]
        for node in ast.parse((ROOT / "featx" / "__init__.py").read_text()).body
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name)
    )

    assert ["__version__", *sorted(seen)] == featx.__all__
    assert (ROOT / "featx" / "py.typed").exists()
    assert "py.typed" in (ROOT / "pyproject.toml").read_text()


MISSPELT = """
import featx
featx.extract("photos/", backbone="vgg16", layer=["block3_pool", "fc1"], val=0.1, cache="cache")
featx.fit("table.h5", "mlp", scale="none")
featx.extract("photos/", bakcbone="vgg16")
featx.extract("photos/", batch_size="many")
featx.open_dataset("photos/", vall=0.1)
featx.fit("table.h5", "mlp", sclae="none")
featx.FeatureExtractor("vgg16", layr="fc1")
featx.extarct("photos/")
featx.LogisticHead(c=1.0)
featx.finetune("photos/", epoch=3)
featx.FineTuneClassifier("vgg16", lrate=0.1)
"""


@pytest.mark.parametrize(
    "command", [["mypy", "--config-file", "pyproject.toml"], ["basedpyright", "--level", "error"]], ids=lambda c: c[0]
)
def test_tools_for_types_find_each_misspelt_keyword(tmp_path, command):
    pytest.importorskip(command[0])
    (tmp_path / "wrong.py").write_text(MISSPELT)
    done = subprocess.run(
        [sys.executable, "-m", *command, str(tmp_path / "wrong.py")],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip

    found = {
        int(line.split("wrong.py:")[1].split(":")[0])
        for line in done.stdout.splitlines()
        if ": error: " in line or " - error: " in line
    }
    assert found == set(range(5, 14)), done.stdout


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: featx.extract("photos/", bakcbone="vgg16"),
            "featx.extract() has no argument 'bakcbone'. Did you mean 'backbone'?",
        ),
        (
            lambda: featx.open_dataset("photos/", vall=1),
            "featx.open_dataset() has no argument 'vall'. Did you mean 'val'?",
        ),
    ],
)
def test_an_unknown_keyword_names_the_function_and_the_nearest_right_one(call, words):
    with pytest.raises(TypeError) as raised:
        call()

    assert str(raised.value) == words


def test_import_featx_loads_no_heavy_library():
    code = "import sys, featx; print([m for m in ('torch', 'sklearn', 'h5py', 'numpy', 'PIL') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)

    assert done.stdout.strip() == "[]"


def test_help_loads_no_heavy_library():
    code = (
        "import sys; from featx.cli import main; main(['--help']); "
        "print([m for m in ('torch', 'sklearn', 'h5py', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)

    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("room", [path.parent.name for path in sorted((ROOT / "featx").glob("*/__init__.py"))])
def test_every_room_says_what_it_offers(room):
    package = importlib.import_module(f"featx.{room}")

    assert len(set(package.__all__)) == len(package.__all__)
    assert all(hasattr(package, name) for name in package.__all__)
    assert not [name for name in package.__all__ if name.startswith("_")]


def _options_typed(command):
    """Return the options of a command, and their defaults as Python has them."""
    found = {}
    for option in command.params:
        if isinstance(option, click.Option) and option.name not in COMMON and not option.hidden:
            found[option.name] = None if option.multiple else option.default
    return found


#: What a command has that Python says in another way: by a value of another kind, or around the call.
TYPED_ONLY = {"cluster", "dry_run", "settings", "output", "jobs", "backend"}


@pytest.mark.parametrize(
    ("name", "settings", "estimator"),
    [
        ("extract", Extract, featx.FeatureExtractor),
        ("finetune", FineTune, featx.FineTuneClassifier),
        ("compare", Compare, None),
    ],
)
def test_the_command_the_function_and_the_estimator_agree(name, settings, estimator):
    typed = _options_typed(cli.get_command(None, name))
    fields = {field.name: field for field in options_of(settings)}
    keywords = inspect.signature(getattr(featx, name)).parameters

    assert set(typed) - TYPED_ONLY == set(fields)
    for option, field in fields.items():
        assert keywords[option].default == field.default
        text = (
            ",".join("all" if item is None else str(item) for item in field.default)
            if isinstance(field.default, tuple)
            else field.default
        )
        assert typed[option] == text, option
    for parameter, told in inspect.signature(estimator).parameters.items() if estimator else ():
        if parameter != "image_transform":  # transform of the function: an estimator has a method of that name
            assert keywords[parameter].default == told.default, parameter


@pytest.mark.parametrize(
    ("name", "functions", "settings"),
    [
        ("extract", [featx.extract], [Extract]),
        ("fit", [featx.fit, featx.Model.save], [Fit, Saving]),
        ("predict", [featx.load, featx.Model.classify, featx.Model.top], [Loading, Classify, Guesses]),
        ("evaluate", [featx.load, featx.evaluate], [Loading, EvaluatingTable, Source, Options]),
        ("finetune", [featx.finetune], [FineTune]),
        ("compare", [featx.compare], [Compare]),
        ("report", [featx.report], [Reporting]),
        ("export", [featx.Features.export], [Export]),
        ("ensemble", [featx.load, featx.ensemble, featx.Model.save], [Loading, Ensemble, Saving]),
        ("pack", [featx.load, featx.pack], [Loading, Packing]),
        ("serve", [featx.load], [Loading, Serving]),
        ("drift", [featx.load, featx.drift], [Loading, Drifting, ComputeOptions]),
    ],
)
def test_no_option_is_named_by_hand_beside_a_keyword(name, functions, settings):
    fields = {field.name: field for field in options_of(*settings)}
    typed = {option.name: option for option in cli.get_command(None, name).params if isinstance(option, click.Option)}
    shared = set()
    for function in functions:
        keywords = inspect.signature(function).parameters
        shared |= set(typed) & set(keywords) - TYPED_ONLY - {"cache", "table"}
        assert {option: keywords[option].default for option in fields if option in keywords} == {
            option: fields[option].default for option in fields if option in keywords
        }

    assert shared <= set(fields)
    for option in shared:
        assert typed[option].help.startswith(fields[option].metadata["help"].rstrip("."))
    assert set(fields) <= set(typed)


def test_the_reference_has_every_command_and_option():
    page = runpy.run_path(str(ROOT / "examples" / "command_reference.py"))["page"]()

    assert (ROOT / "docs" / "commands.md").read_text() == page, (
        "python examples/command_reference.py > docs/commands.md"
    )
