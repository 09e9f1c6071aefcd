"""Texts from a quantised module by itself, and how fast they come: by transformers' own `generate`, with no engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from workbench.errors import ConfigError, RequestError
from workbench.quantize.config import QuantizationConfig

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["QuantizedInference"]

_BYTES_PER_MB = 1024**2


class QuantizedInference:
    """Generates with a module that `QuantizationManager` made.

    Args:
        quantized_model: a transformers model.
        config: how it was quantised.
        tokenizer: what turns texts into tokens; by default the one beside the model's files.

    For many requests at once, streaming and sampling, `LlamaGPU(quant_type=...)` is faster: it batches.
    """

    def __init__(
        self,
        quantized_model: nn.Module,
        config: QuantizationConfig,
        *,
        tokenizer: Any = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if not callable(getattr(quantized_model, "generate", None)):
            raise ConfigError(
                f"{type(quantized_model).__name__} cannot generate: a transformers language model is needed"
            )
        self.quantized_model = quantized_model
        self.config = config
        self.tokenizer = tokenizer
        self._clock = clock

    def generate(self, prompt: str, max_tokens: int = 50, **options: Any) -> str:
        """The model's continuation; `options` are those of transformers' `generate`, greedy by default.

        Raises RequestError for a prompt or a number of tokens that cannot be, ConfigError without a tokenizer.
        """
        text = self._tokenizer().decode(self._continue(prompt, max_tokens, options), skip_special_tokens=True)
        return str(text)

    def benchmark_performance(self, test_prompts: Sequence[str], max_tokens: int = 50) -> dict[str, float]:
        """Generate for each prompt and measure.

        Gives `total_time` and `avg_time_per_prompt` (seconds), `tokens_per_second` (tokens really generated),
        `throughput` (prompts a second), `total_prompts`, `total_tokens`, and `memory_usage`: MB of 1024 * 1024 bytes
        that the weights take.
        """
        from workbench.quantize.memory import storage_bytes

        if isinstance(test_prompts, str) or not test_prompts:
            raise RequestError(f"test_prompts={test_prompts!r}: must be a non-empty list of texts")
        started = self._clock()
        total_tokens = sum(len(self._continue(prompt, max_tokens, {})) for prompt in test_prompts)
        total_s = self._clock() - started
        return {
            "total_time": total_s,
            "avg_time_per_prompt": total_s / len(test_prompts),
            "tokens_per_second": total_tokens / total_s,
            "throughput": len(test_prompts) / total_s,
            "total_prompts": len(test_prompts),
            "total_tokens": total_tokens,
            "memory_usage": storage_bytes(self.quantized_model) / _BYTES_PER_MB,
        }

    def _continue(self, prompt: str, max_tokens: int, options: dict[str, Any]) -> list[int]:
        """Token ids after the prompt."""
        import torch

        if not isinstance(prompt, str) or not prompt:
            raise RequestError(f"prompt={prompt!r}: must be a text that is not empty")
        if type(max_tokens) is not int or max_tokens < 1:
            raise RequestError(f"max_tokens={max_tokens!r}: must be an integer of at least 1")
        tokenizer = self._tokenizer()
        ids = self._ids(tokenizer, prompt)
        # Any model with transformers' `generate`.
        model: Any = self.quantized_model
        with torch.inference_mode():
            answer: torch.Tensor = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=max_tokens,
                **{"do_sample": False, "pad_token_id": _pad_id(tokenizer), **options},
            )
        token_ids: list[int] = answer[0, ids.shape[1] :].tolist()
        return token_ids

    def _ids(self, tokenizer: Any, prompt: str) -> torch.Tensor:
        import torch

        device = next(self.quantized_model.parameters()).device
        return torch.tensor([tokenizer.encode(prompt)], device=device)

    def _tokenizer(self) -> Any:
        if self.tokenizer is None:
            from workbench.quantize.samples import find_tokenizer

            self.tokenizer = find_tokenizer(self.quantized_model)
        if self.tokenizer is None:
            raise ConfigError("tokenizer: the model's files hold none; give tokenizer=")
        return getattr(self.tokenizer, "hf", self.tokenizer)


def _pad_id(tokenizer: Any) -> int | None:
    """`generate` warns where it has to choose this itself."""
    token_id: int | None = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return token_id
