"""Whether a model's weights are packed for the GPU's own kernels while it is read, or torch's operators must do."""

from __future__ import annotations

import logging

from workbench.engine.fused_weights import why_not
from workbench.engine.low_bit_method import LowBitMethod
from workbench.engine.low_bit_weight import LowBitKind
from workbench.engine.runner_choice import kernels_unavailable_reason
from workbench.models import ModelFiles
from workbench.models.loader import load_shell
from workbench.quantize.packed_folder import is_packed_folder

__all__ = ["choose_low_bit"]

_log = logging.getLogger(__name__)


def choose_low_bit(files: ModelFiles, name: str | None, *, device: str, dtype: str) -> LowBitMethod | None:
    """What packs the weights as `name` ("int8", "int4", "fp8"); None where it cannot, for None and for files that are
    packed themselves. Raises ModelFormatError."""
    if name is None or (files.path is not None and is_packed_folder(files.path)):
        return None
    method = LowBitMethod(LowBitKind.parse(name))
    obstacle = kernels_unavailable_reason(device, {})
    if obstacle is None:
        shell = load_shell(files, dtype=dtype)
        obstacle = why_not(shell.module) or method.obstacle(shell.module)
        if shell.embedding is not None:
            obstacle = "the model makes embeddings too"
    if obstacle is not None:
        _log.info("%s in %s runs on torch's operators: %s", files.name, name, obstacle)
    return method if obstacle is None else None
