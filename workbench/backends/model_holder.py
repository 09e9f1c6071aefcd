"""The documented way to use a backend by itself: load one model on it and ask it for text. Thin, over `LlamaGPU`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from workbench.errors import EngineStoppedError

if TYPE_CHECKING:
    from workbench.backends.base import Backend
    from workbench.llm import LlamaGPU

__all__ = ["ModelHolder"]


class ModelHolder:
    """Loads at most one model. Sampling keywords and errors are those of `LlamaGPU`."""

    _model: LlamaGPU | None = None

    @property
    def model(self) -> LlamaGPU | None:
        """The model that `load_model` loaded; None before it and after `unload_model`."""
        return self._model

    @property
    def tokenizer(self) -> Any:
        """That model's tokenizer, or None."""
        return self._model.tokenizer if self._model else None

    def load_model(self, model_path: str | Path, quant_type: str | None = None, **options: Any) -> None:
        """Load a model on this backend, in place of the one before it. `options` are those of `LlamaGPU`.

        A load that fails leaves the backend without a model.
        """
        # Points up, as `LlamaGPU.serve` does: this is an old name for a door that lies above.
        from workbench.llm import LlamaGPU

        self.unload_model()
        # Nothing but `Backend` inherits from this.
        self._model = LlamaGPU(model_path, quant_type=quant_type, backend=cast("Backend", self), **options)

    def unload_model(self) -> dict[str, int]:
        """Give the model's memory back. Returns the bytes per device; {} where no model is loaded."""
        model, self._model = self._model, None
        return model.unload() if model else {}

    def infer(self, input_data: str, **sampling: Any) -> str:
        """See LlamaGPU.infer."""
        return self._required().infer(input_data, **sampling)

    def batch_infer(self, input_data: Sequence[str], batch_size: int | None = None, **sampling: Any) -> list[str]:
        """See LlamaGPU.batch_infer."""
        return self._required().batch_infer(input_data, batch_size, **sampling)

    def stream_infer(self, input_data: str, max_tokens: int | None = None, **sampling: Any) -> Iterator[str]:
        """See LlamaGPU.stream_infer; here `max_tokens=None`, the default, goes on until the model stops."""
        return self._required().stream_infer(input_data, max_tokens, **sampling)

    def _required(self) -> LlamaGPU:
        if self._model is None:
            raise EngineStoppedError("no model is loaded on this backend: call load_model first")
        return self._model
