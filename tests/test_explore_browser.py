"""The explorer in a real browser: search, lasso, label by keys, undo, kill, go on; alone, silent, and safe from names."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import featx
from featx.features.label_log import read_labels, standing

sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright: pip install 'featx[test]'")
expect = sync_api.expect
HOSTILE = "<img src=x onerror=alert(1)>"
N = 90


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A table of 90 digits as unlabelled photos, one under a hostile name; a row is the photo in 8 × 8 pixels."""
    folder = tmp_path_factory.mktemp("explore")
    X, y = load_digits(n_class=3, return_X_y=True)
    photos = folder / "photos"
    photos.mkdir()
    for i, pixels in enumerate(X[:N].reshape(-1, 8, 8)):
        name = f"{HOSTILE}.png" if i == 3 else f"{i:03}.png"
        Image.fromarray((pixels * 15.9).astype(np.uint8)).resize((32, 32)).save(photos / name)
    how = {"backbone": "timm/test_resnet", "weights": "none", "image_size": 32, "cache": folder / "cache"}
    found = featx.extract(photos, workers=0, engine="eager", **how)
    found.truth = {name: int(y[3 if HOSTILE in name else int(name[:3])]) for name in found.ids.tolist()}
    return found


class Server:
    """The command on a table, and its address."""

    def __init__(self, folder, path):
        words = [sys.executable, "-m", "featx", "explore", str(path), "--labels", str(folder / "l.csv"), "--no-browser"]
        env = os.environ | {"XDG_CACHE_HOME": str(folder / "xdg")}
        self.process = subprocess.Popen([*words, "-q"], cwd=folder, env=env, stdout=subprocess.PIPE, text=True)
        self.address = self.process.stdout.readline().strip()

    def kill(self):
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def server(tmp_path, rows):
    servers = []

    def server():
        servers.append(Server(tmp_path, rows.path))
        return servers[-1]

    yield server
    for one in servers:
        if one.process.poll() is None:
            one.kill()


