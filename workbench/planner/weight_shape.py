"""One weight of a model by name and shape, and what that name says of its job. Knows no file and no precision."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

__all__ = ["WeightRole", "WeightShape", "merge_alike"]

# transformers' families ("layers.3.", "h.3.", "blocks.3.") and llama.cpp ("blk.3.").
_LAYER = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks|block|blk)\.(\d+)\.")
_TABLES = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight", "token_embd.weight")
_HEADS = ("lm_head.weight", "embed_out.weight")
_GGUF_HEAD = "output.weight"


class WeightRole(Enum):
    """What a weight is for: the input table, the output layer, a matrix that tokens are multiplied with, one of
    several experts of which each token takes a few, or one of the small rest (norms, biases)."""

    TABLE = "table"
    HEAD = "head"
    MATRIX = "matrix"
    EXPERT = "expert"
    SMALL = "small"


@dataclass(frozen=True)
class WeightShape:
    """`shape` is (rows, columns) for a matrix; `stored_bytes` is what it takes in its file, None where unknown.

    `count` says how many weights of this very shape and role it stands for, `name` is then the first one's.
    """

    name: str
    shape: tuple[int, ...]
    stored_bytes: int | None = None
    count: int = 1

    @property
    def num_elements(self) -> int:
        """Numbers in one such weight."""
        return math.prod(self.shape)

    @cached_property
    def layer(self) -> int | None:
        """Number of the layer it belongs to; None outside of layers."""
        match = _LAYER.search(self.name)
        return int(match[1]) if match else None

    @cached_property
    def role(self) -> WeightRole:
        """What it is for, by its name."""
        if self.name.endswith(_TABLES):
            return WeightRole.TABLE
        if self.name.endswith(_HEADS) or self.name == _GGUF_HEAD:
            return WeightRole.HEAD
        if len(self.shape) < 2:
            return WeightRole.SMALL
        if "expert" in self.name and "shared_expert" not in self.name or "_exps." in self.name:
            return WeightRole.EXPERT
        return WeightRole.MATRIX


def merge_alike(weights: Iterable[WeightShape]) -> tuple[WeightShape, ...]:
    """The same weights with those of one shape and role as one: a dozen for a decoder of any depth."""
    groups: dict[tuple[object, ...], list[WeightShape]] = {}
    for weight in weights:
        groups.setdefault((weight.role, weight.shape, weight.stored_bytes), []).append(weight)
    return tuple(
        WeightShape(first.name, first.shape, first.stored_bytes, sum(weight.count for weight in group))
        for group in groups.values()
        for first in group[:1]
    )
