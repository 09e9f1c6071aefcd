"""Bytes that a module's tensors really hold. Knows no method: packed weights are buffers like any other."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__all__ = ["storage_bytes"]


def storage_bytes(module: nn.Module) -> int:
    """Bytes of the storages behind all parameters and buffers, each once; a view counts all that it keeps alive."""
    storages = (tensor.untyped_storage() for tensor in [*module.parameters(), *module.buffers()])
    sizes = {(str(storage.device), storage.data_ptr()): storage.nbytes() for storage in storages}
    return sum(sizes.values())
