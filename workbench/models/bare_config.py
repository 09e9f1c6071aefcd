"""Whether a folder's config.json alone says enough to lay a decoder's weights out, without transformers' classes.

Importing those takes most of a first load, and a runner that computes by itself needs none of them. Knows no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from workbench.errors import ModelFormatError
from workbench.models.embedding_recipe import read_embedding_recipe
from workbench.models.files import ModelFiles
from workbench.models.spec import read_config
from workbench.quantize.packed_folder import is_packed_folder

__all__ = ["BareConfig", "read_bare_config"]

# The class that transformers has for a model type.
_ARCHITECTURES = MappingProxyType({"llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM"})
# Fields that transformers fills with a default of the family where they are missing: they must be written.
_SIZES = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "vocab_size", "max_position_embeddings",
)  # fmt: skip
_ROPE_FIELDS = MappingProxyType(
    {
        "default": (),
        "linear": ("factor",),
        "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    }
)


@dataclass(frozen=True)
class BareConfig:
    """The fields of a config.json under transformers' names; `rope_parameters` has `rope_type` and `rope_theta`."""

    model_type: str
    architecture: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    rms_norm_eps: float
    tie_word_embeddings: bool
    attention_bias: bool
    mlp_bias: bool
    rope_parameters: dict[str, Any]
    fields: dict[str, Any]
    hidden_act: str = "silu"

    def to_dict(self) -> dict[str, Any]:
        """The whole config.json; of windows, which no such model has, what transformers makes of it."""
        return {**self.fields, "use_sliding_window": False}

    def get_text_config(self) -> BareConfig:
        """Itself: these are text models."""
        return self


def read_bare_config(files: ModelFiles) -> BareConfig | None:
    """The config of a model whose layout is known here and written out in full; None for every other."""
    if files.path is None or is_packed_folder(files.path) or read_embedding_recipe(files.path) is not None:
        return None
    try:
        return _of_fields(read_config(files.path))
    except ModelFormatError:  # the ordinary load says it with more context
        return None


def _of_fields(fields: dict[str, Any]) -> BareConfig | None:
    model_type, rope = fields.get("model_type"), _rope_parameters(fields)
    sizes: list[Any] = [fields.get(name) for name in _SIZES]
    if (
        not isinstance(model_type, str)
        or model_type not in _ARCHITECTURES
        or rope is None
        or fields.get("hidden_act") != "silu"
    ):
        return None
    if any(type(size) is not int or size < 1 for size in sizes):
        return None
    if not isinstance(fields.get("tie_word_embeddings"), bool) or not isinstance(fields.get("rms_norm_eps"), float):
        return None
    head_dim = fields.get("head_dim")
    if head_dim is None and model_type == "llama":
        head_dim = fields["hidden_size"] // fields["num_attention_heads"]
    has_windows = bool(fields.get("use_sliding_window")) or "sliding_attention" in (fields.get("layer_types") or ())
    if type(head_dim) is not int or has_windows or "quantization_config" in fields or "auto_map" in fields:
        return None
    return BareConfig(
        model_type=model_type,
        architecture=_ARCHITECTURES[model_type],
        **dict(zip(_SIZES, sizes, strict=True)),
        head_dim=head_dim,
        rms_norm_eps=fields["rms_norm_eps"],
        tie_word_embeddings=fields["tie_word_embeddings"],
        attention_bias=bool(fields.get("attention_bias")),
        mlp_bias=model_type == "llama" and bool(fields.get("mlp_bias")),
        rope_parameters=rope,
        fields=fields,
    )


def _rope_parameters(fields: dict[str, Any]) -> dict[str, Any] | None:
    """As written since transformers 5, or before; None for a kind that is not computed here."""
    rope = fields.get("rope_parameters")
    if rope is None:
        scaling = fields.get("rope_scaling") or {}
        rope = {**scaling, "rope_theta": fields.get("rope_theta")}
        rope["rope_type"] = scaling.get("rope_type") or scaling.get("type") or "default"
    wanted = _ROPE_FIELDS.get(str(rope.get("rope_type")))
    if wanted is None or not all(isinstance(rope.get(name), int | float) for name in ("rope_theta", *wanted)):
        return None
    return None if rope.get("partial_rotary_factor", 1.0) != 1.0 else rope
