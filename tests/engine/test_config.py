"""The engine's knobs: what each resolves to, what is refused, and what would fit where memory is short."""

from __future__ import annotations

import pytest

from workbench.engine.config import EngineConfig, resolve_limits
from workbench.errors import ConfigError, OutOfMemoryError

MIB = 1024**2


def resolve(config=None, **facts):
    values = {"on_gpu": False, "model_max_context": 1024, "kv_bytes_per_token": 1000, "free_bytes": 4096 * MIB}
    return resolve_limits(config or EngineConfig(), **(values | facts))


@pytest.mark.parametrize(
    "options",
    [
        {"context_length": 0},
        {"context_length": 1.5},
        {"context_length": True},
        {"kv_cache_bytes": -1},
        {"num_threads": 10**6},
        {"block_size": 0},
        {"max_num_seqs": 0},
        {"max_num_batched_tokens": 0},
        {"num_threads": 0},
        {"engine_name": ""},
        {"memory_fraction": 0},
        {"memory_fraction": 1.1},
        {"memory_fraction": True},
        {"memory_fraction": float("nan")},
        {"memory_fraction": "all"},
        {"enable_prefix_caching": "no"},
        {"enable_prefix_caching": None},
    ],
    ids=repr,
)
def test_a_wrong_value_is_refused_by_its_name(options):
    (name,) = options
    with pytest.raises(ConfigError, match=name):
        EngineConfig(**options)


def test_the_pool_can_be_given_once_only():
    with pytest.raises(ConfigError, match="kv_cache_bytes and kv_cache_tokens"):
        EngineConfig(kv_cache_bytes=1, kv_cache_tokens=1)


def test_on_a_cpu_the_pool_holds_half_a_gigabyte_or_one_context():
    assert resolve().kv_bytes == 512 * MIB // 16000 * 16000
    whole = resolve(kv_bytes_per_token=MIB)
    assert whole.num_blocks * whole.block_size == 1024
    assert resolve(free_bytes=100 * MIB).kv_bytes <= 50 * MIB


def test_on_a_gpu_the_pool_takes_what_is_free():
    limits = resolve(on_gpu=True)
    assert 4096 * MIB - 16000 < limits.kv_bytes <= 4096 * MIB
    assert "90%" in limits.reasons["kv_bytes"]


def test_a_pool_in_tokens_is_rounded_up_to_blocks():
    limits = resolve(EngineConfig(kv_cache_tokens=100, block_size=16))
    assert (limits.num_blocks, limits.kv_bytes) == (7, 7 * 16 * 1000)


def test_a_small_pool_shortens_the_context_and_says_so():
    limits = resolve(EngineConfig(kv_cache_tokens=100))
    assert limits.max_context == 112
    assert "112" in limits.reasons["max_context"] and "1024" in limits.reasons["max_context"]


def test_a_context_beyond_the_models_is_refused_with_both_numbers():
    with pytest.raises(ConfigError, match="2048.*1024"):
        resolve(EngineConfig(context_length=2048))
    assert resolve(EngineConfig(context_length=100)).max_context == 100


@pytest.mark.parametrize(
    "config, free_bytes",
    [(EngineConfig(kv_cache_tokens=1000), 300_000), (EngineConfig(kv_cache_bytes=10**9), 300_000)],
)
def test_a_pool_that_does_not_fit_says_what_is_needed_and_what_would_fit(config, free_bytes):
    with pytest.raises(OutOfMemoryError) as caught:
        resolve(config, free_bytes=free_bytes)
    assert caught.value.needed_bytes >= 10**6 and caught.value.free_bytes == free_bytes
    assert "kv_cache_tokens=288" in caught.value.would_fit
    resolve(EngineConfig(kv_cache_tokens=288), free_bytes=free_bytes)


def test_what_would_fit_is_no_more_than_the_models_context():
    with pytest.raises(OutOfMemoryError) as caught:
        resolve(EngineConfig(kv_cache_bytes=10**13), free_bytes=10**12)
    assert "context_length=1024" in caught.value.would_fit


def test_a_pool_smaller_than_a_block_is_a_wrong_setting():
    with pytest.raises(ConfigError, match="kv_cache_bytes=1: must be more, since one block of 16 tokens takes"):
        resolve(EngineConfig(kv_cache_bytes=1), free_bytes=10**9)


def test_where_not_one_block_fits_a_smaller_model_is_the_advice():
    with pytest.raises(OutOfMemoryError) as caught:
        resolve(free_bytes=1000)
    assert caught.value.would_fit == ("a smaller model",)
