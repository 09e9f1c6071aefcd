"""The app over the embedded model, and a Chromium that looks at it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dashboards_page import AppPage
from playwright.sync_api import Browser, sync_playwright
from plugin_packages import tab_source, write_module

from dashboards.app import App
from dashboards.launching import make_app
from workbench import EngineConfig, LlamaGPU
from workbench.plugins import default_plugins
from workbench.server.settings import AppSettings, ListenSettings
from workbench.session import LoadChoice, Session

OpenPage = Callable[..., AppPage]


@pytest.fixture(scope="session", autouse=True)
def no_statistics() -> Iterator[None]:
    """gradio_client would tell its makers of every client, and keep a process from ending while it tries."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        yield


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
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def quick_model_folder(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that is loaded in no time and can be chatted with, though it has nothing to say."""
    folder = tmp_path_factory.mktemp("quick") / "model"
    shutil.copytree(tiny_model_folder, folder)
    (folder / "chat_template.jinja").write_text("{% for message in messages %}{{ message.content }}\n{% endfor %}")
    return folder


@pytest.fixture(scope="session")
def session(embedded_model_folder: Path, native_library_path: Path | None) -> Iterator[Session]:
    """A session with the embedded model, with a context that is quick to fill, in the precision that is quick here."""
    quick = "fp32" if native_library_path is None else "bf16"

    def load(choice: LoadChoice, progress) -> LlamaGPU:
        # One thread: browser and server have a core of their own then, and nothing waits for a thread that waits.
        context = choice.context_length or 2048
        engine = EngineConfig(context_length=context, kv_cache_tokens=32_768, max_num_seqs=32, num_threads=1)
        return LlamaGPU(
            choice.model, False, False, choice.precision or quick, backend="cpu", engine=engine, progress=progress
        )

    with Session(load) as session:
        session.load(LoadChoice(str(embedded_model_folder)))
        assert session.wait(timeout_s=200).facts is not None
        yield session


@pytest.fixture(scope="session")
def app(session: Session, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """The app over that session, for everybody on this machine, with the tabs of two plugins. One of them fails."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_HOME", str(tmp_path_factory.mktemp("app-home")))
        patch.setattr("workbench.plugins.loader.try_import", lambda candidate, limit_s: None)
        folder = tmp_path_factory.mktemp("tabs")
        patch.syspath_prepend(folder)
        for name, then in (
            ("shouter", "button.click(lambda text: text.upper(), shown, shown)"),
            ("broken", "raise RuntimeError('no tab today')"),
        ):
            default_plugins().load(name, write_module(folder, f"{name}_tab", tab_source(name, then)))
        app = make_app(session=session, listen=ListenSettings(port=0), settings=AppSettings())
    with app:
        yield app


@pytest.fixture(scope="module")
def open_page(chromium: Browser) -> Iterator[OpenPage]:
    """Opens an address in a browser context of its own (its own storage, its own tab)."""
    pages: list[AppPage] = []

    def open_page(url: str, **options) -> AppPage:
        context = chromium.new_context(viewport=options.pop("viewport", {"width": 1280, "height": 900}), **options)
        pages.append(AppPage(context.new_page(), url))
        return pages[-1]

    yield open_page
    for page in pages:
        page.close()
