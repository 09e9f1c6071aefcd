"""A tokenizer made from nothing, for models with random weights: one id per byte, the rest invented words."""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterator

from workbench.models.tokenizer import Tokenizer

__all__ = ["make_byte_tokenizer"]

_END_OF_TEXT, _START, _END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
_SPECIAL_TOKENS = (_END_OF_TEXT, _START, _END)
_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# GPT-2's stand-in for the space.
_SPACE = "\u0120"


def make_byte_tokenizer(vocab_size: int) -> Tokenizer:
    """A tokenizer with exactly `vocab_size` ids (at least 259), every one of which decodes.

    Text is encoded byte by byte; ids above the bytes are only ever produced by the model, and read as words.
    """
    from tokenizers import AddedToken, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as FastTokenizer
    from transformers import PreTrainedTokenizerFast

    byte_tokens = sorted(pre_tokenizers.ByteLevel.alphabet())
    first = [*_SPECIAL_TOKENS, *byte_tokens]
    assert vocab_size >= len(first)
    tokens = [*first, *itertools.islice(_words(), vocab_size - len(first))]
    fast = FastTokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=[]))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    fast.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in _SPECIAL_TOKENS])
    hf = PreTrainedTokenizerFast(
        tokenizer_object=fast, eos_token=_END, pad_token=_END_OF_TEXT, chat_template=_CHAT_TEMPLATE
    )
    return Tokenizer(hf, [hf.eos_token_id])


def _words() -> Iterator[str]:
    """Endless distinct words with a leading space: "ba", "bab", ..."""
    for length in itertools.count(2):
        for letters in itertools.product(string.ascii_lowercase, repeat=length):
            yield _SPACE + "".join(letters)
