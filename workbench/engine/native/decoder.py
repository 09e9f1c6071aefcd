"""A transformers decoder of the Llama kind over the native kernels: packs its weights and computes steps."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import torch

from workbench.engine.attention import LayerShape
from workbench.engine.native.library import NativeLibrary
from workbench.engine.native.matrix import Arena, holder_obstacle
from workbench.engine.native.structs import GROUP, LayerStruct, MatrixStruct, ShapeStruct, StepStruct
from workbench.engine.paged_step import KVPool

__all__ = ["NativeDecoder", "config_obstacle", "model_obstacle", "native_layers"]

_MODEL_TYPES = frozenset({"llama", "mistral", "qwen2", "qwen3"})
_ROPE_TYPES = frozenset({"default", "linear", "llama3", "yarn"})
_PROJECTIONS = ("query", "key", "value", "output", "gate", "up", "down")
_BLOCK_ROWS = 16
# The kernel keeps a factor for each query head of a KV head.
_MAX_HEADS_PER_KV_HEAD = 64


def model_obstacle(module: torch.nn.Module) -> str | None:
    """What keeps a transformers model from the native decoder, in words; None if nothing does."""
    reason = config_obstacle(module.config)
    if reason is None and getattr(module.lm_head, "bias", None) is not None:
        reason = "its head has a bias"
    return reason or next((reason for reason in map(holder_obstacle, _holders(module)) if reason), None)


def config_obstacle(config: Any) -> str | None:
    """The same, as far as a transformers config or a bare one tells."""
    if config.model_type not in _MODEL_TYPES:
        return f"{config.model_type} is not one of {', '.join(sorted(_MODEL_TYPES))}"
    if config.hidden_act != "silu":
        return f"its activation is {config.hidden_act}, not silu"
    rope_type = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope_type not in _ROPE_TYPES:
        return f"its rotary embedding is of type {rope_type}, which depends on the length"
    if config.hidden_size % GROUP or config.intermediate_size % GROUP:
        return f"its sizes {config.hidden_size} and {config.intermediate_size} are no multiples of {GROUP}"
    shape = native_layers(config)[0]
    if shape.key_dim % GROUP:
        return f"its heads have {shape.key_dim} numbers, no multiple of {GROUP}"
    if config.num_attention_heads > _MAX_HEADS_PER_KV_HEAD * shape.num_kv_heads:
        return f"{config.num_attention_heads // shape.num_kv_heads} query heads share one KV head"
    return None


def native_layers(config: Any) -> dict[int, LayerShape]:
    """Key and value shapes of every layer of such a model."""
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    shape = LayerShape(config.num_key_value_heads, dim, dim)
    return {index: shape for index in range(config.num_hidden_layers)}


class NativeDecoder:
    """Computes steps over `pool` with `num_threads` threads, the caller's among them.

    The module's own weights are not needed afterwards. `on_packed` is called with each layer or embedding whose weights
    have been taken over, so that they can be freed at once.
    """

    def __init__(
        self,
        library: NativeLibrary,
        module: torch.nn.Module,
        pool: KVPool,
        *,
        max_rows: int,
        max_context: int,
        num_threads: int,
        on_packed: Callable[[torch.nn.Module], None] = lambda holder: None,
    ) -> None:
        self._library = library
        self._pool = pool
        self._kept: list[torch.Tensor] = []
        config: Any = module.config
        self.vocab_size: int = config.vocab_size
        holders = _holders(module)
        self._arena = Arena(library, holders)
        shape = self._shape(module, on_packed)
        shape.block_size, shape.max_rows, shape.max_context = pool.block_size, max_rows, max_context
        shape.num_threads = num_threads
        shape.kv_is_bf16 = pool.keys[0].dtype is torch.bfloat16
        self._handle = library.new_decoder(ctypes.byref(shape))

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._library.delete_decoder(self._handle)
            self._handle = None

    @property
    def weight_bytes(self) -> int:
        """Bytes of the packed weights."""
        return self._arena.num_bytes

    def run(self, step: StepStruct) -> None:
        """Compute a step: store its keys and values, write its logits."""
        self._library.run(self._handle, ctypes.byref(step))

    def _shape(self, module: Any, on_packed: Callable[[torch.nn.Module], None]) -> ShapeStruct:
        config, model = module.config, module.model
        layers = (LayerStruct * config.num_hidden_layers)()
        for index, layer in enumerate(model.layers):
            self._fill_layer(layers[index], layer, config, on_packed)
            layers[index].keys = self._pool.keys[index].data_ptr()
            layers[index].values = self._pool.values[index].data_ptr()
        head = self._arena.pack(module.lm_head)
        tied = _shares_weight(module.lm_head, model.embed_tokens)
        embedding = head if tied else self._arena.pack(model.embed_tokens)
        shape = native_layers(config)[0]
        result = ShapeStruct(
            hidden=config.hidden_size,
            inter=config.intermediate_size,
            num_heads=config.num_attention_heads,
            num_kv_heads=shape.num_kv_heads,
            dim=shape.key_dim,
            vocab=config.vocab_size,
            num_layers=config.num_hidden_layers,
            eps=config.rms_norm_eps,
            attention_scale=model.layers[0].self_attn.scaling,
            layers=ctypes.cast(layers, ctypes.c_void_p),
            head=head,
            embedding=embedding,
            norm=self._floats(model.norm.weight),
        )
        cosines, sines = _rotary_tables(model, config.max_position_embeddings, shape.key_dim)
        result.cosines, result.sines = self._floats(cosines), self._floats(sines)
        on_packed(module.lm_head)
        on_packed(model.embed_tokens)
        return result

    def _fill_layer(
        self, struct: LayerStruct, layer: Any, config: Any, on_packed: Callable[[torch.nn.Module], None]
    ) -> None:
        for name, linear in zip(_PROJECTIONS, _projections(layer), strict=True):
            packed: MatrixStruct = self._arena.pack(linear)
            setattr(struct, name, packed)
            on_packed(linear)
        attention = layer.self_attn
        struct.input_norm = self._floats(layer.input_layernorm.weight)
        struct.output_norm = self._floats(layer.post_attention_layernorm.weight)
        if hasattr(attention, "q_norm"):
            struct.query_norm = self._floats(attention.q_norm.weight)
            struct.key_norm = self._floats(attention.k_norm.weight)
        window = config.sliding_window if config.model_type == "mistral" else getattr(attention, "sliding_window", None)
        struct.window = window or 0

    def _floats(self, tensor: torch.Tensor) -> int:
        """The address of a float32 copy that lives as long as this object."""
        self._kept.append(tensor.detach().to(torch.float32, copy=True).contiguous())
        return self._kept[-1].data_ptr()


def _projections(layer: Any) -> list[torch.nn.Module]:
    attention, mlp = layer.self_attn, layer.mlp
    return [
        attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj,
        mlp.gate_proj, mlp.up_proj, mlp.down_proj,
    ]  # fmt: skip


def _holders(module: Any) -> list[torch.nn.Module]:
    """Everything that is packed, in the order of a step."""
    holders = [linear for layer in module.model.layers for linear in _projections(layer)] + [module.lm_head]
    if not _shares_weight(module.lm_head, module.model.embed_tokens):
        holders.append(module.model.embed_tokens)
    return holders


def _shares_weight(head: torch.nn.Module, table: torch.nn.Module) -> bool:
    """Whether both read the same memory."""
    for name in ("weight", "levels", "values", "packed"):
        one, other = getattr(head, name, None), getattr(table, name, None)
        if one is not None and other is not None:
            return bool(one.data_ptr() == other.data_ptr())
    return False


def _rotary_tables(model: Any, max_context: int, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines [max_context, dim / 2] in float32, as the model's own rotary embedding makes them."""
    positions = torch.arange(max_context).unsqueeze(0)
    cosines, sines = model.rotary_emb(torch.zeros(1, 1, 1), position_ids=positions)
    return cosines[0, :, : dim // 2], sines[0, :, : dim // 2]
