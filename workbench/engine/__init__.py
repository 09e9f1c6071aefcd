"""The engine: requests in, chunks out, one batch for all doors. Names resolve on first use, without torch."""

from __future__ import annotations

from workbench.engine.config import EngineConfig, EngineLimits
from workbench.engine.generation import Completion, Generation, Timings
from workbench.engine.logprobs import TokenLogprobs
from workbench.engine.messages import Chunk, EngineStats
from workbench.engine.request_in_flight import RequestInFlight
from workbench.engine.sampling_params import SamplingParams
from workbench.engine.sequence import FinishReason
from workbench.engine.structure import StructureKind, StructureSpec

__all__ = [
    "Chunk",
    "Completion",
    "EngineConfig",
    "EngineLimits",
    "EngineStats",
    "FinishReason",
    "Generation",
    "RequestInFlight",
    "SamplingParams",
    "StructureKind",
    "StructureSpec",
    "Timings",
    "TokenLogprobs",
]
