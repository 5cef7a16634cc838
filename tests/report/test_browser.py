"""The page in a real browser: no error, every picture loads, nothing overlaps or runs out of the window."""

import shutil
from pathlib import Path

import pytest

from landscape_cli.report.gather import gather
from landscape_cli.report.page import page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

# Text, pictures and tables as they are seen: cut off where a box around them scrolls. Two of them overlap if they
# share more than a pixel both ways and neither is inside of the other.
OVERLAPS = """() => {
  const seen = [];
  for (const element of document.querySelectorAll('main *, nav *')) {
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
    if (!(own || element.tagName === 'IMG')) continue;
    const style = getComputedStyle(element);
    if (style.display === 'inline' && element.tagName !== 'IMG' || element.classList.contains('hidden')) continue;
    let {left, top, right, bottom} = element.getBoundingClientRect();
    for (let box = element.closest('.scroll'); box; box = box.parentElement.closest('.scroll')) {
      const edge = box.getBoundingClientRect();
      left = Math.max(left, edge.left); right = Math.min(right, edge.right);
      top = Math.max(top, edge.top); bottom = Math.min(bottom, edge.bottom);
    }
    if (right - left > 1 && bottom - top > 1)
      seen.push({element, left, top, right, bottom});
  }
  seen.sort((a, b) => a.top - b.top);
  const found = [];
  seen.forEach((one, index) => {
    for (let next = index + 1; next < seen.length && seen[next].top < one.bottom - 1; next++) {
      const other = seen[next];
      const across = Math.min(one.right, other.right) - Math.max(one.left, other.left) > 1;
      const down = Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top) > 1;
      if (across && down && !one.element.contains(other.element) && !other.element.contains(one.element))
        found.push(one.element.outerHTML.slice(0, 80) + ' and ' + other.element.outerHTML.slice(0, 80));
    }
  });
  return {count: seen.length, found};
}"""

OUTSIDE = """() => [...document.querySelectorAll('main *')].filter(element => {
  const edge = element.getBoundingClientRect();
  const seen = !element.closest('.scroll, .hidden') && edge.width > 0;
  return seen && edge.right > document.documentElement.clientWidth + 1;
}).map(element => element.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        path = CHROMIUM or playwright.chromium.executable_path
        if not Path(path).is_file():
            pytest.skip("no Chromium here: make browser")
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def address(drawn_once, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_text(page(gather(drawn_once, "smoke")), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(params=[(375, "light"), (375, "dark"), (1440, "light"), (1440, "dark")], ids=str)
def opened(browser, address, request):
    width, scheme = request.param
    tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=True)
    said = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("requestfailed", lambda request: said.append(request.url))
    tab.on("request", lambda request: None if request.url.startswith(("file:", "data:")) else said.append(request.url))
    tab.goto(address)
    tab.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    yield tab, said
    tab.close()


def test_opens_without_an_error_and_loads_every_picture(opened):
    tab, said = opened
    assert tab.evaluate("document.images.length") >= 4
    assert tab.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert said == []


def test_nothing_overlaps(opened):
    result = opened[0].evaluate(OVERLAPS)
    assert result["count"] > 200
    assert result["found"] == []


def test_nothing_runs_out_of_the_window(opened):
    tab, _ = opened
    assert tab.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert tab.evaluate(OUTSIDE) == []


def test_an_overlap_would_be_found(opened):
    tab, _ = opened
    tab.evaluate("document.querySelector('h2').style.marginBottom = '-5rem'")
    assert opened[0].evaluate(OVERLAPS)["found"]


def test_text_can_be_read_on_its_ground(opened):
    """Contrast of at least 4.5, as WCAG 2.1 AA asks."""
    pairs = opened[0].evaluate("""() => {
      const ground = element => { for (; element; element = element.parentElement) {
        const colour = getComputedStyle(element).backgroundColor;
        if (!colour.startsWith('rgba(0, 0, 0, 0')) return colour; } return 'rgb(255, 255, 255)'; };
      return [...document.querySelectorAll('p, li, td, th, .badge, code, a, .small, summary, h2')].map(
        element => [getComputedStyle(element).color, ground(element)].join('|')); }""")

    def luminance(colour):
        parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for pair in set(pairs):
        light, dark = sorted(map(luminance, pair.split("|")), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, pair


def test_the_keyboard_reaches_the_content(opened):
    tab, _ = opened
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "Skip to the content"
    box = tab.evaluate(
        "(() => { const e = document.activeElement.getBoundingClientRect(); return [e.left, e.top]; })()"
    )
    assert min(box) >= 0
    tab.keyboard.press("Enter")
    assert tab.url.endswith("#main")


def test_prints_with_every_figure(browser, address, tmp_path):
    tab = browser.new_page()
    tab.goto(address)
    tab.emulate_media(media="print")
    assert tab.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    content = tab.pdf()
    tab.close()
    assert content.count(b"/Subtype /Image") >= 3
