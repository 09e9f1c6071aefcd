"""A choice with a piece of a plan's advice taken. Pure; knows no widget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from workbench.parallel import GPUConfig
from workbench.session import LoadChoice

__all__ = ["choice_with_advice"]

# Argument of `workbench.plan` -> field of a choice; the batch is the card's own.
_FIELDS = {
    "context": "context_length",
    "quant": "precision",
    "backend": "backend",
    "kv_dtype": "kv_dtype",
    "cpu_offload_layers": "cpu_offload_layers",
}


def choice_with_advice(choice: LoadChoice, change: Mapping[str, Any]) -> LoadChoice:
    """`change` holds the arguments of `workbench.plan` that the advice sets."""
    fields = {field: change[name] for name, field in _FIELDS.items() if name in change}
    gpus = change.get("gpus")
    if gpus and len(gpus) > 1:
        fields |= {"gpus": (), "parallel": GPUConfig(gpus, change.get("parallel") or "tensor")}
    elif "gpus" in change or "parallel" in change:
        fields |= {"gpus": tuple(gpus or ()), "parallel": None}
    return replace(choice, **fields)
