"""A model and a load as EC2 advice takes them: bytes and counts, from the model's config and headers alone."""

from __future__ import annotations

import os

from workbench.aws import ServingPlan
from workbench.backends import dtype_bytes
from workbench.errors import ConfigError
from workbench.planner.inputs import checked_count
from workbench.planner.model_shape import read_model_shape
from workbench.planner.weight_bytes import total_bytes
from workbench.quantize import parse_quant_type

__all__ = ["serving_plan"]

# What every GPU of the table has but V100 and T4, which take the 2 bytes of fp16 in its place.
_DEFAULT_DTYPE = "bf16"


def serving_plan(
    model: str | os.PathLike[str] = "default",
    *,
    context: int | None = None,
    batch: int = 1,
    quant: str | None = None,
    tokens_per_second: float | None = None,
    budget_usd_per_hour: float | None = None,
    region: str | None = None,
    spot: bool = False,
) -> ServingPlan:
    """What `workbench.aws.advise` needs to know of a model: nothing large is downloaded, nothing is loaded.

    `context` is in tokens (None: what the model was trained for, at most 8192), `batch` in requests at the same time,
    `quant` as `LlamaGPU(quant_type=...)`, None for two bytes a weight. Raises ConfigError, ModelNotFoundError,
    DownloadError and ModelFormatError.
    """
    checked_count("batch", batch)
    shape = read_model_shape(model)
    longest = shape.spec.max_context
    if context is not None and checked_count("context", context) > longest:
        raise ConfigError(f"context={context}: the model was trained for at most {longest} tokens")
    kind = parse_quant_type(quant or _DEFAULT_DTYPE)
    dtype = kind.dtype or _DEFAULT_DTYPE
    return ServingPlan(
        weight_bytes=total_bytes(shape, kind, dtype, on_gpu=True),
        kv_bytes_per_token=sum(shape.kv_elements_per_token) * dtype_bytes(dtype),
        context_tokens=context or min(longest, 8192),
        batch_size=batch,
        tokens_per_second=tokens_per_second,
        budget_usd_per_hour=budget_usd_per_hour,
        region=region,
        spot=spot,
        num_parameters=shape.num_parameters,
        num_layers=shape.spec.num_layers,
        hidden_size=shape.spec.hidden_size,
        num_kv_heads=shape.spec.num_kv_heads,
    )
