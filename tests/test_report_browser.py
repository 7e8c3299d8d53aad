"""Reports in a real browser: nothing is fetched, nothing fails, and what can be pressed does what it says."""

import re

import numpy as np
import pytest
import toy_report

import featx
from featx.features import Features

sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright: pip install 'featx[test]'")
WIDTHS = (390, 1280)
expect = sync_api.expect


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    toy = toy_report.make(folder)
    other = featx.fit(toy.table, "centroid")
    return featx.report([toy.model, other]).save(folder / "report.html")


@pytest.fixture
def open_page(browser):
    """Open a file, and see to it that it stayed alone and silent."""
    pages, troubles = [], []

    def open_page(path, width=1280, scheme="light"):
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        page.set_default_timeout(60_000)
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("dialog", lambda dialog: (troubles.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: troubles.append(request.url) if request.url != path.as_uri() else None)
        page.goto(path.as_uri())
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert [trouble for trouble in troubles if not trouble.startswith("data:")] == []


@pytest.mark.parametrize("width", WIDTHS)
def test_a_cell_of_the_confusion_matrix_shows_its_images(page_file, open_page, width):
    page = open_page(page_file, width)
    cell = page.locator("#matrix td.cell:not(.right):not(.none)").first
    n = int(cell.text_content())
    cell.click()

    expect(page.locator("#cell-title")).to_contain_text("taken for")
    expect(page.locator("#cell-shots img")).to_have_count(min(n, 24))
    assert page.locator("#cell-shots img").first.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0


def test_the_matrix_is_walked_with_the_keyboard(page_file, open_page):
    page = open_page(page_file)
    page.locator("#matrix td.cell").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")

    expect(page.locator("#matrix td.cell:focus")).to_have_attribute("aria-label", re.compile(r"& <b>bold</b> → & <b>"))
    expect(page.locator("#cell-title")).to_contain_text("rightly predicted")


@pytest.mark.parametrize("width", WIDTHS)
def test_counts_become_shares_and_counts_again(page_file, open_page, width):
    page = open_page(page_file, width)
    cells = page.locator("#matrix tbody tr").first.locator("td.cell")
    counts = cells.all_text_contents()
    unit = page.locator("#matrix-unit button")
    unit.nth(1).click()
    expect(unit.nth(1)).to_have_attribute("aria-pressed", "true")
    shares = [float(text or 0) for text in cells.all_text_contents()]
    unit.nth(0).click()

    expect(cells).to_have_text(counts)
    assert sum(shares) == pytest.approx(100, abs=0.5)


@pytest.mark.parametrize("width", WIDTHS)
def test_tables_sort_by_their_headers(page_file, open_page, width):
    page = open_page(page_file, width)
    header = page.locator("#classes th", has_text="precision")
    column = page.locator("#classes tbody tr td:nth-child(3)")

    def values_sorted(order):
        header.locator("button").click()
        expect(header).to_have_attribute("aria-sort", order)
        return [float(value) for value in column.evaluate_all("cells => cells.map(cell => cell.dataset.v)")]

    falling = values_sorted("descending")
    assert falling == sorted(falling, reverse=True)
    assert values_sorted("ascending") == sorted(falling)
    expect(page.locator("#leaderboard tbody tr")).to_have_count(2)


def test_tabs_are_turned_with_the_keyboard(page_file, open_page):
    page = open_page(page_file)
    page.locator("#shown-tab-1").focus()
    page.keyboard.press("ArrowRight")

    expect(page.locator("#shown-tab-2")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#shown-2")).to_be_visible()
    expect(page.locator("#shown-1")).to_be_hidden()


def test_a_dot_of_the_map_shows_its_image(page_file, open_page):
    page = open_page(page_file)
    page.locator("#map-method button").nth(1).click()
    page.locator("#map-colour button", has_text="wrong").click()
    page.locator("#map svg").focus()
    page.keyboard.press("ArrowRight")

    expect(page.locator("#map .tip img")).to_be_visible()
    expect(page.locator("#map circle")).to_have_count(120)
    expect(page.locator("#map-readout")).to_contain_text("predicted")


def test_what_a_key_shows_of_the_map_stays_until_the_pointer_moves(page_file, open_page):
    page = open_page(page_file)
    tip = page.locator("#map .tip")
    box = page.locator("#map svg")
    box.scroll_into_view_if_needed()
    page.locator("#map circle").first.hover(force=True)
    expect(tip).to_be_visible()
    page.mouse.move(2, 2)
    expect(tip).to_be_hidden()

    box.hover(position={"x": 3, "y": 300})
    box.focus()
    page.keyboard.press("ArrowRight")
    expect(tip).to_be_visible()
    for away, hovered in ((-600, "false"), (600, "true")):  # the map leaves the resting pointer, and comes back
        page.evaluate(f"scrollBy({{ top: {away}, behavior: 'instant' }})")
        page.wait_for_function(f"document.querySelector('#map svg').matches(':hover') === {hovered}")
        expect(tip).to_be_visible()
    box.hover(position={"x": 3, "y": 200})
    expect(tip).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_fits_and_its_text_stands_out(page_file, open_page, width, scheme):
    page = open_page(page_file, width, scheme)
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    paper, ink, muted = page.evaluate(
        """['--paper', '--ink', '--muted'].map((name) => {
            const probe = document.body.appendChild(document.createElement('i'));
            probe.style.color = `var(${name})`;
            const rgb = getComputedStyle(probe).color.match(/[0-9]+/g).map(Number);
            probe.remove();
            return rgb;
        })"""
    )

    ratios = page.locator("#matrix td.cell:not(.none)").evaluate_all(
        """cells => cells.map((cell) => {
            const style = getComputedStyle(cell);
            return [style.color.match(/[0-9.]+/g), style.backgroundColor.match(/[0-9.]+/g)].map((rgb) => rgb.map(Number));
        })"""
    )
    assert overflow <= 0
    assert all(_contrast(text, 255 * np.array(cell[:3])) >= 4.5 for text, cell in ratios)
    assert _contrast(paper, ink) >= 7
    assert _contrast(paper, muted) >= 4.5
    assert (sum(paper) < 200) == (scheme == "dark")


def _contrast(a, b):
    """WCAG 2.2: contrast of two sRGB colours."""

    def luminance(rgb):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in np.array(rgb) / 255]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    light, dark = sorted([luminance(a), luminance(b)], reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_a_matrix_of_120_classes_stays_readable(open_page, tmp_path):
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(120), 6)
    X = rng.normal(size=(120, 16))[y] + rng.normal(size=(720, 16))
    splits = ["train", "test"] * 360
    table = Features.from_arrays(X, y, classes=[f"breed-{i:03}" for i in range(120)], splits=splits)
    page = open_page(featx.report(featx.fit(table, "centroid"), table=table).save(tmp_path / "r.html"), width=390)

    expect(page.locator("#matrix.dense td.cell")).to_have_count(120 * 120)
    assert page.locator("#matrix").bounding_box()["width"] <= 390
    cell = page.locator("#matrix td.cell:not(.right):not(.none)").first
    cell.click()
    expect(page.locator("#matrix-readout")).to_contain_text("breed-")
    header = page.locator("#matrix thead th").nth(5)
    page.locator("#matrix").evaluate("box => { box.scrollTop = 700; }")
    assert header.bounding_box()["y"] >= page.locator("#matrix").bounding_box()["y"] - 1  # it stays in sight
