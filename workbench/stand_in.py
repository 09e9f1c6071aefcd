"""`WORKBENCH_MODEL`: a small model in place of every other, so that notebooks written for a GPU run in CI."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass

from workbench.backends import Backend, get_backend, select_backend
from workbench.errors import WorkbenchError
from workbench.quantize import QuantizationConfig, parse_quant_type

__all__ = ["StandIn", "find_stand_in"]

_log = logging.getLogger(__name__)

VARIABLE = "WORKBENCH_MODEL"
# Enough for what a notebook shows, and little memory.
_LONGEST_CONTEXT = 2048


@dataclass(frozen=True)
class StandIn:
    """What is loaded in place of what was asked for; None fields are chosen for the machine."""

    model: str
    backend: str | Backend | None
    quant_type: str | QuantizationConfig | None
    context_length: int


def find_stand_in(
    model: str,
    *,
    backend: str | Backend | None,
    quant_type: str | QuantizationConfig | None,
    context_length: int | None,
    environment: Mapping[str, str] = os.environ,
) -> StandIn | None:
    """The stand-in for a load, None where `WORKBENCH_MODEL` is not set or names the model that was asked for.

    A backend or a precision that this machine lacks is replaced by one that it has; what was sized for the other model
    (context, cache, devices) is left out. Which model stood in for which is logged.
    """
    name = environment.get(VARIABLE, "").strip()
    if not name or name == model:
        return None
    wanted = get_backend(backend) if isinstance(backend, str) else backend
    wanted = wanted if wanted is not None and wanted.is_available() else None
    context_length = min(context_length or _LONGEST_CONTEXT, _LONGEST_CONTEXT)
    stand_in = StandIn(name, wanted, _usable(quant_type, wanted or select_backend().backend), context_length)
    _log.warning("%s=%s stands in for %s", VARIABLE, name, model)
    return stand_in


def _usable(quant_type: str | QuantizationConfig | None, backend: Backend) -> str | QuantizationConfig | None:
    if quant_type is None:
        return None
    try:
        asked = parse_quant_type(quant_type)
        asked.require_on(backend.name)
    except WorkbenchError:
        return None
    is_refused = asked.dtype is not None and backend.supports_dtype(asked.dtype) is not None
    return None if is_refused else quant_type
