"""A small model on disk whose heads four ranks can share, and what one process says to a set of prompts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from workbench import LlamaGPU
from workbench.backends import get_backend
from workbench.distributed.group_launch import GroupLaunch
from workbench.distributed.nursery import RankNursery
from workbench.distributed.start import StartedGroup, start_group_engine
from workbench.engine import EngineConfig, SamplingParams
from workbench.engine.client import EngineClient
from workbench.models import Catalogue, ModelFiles
from workbench.models.byte_tokenizer import make_byte_tokenizer

VOCAB_SIZE = 512
PROMPTS = [[(7 * i + j * 3) % 200 + 3 for j in range(5 + i)] for i in range(20)]
ENGINE = EngineConfig(kv_cache_tokens=4096, native_kernels=False)


def save_model(folder: Path, model_type: str, **fields: object) -> Path:
    """A two-layer model with 8 heads over 4 KV heads and wide random weights."""
    sizes = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 16,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
    }
    config = AutoConfig.for_model(model_type, initializer_range=0.2, **(sizes | fields))
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    make_byte_tokenizer(config.vocab_size).hf.save_pretrained(folder)
    return folder


def files_of(model: Path | str) -> ModelFiles:
    return Catalogue().resolve(str(model))


def start(
    files: ModelFiles,
    nursery: RankNursery | None = None,
    *,
    tensor_size: int = 1,
    num_stages: int = 1,
    spans: list[range] | None = None,
    dtype: str = "fp32",
    uses_kernels: bool | None = None,
) -> StartedGroup:
    launch = GroupLaunch(
        files=files,
        backend_name="cpu",
        device_indexes=tuple(range(tensor_size * num_stages)),
        tensor_size=tensor_size,
        num_stages=num_stages,
        dtype=dtype,
        config=ENGINE,
        spans=None if spans is None else tuple(spans),
        uses_kernels=uses_kernels,
    )
    return start_group_engine(launch, get_backend("cpu"), nursery=nursery)


def answers(client: EngineClient, num_tokens: int = 12) -> list[tuple[int, ...]]:
    """Greedy tokens for all prompts at once."""
    params = SamplingParams(max_tokens=num_tokens, ignore_eos=True)
    generations = [client.submit(prompt, params) for prompt in PROMPTS]
    return [generation.result(60).token_ids for generation in generations]


def scores(client: EngineClient) -> torch.Tensor:
    """Log-probabilities of a prompt's tokens and of the five likeliest at each position."""
    params = SamplingParams(max_tokens=0, prompt_logprobs=5)
    entries = client.submit(PROMPTS[-1], params).result(60).prompt_logprobs[1:]
    return torch.tensor([[entry.logprob, *(p for _, p in entry.top)] for entry in entries])


@dataclass(frozen=True)
class Said:
    """What one process says: `answers` and `scores`, and the bytes of its weights."""

    answers: list[tuple[int, ...]]
    scores: torch.Tensor
    weight_bytes: int


def said_by(model: str, num_tokens: int = 12) -> Said:
    with LlamaGPU(model, prefer_gpu=False, quant_type="fp32", engine=ENGINE) as one:
        return Said(answers(one._client, num_tokens), scores(one._client), one.weight_bytes)
