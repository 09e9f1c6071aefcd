"""One JupyterLab and one Chromium for all tests of this folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import nbformat
import pytest
from browser.lab_page import LIMIT_S, LabPage
from browser.lab_server import LabServer
from playwright.sync_api import Browser, expect, sync_playwright

_CHROMIUM_OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
expect.set_options(timeout=1000 * LIMIT_S)
WIDE = {"width": 1300, "height": 1150}
_FOLDER = Path(__file__).parent


class _Machinery:
    """The server and the browser, started when a test asks for them, ended by `close()`, and started anew after it.

    `new_home` gives an empty folder.
    """

    def __init__(self, new_home: Callable[[], Path]) -> None:
        self._new_home = new_home
        self._stack = ExitStack()
        self._browser: Browser | None = None
        self._server: LabServer | None = None

    @property
    def browser(self) -> Browser:
        if self._browser is None:
            playwright = self._stack.enter_context(sync_playwright())
            self._browser = playwright.chromium.launch(executable_path=_chromium(), args=list(_CHROMIUM_OPTIONS))
            self._stack.callback(self._browser.close)
        return self._browser

    @property
    def server(self) -> LabServer:
        if self._server is None:
            self._server = self._stack.enter_context(LabServer(self._new_home()))
        return self._server

    def close(self) -> None:
        self._browser = self._server = None
        self._stack.close()


_machinery = pytest.StashKey[_Machinery]()


def _chromium() -> str:
    """The system's Chromium. Without one the tests are skipped, or fail where WORKBENCH_REQUIRE_BROWSER=1."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        missing = "no Chromium on this machine (looked for chromium, chromium-browser, google-chrome)"
        if os.environ.get("WORKBENCH_REQUIRE_BROWSER") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    return path


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    yield
    # While Playwright is open no test of an event loop could run, so it ends when another folder's tests come. More of
    # this one may come after them, where several processes share the files.
    if nextitem is None or _FOLDER not in nextitem.path.parents:
        machinery = item.config.stash.get(_machinery, None)
        if machinery is not None:
            machinery.close()


@pytest.fixture(scope="session")
def machinery(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> _Machinery:
    """Server and browser."""
    machinery = request.config.stash[_machinery] = _Machinery(lambda: tmp_path_factory.mktemp("lab"))
    return machinery


@pytest.fixture(scope="module")
def open_notebook(machinery: _Machinery) -> Iterator[Callable[..., LabPage]]:
    """Opens a notebook on a page of its own: a file of the server's root, or one made of the given cells."""
    contexts, pages = [], []

    def open_notebook(name: str, *cells: str) -> LabPage:
        browser, server = machinery.browser, machinery.server
        if cells:
            _write_notebook(server.root / name, cells)
        contexts.append(browser.new_context(viewport=WIDE, accept_downloads=True))
        contexts[-1].grant_permissions(["clipboard-read", "clipboard-write"])
        pages.append(LabPage(contexts[-1].new_page(), server.page_url(name)))
        return pages[-1]

    yield open_notebook
    for page, context in zip(pages, contexts, strict=True):
        page.shut_down_kernel()
        context.close()


def _write_notebook(path: Path, cells: tuple[str, ...]) -> None:
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    made = [nbformat.v4.new_code_cell(cell) for cell in cells]
    nbformat.write(nbformat.v4.new_notebook(cells=made, metadata={"kernelspec": kernel}), path)
