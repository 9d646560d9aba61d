"""The report in a real browser: it renders, asks for nothing, sorts, filters, copies, and can be read anywhere."""

import os
import shutil
from dataclasses import replace

import pytest
from playwright.sync_api import sync_playwright

from tests.validation import sample_result
from validation import report

SWITCHES = (
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run"),
)
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
ERROR, SHARE = 7, 9  # columns

#: Ratio of luminances (WCAG 2) of an element's text and the nearest background that is painted.
CONTRAST = """element => {
    const parse = colour => colour.match(/[\\d.]+/g).map(Number);
    const luminance = colour => parse(colour).slice(0, 3).map(x => x / 255)
        .map(x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4)
        .reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0);
    let behind = element;
    while (behind && (parse(getComputedStyle(behind).backgroundColor)[3] ?? 1) === 0) behind = behind.parentElement;
    const style = getComputedStyle(element);
    const pair = [luminance(element instanceof SVGElement ? style.fill : style.color),
                  luminance(getComputedStyle(behind).backgroundColor)].sort((a, b) => a - b);
    return (pair[1] + 0.05) / (pair[0] + 0.05);
}"""

#: The smallest height of any text that is shown, in pixels of the screen; inside pictures their scale counts.
SMALLEST_TEXT = """() => Math.min(...[...document.querySelectorAll("body *")]
    .filter(element => [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim()))
    .filter(element => element.tagName !== "title" && element.getClientRects().length)
    .map(element => parseFloat(getComputedStyle(element).fontSize) * (element.getScreenCTM?.().d || 1)))"""


