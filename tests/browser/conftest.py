"""A JupyterLab and a Chromium for the tests of this folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator

import pytest
from browser.lab_page import LabPage
from browser.lab_server import LabServer
from playwright.sync_api import Browser, sync_playwright

_CHROMIUM_OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WIDE = {"width": 1300, "height": 1150}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The system's Chromium. Without one the tests are skipped, or fail where WORKBENCH_REQUIRE_BROWSER=1.

    Open for one module only: while Playwright is, no test of an event loop could run.
    """
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        missing = "no Chromium on this machine (looked for chromium, chromium-browser, google-chrome)"
        if os.environ.get("WORKBENCH_REQUIRE_BROWSER") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(_CHROMIUM_OPTIONS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabServer]:
    """A JupyterLab of the module's own."""
    with LabServer(tmp_path_factory.mktemp("lab")) as server:
        yield server


@pytest.fixture(scope="module")
def open_notebook(server: LabServer, chromium: Browser) -> Iterator[Callable[[str], LabPage]]:
    """Opens a notebook of the server's root on a page of its own."""
    contexts, pages = [], []

    def open_notebook(name: str) -> LabPage:
        contexts.append(chromium.new_context(viewport=WIDE))
        pages.append(LabPage(contexts[-1].new_page(), server.page_url(name)))
        return pages[-1]

    yield open_notebook
    for page, context in zip(pages, contexts, strict=True):
        page.shut_down_kernel()
        context.close()
