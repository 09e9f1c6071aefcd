"""What an engine's process and its parent say to each other beside the engine's own messages. Plain values only."""

from __future__ import annotations

from dataclasses import dataclass
from logging import LogRecord
from typing import Any

from workbench.engine.launch import EngineFacts
from workbench.engine.structure import StructureSpec
from workbench.errors import WorkbenchError
from workbench.progress import Progress
from workbench.telemetry import DeviceUsage

__all__ = [
    "Ended",
    "FiguresRead",
    "Launched",
    "LaunchFailed",
    "Logged",
    "MemoryRead",
    "Prepare",
    "Prepared",
    "ReadFigures",
    "ReadMemory",
    "Reported",
    "RunnerWords",
]


@dataclass(frozen=True)
class Reported:
    """How far the load is."""

    progress: Progress


@dataclass(frozen=True)
class Launched:
    """The engine takes requests from now on."""

    facts: EngineFacts


@dataclass(frozen=True)
class LaunchFailed:
    """There will be no engine. `details` is the traceback in words."""

    error: Exception
    details: str


@dataclass(frozen=True)
class RunnerWords:
    """How the model is computed from now on."""

    words: str


@dataclass(frozen=True)
class Logged:
    """A record for this side's log; its arguments are in its message already."""

    record: LogRecord


@dataclass(frozen=True)
class Ended:
    """The last word of an engine whose loop died; `ended_process` as in EngineStoppedError."""

    reason: str
    ended_process: str | None = None


@dataclass(frozen=True)
class Prepare:
    """Have a structure compiled, before a request needs it."""

    reply_id: str
    structure: StructureSpec


@dataclass(frozen=True)
class Prepared:
    """It is, or why it is refused."""

    reply_id: str
    error: WorkbenchError | None = None


@dataclass(frozen=True)
class ReadMemory:
    """Ask for the memory of the engine's device, as the process sees it."""

    reply_id: str


@dataclass(frozen=True)
class MemoryRead:
    """What is in use there, and by the process."""

    reply_id: str
    usage: DeviceUsage


@dataclass(frozen=True)
class ReadFigures:
    """Ask for what the engine's launch has to tell of it as it runs, without waiting for a step."""

    reply_id: str


@dataclass(frozen=True)
class FiguresRead:
    """What it tells."""

    reply_id: str
    figures: Any
