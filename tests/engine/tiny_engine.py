"""Small real transformers models with random weights, and an engine around them."""

from __future__ import annotations

from contextlib import contextmanager

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from workbench.engine.attention import register_attention
from workbench.engine.client import EngineClient
from workbench.engine.config import EngineConfig, resolve_limits
from workbench.engine.core import EngineCore
from workbench.engine.draft_model import DraftModel
from workbench.engine.engine import Engine
from workbench.engine.layer_probe import probe_layers
from workbench.engine.model_runner import ModelRunner
from workbench.engine.paged_step import KVPool

VOCAB_SIZE = 300
MAX_CONTEXT = 256

_SHAPE = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": MAX_CONTEXT,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}


def build(model_type: str, **fields) -> torch.nn.Module:
    """A model of a family with random weights, in float32, on transformers' own eager attention."""
    config = AutoConfig.for_model(model_type, **{**_SHAPE, **fields})
    torch.manual_seed(0)
    module = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval().requires_grad_(False)
    for parameter in module.parameters():
        # Wide, so that the likeliest token is far from the next one and rounding does not decide.
        if parameter.dim() > 1:
            parameter.normal_(0.0, 0.2)
    return module


def random_prompt(length: int, seed: int = 0) -> list[int]:
    return torch.randint(3, VOCAB_SIZE, (length,), generator=torch.Generator().manual_seed(seed + length)).tolist()


def greedy(module: torch.nn.Module, prompt: list[int], num_tokens: int) -> list[int]:
    """What transformers' `generate` gives on the model's own attention."""
    module.set_attn_implementation("eager")
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        out = module.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=num_tokens, do_sample=False, eos_token_id=None
        )
    return out[0, len(prompt) :].tolist()


def logits_of(module: torch.nn.Module, token_ids: list[int]) -> torch.Tensor:
    """Logits [tokens, vocab] of one plain forward on the model's own attention."""
    module.set_attn_implementation("eager")
    with torch.inference_mode():
        return module(torch.tensor([token_ids]), use_cache=False).logits[0]


@contextmanager
def engine_around(module: torch.nn.Module, draft: torch.nn.Module | None = None, **config):
    """A client to an engine that runs `module`; on the way out it is checked that no block leaked.

    `draft` guesses ahead in every step: for its clock all steps take no time.
    """
    module.set_attn_implementation(register_attention())
    layers = probe_layers(module, "cpu")
    limits = resolve_limits(
        EngineConfig(**{"kv_cache_tokens": 4096, **config}),
        on_gpu=False,
        model_max_context=MAX_CONTEXT,
        kv_bytes_per_token=sum(shape.elements_per_token for shape in layers.values()) * module.dtype.itemsize,
        free_bytes=2**30,
    )
    pool = KVPool(layers, limits.num_blocks, limits.block_size, module.dtype, "cpu")
    drafter = None
    if draft is not None:
        draft.set_attn_implementation(register_attention())
        draft_pool = KVPool(probe_layers(draft, "cpu"), limits.num_blocks, limits.block_size, draft.dtype, "cpu")
        drafter = DraftModel(ModelRunner(draft, draft_pool, "cpu"), limits, limits.max_context)
    engine = Engine(
        ModelRunner(module, pool, "cpu"),
        limits,
        drafter=drafter,
        **({} if draft is None else {"clock": lambda: 0.0}),
        decode=lambda token_ids, skip: " ".join(map(str, token_ids)),
        vocab_size=VOCAB_SIZE,
        eos_token_ids=frozenset(),
    )

    def connect(emit) -> EngineCore:
        core = EngineCore(engine, emit)
        core.start()
        return core

    client = EngineClient(connect, max_context=limits.max_context, vocab_size=VOCAB_SIZE)
    try:
        yield client
        assert client.stats().kv_blocks_used == 0
        assert drafter is None or drafter.pool.num_used_blocks == 0
        engine.check_integrity()
    finally:
        client.stop()
