"""What plugins do to one answer's logits and to the choice of its tokens. One that fails is left out, row intact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from workbench.plugins import PluginManager

__all__ = ["RowPlugins"]


@dataclass(frozen=True)
class _Part:
    plugin: str
    name: str
    work: Any


class _ReadOnly(Sequence[int]):
    """The ids so far, to read and not to change; no copy."""

    def __init__(self, ids: list[int]) -> None:
        self._ids = ids

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: Any) -> Any:
        return self._ids[index]


class RowPlugins:
    """The samplers of one answer, in the order of the request."""

    def __init__(self, manager: PluginManager, parts: Sequence[_Part]) -> None:
        self._manager = manager
        self._processors = [part for part in parts if hasattr(part.work, "process")]
        self._choosers = [part for part in parts if hasattr(part.work, "choose")]

    @classmethod
    def of(cls, manager: PluginManager | None, wanted: Mapping[str, Mapping[str, object]]) -> RowPlugins | None:
        """New samplers for the names in `wanted` that are samplers; None where there are none."""
        if manager is None or not wanted:
            return None
        parts = []
        for name, options in wanted.items():
            found = manager.at("samplers").get(name)
            if found is None:
                continue
            work = manager.attempt(found.plugin, f"sampler {name}", partial(found.value, dict(options)), None)
            if work is not None:
                parts.append(_Part(found.plugin, name, work))
        return cls(manager, parts) if parts else None

    def edit(self, logits: torch.Tensor, token_ids: list[int], num_prompt_tokens: int) -> None:
        """Change `logits` [vocab], float32, in place. A result that no token can be chosen from counts as a failure."""
        if not bool(logits.max().isfinite()):
            return
        for part in self._processors:
            function = partial(_processed, part.work, logits, token_ids, num_prompt_tokens)
            changed = self._manager.attempt(part.plugin, f"sampler {part.name}", function, None)
            if changed is not None:
                logits.copy_(changed)

    def choose(self, logits: torch.Tensor, token_ids: list[int], draw: float) -> int | None:
        """The token that a plugin chooses; None where none does. `logits` [vocab], float32, stay as they are."""
        for part in self._choosers:
            function = partial(_chosen, part.work, logits, token_ids, draw)
            token_id = self._manager.attempt(part.plugin, f"sampler {part.name}", function, None)
            if token_id is not None:
                return token_id
        return None


def _processed(work: Any, logits: torch.Tensor, token_ids: list[int], num_prompt_tokens: int) -> torch.Tensor:
    # A copy, so that what fails half-way leaves nothing behind.
    own = logits.clone()
    given = work.process(own, _ReadOnly(token_ids), num_prompt_tokens)
    given = own if given is None else given
    if not isinstance(given, torch.Tensor) or given.shape != logits.shape:
        raise ValueError(f"process() gave {getattr(given, 'shape', type(given).__name__)}, not {tuple(logits.shape)}")
    if not bool(given.max().isfinite()):
        raise ValueError("process() left no token to choose, or logits that are no numbers")
    return given


def _chosen(work: Any, logits: torch.Tensor, token_ids: list[int], draw: float) -> int:
    token_id = work.choose(logits.clone(), _ReadOnly(token_ids), draw)
    if isinstance(token_id, torch.Tensor) and token_id.numel() == 1:
        token_id = int(token_id)
    if type(token_id) is not int or not 0 <= token_id < logits.shape[0]:
        raise ValueError(f"choose() gave {token_id!r}, which is no token id below {logits.shape[0]}")
    if logits[token_id] == float("-inf"):
        raise ValueError(f"choose() gave token {token_id}, which may not come here")
    return token_id
