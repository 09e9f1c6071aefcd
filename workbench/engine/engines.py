"""The engines by name: our own, and those that plugins bring."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from workbench.engine.vllm.availability import vllm_obstacle
from workbench.errors import ConfigError
from workbench.plugins import PluginManager, hookimpl

if TYPE_CHECKING:
    from workbench.engine.build import StartedEngine

__all__ = ["engine_obstacle", "find_engine", "known_engines"]


def find_engine(plugins: PluginManager, name: str) -> Callable[..., StartedEngine]:
    """What starts the engine of that name: `(loaded, backend, device_index, config, **options) -> StartedEngine`.

    Raises ConfigError that lists the names.
    """
    start: Callable[..., StartedEngine] = plugins.find("engines", name, _BUILT_IN).value
    return start


def _start_paged(*parts: Any, **options: Any) -> StartedEngine:
    # The engine itself loads torch.
    from workbench.engine.build import start_engine

    return start_engine(*parts, **options)


def _refuse_loaded(*parts: Any, **options: Any) -> StartedEngine:
    raise ConfigError("engine_name='vllm' loads the model by itself: open it with LlamaGPU")


def engine_obstacle(name: str) -> str | None:
    """Why an engine that is known cannot be used here, in words; None where it can."""
    return vllm_obstacle() if name == "vllm" else None


def known_engines(plugins: PluginManager) -> dict[str, str | None]:
    """Every engine's name, with the reason why it cannot be used here or None."""
    return {name: engine_obstacle(name) for name in plugins.at("engines", _BUILT_IN)}


class _BuiltIn:
    @hookimpl
    def register_engines(self, register: Callable[..., None]) -> None:
        register("paged", _start_paged, "continuous batching over a paged cache")
        register("vllm", _refuse_loaded, "vLLM, for models that outgrow a machine")


_BUILT_IN = _BuiltIn()
