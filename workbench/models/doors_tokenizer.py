"""A model's tokenizer without the model, for whoever talks to an engine in another process."""

from __future__ import annotations

from workbench.models.byte_tokenizer import make_byte_tokenizer
from workbench.models.files import ModelFiles
from workbench.models.presets import get_preset
from workbench.models.tokenizer import Tokenizer, load_tokenizer

__all__ = ["load_doors_tokenizer"]


def load_doors_tokenizer(files: ModelFiles) -> Tokenizer:
    """The tokenizer that loading the model would give. Raises ModelFormatError where the files hold none."""
    if files.path is None:
        return make_byte_tokenizer(get_preset(files.source.location).fields["vocab_size"])
    return load_tokenizer(files.path, trust_remote_code=files.trust_remote_code)
