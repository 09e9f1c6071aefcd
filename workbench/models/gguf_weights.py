"""A model with the weights of its .gguf file as they are: 4- and 8-bit groups stay packed, nothing is rounded again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import ConfigError, ModelFormatError
from workbench.models.gguf_header import GgufHeader, GgufTensor, read_gguf_header
from workbench.progress import Progress, ProgressCallback
from workbench.shell import place, restore_buffers

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from workbench.quantize.grouped_weight import GroupedWeight

__all__ = ["PACKED_ARCHITECTURES", "fill_from_gguf"]

PACKED_ARCHITECTURES = ("llama", "qwen2", "qwen3")

_GROUP = 32
_HALF_BYTES = 2
# Their names in a .gguf file, and in the module.
_TOP = MappingProxyType(
    {
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
        "output.weight": "lm_head.weight",
    }
)
_IN_LAYER = MappingProxyType(
    {
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "attn_q_norm": "self_attn.q_norm",
        "attn_k_norm": "self_attn.k_norm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
)
# Says how rotary frequencies are stretched; transformers' config says the same.
_IGNORED = frozenset({"rope_freqs.weight"})


def fill_from_gguf(shell: PreTrainedModel, gguf: Path, dtype: torch.dtype, progress: ProgressCallback) -> int:
    """Put the file's tensors into a shell on torch's meta device, and give the number of weights in the file.

    What has no packed form here becomes `dtype`. Raises ConfigError for an architecture whose tensors are not known by
    name, ModelFormatError for a file that does not fit the shell.
    """
    header = read_gguf_header(gguf)
    if header.architecture not in PACKED_ARCHITECTURES:
        raise ConfigError(
            f"quant_type='gguf' knows the tensors of {', '.join(PACKED_ARCHITECTURES)} files, and {gguf.name} is "
            f"{header.architecture}: load it with another quant_type"
        )
    blocks = np.memmap(gguf, dtype=np.uint8, mode="r")
    shapes = {name: tuple(parameter.shape) for name, parameter in shell.named_parameters()}
    missing = set(shapes)
    for number, tensor in enumerate(header.tensors):
        progress(Progress("load weights", number, len(header.tensors), "tensors"))
        if tensor.name in _IGNORED:
            continue
        name = _module_name(tensor.name, gguf)
        if name not in missing:
            raise ModelFormatError(f"{gguf} holds {tensor.name!r}, and config.json has no place for it")
        if tuple(reversed(tensor.shape)) != shapes[name]:
            raise ModelFormatError(
                f"{gguf}: tensor {tensor.name!r} has the shape {list(reversed(tensor.shape))} and config.json makes it "
                f"{list(shapes[name])}"
            )
        begin = header.data_start + tensor.offset
        _put(shell, name, tensor, blocks[begin : begin + tensor.num_bytes], dtype, _row_order(header, name, tensor))
        missing.discard(name)
    if "lm_head.weight" in missing and shell.config.tie_word_embeddings:
        missing.discard("lm_head.weight")
    if missing:
        raise ModelFormatError(f"{gguf} lacks {len(missing)} of the model's tensors, first {min(missing)!r}")
    restore_buffers(shell, "cpu")
    return header.num_parameters


def _module_name(name: str, gguf: Path) -> str:
    if name in _TOP:
        return _TOP[name]
    parts = name.split(".")
    if len(parts) == 4 and parts[0] == "blk" and parts[2] in _IN_LAYER:
        return f"model.layers.{parts[1]}.{_IN_LAYER[parts[2]]}.{parts[3]}"
    raise ModelFormatError(f"{gguf} holds a tensor {name!r} that is not known here")


def _row_order(header: GgufHeader, name: str, tensor: GgufTensor) -> np.ndarray | None:
    """Llama files hold the two halves of each head's rows of q and k interleaved: the order that undoes it."""
    heads = {"q_proj": "head_count", "k_proj": "head_count_kv"}.get(name.split(".")[-2])
    if header.architecture != "llama" or heads is None:
        return None
    count = header.metadata.get(f"llama.attention.{heads}", header.metadata.get("llama.attention.head_count"))
    if count is None:
        raise ModelFormatError(f"the file of {tensor.name!r} does not say llama.attention.head_count")
    rows = tensor.shape[-1]
    return np.arange(rows).reshape(count, rows // count // 2, 2).swapaxes(1, 2).reshape(-1)


def _put(
    shell: PreTrainedModel,
    name: str,
    tensor: GgufTensor,
    data: np.ndarray,
    dtype: torch.dtype,
    order: np.ndarray | None,
) -> None:
    """The tensor where the shell has `name`: a packed module in place of its owner, or a plain tensor."""
    owner_name = name.rpartition(".")[0]
    read = _PACKED_TYPES.get(tensor.type_name)
    if read is None or len(tensor.shape) != 2:
        place(shell, name, _plain(tensor, data, order).to(dtype))
        return
    weight = read(
        _ordered(data.reshape(tensor.shape[1], -1), order).reshape(tensor.shape[1], tensor.shape[0] // _GROUP, -1)
    )
    if owner_name == "model.embed_tokens":
        _put_table(shell, weight, dtype)
        return
    layer: Any = shell.get_submodule(owner_name)
    shell.set_submodule(owner_name, weight.linear(None if layer.bias is None else layer.bias.detach()))


def _put_table(shell: PreTrainedModel, weight: GroupedWeight, dtype: torch.dtype) -> None:
    shell.set_submodule("model.embed_tokens", weight.embedding(dtype))
    if shell.config.tie_word_embeddings:
        shell.set_submodule("lm_head", weight.linear(None))
    # transformers ties parameters by name, and there is none of that name now.
    shell._tied_weights_keys = {}


def _plain(tensor: GgufTensor, data: np.ndarray, order: np.ndarray | None) -> torch.Tensor:
    """Float32 numbers of any type that the gguf package can read."""
    import torch
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    numbers = dequantize(np.ascontiguousarray(data), GGMLQuantizationType[tensor.type_name]).view(np.float32)
    return torch.from_numpy(_ordered(numbers.reshape(tuple(reversed(tensor.shape))), order).copy())


def _ordered(rows: np.ndarray, order: np.ndarray | None) -> np.ndarray:
    return rows if order is None else rows[order]


def _halves(blocks: np.ndarray, place: int) -> torch.Tensor:
    """The half-precision number at byte `place` of every block [rows, groups, bytes]."""
    import torch

    numbers = np.ascontiguousarray(blocks[..., place : place + _HALF_BYTES]).view(np.float16)[..., 0]
    return torch.from_numpy(numbers.copy())


def _levels(blocks: np.ndarray, begin: int, kind: type) -> torch.Tensor:
    import torch

    levels = blocks[..., begin:]
    return torch.from_numpy(levels.reshape(blocks.shape[0], -1).view(kind).copy())


def _read_q4_0(blocks: np.ndarray) -> GroupedWeight:
    """Scale, 16 bytes of levels; a weight is scale * (level - 8). Eight times a half is exact."""
    from workbench.quantize.grouped_weight import GroupedWeight

    scales = _halves(blocks, 0)
    return GroupedWeight(_levels(blocks, 2, np.uint8), scales, scales * -8)


def _read_q4_1(blocks: np.ndarray) -> GroupedWeight:
    """Scale, minimum, 16 bytes of levels."""
    from workbench.quantize.grouped_weight import GroupedWeight

    return GroupedWeight(_levels(blocks, 4, np.uint8), _halves(blocks, 0), _halves(blocks, 2))


def _read_q8_0(blocks: np.ndarray) -> GroupedWeight:
    """Scale, 32 signed levels."""
    from workbench.quantize.grouped_weight import GroupedWeight

    return GroupedWeight(_levels(blocks, 2, np.int8), _halves(blocks, 0), None)


_PACKED_TYPES: MappingProxyType[str, Callable[[np.ndarray], GroupedWeight]] = MappingProxyType(
    {"Q4_0": _read_q4_0, "Q4_1": _read_q4_1, "Q8_0": _read_q8_0}
)
