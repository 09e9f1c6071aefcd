"""The machine and the versions that a figure belongs to."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Sequence

from workbench.backends import BackendStatus
from workbench.backends.processor import Processor

__all__ = ["machine_facts"]

_PACKAGES = ("torch", "transformers", "llm-workbench")


def machine_facts(backends: Sequence[BackendStatus], threads: int | None = None) -> dict[str, str]:
    """Date, processor, GPUs and versions, in words; `threads` are those of an engine, where one ran here."""
    processor = Processor()
    gpus = [device.name for status in backends if status.name != "cpu" for device in status.devices]
    facts = {
        "date": time.strftime("%Y-%m-%d"),
        "processor": f"{processor.name()}, {' '.join(processor.flags())}".rstrip(", "),
        "cores": str(processor.num_physical_cores()),
        "memory": f"{processor.memory().total_bytes / 1024**3:.0f} GiB",
        "gpus": ", ".join(gpus) or "none",
        "python": platform.python_version(),
    }
    if threads is not None:
        facts["threads"] = str(threads)
    return facts | {name: _version(name) for name in _PACKAGES}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
