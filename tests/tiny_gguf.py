"""A GGUF file with a two-layer Llama in it, written with the gguf package."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from tokenizers.pre_tokenizers import ByteLevel

__all__ = ["CHAT_TEMPLATE", "HEAD_DIM", "NUM_HEADS", "NUM_KV_HEADS", "write_tiny_gguf"]

HIDDEN, INNER, NUM_LAYERS, NUM_HEADS, NUM_KV_HEADS, HEAD_DIM = 64, 96, 2, 4, 2, 16
CHAT_TEMPLATE = "{% for message in messages %}<s>{{ message['content'] }}<e>{% endfor %}"


def write_tiny_gguf(path: Path, *, pre_tokenizer: str = "smollm", seed: int = 0) -> Path:
    """Norms in F32, matrices in Q4_1 and the embedding in Q8_0, as the embedded model has them."""
    tokens = ["<unk>", "<s>", "<e>", *sorted(ByteLevel.alphabet()), "\u0120\u0120", "th"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(256)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(NUM_LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(NUM_HEADS)
    writer.add_head_count_kv(NUM_KV_HEADS)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer)
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * (len(tokens) - 3))
    writer.add_token_merges(["\u0120 \u0120", "t h"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
    _add_tensors(writer, len(tokens), np.random.default_rng(seed))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tensors(writer: gguf.GGUFWriter, vocab_size: int, random: np.random.Generator) -> None:
    def add(name: str, *shape: int, kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.Q4_1) -> None:
        values = random.standard_normal(shape, dtype=np.float32) * 0.2
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)

    def add_norm(name: str) -> None:
        writer.add_tensor(name, 1 + random.standard_normal(HIDDEN, dtype=np.float32) * 0.1)

    add("token_embd.weight", vocab_size, HIDDEN, kind=gguf.GGMLQuantizationType.Q8_0)
    add_norm("output_norm.weight")
    for layer in range(NUM_LAYERS):
        add_norm(f"blk.{layer}.attn_norm.weight")
        add_norm(f"blk.{layer}.ffn_norm.weight")
        add(f"blk.{layer}.attn_q.weight", NUM_HEADS * HEAD_DIM, HIDDEN)
        add(f"blk.{layer}.attn_k.weight", NUM_KV_HEADS * HEAD_DIM, HIDDEN)
        add(f"blk.{layer}.attn_v.weight", NUM_KV_HEADS * HEAD_DIM, HIDDEN)
        add(f"blk.{layer}.attn_output.weight", HIDDEN, NUM_HEADS * HEAD_DIM)
        add(f"blk.{layer}.ffn_gate.weight", INNER, HIDDEN)
        add(f"blk.{layer}.ffn_up.weight", INNER, HIDDEN)
        add(f"blk.{layer}.ffn_down.weight", HIDDEN, INNER)
