"""Which token ids to measure a model on: the user's prompts, or the built-in text where there is a tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from workbench.errors import ConfigError
from workbench.quantize.sample_text import SAMPLE_TEXT

__all__ = ["find_tokenizer", "sample_ids"]

Prompt = str | Sequence[int]


def sample_ids(model: nn.Module, tokenizer: Any, prompts: Sequence[Prompt] | None) -> list[torch.Tensor]:
    """Token ids [1, tokens] on the model's device, each of two tokens at least; [] when there is nothing to read.

    Prompts are texts, for which a tokenizer is needed, or lists of ids. Raises ConfigError for unusable prompts.
    """
    tokenizer = tokenizer or find_tokenizer(model)
    if prompts is None:
        prompts = [] if tokenizer is None else SAMPLE_TEXT.strip().split("\n\n")
    elif isinstance(prompts, str) or not prompts:
        raise ConfigError(f"prompts={prompts!r}: must be a non-empty list of texts or of lists of token ids")
    return [_as_ids(model, tokenizer, prompt) for prompt in prompts]


def find_tokenizer(model: nn.Module) -> Any:
    """The tokenizer in the folder that a transformers model was loaded from; None if there is none."""
    folder = Path(getattr(getattr(model, "config", None), "_name_or_path", "") or "")
    if not (folder / "tokenizer.json").is_file():
        return None
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)


def _as_ids(model: nn.Module, tokenizer: Any, prompt: Prompt) -> torch.Tensor:
    if isinstance(prompt, str) and tokenizer is None:
        raise ConfigError("prompts: a text needs a tokenizer; give tokenizer=, or token ids instead of text")
    ids = tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
    if len(ids) < 2:
        raise ConfigError(f"prompts: {prompt!r} is too short, at least two tokens are needed")
    return torch.tensor([ids], device=next(model.parameters()).device)
