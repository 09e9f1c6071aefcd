"""The GPU's runner end to end, steps overlapping: the same greedy text and the same draws as the plain runner."""

import copy
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import MagicMock, patch

import pytest
import torch

from workbench.engine.attention import LayerShape, register_attention
from workbench.engine.client import EngineClient
from workbench.engine.config import EngineConfig, resolve_limits
from workbench.engine.core import EngineCore
from workbench.engine.device_steps import DeviceSteps
from workbench.engine.draft_model import DraftModel
from workbench.engine.engine import Engine
from workbench.engine.fused_decoder import FusedDecoder
from workbench.engine.fused_weights import FusedWeights, why_not
from workbench.engine.graph_runner import GraphRunner
from workbench.engine.layer_probe import probe_layers
from workbench.engine.low_bit_weight import LowBitKind, LowBitWeight
from workbench.engine.measured_lookup import MeasuredLookup
from workbench.engine.model_runner import ModelRunner
from workbench.engine.module_decoder import ModuleDecoder
from workbench.engine.paged_step import KVPool
from workbench.engine.sampling_params import SamplingParams
from workbench.engine.step_packer import StepKind, batch_buckets
from workbench.planner.model_shape import read_model_shape
from workbench.planner.weight_bytes import total_bytes
from workbench.quantize import parse_quant_type

VOCAB = 150
# What probe_layers finds in the model of make_model.
LAYERS = {index: LayerShape(num_kv_heads=1, key_dim=16, value_dim=16) for index in range(2)}


def make_model(kind: str, device: str, hidden: int = 32, **more: bool):
    import transformers as hf

    torch.manual_seed(0)
    sizes = dict(
        vocab_size=VOCAB, hidden_size=hidden, intermediate_size=48 if hidden < 128 else 128, num_hidden_layers=2,
        num_attention_heads=hidden // 16, num_key_value_heads=1, head_dim=16, max_position_embeddings=256,
        initializer_range=0.3, pad_token_id=0,
    )  # fmt: skip
    config, model = {
        "llama": (hf.LlamaConfig, hf.LlamaForCausalLM),
        "qwen2": (hf.Qwen2Config, hf.Qwen2ForCausalLM),
        "qwen3": (hf.Qwen3Config, hf.Qwen3ForCausalLM),
        "mistral": (hf.MistralConfig, hf.MistralForCausalLM),
        "gemma2": (hf.Gemma2Config, hf.Gemma2ForCausalLM),
    }[kind]
    extra = {"mistral": {"sliding_window": 12}, "gemma2": {"sliding_window": 12, "query_pre_attn_scalar": 16}}
    made = config(**sizes, **extra.get(kind, {}), **more)
    made._attn_implementation = register_attention()
    return model(made).eval().to(device).requires_grad_(False)


class ReplayedOnTheHost(dict):
    """In place of captured graphs: each computes its step anew, to where a graph's result would lie."""

    def __init__(self, steps) -> None:
        super().__init__()
        self._steps = steps

    def get(self, key):
        if key[0] is not StepKind.MIXED:
            self.setdefault(key, Replayed(partial(self._steps._padded_step, *key)))
        return super().get(key)


class Replayed:
    def __init__(self, step) -> None:
        self.graph, self._step = self, step

    def replay(self) -> None:
        self.out = self._step()


@contextmanager
def captured_on_the_host():
    """`DeviceSteps.capture` as on a GPU, line by line; a replay computes the step anew, to where its result lies."""
    capture = DeviceSteps._capture

    def capture_and_remember(steps, step):
        captured = capture(steps, step)
        captured.graph.replay.side_effect = lambda: captured.out.copy_(step())
        return captured

    with ExitStack() as stack:
        for name in ("Stream", "current_stream", "stream", "synchronize", "graph"):
            stack.enter_context(patch.object(torch.cuda, name, MagicMock()))
        stack.enter_context(patch.object(torch.cuda, "CUDAGraph", lambda: MagicMock()))
        stack.enter_context(patch.object(DeviceSteps, "_capture", capture_and_remember))
        yield


