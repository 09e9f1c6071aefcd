"""`LayerOffload`: layers whose weights stay in the host's memory and are copied to the GPU for each step."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from workbench.errors import ConfigError
from workbench.models.loaded_model import count_bytes

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["LayerOffload"]

_LAYER = re.compile(r"^(.*?(?:layers|h|blocks)\.(\d+))\.")


class LayerOffload:
    """The last `num_layers` of a model, as a ModelPart: what is read of them goes back to the host at once.

    `attach` then has accelerate copy every matrix to the device when it is needed, and forget it again.
    """

    def __init__(self, num_layers: int) -> None:
        self.num_layers = num_layers
        self._first = 0

    def narrow(self, shell: PreTrainedModel) -> None:
        """See ModelPart: the shell stays whole. Raises ConfigError if it has not so many layers."""
        total = int(shell.config.get_text_config().num_hidden_layers)
        if self.num_layers > total:
            raise ConfigError(f"cpu_offload_layers={self.num_layers}: the model has {total} layers")
        self._first = total - self.num_layers

    def cut(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """See ModelPart. Pinned, since that is copied several times as fast."""
        if self._layer_of(name) is None:
            return tensor
        import torch

        kept = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
        kept.copy_(tensor)
        return kept

    def device_bytes(self, shell: PreTrainedModel) -> int:
        """See ModelPart."""
        elsewhere = {id(p): p.nbytes for name, p in shell.named_parameters() if self._layer_of(name) is not None}
        return count_bytes(shell) - sum(elsewhere.values())

    def attach(self, module: PreTrainedModel, device: str) -> None:
        """Have the layers computed on the device all the same."""
        import torch
        from accelerate import cpu_offload

        found = dict.fromkeys(self._layer_of(name) for name, _ in module.named_parameters())
        for layer in (module.get_submodule(name) for name in found if name is not None):
            cpu_offload(layer, execution_device=torch.device(device), state_dict=dict(layer.state_dict()))

    def _layer_of(self, name: str) -> str | None:
        """The layer's own name, if the tensor is of one that stays in the host's memory."""
        found = _LAYER.match(name)
        return found[1] if found and int(found[2]) >= self._first else None
