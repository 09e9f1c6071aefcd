"""What the commands work on: how a model is opened and where models are kept. Imports neither until it is called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.llm import LlamaGPU
    from workbench.models import Catalogue

__all__ = ["Services"]


def _open_llm(**options: Any) -> LlamaGPU:
    from workbench.llm import LlamaGPU

    return LlamaGPU(**options)


def _open_catalogue() -> Catalogue:
    from workbench.models import Catalogue

    return Catalogue()


@dataclass(frozen=True)
class Services:
    """Factories that a command calls with keywords; it finds them in its context's `obj`."""

    open_llm: Callable[..., LlamaGPU] = _open_llm
    open_catalogue: Callable[[], Catalogue] = _open_catalogue
