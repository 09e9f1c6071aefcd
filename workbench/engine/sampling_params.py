"""How one request's tokens are chosen: a value that is checked once and never changes. Knows no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from workbench.engine.plugin_options import as_plugin_options
from workbench.engine.structure import StructureSpec
from workbench.errors import RequestError

__all__ = ["SamplingParams"]

MAX_TOP_LOGPROBS = 100
# Logits divided by less would leave float32.
_LEAST_TEMPERATURE = 1e-5


@dataclass(frozen=True)
class SamplingParams:
    """Sampling settings of one request; the defaults are greedy.

    Attributes:
        max_tokens: most tokens to generate; None goes on until the model stops or the context is full. 0 is allowed
            only together with `prompt_logprobs` (the prompt is scored and nothing is generated).
        temperature: 0 is greedy, and so is anything below 1e-5; 1 samples from the model's own distribution.
        top_k: keep the k likeliest tokens; 0 keeps all.
        top_p: keep the smallest set of likeliest tokens whose probability reaches this (Holtzman et al. 2019).
        min_p: keep tokens with at least this share of the likeliest one's probability (Nguyen et al. 2024).
        typical_p: keep the tokens closest to the distribution's entropy until this mass (Meister et al. 2022).
        repetition_penalty: divide (or multiply, when negative) the logits of tokens seen in prompt or answer
            (Keskar et al. 2019); 1 is off.
        presence_penalty, frequency_penalty: subtract from the logits of generated tokens, once or per occurrence
            (OpenAI); -2 to 2.
        no_repeat_ngram_size: never complete an n-gram that prompt or answer already hold; 0 is off.
        logit_bias: token id -> value added to its logit; -100 to 100.
        seed: makes sampling repeatable, whatever else is in the batch; None draws one.
        stop: strings that end the answer; they are not part of it.
        stop_token_ids: token ids that end the answer, beside the model's own.
        min_tokens: no stop of any kind before this many tokens.
        ignore_eos: go on past the model's end-of-sequence tokens.
        n: number of independent answers.
        logprobs: report each token's log-probability (natural logarithm, before penalties and temperature).
        top_logprobs: beside it the k likeliest tokens at each position; needs `logprobs`.
        prompt_logprobs: the same for the prompt: k likeliest tokens at each prompt position; None is off.
        skip_special_tokens: leave special tokens out of the text.
        structure: the form the answer must have: a JSON schema, any JSON object, a regular expression or a grammar.
        plugins: names of samplers and stream filters to use, in this order; or an object with the options of each.
        cache_salt: prompts that begin alike share their cached beginnings only under the same salt, so that nobody can
            tell from the time whether another caller has sent a text; at most 64 bytes.
    """

    max_tokens: int | None = 256
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    no_repeat_ngram_size: int = 0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    min_tokens: int = 0
    ignore_eos: bool = False
    n: int = 1
    logprobs: bool = False
    top_logprobs: int = 0
    prompt_logprobs: int | None = None
    skip_special_tokens: bool = True
    # A value of its own, not one that fits a command-line option.
    structure: StructureSpec | None = field(default=None, metadata={"option": False})
    cache_salt: str = field(default="", metadata={"option": False})
    plugins: Mapping[str, Mapping[str, object]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop", _as_stop_strings(self.stop))
        object.__setattr__(self, "stop_token_ids", _as_token_ids(self.stop_token_ids))
        object.__setattr__(self, "logit_bias", _as_logit_bias(self.logit_bias))
        object.__setattr__(self, "plugins", as_plugin_options(self.plugins))
        self._check_counts()
        self._check_ranges()
        self._check_structure_and_salt()

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> SamplingParams:
        """Build from keywords. An unknown name raises RequestError that lists the valid ones."""
        valid = {f.name for f in fields(cls)}
        unknown = sorted(set(options) - valid)
        if unknown:
            raise RequestError(f"unknown sampling parameter {unknown[0]!r}: valid are {', '.join(sorted(valid))}")
        return cls(**options)

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature < _LEAST_TEMPERATURE

    @property
    def edits_logits(self) -> bool:
        """Whether tokens seen so far, biases, `min_tokens` or plugins change the logits."""
        return bool(
            self.repetition_penalty != 1.0
            or self.presence_penalty
            or self.frequency_penalty
            or self.no_repeat_ngram_size
            or self.logit_bias
            or self.min_tokens
            or self.plugins
        )

    def _check_counts(self) -> None:
        _check_int("top_k", self.top_k, 0, None)
        _check_int("no_repeat_ngram_size", self.no_repeat_ngram_size, 0, None)
        _check_int("min_tokens", self.min_tokens, 0, None)
        _check_int("n", self.n, 1, 128)
        _check_int("top_logprobs", self.top_logprobs, 0, MAX_TOP_LOGPROBS)
        if self.prompt_logprobs is not None:
            _check_int("prompt_logprobs", self.prompt_logprobs, 0, MAX_TOP_LOGPROBS)
        if self.max_tokens is not None:
            _check_int("max_tokens", self.max_tokens, 0 if self.prompt_logprobs is not None else 1, None)
            if self.min_tokens > self.max_tokens:
                raise RequestError(f"min_tokens={self.min_tokens}: must be at most max_tokens={self.max_tokens}")
        if self.seed is not None:
            _check_int("seed", self.seed, -(2**63), 2**64 - 1)
        for name in ("ignore_eos", "logprobs", "skip_special_tokens"):
            if not isinstance(getattr(self, name), bool):
                raise RequestError(f"{name}={getattr(self, name)!r}: must be true or false")
        if self.top_logprobs and not self.logprobs:
            raise RequestError(f"top_logprobs={self.top_logprobs}: needs logprobs=True")

    def _check_ranges(self) -> None:
        _check_float("temperature", self.temperature, 0.0, 100.0)
        _check_float("top_p", self.top_p, 0.0, 1.0, low_open=True)
        _check_float("typical_p", self.typical_p, 0.0, 1.0, low_open=True)
        _check_float("min_p", self.min_p, 0.0, 1.0)
        _check_float("repetition_penalty", self.repetition_penalty, 0.0, 100.0, low_open=True)
        _check_float("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _check_float("frequency_penalty", self.frequency_penalty, -2.0, 2.0)

    def _check_structure_and_salt(self) -> None:
        # The salt becomes the key of a blake2b hash.
        if not isinstance(self.cache_salt, str) or len(self.cache_salt.encode()) > 64:
            raise RequestError(f"cache_salt={self.cache_salt!r}: must be a text of at most 64 bytes")
        if self.structure is None:
            return
        if not isinstance(self.structure, StructureSpec):
            raise RequestError(f"structure={self.structure!r}: must be a StructureSpec")
        if self.min_tokens or self.ignore_eos:
            raise RequestError(
                "structure: decides where the answer ends, so min_tokens and ignore_eos do not go with it"
            )


def _check_int(name: str, value: object, low: int, high: int | None) -> None:
    wanted = f"an integer of at least {low}" if high is None else f"an integer from {low} to {high}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise RequestError(f"{name}={value!r}: must be {wanted}")
    if value < low or (high is not None and value > high):
        raise RequestError(f"{name}={value}: must be {wanted}")


def _check_float(name: str, value: object, low: float, high: float, low_open: bool = False) -> None:
    wanted = f"a number {'above' if low_open else 'from'} {low:g} {'and at most' if low_open else 'to'} {high:g}"
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise RequestError(f"{name}={value!r}: must be {wanted}")
    if value < low or value > high or (low_open and value == low):
        raise RequestError(f"{name}={value!r}: must be {wanted}")


def _as_stop_strings(stop: object) -> tuple[str, ...]:
    strings = (stop,) if isinstance(stop, str) else _as_tuple(stop)
    if strings is None or not all(isinstance(string, str) and string for string in strings):
        raise RequestError(f"stop={stop!r}: must be a string or strings, none of them empty")
    return strings


def _as_token_ids(ids: object) -> tuple[int, ...]:
    checked = _as_tuple(ids)
    if checked is None or not all(type(token_id) is int and token_id >= 0 for token_id in checked):
        raise RequestError(f"stop_token_ids={ids!r}: must be token ids, integers of at least 0")
    return checked


def _as_tuple(values: object) -> tuple[Any, ...] | None:
    """Several values as a tuple, none given as an empty one; None for what is neither."""
    if values is None:
        return ()
    return tuple(values) if isinstance(values, list | tuple | set | frozenset) else None


def _as_logit_bias(bias: object) -> dict[int, float]:
    if bias is not None and not isinstance(bias, Mapping):
        raise RequestError(f"logit_bias={bias!r}: must map token ids to numbers")
    checked: dict[int, float] = {}
    for key, value in (bias or {}).items():
        # JSON has no other keys than strings.
        if not (type(key) is int and key >= 0) and not (isinstance(key, str) and key.isascii() and key.isdigit()):
            raise RequestError(f"logit_bias: {key!r} is not a token id")
        token_id = int(key)
        _check_float(f"logit_bias[{token_id}]", value, -100.0, 100.0)
        checked[token_id] = float(value)
    return checked
