"""What a request to spread the loaded model meets: what its shape forbids, and replicas that have died."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from workbench.distributed.place import check_tensor_size
from workbench.distributed.precision import check_precision
from workbench.errors import ConfigError, EngineStoppedError, ModelLoadError, WorkbenchError
from workbench.failure import Failure
from workbench.parallel import GPUConfig
from workbench.server.errors import ApiError, invalid

if TYPE_CHECKING:
    from workbench.llm import LlamaGPU

__all__ = ["check_spread", "not_spread", "restart_stopped"]

_log = logging.getLogger(__name__)

# A rank that ended, and a replica that ended while it loaded.
_ENDED = (EngineStoppedError.__name__, ModelLoadError.__name__)


async def restart_stopped(llm: LlamaGPU) -> None:
    """Start anew what has died. Raises a 503 that says which process could not be started, where one ended."""
    try:
        await asyncio.to_thread(llm.restart_stopped)
    except WorkbenchError as error:
        _log.error("a replica could not be started anew", exc_info=error)
        ended = getattr(error, "ended_process", None) or "the server's log has the cause"
        raise ApiError(503, f"a replica could not be started anew: {ended}", code="replica_not_started") from error


def not_spread(failure: Failure | None) -> ApiError:
    """A 400 with the reason; a 503 where a process ended meanwhile, which says nothing of the request."""
    cause = "cancelled" if failure is None else failure.cause
    if failure is not None and failure.kind in _ENDED:
        return ApiError(503, f"the model could not be spread: {cause}", code="replica_not_started")
    return invalid(f"the model cannot be spread so: {cause}")


def check_spread(llm: LlamaGPU, parallel: GPUConfig) -> None:
    """Refuse what the model forbids while it goes on serving: loading would find that out too late."""
    spec, shape = llm.spec, parallel.shape
    try:
        if not shape.is_whole:
            check_precision(llm.quantization)
    except ConfigError as error:
        raise invalid(f"the model cannot be spread so: {error}") from None
    try:
        check_tensor_size(llm.model_name, spec.num_heads, spec.num_kv_heads, shape.tensor)
    except ConfigError as error:
        raise invalid(f"the model cannot be spread so: {error}", param="tensor_parallel_size") from None
    if shape.pipeline > spec.num_layers:
        message = f"the model cannot be spread so: it has {spec.num_layers} layers for {shape.pipeline} stages"
        raise invalid(message, param="pipeline_parallel_size")
