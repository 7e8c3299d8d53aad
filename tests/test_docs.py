"""What the documentation says is so: its code runs, its links lead somewhere, its site builds."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import click
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from featx.cli import cli, main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: A block of code, and the remark before one that cannot be run here, with its reason: its commands are parsed.
BLOCK = re.compile(r"(<!-- (?:not run: .+?|test command) -->\n)?^( *)```(\w+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def named(path):
    return str(path.relative_to(ROOT))


def blocks(path, *languages):
    """Return (is run, text) of each block of a page in one of these languages."""
    found = BLOCK.finditer(path.read_text())
    return [(block[1] is None, block[3], block[4]) for block in found if block[3] in languages]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with what the pages speak of: photos in classes, a CSV over the same images, a cache with their rows."""
    folder = tmp_path_factory.mktemp("workplace")
    rng = np.random.default_rng(0)
    lines = ["file,species,part,weight,length"]
    (folder / "plates").mkdir()
    for channel, name in enumerate(["red", "green", "blue"]):
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(8):
            pixels = rng.integers(0, 120, (32, 32, 3), dtype=np.uint8)
            pixels[..., channel] += 100
            Image.fromarray(pixels).save(folder / "photos" / name / f"{i}.jpg")
            shutil.copy(folder / "photos" / name / f"{i}.jpg", folder / "plates" / f"{name}{i}.jpg")
            lines.append(f"{name}{i}.jpg,{name},{'test' if i > 5 else 'train'},{channel + i / 8},{i}")
    (folder / "plates.csv").write_text("\n".join(lines))
    for copy in ("new-photo.jpg", "a.jpg", "b.jpg", "new-photos/1.jpg", "unlabelled/1.jpg"):
        (folder / copy).parent.mkdir(exist_ok=True)
        shutil.copy(folder / "photos" / "red" / f"{len(copy) % 8}.jpg", folder / copy)
    assert main(["extract", str(folder / "photos"), "--cache", str(folder / "cache"), "--workers", "0", "-q"]) == 0
    return folder


def commands(text):
    """Yield the commands of a shell block as a shell reads them: no remarks, names for patterns, one at a time."""
    for line in text.replace("\\\n", " ").splitlines():
        typed = shlex.split(line, comments=True)
        words = [name for word in typed for name in (sorted(map(str, Path().glob(word))) if "*" in word else [word])]
        while words:
            end = next((i for i, word in enumerate(words) if word in ("&&", "||")), len(words))
            yield words[:end]
            words = words[end + 1 :]


def parse(words):
    """Hold a command against what the command line takes, as when it is typed, and do not run it."""
    group, context = cli, click.Context(cli)
    name, command, rest = group.resolve_command(context, words[1:])
    while isinstance(command, click.Group):
        name, command, rest = command.resolve_command(context, rest)
    command.make_context(name, rest)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "sh", "python")], ids=named)
def test_the_code_of_a_page_runs_from_its_first_to_its_last_block(page, workplace, tmp_path, monkeypatch, capsys):
    shutil.copytree(workplace, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.syspath_prepend(tmp_path / "work")
    monkeypatch.delenv("FEATX_CACHE", raising=False)
    paths = sorted(str(path) for path in Path("photos").rglob("*.jpg"))
    names = {"__name__": "page", "paths": paths, "labels": [Path(path).parent.name for path in paths]}

    for is_run, language, text in blocks(page, "sh", "python"):
        if language == "python":
            code = compile(text, named(page), "exec")
            if is_run:
                exec(code, names)
            continue
        for words in commands(text):
            if words[0] == "featx" and is_run:
                assert main(words[1:]) == 0, (words, capsys.readouterr().err)
            elif words[0] == "featx":
                parse(words)
            elif is_run:
                subprocess.run(words, check=True)


@pytest.mark.parametrize("path", sorted((ROOT / "docs").rglob("*.ipynb")), ids=named)
def test_the_cells_of_a_notebook_run_in_order_on_fewer_images(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEATX_CACHE", raising=False)
    names = {}
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # as in a notebook
        for cell in json.loads(path.read_text())["cells"]:
            if cell["cell_type"] == "code":
                code = compile("".join(cell["source"]).replace("[:600]", "[:120]"), named(path), "exec")
                if (
                    path.stem != "frozen-finetuned-scratch"
                ):  # which trains for minutes: run by .github/workflows/docs.yml
                    exec(code, names)
    plt.close("all")


def test_links_lead_to_files_and_headings():
    dead = []
    for page in PAGES:
        for target in LINK.findall(BLOCK.sub("", page.read_text())):
            if ":" in target:
                continue
            path, _, heading = target.partition("#")
            there = (page.parent / path).resolve() if path else page
            headings = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE) if heading and there.exists() else []
            slugs = [re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-") for words in headings]
            if not there.exists() or (heading and heading not in slugs):
                dead.append(f"{named(page)}: {target}")

    assert dead == []


def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("mkdocs")
    site = tmp_path / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-f", ".mkdocs.yml", "-d", str(site)],
        cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    for page in site.rglob("*.html"):
        loaded = re.findall(r"<(?:script|img|link)[^>]+(?:src|href)=\"?(https?:[^\"\s>]+)", page.read_text())
        assert loaded == [], page


def test_the_site_shows_the_signature_and_the_parameters_of_every_public_name(monkeypatch):
    import featx

    monkeypatch.syspath_prepend(ROOT / "examples")
    import documentation

    page = documentation.on_page_markdown((ROOT / "docs" / "api.md").read_text())
    assert [name for name in featx.__all__[1:] if f"\n### featx.{name}\n" not in page] == []
    assert "\n- `image_size`: int | None, default=None. Side of the square input" in page
    assert "LogisticHead(C=1.0, *, tol=1e-05," in page.replace("\n    ", " ").replace("( ", "(")
    assert "#### Features.split" in page


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