def make_runner(module, limits, device: str, *, fast: bool, layers, weights=None, captures=False):
    pool = KVPool(layers, limits.num_blocks + 1, limits.block_size, torch.float32, device)
    if not fast:
        return ModelRunner(module, pool, device)
    if why_not(module) is None:
        decoder = FusedDecoder(module, pool, 256, 4, weights)
    else:
        decoder = ModuleDecoder(module, pool, 4)
    runner = GraphRunner(decoder, limits, device, num_kv_heads=1)
    if device == "cuda":
        runner.capture()
    elif captures:
        with captured_on_the_host():
            runner.capture()
    else:
        runner.steps._graphs = ReplayedOnTheHost(runner.steps)
    return runner


def start(
    module, device: str, *, fast: bool, weights=None, drafter=None, draft=None, captures=False, **knobs
) -> EngineClient:
    layers = probe_layers(module, device) if weights is None else LAYERS
    bytes_per_token = sum(shape.elements_per_token for shape in layers.values()) * 4
    config = EngineConfig(**{"max_num_seqs": 4, "max_num_batched_tokens": 32, **knobs})
    limits = resolve_limits(
        config, on_gpu=False, model_max_context=256, kv_bytes_per_token=bytes_per_token, free_bytes=2**28
    )
    runner = make_runner(module, limits, device, fast=fast, layers=layers, weights=weights, captures=captures)
    if draft is not None:
        its_runner = make_runner(draft, limits, device, fast=True, layers=layers)
        drafter = DraftModel(its_runner, limits, limits.max_context)
    engine = Engine(
        runner,
        limits,
        decode=lambda ids, _: " ".join(map(str, ids)),
        vocab_size=VOCAB,
        eos_token_ids=frozenset(),
        drafter=drafter,
        # Time that stands still makes guesses free; without them it does not matter.
        clock=lambda: 0.0,
    )

    def connect(emit):
        core = EngineCore(engine, emit)
        core.start()
        return core

    return EngineClient(connect, max_context=limits.max_context, vocab_size=VOCAB)


PROMPTS = [[(7 * i + n) % VOCAB for i in range(n)] for n in (3, 18, 1)]


def answers(client: EngineClient, params: SamplingParams) -> list[tuple[int, ...]]:
    running = [client.submit(prompt, params) for prompt in PROMPTS]
    return [generation.result(timeout_s=120).token_ids for generation in running]


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma2"])
def test_greedy_text_is_that_of_the_plain_runner(kind: str, device: str) -> None:
    params = SamplingParams(max_tokens=4)
    plain = start(make_model(kind, device), device, fast=False)
    expected = answers(plain, params)
    plain.stop()
    fast = start(make_model(kind, device), device, fast=True)
    assert answers(fast, params) == expected
    # Once more, now from the prefix cache.
    assert answers(fast, params) == expected
    assert fast.stats().prefix_hit_tokens_total > 0
    fast.stop()


@pytest.mark.parametrize("kind", LowBitKind)
def test_low_bit_weights_give_the_text_of_what_they_stand_for(kind: LowBitKind, device: str) -> None:
    params = SamplingParams(max_tokens=4)
    plain = make_model("llama", device, hidden=128)
    for name, linear in plain.named_modules():
        if isinstance(linear, torch.nn.Linear) and not (name == "lm_head" and kind is LowBitKind.FP8):
            packed = LowBitWeight.pack(linear.weight, LowBitKind.INT8 if name == "lm_head" else kind)
            linear.weight.data = packed.dense(torch.float32)
    table = plain.model.embed_tokens.weight
    if kind is not LowBitKind.FP8:
        table.data = LowBitWeight.pack(table, LowBitKind.INT8).dense(torch.float32)
    client = start(plain, device, fast=False)
    expected = answers(client, params)
    client.stop()
    module = make_model("llama", device, hidden=128)
    weights = FusedWeights.take(module, kind)
    assert module.model.layers[0].mlp.down_proj.weight.numel() == 0
    assert (module.model.embed_tokens.weight.numel() == 0) == (kind is not LowBitKind.FP8)
    client = start(module, device, fast=True, weights=weights)
    assert answers(client, params) == expected
    client.stop()


