"""Whether two models speak in the same tokens, found out before either is loaded."""

from __future__ import annotations

from workbench.errors import ConfigError
from workbench.models.doors_tokenizer import load_doors_tokenizer
from workbench.models.files import ModelFiles
from workbench.models.presets import get_preset
from workbench.models.spec import ModelSpec, read_config

__all__ = ["check_same_vocabulary", "check_vocabulary_sizes"]


def check_same_vocabulary(model: ModelFiles, draft: ModelFiles) -> None:
    """Raises ConfigError, naming both sizes or the first id that differs, unless each id means the same to both.

    The sizes are those of the output layers, which may be padded: an id that one model alone can choose is refused too.
    """
    size = _vocab_size(model)
    check_vocabulary_sizes(model.name, size, draft.source.text, _vocab_size(draft))
    tokens, draft_tokens = _tokens(model), _tokens(draft)
    differing = [token_id for token_id in sorted({*tokens, *draft_tokens}) if _differs(tokens, draft_tokens, token_id)]
    if differing:
        first = differing[0]
        raise ConfigError(
            f"draft_model={draft.source.text!r}: its tokenizer differs from that of {model.name} in {len(differing):,} "
            f"of {size:,} tokens, the first of them {first} ({tokens.get(first)!r} there, {draft_tokens.get(first)!r} "
            "in the draft); a draft model must have the same"
        )


def check_vocabulary_sizes(name: str, size: int, draft_name: str, draft_size: int) -> None:
    """Raises ConfigError unless a model and its draft model, named so, choose among as many tokens."""
    if size != draft_size:
        raise ConfigError(
            f"draft_model={draft_name!r}: has a vocabulary of {draft_size:,} tokens, and {name} one of {size:,}; a "
            "draft model must have the same"
        )


def _differs(tokens: dict[int, str], draft_tokens: dict[int, str], token_id: int) -> bool:
    return tokens.get(token_id) != draft_tokens.get(token_id)


def _vocab_size(files: ModelFiles) -> int:
    if files.path is None:
        return int(get_preset(files.source.location).fields["vocab_size"])
    return ModelSpec.from_config(read_config(files.path)).vocab_size


def _tokens(files: ModelFiles) -> dict[int, str]:
    return {token_id: token for token, token_id in load_doors_tokenizer(files).hf.get_vocab().items()}
