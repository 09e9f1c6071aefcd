"""The stages of a pipeline as on GPUs, with captured graphs and transfers that go on by themselves. Here stages are
threads, and what stands for graphs and transport is as unkind as those may be."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import defaultdict, deque
from dataclasses import replace
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path

import pytest
import torch
from distributed.group_model import ENGINE, files_of, save_model

# Sets Triton's interpreter, or has these tests skipped.
from engine.kernels import conftest as kernels_conftest  # noqa: F401

from workbench import LlamaGPU
from workbench.distributed import stage_link
from workbench.distributed.kernel_group_runner import KernelGroupRunner
from workbench.distributed.kernel_rank import KernelRank
from workbench.distributed.model_share import ModelShare
from workbench.distributed.place import Place
from workbench.distributed.shared_logits import map_logits
from workbench.distributed.stage_runner import probe_stage
from workbench.distributed.tensor_group import TensorGroup
from workbench.engine import SamplingParams
from workbench.engine.attention import register_attention
from workbench.engine.client import EngineClient
from workbench.engine.config import resolve_limits
from workbench.engine.core import EngineCore
from workbench.engine.engine import Engine
from workbench.engine.paged_step import KVPool
from workbench.engine.step_packer import StepKind
from workbench.models import load_model

WAIT_S = 120
VOCAB_SIZE = 260
NUM_STAGES = 3
# The longest does not fit into a step, so that it comes in chunks beside others' tokens.
PROMPTS = [[(5 * i) % 90 + 3 for i in range(length)] for length in (9, 1, 30)]
WAYS = [
    SamplingParams(max_tokens=3, ignore_eos=True),
    SamplingParams(max_tokens=2, ignore_eos=True, temperature=0.8, seed=4),
    # Chosen on the host, from logits that come through shared memory.
    SamplingParams(max_tokens=1, ignore_eos=True, repetition_penalty=1.3),
]


class _Transfer:
    """One end of a transfer under way: what is sent is read, and what is received written, when the ends have met."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor, self.has_met = tensor, threading.Event()

    def wait(self) -> None:
        assert self.has_met.wait(WAIT_S), "nobody is at the other end"


class _Transport:
    """In place of torch.distributed, for ranks that are threads: the n-th send of a way meets its n-th receive."""

    def __init__(self) -> None:
        self.me = threading.local()
        self._lock = threading.Lock()
        self._sends: dict[object, deque[_Transfer]] = defaultdict(deque)
        self._receives: dict[object, deque[_Transfer]] = defaultdict(deque)

    def isend(self, tensor, dst, group=None) -> _Transfer:
        return self._post(self._sends, (self.me.rank, dst, group), tensor)

    def irecv(self, tensor, src, group=None) -> _Transfer:
        return self._post(self._receives, (src, self.me.rank, group), tensor)

    def recv(self, tensor, src, group=None) -> None:
        self.irecv(tensor, src, group).wait()

    def _post(self, ends, way, tensor) -> _Transfer:
        transfer = _Transfer(tensor)
        with self._lock:
            ends[way].append(transfer)
            while self._sends[way] and self._receives[way]:
                sent, received = self._sends[way].popleft(), self._receives[way].popleft()
                received.tensor.copy_(sent.tensor)
                sent.has_met.set()
                received.has_met.set()
        return transfer


class _Graphs(dict):
    """In place of captured graphs, which share their memory: what one gives is lost when another is replayed."""

    def __init__(self, steps) -> None:
        super().__init__()
        self._steps = steps
        self.kinds: set[StepKind] = set()

    def get(self, key):
        self.kinds.add(key[0])
        return self.setdefault(key, _Graph(self, partial(self._steps._padded_step, *key)))


class _Graph:
    def __init__(self, graphs, run) -> None:
        self.graph, self._graphs, self._run = self, graphs, run
        self.out: torch.Tensor | None = None

    def replay(self) -> None:
        made = self._run()
        for other in self._graphs.values():
            if other.out is not None:
                other.out.fill_(torch.nan)
        self.out = made if self.out is None else self.out.copy_(made)


