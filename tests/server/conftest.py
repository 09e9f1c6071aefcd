"""The endpoint on a real socket over the embedded model, loaded once; tests with other settings start their own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import openai
import pytest
from live_endpoint import ADMIN_KEY, USE_KEY, http_client, start_endpoint, wait_until_idle
from step_gate import StepGate

from workbench import EngineConfig, LlamaGPU
from workbench.server.endpoint import Endpoint
from workbench.server.settings import ServerSettings

MakeEndpoint = Callable[..., Endpoint]


@pytest.fixture(scope="session")
def llm(embedded_model_folder: Path) -> Iterator[LlamaGPU]:
    """The embedded model with a small context, so that its limits are near."""
    engine = EngineConfig(context_length=1024, kv_cache_tokens=16_384, max_num_seqs=16)
    # In bf16 a text does not depend on what is computed beside it or was kept, so answers can be compared.
    with LlamaGPU(embedded_model_folder, False, False, "bf16", engine=engine) as loaded:
        yield loaded


@pytest.fixture(scope="session")
def tiny_llm(tiny_model_folder: Path) -> Iterator[LlamaGPU]:
    """A model that answers at once, for what does not depend on the answer."""
    engine = EngineConfig(context_length=1024, kv_cache_tokens=16_384, max_num_seqs=16)
    with LlamaGPU(tiny_model_folder, prefer_gpu=False, auto_detect_aws=False, engine=engine) as loaded:
        yield loaded


@pytest.fixture(scope="session")
def endpoint(llm: LlamaGPU) -> Iterator[Endpoint]:
    """One endpoint with default settings for all tests that need no others."""
    with start_endpoint(llm) as running:
        yield running


@pytest.fixture
def make_endpoint(llm: LlamaGPU) -> Iterator[MakeEndpoint]:
    """Starts endpoints with settings of their own, and stops them after the test."""
    with contextlib.ExitStack() as stack:

        def make(settings: ServerSettings | None = None, **options: object) -> Endpoint:
            return stack.enter_context(start_endpoint(llm, settings, **options))

        yield make


@pytest.fixture
def make_tiny_endpoint(tiny_llm: LlamaGPU) -> Iterator[MakeEndpoint]:
    """The same over the tiny model."""
    with contextlib.ExitStack() as stack:

        def make(settings: ServerSettings | None = None, **options: object) -> Endpoint:
            return stack.enter_context(start_endpoint(tiny_llm, settings, **options))

        yield make


@pytest.fixture
def http(endpoint: Endpoint) -> Iterator[httpx.Client]:
    """A plain client with the use key."""
    with http_client(endpoint) as client:
        yield client


@pytest.fixture
def admin(endpoint: Endpoint) -> Iterator[httpx.Client]:
    """A plain client with the admin key."""
    with http_client(endpoint, ADMIN_KEY) as client:
        yield client


@pytest.fixture(scope="session")
def client(endpoint: Endpoint) -> Iterator[openai.OpenAI]:
    """OpenAI's own client."""
    with openai.OpenAI(base_url=endpoint.url, api_key=USE_KEY, max_retries=0, timeout=60) as made:
        yield made


@pytest.fixture
def gate(llm: LlamaGPU, monkeypatch: pytest.MonkeyPatch) -> Iterator[StepGate]:
    """The engine stands still but for the steps that the test allows."""
    gate = StepGate(llm, monkeypatch)
    yield gate
    gate.open()


@pytest.fixture(autouse=True)
def nothing_is_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test the engine has nothing to do."""
    yield
    if "llm" in request.fixturenames:
        wait_until_idle(request.getfixturevalue("llm"))