@pytest.fixture
def open_page(browser):
    """Open the page, and see to it that it stayed alone and silent."""
    pages, troubles = [], []

    def open_page(address, width=1280):
        page = browser.new_page(viewport={"width": width, "height": 800})
        page.set_default_timeout(60_000)
        origin = "/".join(address.split("/")[:3]) + "/"
        page.on("console", lambda m: None if "GL Driver" in m.text or address in lost else troubles.append(m.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("dialog", lambda dialog: (troubles.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda r: None if r.url.startswith((origin, "blob:")) else troubles.append(r.url))
        page.goto(address)
        page.wait_for_selector("body[data-ready]")
        pages.append(page)
        return page

    lost = open_page.lost = set()
    yield open_page
    for page in pages:
        page.close()
    assert troubles == []


def labelled(page, n):
    expect(page.locator("#count")).to_have_text(f"{n} of {N} labelled")


def test_thirty_images_are_labelled_by_keys_and_nothing_is_lost_when_the_server_is_killed(
    server, open_page, rows, tmp_path
):
    one = server()
    page, second = open_page(one.address), open_page(one.address)
    page.locator("#grid").focus()
    for k, name in enumerate(["zero", "one", "two"]):  # the first of each class are typed, new on the way
        tiles = page.locator(".tile").evaluate_all("all => all.map(tile => Number(tile.dataset.row))")
        mine = next(r for r in tiles if rows.truth[str(rows.ids[r])] == k)
        page.locator(f"#row-{mine}").click()
        page.keyboard.type(name)
        page.keyboard.press("Enter")
        labelled(page, k + 1)
    expect(page.locator("#accuracy")).to_contain_text("%")
    n = 3
    for row in page.evaluate("async () => (await import('./page/state.js')).state.list"):
        if n == 30:
            break
        if page.evaluate("async row => (await import('./page/state.js')).state.label[row]", row) >= 0:
            continue
        page.evaluate("async row => (await import('./page/state.js')).choose([row], row)", row)
        page.keyboard.press(str(rows.truth[str(rows.ids[row])] + 1))
        n += 1
        labelled(page, n)
    expect(page.locator("#score")).to_have_attribute("data-n", "30")
    assert float(page.locator("#accuracy").text_content().rstrip(" %")) > 45
    labelled(second, 30)  # the other window has heard of it
    page.keyboard.press("Control+z")
    labelled(page, 29)
    labelled(second, 29)
    open_page.lost.add(one.address)
    one.kill()
    expect(page.locator("body.lost")).to_have_count(1)
    again = open_page(server().address)
    labelled(again, 29)
    names = ["zero", "one", "two"]
    found = standing(read_labels(tmp_path / "l.csv"))
    assert len(found) == 29
    assert all(names[rows.truth[entry.id]] == entry.label for entry in found)


def test_a_lasso_chooses_many_and_one_key_labels_them_all(server, open_page):
    page = open_page(server().address)
    box = page.locator("#overlay").bounding_box()
    x, y, w, h = box["x"], box["y"], box["width"], box["height"]
    page.mouse.move(x + 0.02 * w, y + 0.2 * h)
    page.mouse.down()
    for u, v in ((0.98, 0.2), (0.98, 0.98), (0.02, 0.98), (0.02, 0.3)):
        page.mouse.move(x + u * w, y + v * h, steps=4)
    page.mouse.up()
    expect(page.locator("#note")).to_contain_text("chosen")
    n = page.evaluate("async () => (await import('./page/state.js')).state.chosen.size")
    page.locator("#name").fill(HOSTILE)
    page.locator("#name").press("Enter")

    assert n > N / 2
    labelled(page, n)
    expect(page.locator("#classes button").first).to_contain_text(HOSTILE)  # a hostile class is only text
    page.locator("#undo").click()
    labelled(page, 0)


def test_a_photo_finds_its_like_and_a_hostile_file_name_is_only_text(server, open_page, rows):
    page = open_page(server().address)
    row = rows.ids.tolist().index(f"{HOSTILE}.png")
    photo = rows.path.parents[2] / "photos" / f"{HOSTILE}.png"
    page.locator("#tab-alike").click()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Photo…").click()
    chooser.value.set_files(photo)
    expect(page.locator("#note")).to_have_text("Most like 1 image.")
    expect(page.locator(".tile").first).to_have_attribute("data-row", str(row))
    page.locator(".tile").first.click()
    expect(page.locator("#card .id")).to_have_text(f"{HOSTILE}.png")
    expect(page.locator("#card img")).to_have_js_property("naturalWidth", 512)
    page.keyboard.press("+")
    expect(page.locator("#note")).to_have_text("Most like 2 images.")
    for name in ("outliers", "duplicates", "doubts", "slices", "next", "chosen"):
        page.locator(f"#tab-{name}").click()
        expect(page.locator(f"#tab-{name}")).to_have_attribute("aria-selected", "true")
        expect(page.locator("#note")).not_to_have_text("…")


def test_a_phone_has_all_of_it_within_its_width(server, open_page):
    page = open_page(server().address, width=390)

    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("#panel").bounding_box()["width"] <= 390
    page.locator(".tile").nth(1).click()
    page.locator("#name").fill("cat")
    page.locator("#name").press("Enter")
    labelled(page, 1)


def test_a_page_of_another_origin_can_neither_read_nor_write(server, browser, tmp_path):
    one, other = server(), server()  # two ports are two origins
    page = browser.new_page()
    page.goto(one.address)
    tried = page.evaluate(
        """async (address) => {
          const say = (promise) => promise.then((r) => r.type + r.status, (e) => e.name);
          const write = {method: "POST", mode: "no-cors", body: '{"rows": [0], "label": "x"}'};
          return [await say(fetch(address + "api/changes?after=0&wait=0")), await say(fetch(address + "api/label", write))];
        }""",
        other.address,
    )
    assert tried == ["TypeError", "TypeError"]  # by the policy of our own page
    strange = browser.new_page()  # and by the server, for a page without any policy
    strange.route("http://evil.example/", lambda route: route.fulfill(body="<p>hello", content_type="text/html"))
    strange.goto("http://evil.example/")
    answers = strange.evaluate(
        """async (address) => {
          const say = (promise) => promise.then((r) => r.type + r.status, (e) => e.name);
          const write = {method: "POST", mode: "no-cors", body: '{"rows": [0], "label": "x"}'};
          const image = new Image();
          const shown = new Promise((done) => { image.onload = () => done("shown"); image.onerror = () => done("refused"); });
          image.src = address + "api/page/0.jpg";
          return [await say(fetch(address + "api/changes?after=0&wait=0")), await say(fetch(address + "api/label", write)), await shown];
        }""",
        other.address,
    )
    page.close()
    strange.close()

    assert answers[0] == "TypeError"
    assert answers[2] == "refused"
    assert not (tmp_path / "l.csv").exists()
