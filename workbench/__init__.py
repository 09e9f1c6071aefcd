"""A Jupyter-centric LLM workbench. Public names resolve on first use, so importing this stays free of torch."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Catalogue": "workbench.models",
    "Chunk": "workbench.engine",
    "Completion": "workbench.engine",
    "CPUBackend": "workbench.backends",
    "CUDABackend": "workbench.backends",
    "EngineConfig": "workbench.engine",
    "EngineStats": "workbench.engine",
    "FinishReason": "workbench.engine",
    "Generation": "workbench.engine",
    "LlamaGPU": "workbench.llm",
    "Plan": "workbench.planner",
    "PlanWarning": "workbench.planner",
    "Progress": "workbench.progress",
    "ROCMBackend": "workbench.backends",
    "SamplingParams": "workbench.engine",
    "Session": "workbench.session",
    "Timings": "workbench.engine",
    "WorkbenchError": "workbench.errors",
    "detect": "workbench.backends",
    "plan": "workbench.planner",
}

__all__ = [*sorted(_HOMES), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def load_ipython_extension(shell: object) -> None:
    """`%load_ext workbench`: the magics `%wb` and `%%chat`."""
    # A door above this row, loaded when a notebook asks for it.
    import_module("workbench.magics").register(shell)


def unload_ipython_extension(shell: object) -> None:
    """`%unload_ext workbench`: takes the magics away, and unloads what they loaded."""
    import_module("workbench.magics").unregister(shell)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
