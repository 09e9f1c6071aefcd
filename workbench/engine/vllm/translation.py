"""Between our messages and vLLM's: sampling settings on the way in, outputs on the way out. Knows no engine.

vLLM's names are those of its `SamplingParams`, `RequestOutput` and `CompletionOutput`, as of 0.29 and later.
"""

from __future__ import annotations

from typing import Any

from workbench.engine.logprobs import TokenLogprobs
from workbench.engine.messages import Request
from workbench.engine.sampling_params import SamplingParams
from workbench.engine.sequence import FinishReason
from workbench.engine.structure import StructureKind, StructureSpec
from workbench.errors import RequestError

__all__ = ["finish_reason", "prompt_logprobs", "sampling_fields", "structure_fields", "token_logprobs"]

_STRUCTURE_FIELDS = {
    StructureKind.JSON_SCHEMA: "json",
    StructureKind.REGEX: "regex",
    StructureKind.GRAMMAR: "grammar",
}


def sampling_fields(request: Request) -> dict[str, Any]:
    """Fields of vLLM's SamplingParams, but for structure and output kind. Raises RequestError for what it has not."""
    params = request.params
    _check(request)
    return {
        "n": params.n,
        # None means the rest of the context to both; vLLM always makes a token, where only the prompt is to be scored.
        "max_tokens": params.max_tokens if params.max_tokens != 0 else 1,
        "min_tokens": params.min_tokens,
        "temperature": 0.0 if params.is_greedy else params.temperature,
        "top_p": params.top_p,
        "top_k": params.top_k,
        "min_p": params.min_p,
        "repetition_penalty": params.repetition_penalty,
        "presence_penalty": params.presence_penalty,
        "frequency_penalty": params.frequency_penalty,
        # It has 63 bits for a seed.
        "seed": request.seed % 2**63,
        "stop": list(params.stop) or None,
        "stop_token_ids": list(params.stop_token_ids) or None,
        "ignore_eos": params.ignore_eos,
        "logprobs": params.top_logprobs if params.logprobs else None,
        "prompt_logprobs": params.prompt_logprobs,
        "skip_special_tokens": params.skip_special_tokens,
        "logit_bias": dict(params.logit_bias) or None,
    }


def structure_fields(structure: StructureSpec) -> dict[str, Any]:
    """Fields of vLLM's StructuredOutputsParams."""
    if structure.kind is StructureKind.JSON_OBJECT:
        return {"json_object": True}
    return {_STRUCTURE_FIELDS[structure.kind]: structure.text}


def finish_reason(name: str | None) -> FinishReason | None:
    """Ours for vLLM's; what only it knows ("error", "repetition") is an error or a stop."""
    if name is None:
        return None
    known = {reason.value: reason for reason in FinishReason}
    return known.get(name, FinishReason.STOP)


def token_logprobs(token_ids: list[int], rows: Any, num_top: int) -> tuple[TokenLogprobs, ...]:
    """Of generated tokens; `rows` has for each a dict of token id to vLLM's Logprob."""
    if rows is None:
        return ()
    return tuple(_logprobs(token_id, row, num_top) for token_id, row in zip(token_ids, rows, strict=True))


def prompt_logprobs(request: Request, rows: Any) -> tuple[TokenLogprobs | None, ...] | None:
    """Of the prompt's tokens, None for the first, which nothing predicts."""
    num_top = request.params.prompt_logprobs
    if rows is None or num_top is None:
        return None
    pairs = zip(request.prompt_token_ids, rows, strict=True)
    return tuple(None if row is None else _logprobs(token_id, row, num_top) for token_id, row in pairs)


def _logprobs(token_id: int, row: Any, num_top: int) -> TokenLogprobs:
    # It adds the chosen token where that is not among the likeliest.
    ranked = sorted(row.items(), key=lambda item: -item[1].logprob)[:num_top]
    return TokenLogprobs(token_id, row[token_id].logprob, tuple((other, entry.logprob) for other, entry in ranked))


def _check(request: Request) -> None:
    params, default = request.params, SamplingParams()
    for name in ("typical_p", "no_repeat_ngram_size", "plugins"):
        if getattr(params, name) != getattr(default, name):
            raise RequestError(f"{name}={getattr(params, name)!r}: the vllm engine has no such setting")
    if request.sent_token_ids:
        raise RequestError("the vllm engine cannot go on with another engine's answer")
