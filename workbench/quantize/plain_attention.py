"""Lets a model that the engine prepared run by itself for a moment, to measure or calibrate it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

__all__ = ["plain_attention"]


@contextmanager
def plain_attention(model: nn.Module) -> Iterator[None]:
    """Inside, a transformers model attends by torch's own function and not by one that needs an engine's step."""
    set_attention = getattr(model, "set_attn_implementation", None)
    if set_attention is None:
        yield
        return
    config: Any = model.config
    before = config._attn_implementation
    set_attention("sdpa")
    try:
        yield
    finally:
        set_attention(before)
