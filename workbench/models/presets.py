"""Shapes of known models, for `random:<preset>`: the real config, and a few tiny ones for tests. Data only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workbench.errors import ModelNotFoundError

__all__ = ["PRESETS", "Preset", "get_preset"]


@dataclass(frozen=True)
class Preset:
    """A model shape: transformers' `model_type` and the config fields that differ from that family's defaults."""

    name: str
    model_type: str
    fields: dict[str, Any]

    def config_fields(self) -> dict[str, Any]:
        """The fields as a config.json would have them."""
        return {"model_type": self.model_type, **self.fields}


def _shape(
    hidden: int, inner: int, layers: int, heads: int, kv_heads: int, head_dim: int, vocab: int
) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "vocab_size": vocab,
    }


def _tiny(**fields: Any) -> dict[str, Any]:
    # Wide random weights keep the greedy choice far from the runner-up, so that rounding does not decide it.
    shape = _shape(hidden=64, inner=128, layers=2, heads=4, kv_heads=2, head_dim=16, vocab=512)
    return {**shape, "max_position_embeddings": 2048, "initializer_range": 0.2, "tie_word_embeddings": False, **fields}


def _llama3(factor: float, tied: bool, **shape: Any) -> dict[str, Any]:
    rope = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    return {
        **_shape(**shape, vocab=128256),
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_parameters": rope,
        "tie_word_embeddings": tied,
    }


def _smollm2(theta: float, **shape: Any) -> dict[str, Any]:
    return {
        **_shape(**shape, head_dim=64, vocab=49152),
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        "tie_word_embeddings": True,
    }


def _qwen3(tied: bool, **shape: Any) -> dict[str, Any]:
    return {
        **_shape(**shape, head_dim=128, vocab=151936),
        "max_position_embeddings": 40960,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
        "tie_word_embeddings": tied,
    }


# Sizes are those of the published configs of each model.
PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset("tiny", "llama", _tiny()),
        Preset("tiny-tied", "llama", _tiny(tie_word_embeddings=True)),
        Preset("tiny-qwen3", "qwen3", _tiny()),
        Preset("tiny-mistral", "mistral", _tiny(sliding_window=32)),
        # Soft-capped scores, and a window on every second layer.
        Preset("tiny-gemma2", "gemma2", _tiny(sliding_window=32, query_pre_attn_scalar=16)),
        Preset("smollm2-135m", "llama", _smollm2(1e5, hidden=576, inner=1536, layers=30, heads=9, kv_heads=3)),
        Preset("smollm2-360m", "llama", _smollm2(1e5, hidden=960, inner=2560, layers=32, heads=15, kv_heads=5)),
        Preset("smollm2-1.7b", "llama", _smollm2(1.3e5, hidden=2048, inner=8192, layers=24, heads=32, kv_heads=32)),
        Preset(
            "llama-3.2-1b",
            "llama",
            _llama3(32.0, True, hidden=2048, inner=8192, layers=16, heads=32, kv_heads=8, head_dim=64),
        ),
        Preset(
            "llama-3.2-3b",
            "llama",
            _llama3(32.0, True, hidden=3072, inner=8192, layers=28, heads=24, kv_heads=8, head_dim=128),
        ),
        Preset(
            "llama-3.1-8b",
            "llama",
            _llama3(8.0, False, hidden=4096, inner=14336, layers=32, heads=32, kv_heads=8, head_dim=128),
        ),
        Preset(
            "llama-3.1-70b",
            "llama",
            _llama3(8.0, False, hidden=8192, inner=28672, layers=80, heads=64, kv_heads=8, head_dim=128),
        ),
        Preset("qwen3-0.6b", "qwen3", _qwen3(True, hidden=1024, inner=3072, layers=28, heads=16, kv_heads=8)),
        Preset("qwen3-4b", "qwen3", _qwen3(True, hidden=2560, inner=9728, layers=36, heads=32, kv_heads=8)),
        Preset("qwen3-8b", "qwen3", _qwen3(False, hidden=4096, inner=12288, layers=36, heads=32, kv_heads=8)),
        Preset(
            "mistral-7b",
            "mistral",
            {
                **_shape(hidden=4096, inner=14336, layers=32, heads=32, kv_heads=8, head_dim=128, vocab=32768),
                "max_position_embeddings": 32768,
                "rms_norm_eps": 1e-5,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
                "sliding_window": None,
                "tie_word_embeddings": False,
            },
        ),
        Preset(
            "gemma-2-2b",
            "gemma2",
            {
                **_shape(hidden=2304, inner=9216, layers=26, heads=8, kv_heads=4, head_dim=256, vocab=256000),
                "max_position_embeddings": 8192,
                "sliding_window": 4096,
                "query_pre_attn_scalar": 256,
                "tie_word_embeddings": True,
            },
        ),
    )
}


def get_preset(name: str) -> Preset:
    """The preset of that name. Raises `ModelNotFoundError` listing all of them."""
    if name not in PRESETS:
        raise ModelNotFoundError(f"no preset is called {name!r}; random:<preset> takes one of: {', '.join(PRESETS)}")
    return PRESETS[name]
