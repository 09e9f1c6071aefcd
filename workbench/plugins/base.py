"""What a plugin is made of: its base class, and the small interfaces of what it can register. Knows no manager."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from workbench.errors import RequestError
from workbench.plugins.metadata import PluginMetadata

if TYPE_CHECKING:
    import torch

__all__ = [
    "BasePlugin",
    "Filtered",
    "LogitsProcessor",
    "PluginContext",
    "PluginRefusal",
    "StreamFilter",
    "TokenSampler",
]


class PluginRefusal(RequestError):
    """Raised by a `pre_request` hook to refuse a request: the one error of a plugin that reaches callers."""


@dataclass(frozen=True)
class PluginContext:
    """What a plugin is given when it starts.

    Attributes:
        data_folder: a folder of its own, made when first asked for.
        settings: what the user set for it (`workbench plugins enable NAME --set KEY=VALUE`), JSON values.
        log: its logger.
    """

    name: str
    folder: Path
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def data_folder(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder

    @property
    def log(self) -> logging.Logger:
        return logging.getLogger(f"workbench.plugins.{self.name}")


class BasePlugin:
    """A plugin: metadata, a life of `initialize`, work through hooks (methods marked with `hookimpl`), `shutdown`."""

    metadata: ClassVar[PluginMetadata | Mapping[str, Any]] = {}

    def initialize(self, context: PluginContext) -> None:
        """Get ready. Raising keeps the plugin from being loaded."""

    def shutdown(self) -> None:
        """Let go of everything. Called once, also when the process ends."""

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """What the plugin does when it is called by name, if it does something then."""
        raise NotImplementedError(f"{type(self).__name__} has nothing to run")


class LogitsProcessor:
    """Changes one answer's logits before a token is chosen."""

    def process(self, logits: torch.Tensor, token_ids: Sequence[int], num_prompt_tokens: int) -> torch.Tensor | None:
        """`logits` [vocab], float32, may be changed in place (then give None) or replaced by what is given back.

        `token_ids` are those of prompt and answer so far. At least one logit must stay finite.
        """
        raise NotImplementedError


class TokenSampler:
    """Chooses one answer's tokens itself."""

    def choose(self, logits: torch.Tensor, token_ids: Sequence[int], draw: float) -> int:
        """The next token's id. `draw` in [0, 1) belongs to the request's seed and this position: with it in place of
        a random number, answers stay repeatable in any batch."""
        raise NotImplementedError


@dataclass(frozen=True)
class Filtered:
    """What a filter lets through. `stop` ends the answer there; `reason` is then its stop reason."""

    text: str
    stop: bool = False
    reason: str | None = None


class StreamFilter:
    """Changes one answer's text on its way out, piece by piece."""

    def feed(self, text: str) -> str | Filtered:
        """What can be shown now that `text` has come; the rest may be held back for a later piece."""
        raise NotImplementedError

    def finish(self) -> str:
        """What is still held back, for an answer that has ended."""
        return ""
