"""Quantises models, keeps them by name, and counts what was saved and lost. Knows no method by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from workbench.errors import ConfigError
from workbench.quantize.config import QuantizationConfig
from workbench.quantize.memory import storage_bytes

if TYPE_CHECKING:
    from torch import nn

__all__ = ["QuantizationManager"]

_BYTES_PER_MB = 1024**2


class QuantizationManager:
    """Applies one config to any number of models.

    Attributes:
        config: the settings.
        quantized_models: by name a dict of `model`, `config`, `original_size`, `quantized_size` and `memory_saved`
            (MB of 1024 * 1024 bytes), `quantization_time` (seconds), `accuracy_loss`, and `kept_layers`, the names
            of layers left in higher precision.
        quantization_stats: `total_models`, `memory_saved` (MB), `accuracy_loss` (mean of the measured ones, or None)
            and `quantization_times` (seconds).

    Sizes are bytes of real storages, packed ones too. `accuracy_loss` is the mean KL divergence in nats of the
    quantised model's predictions from the original's; None where there was nothing to measure on.
    """

    def __init__(self, config: QuantizationConfig, *, clock: Callable[[], float] = time.perf_counter) -> None:
        if not isinstance(config, QuantizationConfig):
            raise ConfigError(f"config={config!r}: must be a QuantizationConfig")
        self.config = config
        self.quantized_models: dict[str, dict[str, Any]] = {}
        self.quantization_stats: dict[str, Any] = {}
        self._clock = clock
        self._update_stats()

    def quantize_model(
        self,
        model: nn.Module,
        model_name: str = "default",
        *,
        tokenizer: Any = None,
        prompts: Sequence[str | Sequence[int]] | None = None,
        in_place: bool = False,
    ) -> nn.Module:
        """The quantised model, also kept under `model_name` in place of an earlier one.

        The original stays as it is, and shares the weights that are not quantised; `in_place` changes it and frees
        each matrix as it goes. The loss is measured on `prompts` (texts or lists of token ids), or on a built-in text
        with `tokenizer` or the one beside a transformers model's files.

        Raises ConfigError for a type without a method on the model's device and for a model with nothing to quantise.
        """
        from workbench.quantize.methods import choose_method
        from workbench.quantize.quality import compare, token_logits
        from workbench.quantize.samples import sample_ids
        from workbench.quantize.shared_copy import shared_copy

        method = choose_method(self.config, _device_type(model))
        samples = sample_ids(model, tokenizer, prompts)
        reference = _in_evaluation_mode(model, lambda: token_logits(model, samples))
        original_bytes = storage_bytes(model)
        started = self._clock()
        target = model.eval().requires_grad_(False) if in_place else shared_copy(model)
        kept_layers = method.apply(target, self.config, samples)
        elapsed_s = self._clock() - started
        quantized_bytes = storage_bytes(target)
        quality = compare(reference, token_logits(target, samples), samples) if samples else None
        self.quantized_models[model_name] = {
            "model": target,
            "config": self.config,
            "original_size": original_bytes / _BYTES_PER_MB,
            "quantized_size": quantized_bytes / _BYTES_PER_MB,
            "memory_saved": (original_bytes - quantized_bytes) / _BYTES_PER_MB,
            "quantization_time": elapsed_s,
            "accuracy_loss": quality and quality.mean_kl,
            "kept_layers": kept_layers,
        }
        self._update_stats()
        return target

    def get_quantized_model(self, model_name: str) -> nn.Module | None:
        """The model of that name; None if there is none."""
        entry = self.quantized_models.get(model_name)
        model: nn.Module | None = None if entry is None else entry["model"]
        return model

    def get_quantization_stats(self, model_name: str) -> dict[str, Any]:
        """One model's figures (MB, seconds); {} for an unknown name."""
        entry = self.quantized_models.get(model_name)
        if entry is None:
            return {}
        figures = ("memory_saved", "quantization_time", "original_size", "quantized_size", "accuracy_loss")
        return {
            "model_name": model_name,
            "quantization_type": entry["config"].quantization_type.value,
            **{name: entry[name] for name in figures},
        }

    def get_overall_stats(self) -> dict[str, Any]:
        """`quantization_stats` and `avg_quantization_time`, over the models that are kept."""
        times = self.quantization_stats["quantization_times"]
        return {
            **self.quantization_stats,
            "quantization_times": list(times),
            "avg_quantization_time": sum(times) / len(times) if times else 0.0,
        }

    def _update_stats(self) -> None:
        entries = list(self.quantized_models.values())
        losses = [entry["accuracy_loss"] for entry in entries if entry["accuracy_loss"] is not None]
        self.quantization_stats.update(
            total_models=len(entries),
            memory_saved=sum(entry["memory_saved"] for entry in entries),
            accuracy_loss=sum(losses) / len(losses) if losses else None,
            quantization_times=[entry["quantization_time"] for entry in entries],
        )


def _device_type(model: nn.Module) -> str:
    parameter = next(iter(model.parameters()), None)
    if parameter is None:
        raise ConfigError(f"{type(model).__name__} has no weights to quantise")
    return parameter.device.type


def _in_evaluation_mode(model: nn.Module, run: Callable[[], Any]) -> Any:
    """What `run` gives while dropout is off; the caller's model keeps its mode."""
    was_training = model.training
    model.eval()
    try:
        return run()
    finally:
        model.train(was_training)
