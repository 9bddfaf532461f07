"""The page of an evaluation in a real browser: Chromium, without a network."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconstruct.report.page import write_report
from tests.pages import RUN, made, values

pytestmark = pytest.mark.browser
QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
CONTRAST = """() => {
  const luminance = (text) => {
    const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
      .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = luminance(getComputedStyle(document.body).backgroundColor);
  return ['p', 'figcaption', '.note', 'th', 'td', 'nav a', '.bad', 'dt'].map((name) => {
    const element = document.querySelector(name);
    if (!element) return [name, 21];
    const ink = luminance(getComputedStyle(element).color);
    return [name, (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05)];
  });
}"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium")
    if path is None:
        pytest.fail("no chromium here (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    long = [f"{'a-very-long-name-without-a-space' * 4}{number}.png" for number in range(30)]
    made(folder / "results", values(30), names=long, errors=[{"error": "truncated", "image": "x" * 300}])
    write_report([folder / "results"], folder / "report.html")
    return folder / "report.html"


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    folders = [made(folder / name, values(30, seed=seed)) for seed, name in enumerate(("first", "second", "third"))]
    write_report(folders, folder / "comparison.html")
    return folder / "comparison.html"


def opened(browser: Any, path: Path, **context: Any) -> Any:
    """The page, and what it asked for or complained of, which must be nothing."""
    page = browser.new_context(**context).new_page()
    page.asked, page.complaints = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.goto(path.as_uri())
    return page


@pytest.mark.parametrize("kind", ["report", "comparison"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_readable_on_a_phone_and_a_screen_in_both_schemes(
    chromium: Any, kind: str, scheme: str, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(kind)
    backgrounds = set()
    for size in ({"width": 390, "height": 844}, {"width": 1280, "height": 900}):
        page = opened(chromium, path, viewport=size, color_scheme=scheme)
        assert page.complaints == []
        assert [url for url in page.asked if not url.startswith("data:")] == [path.as_uri()]
        # The page itself does not scroll sideways; a wide table does, in its own region.
        assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
        backgrounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        low = [(name, ratio) for name, ratio in page.evaluate(CONTRAST) if ratio < 4.5]
        assert low == []
        for picture in page.query_selector_all(".compare, .panels .picture"):
            box = picture.bounding_box()
            assert box is not None
            assert box["width"] > 40
            assert box["height"] > 40
        page.context.close()
    (background,) = backgrounds
    dark = sum(map(int, background.removeprefix("rgb(").rstrip(")").split(","))) < 3 * 128
    assert dark == (scheme == "dark")


def test_the_slider_works_from_the_keyboard(chromium: Any, report: Path) -> None:
    page = opened(chromium, report, viewport={"width": 1280, "height": 900})
    slider = page.locator(".compare input").first
    after = page.locator(".compare .after").first
    slider.focus()
    clip = [after.evaluate("element => getComputedStyle(element).clipPath")]
    for key in ("ArrowRight", "ArrowRight", "End", "Home"):
        page.keyboard.press(key)
        clip.append(after.evaluate("element => getComputedStyle(element).clipPath"))
    assert len(set(clip)) == 5
    assert slider.get_attribute("aria-valuetext") == "0 % original"
    # The focus can be seen.
    outline = page.locator(".compare").first.evaluate("element => getComputedStyle(element).outlineStyle")
    assert outline == "solid"
    page.context.close()


def test_the_first_key_leads_past_the_navigation(chromium: Any, report: Path) -> None:
    page = opened(chromium, report, viewport={"width": 1280, "height": 900})
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.locator(".skip").bounding_box()["y"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.tagName") == "MAIN"
    # Whatever scrolls by itself can be reached and scrolled from the keyboard.
    for region in page.query_selector_all(".wide"):
        assert region.get_attribute("tabindex") == "0"
        assert region.get_attribute("aria-label") or region.get_attribute("aria-labelledby")
    page.context.close()


@pytest.mark.parametrize("kind", ["report", "comparison"])
def test_without_scripts_and_printed_both_pictures_stand_side_by_side(
    chromium: Any, kind: str, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(kind)
    plain = opened(chromium, path, java_script_enabled=False, viewport={"width": 1280, "height": 900})
    printed = opened(chromium, path, viewport={"width": 800, "height": 900})
    printed.emulate_media(media="print")
    for page in (plain, printed):
        for compare in page.query_selector_all(".compare"):
            boxes = [compare.query_selector(f".{name}").bounding_box() for name in ("before", "after")]
            assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"] + 1
            assert boxes[0]["y"] == pytest.approx(boxes[1]["y"], abs=1)
            assert not compare.query_selector("input").is_visible()
    assert len(printed.pdf(format="A4")) > 20_000
    for page in (plain, printed):
        page.context.close()


def test_the_call_can_be_copied(chromium: Any, report: Path) -> None:
    page = opened(chromium, report, permissions=["clipboard-read", "clipboard-write"])
    page.locator("button.copy").first.click()
    assert page.evaluate("navigator.clipboard.readText()") == RUN["call"]
    page.context.close()


def test_fifty_thousand_images_open_within_two_seconds(chromium: Any, tmp_path: Path) -> None:
    keys = [(f"conv{number}", method) for number in range(1, 5) for method in ("linear", "map")]
    folder = made(tmp_path / "results", values(50_000, keys), run=RUN | {"gallery": 4})
    write_report([folder], tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size < 5_000_000
    took = []
    for _ in range(3):
        began = time.perf_counter()
        page = opened(chromium, tmp_path / "report.html", viewport={"width": 1280, "height": 900})
        page.locator("h1").wait_for()
        took.append(time.perf_counter() - began)
        page.context.close()
    assert min(took) < 2
