"""Fixtures for every test: a home of its own, and the embedded model, fetched and converted once per machine."""

from __future__ import annotations

import gc
import itertools
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from workbench.backends.processor import Processor
from workbench.engine.native.library import build_library, native_obstacle
from workbench.models import ModelFiles, parse_source
from workbench.models.embedded import EMBEDDED_GGUF, EMBEDDED_NAME, embedded_folder, fetch_embedded
from workbench.paths import native_cache
from workbench.progress import no_progress

_BROWSER_RERUNS = 2


def pytest_configure() -> None:
    # A background job of a shell starts with Ctrl-C ignored, and so would every process that tests interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """See `no_search_among_what_stays`: modules and tests are a million objects."""
    gc.disable()
    try:
        return (yield)
    finally:
        _let_stay()
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # A browser on a busy machine may fail once for reasons of its own. Playwright's runner tries twice more on CI.
    # `-p no:rerunfailures` lets each failure count.
    if not config.pluginmanager.hasplugin("rerunfailures"):
        return
    for item in items:
        if item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.flaky(reruns=_BROWSER_RERUNS))


def _let_stay() -> None:
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def no_search_among_what_stays() -> None:
    """What earlier files have imported stays: where an unload searches for garbage, it need not be among that."""
    _let_stay()


@pytest.fixture
def is_rerun(request: pytest.FixtureRequest) -> bool:
    """Whether this test has failed and is tried again: pages that outlive a test must then be opened anew."""
    return getattr(request.node, "execution_count", 1) > 1


@pytest.fixture(scope="session")
def embedded_model_folder() -> Path:
    """The converted embedded model in the machine's real cache. Shared by all tests: read it, never write there."""
    return fetch_embedded(no_progress)


@pytest.fixture(scope="session")
def embedded_files(embedded_model_folder: Path) -> ModelFiles:
    """The embedded model as the catalogue resolves it."""
    gguf = embedded_model_folder / EMBEDDED_GGUF.name
    return ModelFiles(parse_source("default"), EMBEDDED_NAME, embedded_model_folder, gguf_path=gguf)


@pytest.fixture(scope="session")
def new_homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Paths for homes. Numbers that pytest gives take the longer the more there are: it looks at all of them."""
    folder = tmp_path_factory.mktemp("homes")
    return (folder / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def workbench_home(new_homes: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home of the test's own, so that no test sees another's caches and settings.

    Compiled kernels are the exception: they are kept in the machine's real cache, and compiled once.
    """
    kernels = native_cache()
    kernels.mkdir(parents=True, exist_ok=True)
    home = next(new_homes)
    home.mkdir()
    (home / kernels.name).symlink_to(kernels, target_is_directory=True)
    monkeypatch.setenv("WORKBENCH_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def native_library_path() -> Path | None:
    """The compiled kernels in the machine's real cache; None where this machine cannot have them."""
    processor = Processor()
    return None if native_obstacle(processor) else build_library(processor)


@pytest.fixture
def home_with_embedded_model(embedded_model_folder: Path, native_library_path, workbench_home: Path) -> Path:
    """The test's own home in which "default" is ready to load, without a copy of its half a gigabyte."""
    link = embedded_folder().path
    link.parent.mkdir(parents=True)
    link.symlink_to(embedded_model_folder, target_is_directory=True)
    return workbench_home


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer Llama with random weights as a safetensors folder. Shared: read it, copy it to change it."""
    from model_folders import save_preset

    return save_preset("tiny", tmp_path_factory.mktemp("tiny") / "model")
