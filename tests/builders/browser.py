"""Chromium, driven by Playwright, for tests that look at a page as a reader sees it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@contextmanager
def chromium(target: str) -> Iterator[Any]:
    """The browser. A test without Playwright is skipped, one without Chromium fails.

    ``target`` : what of the Makefile installs Playwright and runs the test.
    """
    sync_api = pytest.importorskip("playwright.sync_api", reason=f"needs Playwright: make {target}")
    path = shutil.which("chromium")
    if path is None:
        pytest.fail("needs Chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=QUIET)
        yield found
        found.close()
