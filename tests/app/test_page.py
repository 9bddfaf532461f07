"""The interactive page: its handlers, and a user's session in Chromium."""

import base64
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from PIL import Image

from reconstruct import invert, load_image
from reconstruct.images.files import to_pixels
from reconstruct.network.network import Network
from tests.builders.browser import chromium
from tests.conftest import ROOT, Call

SAMPLE = str(ROOT / "samples" / "coffee.jpg")


def pictures(shown: str) -> list[numpy.ndarray]:
    """H x W x 3 bytes of those in a view."""
    found = re.findall(r"base64,([^']+)'", shown)
    return [numpy.asarray(Image.open(io.BytesIO(base64.b64decode(each)))) for each in found]


def test_it_says_what_it_needs(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Gradio is installed, as if it were not."""
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "reconstruct.app.page", raising=False)
    status, out, err = call("app")
    assert (status, out) == (2, "")
    assert "pip install 'reconstruct-features[app]'" in err
    assert err.count("\n") == 1


@pytest.fixture
def page() -> Any:
    pytest.importorskip("gradio", reason="needs Gradio: make test-extras")
    from reconstruct.app.page import Page

    return Page()


REQUEST: Any = SimpleNamespace(session_hash="one")


@pytest.mark.extras
def test_what_the_page_shows(page: Any) -> None:
    """The original first, then images that improve; the last is what ``invert`` gives, to the byte."""
    model = "convpool_cnn_c_crelu"
    *way, last = page.run(SAMPLE, model, "conv2", "gradient", 900, 0.0, REQUEST)
    net: Network = page.network(model)
    original = load_image(SAMPLE, 32)
    features = net.features(original[None], "conv2")
    expected = invert(net, features, "conv2", "gradient", budget=900)
    first, result = pictures(way[0][0]), pictures(last[0])
    assert numpy.array_equal(first[0], to_pixels(original))
    assert len(first) == 1
    assert numpy.array_equal(result[0], to_pixels(original))
    assert numpy.array_equal(result[1], to_pixels(expected.image[0]))
    found = re.findall(r"<dd>([\d.]+)", last[0])
    assert float(found[0]) == pytest.approx(
        -10 * numpy.log10(_mean_square(expected.image[0].clamp(0, 1) - original)), abs=0.05
    )
    # How good each was that was shown on the way.
    shown = [float(each[1]) for each in (re.search(r"PSNR</dt><dd>([\d.]+)", each[0]) for each in way) if each]
    assert len(shown) >= 2
    assert shown[0] + 3 < float(found[0])
    assert found[2] == f"{expected.feature_residual[0]:.2g}"
    assert "done: the budget is spent" in last[0]
    assert [each.interactive for each in last[1:]] == [True, False]
    assert all([each.interactive for each in step[1:]] == [False, True] for step in way)


def _mean_square(error: torch.Tensor) -> float:
    return float(error.double().square().mean())


@pytest.mark.extras
def test_cancelling_is_a_session_s_own(page: Any) -> None:
    way = page.run(SAMPLE, "convpool_cnn_c_crelu", "conv1", "gradient", 1e6, 0.0, REQUEST)
    next(way)
    next(way)
    page.cancel(SimpleNamespace(session_hash="another"))
    assert "cancelled" not in next(way)[0]
    page.cancel(REQUEST)
    assert "role='status'>cancelled<" in list(way)[-1][0]
    page.cancel(REQUEST)  # nothing to cancel


@pytest.mark.extras
@pytest.mark.parametrize(
    ("picture", "layer", "method", "message"),
    [
        (None, "conv1", "map", "no picture yet"),
        ("text", "conv1", "map", "is not a picture"),
        ("small", "conv8", "map", "is smaller than"),
        (SAMPLE, "pool1", "wiener", "no linear map undoes the max-pooling pool1"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    page: Any, tmp_path: Path, picture: str | None, layer: str, method: str, message: str
) -> None:
    (tmp_path / "text").write_text("<b>not a picture</b>")
    Image.new("RGB", (9, 9)).save(tmp_path / "small", format="PNG")
    if picture in ("text", "small"):
        picture = str(tmp_path / picture)
    last = list(page.run(picture, "convpool_cnn_c_crelu", layer, method, 90, 0.0, REQUEST))[-1]
    assert message in last[0]
    assert "role='alert'" in last[0]
    assert "Traceback" not in last[0]
    assert [each.interactive for each in last[1:]] == [True, False]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page, served by the command."""
    pytest.importorskip("gradio", reason="needs Gradio: make test-app")
    port = 7871
    command = [sys.executable, "-m", "reconstruct", "app", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert f"http://127.0.0.1:{port}" in line
        yield f"http://127.0.0.1:{port}"
        server.terminate()


@pytest.mark.app
def test_a_user_s_session(address: str, tmp_path: Path) -> None:
    with chromium("test-app") as browser:
        page = browser.new_context(viewport={"width": 1280, "height": 860}).new_page()
        asked: list[str] = []
        complaints: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: complaints.append(f"{error.message}: {error.stack}"))
        page.goto(address)
        page.wait_for_selector("#start")

        # A sample, conv2, map: as the page opens but for the sample.
        page.locator("#samples button").nth(2).click()
        page.wait_for_function("document.querySelector('#picture img')?.src.includes('coffee')")
        page.locator("#start").click()
        page.wait_for_function("document.querySelectorAll('#result img').length === 2", timeout=60_000)
        early = _psnr(page)
        _until(page, "done")
        assert _psnr(page) > 20
        assert _psnr(page) > early
        assert page.locator("#result img").first.evaluate("each => each.naturalWidth") == 227

        # Another method, cancelled; the numbers stay, and it can be started again.
        page.locator("#method input[value=gradient]").check()
        page.locator("#start").click()
        page.wait_for_function("document.querySelector('#result figcaption b + br') && "
                               "document.querySelector('#result').innerText.includes('by gradient')")  # fmt: skip
        page.locator("#cancel").click()
        _until(page, "cancelled")
        # The buttons follow the result by a moment: they are other parts of the same answer.
        page.wait_for_selector("#start:enabled")
        page.wait_for_selector("#cancel:disabled", state="attached")

        # What does not apply is said in one line; so is a file that is no picture.
        _choose(page, "#model", "convpool_cnn_c_crelu")
        page.wait_for_function("document.querySelector('#layer input').value === 'conv2'")
        _choose(page, "#layer", "pool1")
        page.locator("#method input[value=wiener]").check()
        page.locator("#start").click()
        page.wait_for_selector("#result .bad")
        assert "no linear map undoes the max-pooling pool1" in page.inner_text("#result")
        broken = tmp_path / "broken.png"
        broken.write_text("not a picture")
        page.locator("#picture button[aria-label='Remove Image']").first.click()
        page.locator("#picture input[type=file]").set_input_files(str(broken))
        page.wait_for_timeout(500)
        page.locator("#start").click()
        page.wait_for_function("document.querySelector('#result').innerText.includes('is not a picture')")

        assert {url.split("/")[2] for url in asked if url.startswith("http")} == {address.removeprefix("http://")}
        # In every other session Gradio 6.31's own script trips over an update of its list of layers, without harm.
        assert [each for each in complaints if "reading '0'" not in each or "/assets/index-" not in each] == []


def _psnr(page: Any) -> float:
    return float(page.locator("#result dd").first.inner_text().removesuffix("dB"))


def _until(page: Any, state: str) -> None:
    script = f"document.querySelector('#result .state')?.textContent.startsWith('{state}')"
    page.wait_for_function(script, timeout=60_000)


def _choose(page: Any, what: str, value: str) -> None:
    page.locator(f"{what} input").click()
    page.get_by_role("option", name=value, exact=True).click()
