"""How tokens are chosen, as callers say it: the fields that chat and completions share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from workbench.engine import SamplingParams, StructureSpec
from workbench.server.protocol.forms import by_class, first_wrong, forms
from workbench.server.protocol.model_choice import ModelRequest
from workbench.server.protocol.structure import ResponseFormat, StructuredOutputs, chosen_structure
from workbench.server.protocol.wire import WireRequest, WrongField

__all__ = ["Count", "GenerationRequest", "StreamOptions", "TokenId", "as_temperature"]

_MAX_STOPS = 16
_INT64 = 2**63
# Below this the likeliest token has all the probability that a float32 can tell from none.
_COLDEST = 1e-4

TokenId = Annotated[int, Field(ge=0, lt=2**31)]
StopString = Annotated[str, Field(min_length=1, max_length=1024)]
Stop = Annotated[
    str | list[str],
    forms(
        by_class({str: "text", list: "texts"}),
        "must be a text or a list of texts",
        {"text": StopString, "texts": Annotated[list[StopString], Field(max_length=_MAX_STOPS), first_wrong]},
    ),
]
Count = Annotated[int, Field(ge=1, lt=2**31)]


class StreamOptions(WireRequest):
    """What a stream holds besides the text."""

    include_usage: bool | None = Field(None, description="Send the token counts in a last chunk of their own.")
    include_obfuscation: bool | None = Field(None, description="Pad every chunk, so that its size tells nothing.")


class GenerationRequest(ModelRequest):
    """The fields of chat and completions that mean the same in both."""

    # What other servers of this API take besides.
    unsupported = {
        "allowed_token_ids": ([],),
        "bad_words": ([],),
        "include_stop_str_in_output": (False,),
        "length_penalty": (1, 1.0),
        "priority": (0,),
        "prompt_logprobs": (),
        "spaces_between_special_tokens": (True,),
        "truncate_prompt_tokens": (),
        "use_beam_search": (False,),
    }

    stream: bool | None = Field(None, description="Send the answer piece by piece as server-sent events.")
    stream_options: StreamOptions | None = None

    temperature: float | None = Field(None, ge=0, le=2, description="0 takes the likeliest token. Default 1.")
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1, lt=2**31, description="0 and -1 keep all tokens.")
    min_p: float | None = Field(None, ge=0, le=1)
    typical_p: float | None = Field(None, gt=0, le=1)
    repetition_penalty: float | None = Field(None, ge=0.01, le=100)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    no_repeat_ngram_size: int | None = Field(None, ge=0, le=1024)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = Field(None, max_length=1024)
    seed: int | None = Field(None, ge=-_INT64, lt=_INT64, description="Makes this answer repeatable.")
    n: int | None = Field(None, ge=1, le=128, description="Number of answers.")
    stop: Stop | None = Field(None, description="One to 16 strings that end the answer.")
    stop_token_ids: Annotated[list[TokenId], first_wrong] | None = Field(None, max_length=64)
    min_tokens: int | None = Field(None, ge=0, lt=2**31)
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None

    plugins: dict[Annotated[str, Field(max_length=64)], dict[str, Any] | None] | None = Field(
        None, max_length=16, description="Samplers and stream filters of plugins to use, with the options of each."
    )

    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None

    user: str | None = Field(None, max_length=512, description="Accepted and not used.")
    metadata: dict[str, str] | None = Field(None, max_length=16, description="Accepted and not used.")
    store: bool | None = Field(None, description="Accepted and not used: nothing is stored.")
    service_tier: str | None = Field(None, max_length=64, description="Accepted and not used.")
    safety_identifier: str | None = Field(None, max_length=512, description="Accepted and not used.")
    prompt_cache_key: str | None = Field(None, max_length=512, description="Accepted and not used.")

    @model_validator(mode="after")
    def _check_together(self) -> GenerationRequest:
        if self.stream_options is not None and not self.stream:
            raise WrongField("stream_options", "is only allowed together with stream")
        for key in self.logit_bias or ():
            if not key.isascii() or not key.isdigit() or len(key) > 9:
                raise WrongField("logit_bias", "is wrong: every key must be a token id in digits")
        chosen_structure(self.response_format, self.structured_outputs)
        return self

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with the token counts."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def wants_padding(self) -> bool:
        """Whether the chunks of a stream are padded."""
        return bool(self.stream_options and self.stream_options.include_obfuscation)

    @property
    def structure(self) -> StructureSpec | None:
        """The form the answer must have."""
        return chosen_structure(self.response_format, self.structured_outputs)

    @property
    def structure_param(self) -> str:
        """The field that says it."""
        return "structured_outputs" if self.structured_outputs else "response_format"

    def sampling(self, **more: Any) -> SamplingParams:
        """Our own sampling settings; `more` are those whose names differ between the routes."""
        given = {name: getattr(self, name) for name in _SAME_NAMES if getattr(self, name) is not None}
        return SamplingParams(
            **{
                "top_k": max(0, self.top_k or 0),
                "logit_bias": {int(key): value for key, value in (self.logit_bias or {}).items()},
                "structure": self.structure,
                **given,
                "temperature": as_temperature(self.temperature),
                **more,
            }
        )


def as_temperature(given: float | None) -> float:
    """The temperature to sample with: 1 if none is given, and 0 for one that is as good as 0."""
    if given is None:
        return 1.0
    return given if given >= _COLDEST else 0.0


_SAME_NAMES = (
    "top_p",
    "min_p",
    "typical_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "no_repeat_ngram_size",
    "seed",
    "n",
    "stop",
    "stop_token_ids",
    "min_tokens",
    "ignore_eos",
    "skip_special_tokens",
    "plugins",
)
