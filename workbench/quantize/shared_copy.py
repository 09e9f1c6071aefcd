"""A copy of a model whose modules are its own and whose weights are the original's: no second copy in memory."""

from __future__ import annotations

import copy

from torch import nn

__all__ = ["shared_copy"]


def shared_copy(model: nn.Module) -> nn.Module:
    """`model` again, in evaluation mode and without gradients, to replace modules in.

    Parameters are new objects over the original's memory (tied ones stay tied), so writing into one shows in both.
    """
    memo: dict[int, object] = {
        id(parameter): nn.Parameter(parameter.detach(), requires_grad=False) for parameter in model.parameters()
    }
    memo.update((id(buffer), buffer) for buffer in model.buffers())
    return copy.deepcopy(model, memo).eval()
