"""Whether steps of one row run as one kernel, and why not."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from workbench.engine.fused_weights import FusedWeights
from workbench.engine.kernels.cuda_function import cuda_obstacle
from workbench.engine.one_row.program import OneRowProgram
from workbench.engine.one_row.step import OneRowShape, OneRowStep
from workbench.engine.paged_step import KVPool
from workbench.errors import BackendUnavailableError

__all__ = ["OneRowChoice", "choose_one_row"]


@dataclass(frozen=True)
class OneRowChoice:
    """The kernel, or in words why there is none."""

    step: OneRowStep | None
    why_not: str | None = None


def choose_one_row(weights: FusedWeights, pool: KVPool, cos: torch.Tensor, sin: torch.Tensor) -> OneRowChoice:
    """The one-row kernel for a model, built or taken from the cache; `cos`, `sin` are tables [positions, dim]."""
    if weights.norm is None or weights.head is None:
        return OneRowChoice(None, "the head is elsewhere")
    device = weights.norm.device
    shape = OneRowShape.of(weights, pool)
    obstacle = cuda_obstacle(device) or shape.obstacle(weights, pool)
    if obstacle is not None:
        return OneRowChoice(None, obstacle)
    try:
        program = OneRowProgram(shape.defines(), shape.num_threads, device)
    except BackendUnavailableError as error:
        return OneRowChoice(None, str(error))
    step = OneRowStep(weights, pool, shape, cos, sin, program.num_blocks, program.launch)
    return OneRowChoice(step)