class _Ranks:
    """See RankGroup: one rank of every stage, in threads. One at a time computes, as Triton's interpreter must."""

    size = NUM_STAGES

    def __init__(self) -> None:
        self.shared_fd = os.memfd_create("workbench-test")
        pipes = [multiprocessing.Pipe() for _ in range(self.size)]
        self._ours, self.theirs = zip(*pipes, strict=True)

    def send_all(self, message) -> None:
        for connection in self._ours:
            connection.send(message)

    def receive(self):
        ready = wait(self._ours, WAIT_S)
        assert ready, "no rank answers"
        return [(self._ours.index(connection), connection.recv()) for connection in ready]

    def serve(self, ranks, transport, logits_shape) -> None:
        one_at_a_time = threading.Lock()
        for number, rank in enumerate(ranks):
            for name in ("run", "fetch"):
                setattr(rank._steps, name, _locked(one_at_a_time, getattr(rank._steps, name)))
            parts = (number, rank, transport, map_logits(self.shared_fd, logits_shape))
            threading.Thread(target=self._serve, args=parts, daemon=True).start()

    def _serve(self, number, rank, transport, shared) -> None:
        transport.me.rank = number
        try:
            with torch.inference_mode():
                rank.serve(self.theirs[number], shared)
        except EOFError:
            self.theirs[number].close()

    def stop(self) -> None:
        for connection in self._ours:
            connection.close()


def _locked(lock, call):
    def run(*parts):
        with lock:
            return call(*parts)

    return run


def _answers(client: EngineClient) -> list[tuple[int, ...]]:
    running = [client.submit(prompt, params) for params in WAYS for prompt in PROMPTS]
    return [generation.result(WAIT_S).token_ids for generation in running]


def test_stages_say_what_one_process_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As small as they come: an interpreter computes it.
    sizes = {
        "vocab_size": VOCAB_SIZE, "num_hidden_layers": NUM_STAGES, "tie_word_embeddings": True, "hidden_size": 32,
        "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64,
    }  # fmt: skip
    files = files_of(save_model(tmp_path / "model", "llama", **sizes))
    with LlamaGPU(str(tmp_path / "model"), prefer_gpu=False, quant_type="fp32", engine=ENGINE) as one:
        expected, tokenizer = _answers(one._client), one.tokenizer
    transport = _Transport()
    monkeypatch.setattr(stage_link, "dist", transport)
    group = _Ranks()
    knobs = {"on_gpu": False, "model_max_context": 64, "kv_bytes_per_token": 64, "free_bytes": 2**24}
    config = replace(ENGINE, max_num_seqs=6, max_num_batched_tokens=24)
    limits = resolve_limits(config, **knobs)
    runner = KernelGroupRunner(group, limits, VOCAB_SIZE, num_stages=NUM_STAGES, num_lanes=NUM_STAGES)
    ranks = []
    for stage in range(NUM_STAGES):
        share = ModelShare(Place(stage, NUM_STAGES, 0, 1), TensorGroup(), range(stage, stage + 1))
        part = {"device": "cpu", "dtype": "fp32", "attn_implementation": register_attention(), "part": share}
        module = load_model(files, **part).module
        pool = KVPool(probe_stage(module, share, "cpu", 8), limits.num_blocks + 1, 16, torch.float32, "cpu")
        with torch.inference_mode():
            ranks.append(
                KernelRank(module, share, TensorGroup(), pool, "cpu", limits, runner.logits_shape[0], "tokens")
            )
        ranks[-1]._steps._graphs = _Graphs(ranks[-1]._steps)
    group.serve(ranks, transport, runner.logits_shape)
    engine = Engine(runner, limits, decode=tokenizer.decode, vocab_size=VOCAB_SIZE, eos_token_ids=frozenset())

    def connect(emit) -> EngineCore:
        core = EngineCore(engine, emit, on_end=group.stop)
        core.start()
        return core

    client = EngineClient(connect, max_context=limits.max_context, vocab_size=VOCAB_SIZE)
    try:
        assert _answers(client) == expected
        assert client.stats().kv_blocks_used == 0
    finally:
        client.stop()
    assert all(rank._steps._graphs.kinds == {StepKind.DECODES, StepKind.PROMPT} for rank in ranks)
