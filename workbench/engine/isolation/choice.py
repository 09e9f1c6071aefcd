"""Whether an engine runs in a thread or in a process of its own, and why. Knows no torch."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.backends import BACKEND_NAMES, Backend, get_backend
from workbench.engine.config import EngineConfig
from workbench.errors import ConfigError

__all__ = ["IsolationChoice", "choose_isolation"]


@dataclass(frozen=True)
class IsolationChoice:
    """`mode` is "thread" or "process"; `reason` says why, in words."""

    mode: str
    reason: str


def choose_isolation(config: EngineConfig, backend: Backend) -> IsolationChoice:
    """As asked, else a process on a GPU and a thread on a CPU. Raises ConfigError for what no process can have."""
    if config.engine_name == "vllm":
        return IsolationChoice("process", "vllm runs in processes of its own")
    if config.engine_name != "paged":
        if config.isolation == "process":
            raise ConfigError(
                f"isolation='process': the engine {config.engine_name!r} of a plugin runs in this process"
            )
        return IsolationChoice("thread", f"the engine {config.engine_name!r} is a plugin's")
    is_ours = backend.name in BACKEND_NAMES and type(backend) is type(get_backend(backend.name))
    if config.isolation == "process" and not is_ours:
        raise ConfigError(
            f"isolation='process': {type(backend).__name__} is an object of this process; use isolation='thread'"
        )
    if config.isolation is not None:
        return IsolationChoice(config.isolation, "as asked")
    if not is_ours:
        return IsolationChoice("thread", f"{type(backend).__name__} is an object of this process")
    if backend.device_type == "cpu":
        return IsolationChoice("thread", "on a CPU a process of its own costs memory and a slower start")
    return IsolationChoice("process", "on a GPU a busy notebook cell would keep the device waiting")
