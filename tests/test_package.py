"""What is published: the source archive and the wheel built from it, as somebody who installs it gets them."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import featx

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"


def build(what, source, folder):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BUILD, f"build_{what}", str(folder)],
        cwd=source, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.splitlines()[-1]


def checkout(folder):
    source = folder / "featx"
    shutil.copytree(ROOT / "featx", source / "featx", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    return source


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from the unpacked source archive as the installers do it."""
    folder = tmp_path_factory.mktemp("package")
    source = checkout(folder)
    with tarfile.open(build("sdist", source, folder)) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # which 3.11.4 brought
        archive.extractall(folder / "unpacked")
    return build("wheel", next((folder / "unpacked").iterdir()), folder)


def test_the_wheel_is_small_and_holds_every_file_of_the_package_and_no_other(wheel):
    there = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "featx").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as file:
        packed = {name for name in file.namelist() if ".dist-info/" not in name}

    assert packed == there
    assert wheel.stat().st_size <= 1_000_000


def test_the_wheel_runs_without_the_source_beside_it(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as file:
        file.extractall(tmp_path / "installed")

    def run(*words):
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path / "installed")},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert run("-c", "import featx; print(featx.__file__)") == str(tmp_path / "installed" / "featx" / "__init__.py")
    assert run("-m", "featx", "--version") == f"featx, version {featx.__version__}"
    assert "logreg" in run("-m", "featx", "heads")


def test_a_script_beside_the_checkout_imports_the_package_and_not_its_folder(tmp_path):
    """Python takes any folder of that name for a package, unless the real one is on its path."""
    (tmp_path / "built").mkdir()
    source = checkout(tmp_path)
    with zipfile.ZipFile(build("editable", source, tmp_path / "built")) as file:
        (link,) = (name for name in file.namelist() if name.endswith(".pth"))
        assert file.read(link).decode().strip() == str(source)


def test_the_version_is_said_in_one_place(wheel):
    assert PROJECT["dynamic"] == ["version"]
    assert wheel.name == f"featx-{featx.__version__}-py3-none-any.whl"
    assert re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)[1] == featx.__version__


def test_all_asks_for_every_extra_that_users_have():
    extras = set(PROJECT["optional-dependencies"]) - {"all", "bench", "docs", "test"}
    (everything,) = PROJECT["optional-dependencies"]["all"]
    asked = set(re.fullmatch(r"featx\[(.*)\]", everything)[1].split(","))

    assert asked | {"openvino"} == extras  # which is in fast


def test_every_library_that_is_imported_is_asked_for():
    """Whatever featx imports is Python's own, its own, or among the dependencies and extras."""
    wanted = [*PROJECT["dependencies"], *(one for extra in PROJECT["optional-dependencies"].values() for one in extra)]
    asked = {re.match(r"[A-Za-z0-9-]+", one)[0].lower().replace("-", "_") for one in wanted}
    known = asked | {"sklearn", "PIL", "featx"} | set(sys.stdlib_module_names)
    known |= {"markupsafe", "huggingface_hub"}  # parts of Jinja and of timm, which cannot be without them
    imported = set()
    for path in (ROOT / "featx").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module.split(".")[0])

    assert imported - known == set()
