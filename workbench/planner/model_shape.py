"""What a plan needs to know of a model: its spec and every weight's shape. Downloads and loads nothing large."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from workbench.errors import ModelFormatError
from workbench.models import Catalogue, ModelFiles, ModelSource, ModelSpec, parse_source
from workbench.models.embedded import EMBEDDED_GGUF, embedded_folder
from workbench.models.gguf_header import GgufHeader, read_gguf_header
from workbench.models.presets import get_preset
from workbench.models.spec import read_config
from workbench.planner.architecture import require_known
from workbench.planner.config_weights import EXACT_FAMILIES, weights_from_config
from workbench.planner.hub_shape import read_hub_shape
from workbench.planner.weight_shape import WeightRole, WeightShape
from workbench.safetensors_header import read_folder_headers

__all__ = ["ModelShape", "read_model_shape", "shape_of_files"]

# The shape of the embedded model, for before it is fetched.
_EMBEDDED_PRESET = "smollm2-135m"


@dataclass(frozen=True)
class ModelShape:
    """`evidence` says in words where the weights' shapes come from; `packing` names the quantisation that the files
    themselves have (None for plain ones); `is_gguf` says that they are those of a .gguf file. `key_dim` and `value_dim`
    are those of one head in the KV cache."""

    name: str
    source: ModelSource
    spec: ModelSpec
    weights: tuple[WeightShape, ...]
    evidence: str
    inner_size: int
    key_dim: int
    value_dim: int
    experts_per_token: int = 0
    num_experts: int = 0
    packing: str | None = None
    is_gguf: bool = False

    @cached_property
    def num_parameters(self) -> int:
        """Numbers in all weights, tied ones once."""
        return sum(weight.num_elements for weight in self.weights)

    @property
    def kv_elements_per_token(self) -> tuple[int, ...]:
        """Numbers that each layer keeps of a token."""
        return (self.spec.num_kv_heads * (self.key_dim + self.value_dim),) * self.spec.num_layers

    @cached_property
    def has_own_head(self) -> bool:
        """Whether the output layer is a weight of its own, not the input table."""
        return any(weight.role is WeightRole.HEAD for weight in self.weights)


def read_model_shape(model: str | os.PathLike[str], *, packed: bool = False) -> ModelShape:
    """The shape of anything that `LlamaGPU` takes as a model; with `packed` the weights are those of its .gguf file.

    Raises ConfigError, ModelNotFoundError, DownloadError, or ModelFormatError for damaged files and for an
    architecture that could not be loaded.
    """
    source = parse_source(model)
    match source.kind:
        case "random":
            fields = get_preset(source.location).config_fields()
            return _from_config(source, fields, None, "the preset's config")
        case "embedded":
            folder = embedded_folder()
            if folder.is_ready():
                return _from_folder(source, folder.path, folder.path / EMBEDDED_GGUF.name if packed else None)
            fields = get_preset(_EMBEDDED_PRESET).config_fields()
            return _from_config(source, fields, None, "the known shape of the embedded model, not fetched yet")
        case "s3" | "plugin":
            return _from_folder(source, Catalogue().path(source.text))
        case "folder":
            return _from_folder(source, Path(source.location))
        case "gguf":
            return _from_gguf(source, read_gguf_header(Path(source.location)))
        case "hub":
            found = read_hub_shape(source)
            shape = _from_config(source, found.config, found.weights, "the headers of its files on the hub")
            return shape if found.weights or not found.total_bytes else _scaled(shape, found.total_bytes, found.config)


def shape_of_files(files: ModelFiles, *, packed: bool = False) -> ModelShape:
    """The same of a model that is resolved already; asks no hub."""
    if files.path is None:
        return read_model_shape(files.source.text)
    return _from_folder(files.source, files.path, files.gguf_path if packed else None)


def _from_folder(source: ModelSource, folder: Path, gguf: Path | None = None) -> ModelShape:
    if gguf is not None and gguf.is_file():
        return _from_gguf(source, read_gguf_header(gguf))
    headers = read_folder_headers(folder)
    weights = tuple(WeightShape(entry.name, entry.shape, entry.num_bytes) for entry in headers.values())
    return _from_config(source, read_config(folder), weights or None, "the headers of its files")


def _from_config(
    source: ModelSource, config: Mapping[str, Any], weights: tuple[WeightShape, ...] | None, evidence: str
) -> ModelShape:
    spec = ModelSpec.from_config(config)
    require_known(spec.model_type, spec.architecture, spec.layer_types)
    inner = {**config, **(config.get("text_config") or {})}
    if weights is None:
        weights = weights_from_config(spec, inner)
        if spec.model_type not in EXACT_FAMILIES:
            evidence += f", estimated for {spec.model_type}"
        elif source.kind == "hub":
            evidence = "its config"
    else:
        has_head = any(weight.role is WeightRole.HEAD for weight in weights)
        spec = replace(spec, tied_embeddings=spec.tied_embeddings or not has_head)
        if spec.tied_embeddings:
            # Some files carry the tied output layer all the same; the loader keeps one.
            weights = tuple(weight for weight in weights if weight.role is not WeightRole.HEAD)
    key_dim, value_dim = _head_dims(spec, inner)
    return ModelShape(
        name=source.text,
        source=source,
        spec=replace(spec, num_parameters=sum(weight.num_elements for weight in weights)),
        weights=weights,
        evidence=evidence,
        inner_size=_inner_size(spec, inner),
        key_dim=key_dim,
        value_dim=value_dim,
        experts_per_token=_first(inner, "num_experts_per_tok", "moe_topk", "num_experts_per_token"),
        num_experts=_first(inner, "num_local_experts", "num_experts", "n_routed_experts"),
        packing=_packing(config),
    )


def _from_gguf(source: ModelSource, header: GgufHeader) -> ModelShape:
    """The file is converted once and then loaded in the wanted precision, so its packing does not count."""
    fields = _gguf_config(source, header)
    weights = tuple(
        WeightShape(tensor.name, tuple(reversed(tensor.shape)), tensor.num_bytes) for tensor in header.tensors
    )
    return replace(_from_config(source, fields, weights, "the header of the .gguf file"), is_gguf=True)


def _gguf_config(source: ModelSource, header: GgufHeader) -> dict[str, Any]:
    family = header.architecture

    def field(name: str) -> Any:
        return header.metadata.get(f"{family}.{name}")

    table = next((tensor for tensor in header.tensors if tensor.name == "token_embd.weight"), None)
    if table is None or not field("block_count") or not field("embedding_length"):
        raise ModelFormatError(f"{source.location} is not a decoder: its header lacks layers, size or token table")
    return {
        "model_type": family,
        "architectures": [f"GGUF {family}"],
        "num_hidden_layers": field("block_count"),
        "hidden_size": field("embedding_length"),
        "intermediate_size": field("feed_forward_length"),
        "num_attention_heads": field("attention.head_count"),
        "num_key_value_heads": field("attention.head_count_kv"),
        "head_dim": field("attention.key_length"),
        "max_position_embeddings": field("context_length"),
        "num_experts_per_tok": field("expert_used_count"),
        "num_experts": field("expert_count"),
        "sliding_window": field("attention.sliding_window"),
        "vocab_size": table.shape[-1],
    }


def _scaled(shape: ModelShape, total_bytes: int, config: Mapping[str, Any]) -> ModelShape:
    """Where only the index of the shards is known: trust its total, and the config for the proportions."""
    stored = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16")
    num_elements = total_bytes / (4 if "32" in stored else 2)
    ratio = num_elements / max(1, shape.num_parameters)
    if shape.packing or not 0.5 < ratio < 2:
        return replace(shape, evidence=f"{shape.evidence}, its index of shards says {total_bytes:,} bytes")
    weights = tuple(
        replace(weight, shape=(round(weight.shape[0] * ratio), *weight.shape[1:]))
        if weight.role in (WeightRole.MATRIX, WeightRole.EXPERT)
        else weight
        for weight in shape.weights
    )
    return replace(shape, weights=weights, evidence="its config and the total of its index of shards")


def _head_dims(spec: ModelSpec, config: Mapping[str, Any]) -> tuple[int, int]:
    rope, plain = config.get("qk_rope_head_dim"), config.get("qk_nope_head_dim")
    if isinstance(rope, int) and isinstance(plain, int):
        return rope + plain, _first(config, "v_head_dim") or spec.head_dim
    return spec.head_dim, spec.head_dim


def _inner_size(spec: ModelSpec, config: Mapping[str, Any]) -> int:
    return _first(config, "intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size") or 4 * spec.hidden_size


def _packing(config: Mapping[str, Any]) -> str | None:
    quantization = config.get("quantization_config")
    return str(quantization.get("quant_method", "unknown")) if isinstance(quantization, Mapping) else None


def _first(config: Mapping[str, Any], *names: str) -> int:
    return next((config[name] for name in names if isinstance(config.get(name), int)), 0)
