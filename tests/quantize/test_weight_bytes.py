"""Arithmetic of sizes: what a plan says is what the packed tensors take."""

from __future__ import annotations

import pytest

from workbench.errors import ConfigError
from workbench.quantize import QuantizationConfig, QuantizationType
from workbench.quantize.weight_bytes import bytes_per_weight, stored_type, weight_bytes


def test_shares_of_bf16() -> None:
    shape = (2048, 2048)
    assert bytes_per_weight(QuantizationConfig("int8"), *shape) / 2 == pytest.approx(0.5, rel=0.01)
    assert bytes_per_weight(QuantizationConfig("int4", group_size=64), *shape) / 2 == pytest.approx(0.281, rel=0.01)
    assert bytes_per_weight(QuantizationConfig("nf4"), *shape) / 2 == pytest.approx(0.281, rel=0.01)
    assert bytes_per_weight(QuantizationConfig("fp8"), *shape) / 2 == pytest.approx(0.5, rel=0.01)
    assert bytes_per_weight(QuantizationConfig("bf16"), *shape, element_bytes=4) == 2


def test_what_stays_in_higher_precision() -> None:
    int4 = QuantizationConfig("int4", preserve_accuracy=False)
    assert stored_type(int4, 64, 64) is QuantizationType.INT4
    assert stored_type(int4, 64, 48) is QuantizationType.INT8
    assert stored_type(int4, 72, 64) is QuantizationType.INT8
    assert stored_type(QuantizationConfig("int8", memory_efficient=False), 64, 64, is_embedding=True) is None
    assert weight_bytes(QuantizationConfig("int8", memory_efficient=False), 64, 64, is_embedding=True) == 64 * 64 * 2


def test_a_gguf_file_states_its_own_sizes() -> None:
    with pytest.raises(ConfigError, match="gguf"):
        weight_bytes(QuantizationConfig("gguf"), 64, 64)
