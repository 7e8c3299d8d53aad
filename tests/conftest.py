"""Real parts that several test files share."""

import logging
import os
import secrets
import shutil
import signal
import subprocess

if "PYTEST_XDIST_WORKER" in os.environ:
    # There is a process a core already; threads of its own for each would only make them wait for one another.
    # OpenBLAS reads it when NumPy is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
from toy_images import write_photos

# A shell starts background jobs with Ctrl-C ignored, and children inherit that: here they are to be interrupted.
signal.signal(signal.SIGINT, signal.default_int_handler)


#: Files that together take two minutes on two cores (114 s of processor time), from most rooms: `pytest -m quick`.
QUICK = {
    "augment", "datasets", "datasets_archives", "datasets_tables", "evaluation", "features", "files", "images", "logistic", "lookup",
    "neighbors", "ridge", "store", "store_container", "store_formats", "store_maintenance",
}  # fmt: skip


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.stem.removeprefix("test_") in QUICK:
            item.add_marker("quick")


@pytest.fixture(autouse=True)
def logs_as_at_the_start():
    """Commands set featx's log level, compilers switch loggers off: neither may reach the next test."""
    logging.disable(logging.NOTSET)
    for name in ["featx", *logging.root.manager.loggerDict]:
        if name.split(".")[0] == "featx":
            logging.getLogger(name).disabled = False
    logging.getLogger("featx").setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def own_folder_of_networks(monkeypatch, tmp_path_factory):
    """Keep what a test converts from the user's folder, and from the next test."""
    monkeypatch.setenv("FEATX_NETWORKS", str(tmp_path_factory.getbasetemp() / "networks" / secrets.token_hex(8)))


@pytest.fixture
def photos(tmp_path):
    """A folder of its own with those of `toy_images.write_photos`."""
    return write_photos(tmp_path / "photos")


@pytest.fixture
def start():
    """Start a child process whose output is read; none outlives its test."""
    children = []

    def start(command, **options):
        children.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options))
        return children[-1]

    yield start
    for child in children:
        child.kill()
        child.communicate()


@pytest.fixture(scope="module")
def browser():
    """The system's Chromium, driven by Playwright; where it is not there, tests are skipped and say so."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("needs a browser: apt-get install chromium")
    from playwright import sync_api

    sync_api.expect.set_options(timeout=60_000)  # what an action brings may take its time on a busy machine
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()
