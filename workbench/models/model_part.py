"""What loading needs to know to read only a part of a model: a rank's share of it, a stage's layers, or what
lies on a GPU of a model that is larger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["ModelPart"]


class ModelPart(Protocol):
    """A part of a model."""

    def narrow(self, shell: PreTrainedModel) -> None:
        """Take out of a shell, which has no memory yet, what does not belong to the part."""
        ...

    def cut(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Of the whole model's tensor `name`, what belongs to the part, in memory of its own."""
        ...

    def device_bytes(self, shell: PreTrainedModel) -> int:
        """What the narrowed shell takes of the device once it is filled."""
        ...
