"""Serving on torch's operators at once, and on the GPU's kernels once they are there: no token is lost or doubled."""

import gc
import threading
import weakref
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from tests.engine.kernels.test_graph_runner import VOCAB, make_model
from workbench.engine.client import EngineClient
from workbench.engine.config import EngineConfig, resolve_limits
from workbench.engine.core import EngineCore
from workbench.engine.device_steps import DeviceSteps
from workbench.engine.engine import Engine
from workbench.engine.fused_decoder import FusedDecoder
from workbench.engine.graph_runner import GraphRunner
from workbench.engine.layer_probe import probe_layers
from workbench.engine.model_runner import ModelRunner
from workbench.engine.module_decoder import ModuleDecoder
from workbench.engine.paged_step import KVPool
from workbench.engine.runner_status import RunnerStatus
from workbench.engine.sampling_params import SamplingParams
from workbench.engine.warm_up import switching_runner
from workbench.engine.warm_up.switching_runner import SwitchingRunner

PROMPTS = [[5, 9, 2], [7]]
PARAMS = [SamplingParams(max_tokens=16), SamplingParams(max_tokens=10, temperature=0.8, seed=3)]


class Counting:
    """A runner that counts its steps, and may fail when it is captured."""

    def __init__(self, runner, fails: bool = False) -> None:
        self._runner, self._fails = runner, fails
        self.num_steps = 0

    def __getattr__(self, name: str):
        return getattr(self._runner, name)

    @property
    def steps(self):
        if self._fails:
            raise RuntimeError("out of something")
        return self._runner.steps

    def launch(self, plan):
        self.num_steps += 1
        return self._runner.launch(plan)


class Compiling:
    """Stands in for the compiling process: it has not ended until it is told to."""

    num_jobs, num_done, failures, end_reason = 7, 3, ["a kernel: no room"], None

    def __init__(self) -> None:
        self.may_end = self.is_closed = False
        self.was_asked = threading.Event()

    def poll(self) -> bool:
        self.was_asked.set()
        return self.may_end

    def close(self) -> None:
        self.is_closed = True


class Serving:
    """An engine that prepares itself, with both of its runners."""

    def __init__(self, device: str, *, fails: bool = False, compile=None) -> None:
        module = make_model("llama", device)
        layers = probe_layers(module, device)
        limits = resolve_limits(
            EngineConfig(max_num_seqs=2, max_num_batched_tokens=16, kv_cache_tokens=128),
            on_gpu=False, model_max_context=48, kv_bytes_per_token=256, free_bytes=2**28,
        )  # fmt: skip
        pool = KVPool(layers, limits.num_blocks + 1, limits.block_size, module.dtype, device)
        self.plain = Counting(ModelRunner(module, pool, device))
        self.fast = Counting(GraphRunner(ModuleDecoder(module, pool, 2), limits, device, num_kv_heads=1), fails=fails)
        self.status = RunnerStatus("")
        options = {} if compile is None else {"compile": compile}
        self.runner = SwitchingRunner(
            self.plain, self.status, make=lambda: self.fast, describe=lambda runner: "captured", **options
        )
        self.engine = Engine(
            self.runner, limits, decode=lambda ids, _: " ".join(map(str, ids)), vocab_size=VOCAB,
            eos_token_ids=frozenset(),
        )  # fmt: skip

    def connect(self) -> EngineClient:
        def connect(emit):
            core = EngineCore(self.engine, emit)
            core.start()
            return core

        return EngineClient(connect, max_context=48, vocab_size=VOCAB)


def answers(client: EngineClient) -> list[tuple[int, ...]]:
    running = [client.submit(prompt, params) for prompt, params in zip(PROMPTS, PARAMS, strict=True)]
    return [generation.result(timeout_s=120).token_ids for generation in running]


def first_tokens(client: EngineClient) -> tuple[int, ...]:
    return client.submit(PROMPTS[0], SamplingParams(max_tokens=3)).result(timeout_s=120).token_ids


@pytest.fixture
def kernels_are_missing(monkeypatch):
    """The interpreter compiles nothing, so what is missing is made up."""

    class Job:
        def is_compiled(self) -> bool:
            return False

        def load(self) -> None:
            loaded.append(self)

    class Noted:
        sources = ()

        def __init__(self) -> None:
            self.triton = [Job()]

        def noting(self):
            return nullcontext()

    loaded: list[Job] = []
    monkeypatch.setattr(switching_runner, "NotedKernels", Noted)
    return loaded


