"""The web app. `launch(llm)` opens it on a loaded model; the `workbench app` command has its own start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dashboards.launching import launch

__all__ = ["launch"]


def __getattr__(name: str) -> Any:
    # Gradio takes seconds to import; the name is resolved when it is used.
    if name == "launch":
        from dashboards.launching import launch

        return launch
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
