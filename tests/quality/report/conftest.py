"""A real browser, and the page opened in it without network."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from lake.quality.report.document import Report
from lake.quality.report.page import render_page

Scheme = Literal["light", "dark"]
Opened = Callable[..., Page]

# What is written on canvases, which is in no document: the labels of axes.
WRITTEN = """
window.written = [];
const write = CanvasRenderingContext2D.prototype.fillText;
CanvasRenderingContext2D.prototype.fillText = function (text, ...rest) {
  window.written.push(text);
  return write.call(this, text, ...rest);
};
"""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no chromium on this machine: scripts/browser installs it")
    with sync_playwright() as playwright:
        # Without a sandbox of its own, as root in a container has none to give.
        launched = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Opened]:
    """Return a function that opens a report; at the end, fail on logged errors and requests."""
    complaints: list[str] = []
    requests: list[str] = []
    pages: list[Page] = []
    file = tmp_path / "report.html"

    def open_(
        report: Report, width: int = 1280, scheme: Scheme = "light", *, javascript: bool = True
    ) -> Page:
        file.write_text(render_page(report), encoding="utf-8")
        page = browser.new_page(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            reduced_motion="reduce",
            java_script_enabled=javascript,
        )
        pages.append(page)
        page.add_init_script(WRITTEN)
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(file.as_uri())
        if javascript:
            page.wait_for_selector("html[data-ready]")
        return page

    yield open_
    for page in pages:
        page.close()
    assert complaints == []
    # The icon is in the file itself.
    assert {url for url in requests if not url.startswith("data:")} <= {file.as_uri()}