class EmulatedGraph:
    """A step that is replayed: what it gives is always in the same tensor."""

    def __init__(self, step) -> None:
        self._step = step
        self.graph, self.out = self, step().clone()

    def replay(self) -> None:
        self.out.copy_(self._step())


@pytest.fixture(autouse=True)
def captures(device: str, monkeypatch) -> None:
    """Graphs also where there is no device to capture them on."""

    def capture_size(steps: DeviceSteps, kind, size: int) -> None:
        with torch.inference_mode():
            steps._graphs[kind, size] = EmulatedGraph(partial(steps._padded_step, kind, size))

    if device == "cpu":
        monkeypatch.setattr(DeviceSteps, "capture_size", capture_size)


@pytest.fixture(scope="module")
def expected(device: str) -> list[tuple[int, ...]]:
    serving = Serving(device)
    serving.runner.close()
    client = serving.connect()
    found = answers(client)
    client.stop()
    assert serving.fast.num_steps == 0
    return found


def test_running_answers_go_on_across_the_switch(device: str, expected) -> None:
    serving = Serving(device)
    assert serving.status.is_provisional
    client = serving.connect()
    assert answers(client) == expected
    assert serving.plain.num_steps > 2 and serving.fast.num_steps > 2
    assert serving.status.wait_until_final(60)
    assert str(serving.status).startswith("captured; torch's operators for the first")
    num_steps = serving.plain.num_steps
    assert first_tokens(client) == expected[0][:3]
    assert serving.plain.num_steps == num_steps and serving.runner.overlaps
    client.stop()
    serving.engine.check_integrity()


def test_an_idle_engine_prepares_itself_too(device: str, expected, kernels_are_missing) -> None:
    compiling = Compiling()
    serving = Serving(device, compile=lambda jobs: compiling)
    client = serving.connect()
    # While another process compiles, requests are served.
    assert answers(client) == expected and serving.fast.num_steps == 0
    assert str(serving.status) == "torch's operators, while the GPU's kernels are being compiled: 3 of 7"
    assert not kernels_are_missing
    compiling.may_end = True
    assert serving.status.wait_until_final(60)
    assert compiling.is_closed and len(kernels_are_missing) == 1
    client.stop()


def test_what_cannot_be_prepared_is_said_and_torch_serves(device: str, expected, caplog) -> None:
    serving = Serving(device, fails=True)
    client = serving.connect()
    assert answers(client) == expected
    assert str(serving.status) == ("torch's operators: the GPU's kernels could not be prepared: out of something")
    client.stop()


def test_an_engine_that_is_stopped_meanwhile_leaves_nothing(device: str, kernels_are_missing) -> None:
    compiling = Compiling()
    serving = Serving(device, compile=lambda jobs: compiling)
    client = serving.connect()
    generation = client.submit(PROMPTS[0], SamplingParams(max_tokens=40))
    next(iter(generation))
    assert compiling.was_asked.wait(60)
    client.stop()
    assert compiling.is_closed
    fast = weakref.ref(serving.fast)
    del serving
    gc.collect()
    assert fast() is None


def test_kernels_are_looked_up_in_one_layer_of_each_kind(device: str) -> None:
    module = make_model("llama", device)
    pool = KVPool(probe_layers(module, device), 4, 16, module.dtype, device)
    decoder = FusedDecoder(module, pool, 48, 2)
    attended: list[int] = []
    decoder._attend = lambda step, index, layer, qkv: attended.append(index) or qkv[:, :32]
    ids = torch.zeros(2, dtype=torch.int32, device=device)
    step = SimpleNamespace(ids=ids, num_tokens=2, num_decodes=2, kept=None, hidden=None)
    with decoder.one_layer_of_each_kind():
        decoder.forward(step)
    assert attended == [0]
    decoder.forward(step)
    assert attended == [0, 0, 1]


def test_a_load_can_wait_for_it(device: str, expected) -> None:
    serving = Serving(device)
    serving.runner.finish()
    assert not serving.status.is_provisional
    client = serving.connect()
    assert first_tokens(client) == expected[0][:3] and serving.plain.num_steps == 0
    client.stop()
