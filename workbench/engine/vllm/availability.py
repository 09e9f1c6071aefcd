"""Whether vLLM can be used here, found out without importing it: that takes long, and starts things."""

from __future__ import annotations

from importlib.util import find_spec

__all__ = ["vllm_obstacle"]


def vllm_obstacle() -> str | None:
    """Why not, in words; None where it is installed."""
    if find_spec("vllm") is None:
        return "vllm is not installed: pip install '.[vllm]' in a clone, in an environment of its own"
    return None
