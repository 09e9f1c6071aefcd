"""Settings: spellings, what each type takes by itself, and refusals that name the field."""

from __future__ import annotations

import pytest

from workbench.errors import BackendUnavailableError, ConfigError
from workbench.quantize import QuantizationConfig, QuantizationType, parse_quant_type


@pytest.mark.parametrize(
    ("spelling", "kind"),
    [("int8", "INT8"), ("float16", "FP16"), ("BF16", "BF16"), (QuantizationType.INT4, "INT4"), ("gguf-native", "GGUF")],
)
def test_types_are_strings_or_enums(spelling, kind: str) -> None:
    assert QuantizationConfig(spelling).quantization_type is QuantizationType[kind]


def test_the_documented_defaults() -> None:
    config = QuantizationConfig()
    assert config.quantization_type is QuantizationType.INT8
    flags = ("dynamic", "per_channel", "symmetric", "reduce_range", "memory_efficient", "preserve_accuracy")
    assert all(getattr(config, flag) is True for flag in flags)


@pytest.mark.parametrize("kind", ["int3", "", None, 8])
def test_an_unknown_type_lists_the_valid_ones(kind) -> None:
    with pytest.raises(ConfigError, match="quantization_type=.*int8, int4, fp16, bf16, dynamic, static, nf4, fp8"):
        QuantizationConfig(kind)


@pytest.mark.parametrize(
    ("kind", "flags"),
    [
        ("int8", {"symmetric": False}),
        ("dynamic", {"dynamic": False}),
        ("static", {"dynamic": True}),
        ("int4", {"dynamic": True}),
        ("int4", {"per_channel": False}),
        ("int4", {"reduce_range": True}),
        ("int4", {"group_size": 48}),
        ("int8", {"group_size": 32}),
        ("fp16", {"dynamic": True}),
        ("fp16", {"symmetric": True}),
        ("bf16", {"memory_efficient": False}),
        ("bf16", {"preserve_accuracy": True}),
        ("nf4", {"symmetric": False}),
        ("nf4", {"per_channel": False}),
        ("fp8", {"reduce_range": True}),
        ("gguf", {"preserve_accuracy": True}),
        ("int8", {"per_channel": "yes"}),
        ("int8", {"memory_efficient": 1}),
    ],
)
def test_a_flag_that_the_type_cannot_honour_is_refused_by_name(kind: str, flags: dict) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(flags))}="):
        QuantizationConfig(kind, **flags)


def test_quant_type_says_precision_or_method() -> None:
    assert (parse_quant_type("float16").dtype, parse_quant_type("float16").config) == ("fp16", None)
    asked = parse_quant_type("INT8")
    assert asked.dtype is None
    assert asked.config.quantization_type is QuantizationType.INT8
    assert not asked.config.dynamic


def test_quant_type_errors_list_the_valid_names() -> None:
    with pytest.raises(ConfigError, match="not known.*fp32.*bf16.*fp16.*int8, int4, dynamic, static, nf4, fp8"):
        parse_quant_type("int3")


def test_a_quantisation_without_kernels_on_the_backend_is_refused() -> None:
    from workbench.quantize import QuantType

    asked = QuantType("gguf", None, QuantizationConfig("gguf"))
    with pytest.raises(BackendUnavailableError, match="'gguf' is not available on cuda: .*fp32, bf16, fp16"):
        asked.require_on("cuda")
    parse_quant_type("int4").require_on("cpu")
    parse_quant_type("bf16").require_on("cuda")


@pytest.mark.parametrize("spelling", ["int8", "INT8", " Int4 ", "float8"])
def test_the_engines_own_kernels_are_used_however_the_name_is_spelled(spelling: str) -> None:
    asked = parse_quant_type(spelling)
    assert asked.engine_packed_name("cuda") == asked.name
    assert asked.engine_packed_name("cpu") is None


def test_flags_of_ones_own_and_other_types_run_on_torchs_kernels() -> None:
    assert parse_quant_type(QuantizationConfig("int8", preserve_accuracy=True)).engine_packed_name("cuda") is None
    assert parse_quant_type("nf4").engine_packed_name("cuda") is None
    assert parse_quant_type("bf16").engine_packed_name("cuda") is None