@pytest.mark.parametrize("is_tied", [False, True])
def test_low_bit_weights_take_what_the_plan_says(is_tied: bool, device: str, tmp_path: Path) -> None:
    module = make_model("llama", device, hidden=128, tie_word_embeddings=is_tied)
    module.save_pretrained(tmp_path)
    shape = read_model_shape(tmp_path)
    for kind in LowBitKind:
        weights = FusedWeights.take(copy.deepcopy(module), kind)
        planned = total_bytes(shape, parse_quant_type(kind.value), "fp32", on_gpu=True)
        assert weights.num_bytes == planned, kind


def test_a_small_pool_preempts_and_changes_nothing(device: str) -> None:
    params = SamplingParams(max_tokens=10)
    plain = start(make_model("llama", device), device, fast=False)
    expected = answers(plain, params)
    plain.stop()
    tight = start(
        make_model("llama", device), device, fast=True, kv_cache_tokens=40, block_size=4, enable_prefix_caching=False
    )
    assert answers(tight, params) == expected
    assert tight.stats().preemptions_total > 0
    tight.stop()


def test_draws_penalties_and_logprobs_are_those_of_the_plain_runner(device: str) -> None:
    wanted = [
        SamplingParams(max_tokens=3, temperature=0.9, seed=3),
        SamplingParams(max_tokens=3, repetition_penalty=1.4, presence_penalty=0.5, logprobs=True, top_logprobs=2),
    ]
    plain, fast = (start(make_model("llama", device), device, fast=f) for f in (False, True))
    for params in wanted:
        assert answers(fast, params) == answers(plain, params)
    plain.stop()
    fast.stop()


def test_scored_prompts_go_on_as_others_do(device: str) -> None:
    # The step after a scored prompt begins before its scores are known, and a prompt's last piece may be one token.
    params = SamplingParams(max_tokens=4, prompt_logprobs=1)
    plain, fast = (start(make_model("llama", device), device, fast=f) for f in (False, True))
    expected, found = ([client.submit(list(prompt), params) for prompt in PROMPTS] for client in (plain, fast))
    for one, other in zip(expected, found, strict=True):
        one, other = one.result(timeout_s=120), other.result(timeout_s=120)
        assert other.token_ids == one.token_ids
        assert [None if s is None else s.token_id for s in other.prompt_logprobs] == [
            None if s is None else s.token_id for s in one.prompt_logprobs
        ]
    plain.stop()
    fast.stop()


def test_an_abort_while_a_step_is_in_flight_leaves_the_others_whole(device: str) -> None:
    client = start(make_model("llama", device), device, fast=True)
    kept = client.submit([1, 2, 3], SamplingParams(max_tokens=5))
    for _ in client.submit([4, 5, 6], SamplingParams(max_tokens=200)):
        break
    assert len(kept.result(timeout_s=120).token_ids) == 5
    stats = client.stats()
    assert (stats.num_running, stats.num_waiting, stats.kv_blocks_used) == (0, 0, 0)
    client.stop()


def test_buckets_cover_every_batch() -> None:
    for largest in (1, 4, 7, 256, 300):
        sizes = batch_buckets(largest)
        assert sizes == sorted(set(sizes))
        assert sizes[-1] == largest


