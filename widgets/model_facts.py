"""What pickers ask of a model, read from its config alone. Knows no widget and loads nothing."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.errors import ConfigError
from workbench.session import LoadChoice

__all__ = ["ModelFacts", "read_model_facts"]


@dataclass(frozen=True)
class ModelFacts:
    """`max_context` is the most tokens that a model was trained for, `tensor_sizes` over how many devices its heads can
    be dealt out. None where that can't be told without loading it."""

    max_context: int | None = None
    tensor_sizes: tuple[int, ...] | None = None

    def check_context(self, length: int | None) -> None:
        """Raises ConfigError for a context that is longer than the model's."""
        if length is not None and self.max_context is not None and length > self.max_context:
            raise ConfigError(f"context_length {length}: the model was trained for at most {self.max_context} tokens")

    def check_tensor_size(self, size: int) -> None:
        """Raises ConfigError, with the sizes that can be, where the heads can't be dealt out so."""
        if self.tensor_sizes is not None and size not in self.tensor_sizes:
            raise ConfigError(f"tensor_size {size}: {self.tensor_words}")

    def check(self, choice: LoadChoice) -> None:
        """Raises ConfigError for a choice that the model does not allow."""
        self.check_context(choice.context_length)
        if choice.parallel is not None:
            self.check_tensor_size(choice.parallel.shape.tensor)

    def problem(self, choice: LoadChoice) -> str:
        """What the model does not allow of a choice, in words; "" where it allows all of it."""
        try:
            self.check(choice)
        except ConfigError as error:
            return str(error)
        return ""

    @property
    def tensor_words(self) -> str:
        """Over how many devices the layers can be split; "" where that is not known."""
        if self.tensor_sizes is None:
            return ""
        *others, last = (str(size) for size in self.tensor_sizes)
        if last == "1":
            return "the model's single attention head can't be split"
        several = f"{', '.join(others[1:])} or {last}" if len(others) > 1 else last
        return f"the model's attention heads can be split over {several}"

    def first_tensor_size(self, most: int, *, wants_most: bool) -> int | None:
        """A size from 2 to `most` to begin with: the largest or the smallest that the heads allow, None without one."""
        allowed = self.tensor_sizes if self.tensor_sizes is not None else range(2, most + 1)
        sizes = [size for size in allowed if 2 <= size <= most]
        if not sizes:
            return None
        return max(sizes) if wants_most else min(sizes)


def read_model_facts(model: str) -> ModelFacts:
    """The facts of anything that `LlamaGPU` takes as a model. Raises what reading its config does."""
    from workbench.parallel.head_shares import tensor_sizes
    from workbench.planner.model_shape import read_model_shape

    spec = read_model_shape(model).spec
    return ModelFacts(spec.max_context, tuple(tensor_sizes(spec.num_heads, spec.num_kv_heads)))