@pytest.fixture(scope="module")
def browser():
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("CI needs a browser: install chromium")
        pytest.skip("finds no chromium, chromium-browser or google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=SWITCHES)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def sample():
    return sample_result.result()


@pytest.fixture(scope="module")
def address(sample, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    report.write(sample, path)
    return path.as_uri()


@pytest.fixture
def visit(browser):
    """Opens an address as somebody; at the end no page may have complained or asked for anything beyond its file."""
    contexts, complaints, requests = [], [], []

    def visit(address, viewport=DESKTOP, scheme="light", **options):
        context = browser.new_context(viewport=viewport, color_scheme=scheme, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(address)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert complaints == []
    assert all(url.startswith(("file:", "data:")) for url in requests), requests


def shown(page):
    return page.locator("#rows tbody tr:visible").count()


def column(page, index):
    """What a column shows, from top to bottom."""
    return page.evaluate(
        "i => [...document.querySelectorAll('#rows tbody tr')].map(row => row.cells[i].dataset.sort)", index
    )


def test_it_opens_from_a_file_and_says_the_verdict(visit, address, sample):
    page = visit(address)
    assert page.title().startswith(f"{sample.n_bad} of {len(sample.rows)} rows do not hold")
    assert f"{sample.n_bad} of {len(sample.rows)} rows do not hold." in page.locator("#verdict").inner_text()
    assert page.locator("#count").inner_text() == f"{len(sample.rows)} rows"
    assert page.evaluate("document.compatMode") == "CSS1Compat"


def test_pictures_are_pictures(visit, address, sample):
    page = visit(address)
    assert page.locator("img").evaluate_all("all => all.every(img => img.alt && img.complete && img.naturalWidth > 0)")
    page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    drawn = page.locator("figure.map svg[role=img][aria-label]")
    assert drawn.count() == len(sample.maps)
    assert drawn.evaluate_all("all => all.every(svg => svg.getBoundingClientRect().width > 250)")
    sizes = page.locator("figure.map image").evaluate_all("""all => Promise.all(all.map(async image => {
        const picture = new Image();
        picture.src = image.getAttribute("href");
        await picture.decode();
        return [picture.naturalWidth, picture.naturalHeight].join();
    }))""")
    assert set(sizes) == {"40,40"}
    assert page.locator(".quantiles circle").count() > 40


def test_a_click_sorts_and_so_does_the_keyboard(visit, address):
    page = visit(address)
    before = column(page, ERROR)
    head = page.locator("#rows thead th").nth(ERROR)
    assert head.get_attribute("aria-sort") == "none"
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    ascending = column(page, ERROR)
    known = [float(value) for value in ascending if value]
    assert known == sorted(known)
    assert known[-1] == float("inf")
    assert ascending[-1] == ""  # rows without a number come last

    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    descending = column(page, ERROR)
    known = [float(value) for value in descending if value]
    assert known == sorted(known, reverse=True)
    assert descending[-1] == ""

    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")  # two columns on: the share
    assert head.get_attribute("aria-sort") == "none"
    assert page.locator("#rows thead th").nth(SHARE).get_attribute("aria-sort") == "ascending"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.locator("#reset").click()
    assert column(page, ERROR) == before


def test_filters_leave_what_was_asked_for(visit, address, sample):
    page = visit(address)

    def expect(n):
        assert 0 < n < len(sample.rows)
        assert shown(page) == n
        assert page.locator("#count").inner_text() == f"{n} of {len(sample.rows)} rows"

    page.fill("#filter-text", "  GIBBS float32 ")
    expect(sum(row.task.operation == "gibbs" and row.task.dtype == "float32" for row in sample.rows))
    page.select_option("#filter-subject", "torch")
    expect(1)
    page.locator("#reset").click()
    assert shown(page) == len(sample.rows)
    page.select_option("#filter-check", "statistics")
    expect(sum(row.task.check == "statistics" for row in sample.rows))
    page.select_option("#filter-check", "")
    page.select_option("#filter-status", "HANGS")
    expect(1)
    page.select_option("#filter-status", "not good")
    expect(sample.n_bad)
    page.fill("#filter-text", "no such row")
    assert shown(page) == 0


def test_links_into_the_table_choose_and_uncover_rows(visit, address, sample):
    page = visit(address)
    page.locator("#verdict a[data-status]").click()
    assert shown(page) == sample.n_bad
    page.locator("#summary a[data-check=accuracy][data-subject=numba_cpu]").click()
    assert shown(page) == sum(row.task.check == "accuracy" and row.task.subject == "numba_cpu" for row in sample.rows)
    # The worst case of another check, which is hidden now.
    link = page.locator("#matrix-agreement td a").first
    row = page.locator(link.get_attribute("href"))
    assert row.is_hidden()
    link.click()
    assert row.is_visible()
    assert row.evaluate("row => row.matches(':target')")


def test_a_button_copies_the_command(visit, address, sample):
    page = visit(address, permissions=["clipboard-read", "clipboard-write"])
    button = page.locator("#row-0 .copy")
    button.click()
    page.wait_for_function("document.querySelector('#row-0 .copy').textContent === 'Copied'")
    assert page.evaluate("navigator.clipboard.readText()") == sample.rows[0].reproduce


def test_without_a_clipboard_the_command_is_shown_and_selected(visit, address, sample):
    page = visit(address)
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('denied')); }")
    page.locator("#row-0 .copy").click()
    page.wait_for_function("document.querySelector('#row-0 .copy').textContent === 'Selected'")
    assert page.evaluate("getSelection().toString()") == sample.rows[0].reproduce
    assert page.locator("#row-0 code.command").evaluate("code => code.scrollWidth <= code.clientWidth")


def test_without_javascript_all_is_there(visit, address, sample):
    page = visit(address, java_script_enabled=False)
    assert page.locator("#verdict").is_visible()
    assert shown(page) == len(sample.rows)
    assert page.locator(".controls").is_hidden()
    assert page.locator("button:visible").count() == 0
    command = page.locator("#row-0 code.command")
    assert command.inner_text().split() == sample.rows[0].reproduce.split()
    assert command.evaluate(
        "code => code.scrollWidth <= code.clientWidth || getComputedStyle(code).overflow === 'visible'"
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_all_at_a_legible_size(visit, address, scheme):
    page = visit(address, PHONE, scheme)
    page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate(SMALLEST_TEXT) >= 12
    # A row is a card: nothing in it sticks out.
    assert page.locator("#rows tbody tr").evaluate_all("all => all.every(row => row.scrollWidth <= row.clientWidth)")
    assert page.locator("#rows thead th button").first.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_told_from_what_is_behind_it(visit, address, scheme):
    page = visit(address, scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every(x => x < 80)")
    assert dark == (scheme == "dark")
    for selector in (
        *("body", "p", "a", "nav a", "code", "small", "thead th", "th button", "caption", "dt", "dd", "label", "input"),
        *("select", "button", "summary", ".muted", ".bad-text", ".message", ".verdict", "figcaption", "svg text"),
        *("svg .number", ".status.good", ".status.bad", ".status.neutral", ".matrix td.good a", ".matrix td.bad a"),
        *(".matrix td.neutral a", *(f".matrix td.shade-{i} a" for i in range(4)), ".key li", "#verdict.bad li a"),
    ):
        found = page.locator(selector)
        assert found.count() > 0, selector
        lowest = min(found.evaluate_all(f"all => all.slice(0, 40).map({CONTRAST})"))
        assert lowest >= 4.5, (selector, lowest)


def test_it_prints_in_full(visit, address):
    page = visit(address, scheme="dark")
    assert page.pdf().startswith(b"%PDF")
    page.emulate_media(media="print")
    assert page.locator(".controls").is_hidden()
    assert page.locator(".copy:visible").count() == 0
    assert page.locator(".tall").evaluate("box => box.scrollHeight <= box.clientHeight")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_a_script_in_a_fragment_does_not_run(browser, sample, tmp_path):
    path = tmp_path / "report.html"
    fragment = (
        "<script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\"><p id=end>end</p>"
    )
    report.write(replace(sample, tables_html=fragment), path)
    context = browser.new_context()
    page = context.new_page()
    complaints = []
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(path.as_uri())
    assert page.locator("#end").is_visible()
    assert "owned" not in page.title()
    assert any("Content Security Policy" in text for text in complaints)
    context.close()


def test_a_good_run_and_an_empty_one_render_too(visit, tmp_path, sample):
    good = replace(sample, rows=[row for row in sample.rows if row.status.good], tables_html="")
    for result, title in ((good, "All rows hold"), (replace(good, rows=[], maps=[]), "Nothing was judged")):
        path = tmp_path / "report.html"
        report.write(result, path)
        page = visit(path.as_uri(), PHONE)
        assert page.title().startswith(title)
        assert page.locator(".verdict").evaluate(CONTRAST) >= 4.5
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
