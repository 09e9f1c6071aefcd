"""What a model is, from its config alone: sizes, heads, context. Needs neither torch nor transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workbench.errors import ModelFormatError
from workbench.safetensors_header import read_folder_headers

__all__ = ["ModelSpec", "read_config", "read_json_object"]

# Spellings that older families use for the same number.
_ALIASES = {
    "num_hidden_layers": ("n_layer", "num_layers", "n_layers"),
    "hidden_size": ("n_embd", "d_model", "model_dim"),
    "num_attention_heads": ("n_head", "num_heads", "n_heads"),
    "num_key_value_heads": ("n_head_kv", "num_kv_heads", "multi_query_group_num"),
    "max_position_embeddings": ("n_positions", "n_ctx", "max_seq_len", "seq_length", "max_sequence_length"),
    "vocab_size": ("padded_vocab_size",),
}
# These scale inside a context that max_position_embeddings already states in full.
_ROPE_TYPES_WITH_FULL_CONTEXT = frozenset({"default", "llama3", "longrope", "su", "proportional"})


@dataclass(frozen=True)
class ModelSpec:
    """A decoder's shape.

    `max_context` is in tokens; `sliding_window` is the window of the layers that have one (None when none has);
    `layer_types` names each layer's attention where the config does; `num_parameters` counts tied weights once and
    is None while the weight files have not been looked at.
    """

    architecture: str
    model_type: str
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    max_context: int
    num_parameters: int | None = None
    tied_embeddings: bool = False
    sliding_window: int | None = None
    layer_types: tuple[str, ...] | None = None

    @classmethod
    def from_config(cls, config: Any) -> ModelSpec:
        """The spec of a transformers config object, or of the dictionary in a config.json.

        Raises `ModelFormatError` naming the first field that is missing or contradictory.
        """
        fields = _Fields.of(config)
        num_heads = fields.positive("num_attention_heads")
        hidden_size = fields.positive("hidden_size")
        num_kv_heads = _num_kv_heads(fields, num_heads)
        if num_heads % num_kv_heads:
            raise ModelFormatError(
                f"config: num_attention_heads {num_heads} is not a multiple of num_key_value_heads {num_kv_heads}"
            )
        layer_types = fields.get("layer_types")
        return cls(
            architecture=fields.architecture,
            model_type=str(fields.get("model_type") or ""),
            num_layers=fields.positive("num_hidden_layers"),
            hidden_size=hidden_size,
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            head_dim=fields.positive("head_dim") if fields.get("head_dim") else hidden_size // num_heads,
            vocab_size=fields.positive("vocab_size"),
            max_context=_max_context(fields),
            tied_embeddings=bool(fields.get("tie_word_embeddings")),
            sliding_window=_sliding_window(fields, layer_types),
            layer_types=tuple(layer_types) if layer_types else None,
        )

    @classmethod
    def from_folder(cls, path: Path) -> ModelSpec:
        """The spec of a model folder; parameters are counted from its safetensors headers where it has them."""
        spec = cls.from_config(read_config(path))
        tensors = read_folder_headers(path)
        if not tensors:
            return spec
        has_head = any(name.endswith(("lm_head.weight", "embed_out.weight")) for name in tensors)
        return replace(
            spec,
            num_parameters=sum(tensor.num_elements for tensor in tensors.values()),
            tied_embeddings=spec.tied_embeddings or not has_head,
        )


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a model folder. Raises `ModelFormatError` when it is missing or does not parse."""
    path = folder / "config.json"
    if not path.is_file():
        raise ModelFormatError(f"{folder} has no config.json, so it is not a model that transformers can load")
    return read_json_object(path)


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises `ModelFormatError` when it does not parse or is something else."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelFormatError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelFormatError(f"{path} holds a {type(content).__name__}, not an object")
    return content


@dataclass(frozen=True)
class _Fields:
    """Config fields by their usual name, whatever the family calls them."""

    values: Mapping[str, Any]
    architecture: str

    @classmethod
    def of(cls, config: Any) -> _Fields:
        if isinstance(config, Mapping):
            outer = dict(config)
        else:
            # A family's own spelling (n_embd) is translated by the config object's attribute map.
            outer = {**config.to_dict(), **{name: getattr(config, name, None) for name in _ALIASES}}
        architectures = outer.get("architectures") or [outer.get("model_type") or "unknown"]
        text = outer.get("text_config")
        inner = {k: v for k, v in outer.items() if v is not None}
        if isinstance(text, Mapping):
            inner |= {k: v for k, v in text.items() if v is not None}
        return cls(inner, str(architectures[0]))

    def get(self, name: str) -> Any:
        for spelling in (name, *_ALIASES.get(name, ())):
            if self.values.get(spelling) is not None:
                return self.values[spelling]
        return None

    def positive(self, name: str) -> int:
        value = self.get(name)
        if value is None:
            raise ModelFormatError(f"config: {name} is missing, so this is not a decoder that can be loaded")
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ModelFormatError(f"config: {name} must be a whole number above 0, got {value!r}")
        return value


def _num_kv_heads(fields: _Fields, num_heads: int) -> int:
    if fields.get("multi_query") is True and not fields.get("new_decoder_architecture"):
        return 1
    return fields.positive("num_key_value_heads") if fields.get("num_key_value_heads") is not None else num_heads


def _sliding_window(fields: _Fields, layer_types: list[str] | None) -> int | None:
    window = fields.get("sliding_window")
    if window is None or fields.get("use_sliding_window") is False:
        return None
    if layer_types and "sliding_attention" not in layer_types:
        return None
    return int(window)


def _max_context(fields: _Fields) -> int:
    stated = fields.positive("max_position_embeddings")
    rope = fields.get("rope_scaling") or fields.get("rope_parameters") or {}
    if not isinstance(rope, Mapping):
        raise ModelFormatError(f"config: rope_scaling must be an object, got {rope!r}")
    rope_type = rope.get("rope_type") or rope.get("type") or "default"
    factor = rope.get("factor")
    if rope_type in _ROPE_TYPES_WITH_FULL_CONTEXT or not factor:
        return stated
    original = rope.get("original_max_position_embeddings")
    return max(stated, int(original * factor)) if original else int(stated * factor)
