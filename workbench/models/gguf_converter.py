"""The child process of `conversion`: `python -m workbench.models.gguf_converter FILE.gguf FOLDER`, on transformers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.child_lifetime import exit_with_parent
from workbench.models.gguf_header import GgufHeader, read_gguf_header

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

__all__ = ["convert"]

# llama.cpp splits the text for these vocabularies at every single digit, then as GPT-2 does. transformers' reader
# knows only the second rule. (llama.cpp, src/llama-vocab.cpp, LLAMA_VOCAB_PRE_TYPE_SMOLLM and its neighbours.)
_SINGLE_DIGIT_PRE_TOKENIZERS = frozenset(
    {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}
)
# transformers' names, and those of the keys that hold their ids.
_SPECIAL_TOKENS = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


def convert(gguf: Path, folder: Path) -> None:
    """Write the model in `gguf` to `folder` in transformers' form."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    header = read_gguf_header(gguf)
    source: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True}
    model = AutoModelForCausalLM.from_pretrained(
        str(gguf.parent), quantization_config=GgufConfig(dequantize=True), dtype=_exact_dtype(header), **source
    )
    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), **source)
    _repair_tokenizer(tokenizer, header)
    model.config.name_or_path = ""
    model.generation_config.eos_token_id = _eos_token_ids(model.generation_config.eos_token_id, header)
    model.save_pretrained(folder, max_shard_size="4GB")
    tokenizer.save_pretrained(folder)
    _drop_json_key(folder / "config.json", "quantization_config")
    _drop_json_key(folder / "generation_config.json", "_from_model_config")


def _exact_dtype(header: GgufHeader) -> torch.dtype:
    """The narrowest dtype that holds every weight of the file: float32 for anything quantised."""
    import torch

    # Norms are kept as F32 beside half weights; they were half once, so nothing is lost.
    types = {tensor.type_name for tensor in header.tensors} - {"F32"}
    return {frozenset({"F16"}): torch.float16, frozenset({"BF16"}): torch.bfloat16}.get(frozenset(types), torch.float32)


def _repair_tokenizer(tokenizer: PreTrainedTokenizerBase, header: GgufHeader) -> None:
    """Make up for what transformers' readers leave out; 5.17 takes parts of a Llama's vocabulary for SentencePiece."""
    from tokenizers import decoders, pre_tokenizers

    backend = tokenizer.backend_tokenizer
    if header.metadata.get("tokenizer.ggml.model") == "gpt2":
        backend.normalizer = None
        backend.decoder = decoders.ByteLevel()
        backend.model.byte_fallback = backend.model.fuse_unk = False
        backend.model.unk_token = None
    if header.metadata.get("tokenizer.ggml.pre") in _SINGLE_DIGIT_PRE_TOKENIZERS:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
    for name, key in _SPECIAL_TOKENS.items():
        token_id = header.metadata.get(f"tokenizer.ggml.{key}_token_id")
        if token_id is not None:
            setattr(tokenizer, name, tokenizer.convert_ids_to_tokens(token_id))
    max_context = header.metadata.get(f"{header.architecture}.context_length")
    if max_context:
        tokenizer.model_max_length = max_context


def _eos_token_ids(eos_token_id: int | list[int] | None, header: GgufHeader) -> int | list[int] | None:
    """End of text, and end of turn where the file names another token for it."""
    end_of_turn = header.metadata.get("tokenizer.ggml.eot_token_id")
    known = eos_token_id if isinstance(eos_token_id, list) else [] if eos_token_id is None else [eos_token_id]
    if end_of_turn is None or end_of_turn in known:
        return eos_token_id
    return [*known, end_of_turn]


def _drop_json_key(path: Path, key: str) -> None:
    if path.is_file():
        content = json.loads(path.read_text("utf-8"))
        content.pop(key, None)
        path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    exit_with_parent()
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
