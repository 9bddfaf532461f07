"""Reports as a reader sees them: in Chromium, without and with a script, on a phone, in the dark, on paper."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconstruct.report.pages.write import write_report
from tests.builders.browser import chromium
from tests.builders.results_folder import HOSTILE, add_thumbnails, failure, random_rows, run_json, save, save_many

pytestmark = pytest.mark.browser

LIGHT, DARK = "rgb(252, 252, 250)", "rgb(22, 24, 27)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium("test-browser") as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = dict(enumerate(HOSTILE))
    rows = random_rows(40, ["conv1", "conv2", "conv3"], ["linear", "map"], seed=3, names=names)
    rows += [failure(40 + i, f"{name}: cannot be read", image=name + "2") for i, name in enumerate(HOSTILE)]
    saved = save(tmp_path_factory.mktemp("run") / "run", rows)
    add_thumbnails(saved)
    return saved


@pytest.fixture(scope="module")
def pages(folder: Path) -> dict[str, Path]:
    """The page of a run, and that of a comparison."""
    other = save(folder.parent / "other", random_rows(40, ["conv1", "conv2"], ["map"], 4, dict(enumerate(HOSTILE))))
    add_thumbnails(other, 9)
    found = {"run": folder.parent / "run.html", "comparison": folder.parent / "comparison.html"}
    write_report([folder], found["run"])
    write_report([folder, other], found["comparison"])
    return found


def opened(browser: Any, path: Path, **settings: Any) -> Any:
    """A page, with what it asked for and complained of in ``asked`` and ``complaints``."""
    page = browser.new_context(**settings).new_page()
    page.asked, page.complaints = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("dialog", lambda dialog: page.complaints.append(dialog.message))
    page.goto(path.as_uri())
    return page


@pytest.mark.parametrize("kind", ["run", "comparison"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_asks_for_nothing_and_complains_of_nothing(
    browser: Any, pages: dict[str, Path], kind: str, scheme: str
) -> None:
    page = opened(browser, pages[kind], color_scheme=scheme)
    page.wait_for_timeout(300)
    assert [url for url in page.asked if not url.startswith("data:")] == [pages[kind].as_uri()]
    assert page.complaints == []
    assert page.evaluate("document.documentElement.className") == "js"
    # Every picture is there: a broken one has no size.
    assert page.evaluate(
        """Promise.all([...document.querySelectorAll('.store image')].map(async each => {
            const copy = new Image(); copy.src = each.getAttribute('href'); await copy.decode(); return copy.width;
        })).then(widths => Math.min(...widths))"""
    ) == 32  # fmt: skip


def test_a_page_of_fifty_thousand_images_is_no_larger_than_one_of_five_thousand(browser: Any, tmp_path: Path) -> None:
    """What the browser has to lay out does not grow with the rows; seconds are benchmarks/evaluation.py's."""
    elements = []
    for count in (5_000, 50_000):
        folder = save_many(tmp_path / f"{count}", count, ["conv1", "conv2", "conv3", "conv4"], ["linear", "map"])
        add_thumbnails(folder, side=224)
        write_report([folder], tmp_path / f"{count}.html")
        page = opened(browser, tmp_path / f"{count}.html")
        assert page.complaints == []
        assert f"{count:,} images of {count:,}" in page.inner_text("body")
        elements.append(page.evaluate("document.querySelectorAll('*').length"))
        page.context.close()
    assert elements[1] < 1.05 * elements[0]


def test_slider_moves_by_the_keyboard(browser: Any, pages: dict[str, Path]) -> None:
    page = opened(browser, pages["run"])
    slider = page.locator(".compare input").first
    shown = "document.querySelector('.compare .after')"
    before = page.evaluate(f"getComputedStyle({shown}).clipPath")
    slider.focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    assert before == "inset(0px 0px 0px 50%)"
    assert page.evaluate(f"getComputedStyle({shown}).clipPath") == "inset(0px 0px 0px 60%)"
    assert slider.get_attribute("aria-valuetext") == "60 % original"
    assert page.evaluate("getComputedStyle(document.querySelector('.compare')).outlineStyle") == "solid"


def test_skip_link_is_first_and_works(browser: Any, pages: dict[str, Path]) -> None:
    page = opened(browser, pages["run"])
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.locator(".skip").bounding_box()["y"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


@pytest.mark.parametrize("kind", ["run", "comparison"])
@pytest.mark.parametrize("scripted", [True, False])
def test_a_phone_needs_no_sideways_scrolling(browser: Any, pages: dict[str, Path], kind: str, scripted: bool) -> None:
    page = opened(browser, pages[kind], viewport={"width": 390, "height": 844}, java_script_enabled=scripted)
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth && innerWidth === 390")
    assert (page.evaluate("document.documentElement.className") == "js") == scripted
    for each in page.locator("section, header, figure").all():
        box = each.bounding_box()
        assert box["x"] + box["width"] <= 390.5


@pytest.mark.parametrize(("scheme", "paper"), [("light", LIGHT), ("dark", DARK)])
def test_text_stands_out_in_both_schemes(browser: Any, pages: dict[str, Path], scheme: str, paper: str) -> None:
    page = opened(browser, pages["run"], color_scheme=scheme)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == paper
    for what, least in (("body", 4.5), (".note", 4.5), ("a[href='#charts']", 4.5), (".bad", 4.5), (".chart text", 4.5)):
        name = "fill" if "text" in what else "color"
        colour = page.evaluate(f"getComputedStyle(document.querySelector(`{what}`)).{name}")
        assert contrast(colour, paper) >= least, (what, colour)
    for number in range(8):
        colour = page.evaluate(
            f"(() => {{ const each = document.createElement('i'); each.style.color = 'var(--c{number})';"
            "document.body.append(each); return getComputedStyle(each).color; })()"
        )
        assert contrast(colour, paper) >= 3, (number, colour)


def contrast(one: str, other: str) -> float:
    """As WCAG defines it."""

    def luminance(colour: str) -> float:
        parts = [int(each) / 255 for each in re.findall(r"\d+", colour)[:3]]
        linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("how", ["paper", "no script"])
def test_pictures_stand_side_by_side_without_sliders(browser: Any, pages: dict[str, Path], how: str) -> None:
    page = opened(browser, pages["run"], color_scheme="dark", java_script_enabled=how == "paper")
    if how == "paper":
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == LIGHT
        assert page.pdf(format="A4").startswith(b"%PDF")
    else:
        assert page.locator(".copy").first.is_hidden()
    assert page.locator(".compare").count() == 6 * 12
    for each in page.locator(".compare").all():
        before, after = (each.locator(part).bounding_box() for part in (".before", ".after"))
        assert before["width"] > 20
        assert before["x"] + before["width"] <= after["x"]
        assert before["y"] == after["y"]
        assert each.locator("input").is_hidden()


def test_the_call_is_copied(browser: Any, pages: dict[str, Path]) -> None:
    page = opened(browser, pages["run"], permissions=["clipboard-read", "clipboard-write"])
    page.locator(".copy").click()
    page.wait_for_function("document.querySelector('.copy').textContent !== 'Copy'")
    assert page.locator(".copy").text_content() == "Copied"
    assert page.evaluate("navigator.clipboard.readText()") == run_json()["call"]
