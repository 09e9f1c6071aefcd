"""Lets a model that the engine prepared run by itself for a moment, to measure or calibrate it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__all__ = ["plain_attention"]


@contextmanager
def plain_attention(model: nn.Module) -> Iterator[None]:
    """Inside, a transformers model attends by torch's own function and not by one that needs an engine's step."""
    config = getattr(model, "config", None)
    if not hasattr(model, "set_attn_implementation"):
        yield
        return
    before = config._attn_implementation
    model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