class Oracle(MeasuredLookup):
    """Guesses the answers that it knows, and sometimes another token in their place; waits every third time."""

    def __init__(self, answers) -> None:
        super().__init__(3)
        self._known = [[*prompt, *answer] for prompt, answer in zip(PROMPTS, answers, strict=True)]
        self._num_asked = self._num_guessed = 0

    def wants(self, sequences) -> bool:
        self._num_asked += 1
        return self._num_asked % 3 == 0

    def draft(self, room):
        return {sequence: self._guess(sequence.token_ids, min(most, 3)) for sequence, most in room.items() if most > 0}

    def _guess(self, token_ids, most: int) -> tuple[int, ...]:
        (known,) = (known for known in self._known if known[: len(token_ids)] == token_ids)
        guess = known[len(token_ids) :][:most]
        self._num_guessed += 1
        if guess and self._num_guessed % 2:
            guess[-1] = (guess[-1] + 1) % VOCAB
        return tuple(guess)


GUESSED = {
    "greedy": {},
    "sampled": {"temperature": 2.0, "seed": 3},
    "penalised": {"temperature": 1.0, "repetition_penalty": 1.4, "seed": 5, "logprobs": True},
}


@pytest.mark.parametrize(("kind", "name"), [("llama", "sampled"), ("llama", "penalised"), ("gemma2", "greedy")])
def test_guesses_change_no_answer(kind: str, name: str, device: str) -> None:
    params = SamplingParams(max_tokens=14, ignore_eos=True, **GUESSED[name])
    plain = start(make_model(kind, device), device, fast=False)
    expected = answers(plain, params)
    plain.stop()
    # Blocks that guesses cross.
    module = make_model(kind, device)
    guessing = start(module, device, fast=True, drafter=Oracle(expected), draft_tokens=3, block_size=4)
    assert answers(guessing, params) == expected
    stats = guessing.stats()
    assert 5 < stats.accepted_draft_tokens_total < stats.draft_tokens_total - 2
    assert stats.kv_blocks_used == 0
    guessing.stop()


def test_captured_steps_of_every_kind_change_no_answer(device: str) -> None:
    """A prompt alone, one in chunks beside decodes, one row, two, and guesses: all replays but the chunks."""
    params = SamplingParams(max_tokens=5, ignore_eos=True)
    plain = start(make_model("llama", device), device, fast=False)
    expected = answers(plain, params)
    plain.stop()
    fast = start(
        make_model("llama", device),
        device,
        fast=True,
        captures=True,
        drafter=Oracle(expected),
        draft_tokens=2,
        max_num_seqs=2,
        max_num_batched_tokens=16,
    )
    steps = fast._core._engine._runner.steps
    sizes = {StepKind.PROMPT: [16], StepKind.GUESSES: [6], StepKind.DECODES: [1, 2]}
    assert set(steps._graphs) == {(kind, size) for kind in sizes for size in sizes[kind]}
    alone = fast.submit(PROMPTS[0], SamplingParams(max_tokens=2, ignore_eos=True))
    assert alone.result(timeout_s=120).token_ids == expected[0][:2]
    together = [fast.submit(prompt, params) for prompt in PROMPTS[:2]]
    assert [generation.result(timeout_s=120).token_ids for generation in together] == expected[:2]
    if device == "cpu":
        assert all(captured.graph.replay.called for captured in steps._graphs.values())
    fast.stop()


def test_a_draft_model_on_graphs_guesses_what_the_model_chooses(device: str) -> None:
    params = SamplingParams(max_tokens=12, temperature=1.0, seed=3, ignore_eos=True)
    plain = start(make_model("llama", device), device, fast=False)
    expected = answers(plain, params)
    plain.stop()
    # Once on the plain runner's steps, and on a GPU between those that overlap.
    fast = device == "cuda"
    client = start(make_model("llama", device), device, fast=fast, draft=make_model("llama", device), draft_tokens=3)
    assert answers(client, params) == expected
    stats = client.stats()
    assert stats.accepted_draft_tokens_total > 0.9 * stats.draft_tokens_total > 5
    client.stop()
