"""Settings of each kind of instance, and the reasons that come with them."""

from __future__ import annotations

import dataclasses

import pytest

from workbench.aws import InstanceCatalogue
from workbench.aws.serving_plan import ServingPlan
from workbench.aws.settings import InstanceSettings, recommend_settings
from workbench.aws.torch_builds import torch_build_note, torch_cuda_build

_8B = ServingPlan(
    weight_bytes=16_060_000_000,
    kv_bytes_per_token=131_072,
    context_tokens=4096,
    batch_size=4,
    num_parameters=8_030_000_000,
    num_layers=32,
    hidden_size=4096,
    num_kv_heads=8,
)


def _settings(name: str, plan: ServingPlan | None = None, **options: object) -> InstanceSettings:
    return recommend_settings(InstanceCatalogue.shipped().get(name), plan, **options)


@pytest.mark.parametrize(
    ("name", "dtype", "attention"),
    [
        ("p3dn.24xlarge", "fp16", "sdpa"),
        ("g4dn.xlarge", "fp16", "sdpa"),
        ("g5g.xlarge", "fp16", "sdpa"),
        ("p4d.24xlarge", "bf16", "paged"),
        ("g5.xlarge", "bf16", "paged"),
        ("g6e.xlarge", "bf16", "paged"),
        ("p6-b200.48xlarge", "bf16", "paged"),
    ],
)
def test_precision_and_attention_follow_the_gpu(name: str, dtype: str, attention: str):
    settings = _settings(name)
    assert (settings.dtype.value, settings.attention.value) == (dtype, attention)
    assert settings.backend.value == "cuda"
    if dtype == "fp16":
        assert "no bf16 units" in settings.dtype.reason


def test_every_setting_of_every_type_has_a_reason():
    for row in InstanceCatalogue.shipped().list():
        for plan in (None, _8B):
            table = recommend_settings(row, plan).as_table()
            assert len(table.rows) == 8
            assert all(line["reason"] for line in table.rows), row.name


@pytest.mark.parametrize("name", ["p5.48xlarge", "g4dn.xlarge"])
def test_prefer_gpu_off_is_honoured_on_gpu_instances(name: str):
    settings = _settings(name, _8B, prefer_gpu=False)
    assert settings.backend.value == "cpu"
    assert settings.dtype.value is None
    assert "prefer_gpu is off" in settings.backend.reason


@pytest.mark.parametrize(
    ("name", "word"), [("inf2.xlarge", "Neuron"), ("g4ad.xlarge", "gfx1011"), ("g3.4xlarge", "sm_52")]
)
def test_accelerators_that_cannot_run_models_are_said_to(name: str, word: str):
    settings = _settings(name, _8B)
    assert settings.backend.value == "cpu"
    assert word in settings.not_runnable_reason


def test_nvlink_splits_over_all_gpus_and_pcie_does_not():
    assert _settings("p4d.24xlarge").tensor_parallel_size.value == 8
    pcie = _settings("g5.48xlarge")
    assert (pcie.tensor_parallel_size.value, pcie.num_replicas.value) == (1, 8)
    assert "PCIe" in pcie.tensor_parallel_size.reason


def test_pcie_splits_as_far_as_the_model_needs():
    plan = dataclasses.replace(_8B, weight_bytes=60 * 1024**3, num_layers=None)
    settings = _settings("g5.48xlarge", plan)
    assert (settings.tensor_parallel_size.value, settings.num_replicas.value) == (4, 2)


def test_weights_are_quantised_only_as_far_as_needed():
    assert _settings("g5.xlarge", _8B).quant_type.value is None
    assert _settings("g4dn.xlarge", _8B).quant_type.value == "int8"
    assert _settings("g4dn.xlarge", dataclasses.replace(_8B, weight_bytes=28_000_000_000)).quant_type.value == "int4"
    impossible = _settings("g4dn.xlarge", dataclasses.replace(_8B, weight_bytes=10**12))
    assert impossible.fits is False
    assert "not even at int4" in impossible.quant_type.reason
    assert _settings("g4dn.xlarge", _8B).fits is True
    assert _settings("g4dn.xlarge").fits is None


def test_the_batch_is_bound_by_cache_or_by_arithmetic():
    assert "cache of a replica holds" in _settings("g4dn.xlarge", _8B).max_num_seqs.reason
    assert _settings("p5.48xlarge", _8B).max_num_seqs.value == 256
    assert "arithmetic" in _settings("p5.48xlarge", _8B).max_num_seqs.reason


def test_small_and_shared_gpus_keep_more_memory_free():
    fractions = [_settings(name).memory_fraction.value for name in ("g6.xlarge", "g4dn.xlarge", "g6f.large")]
    assert fractions == sorted(fractions, reverse=True) and len(set(fractions)) == 3


def test_builds_of_torch_that_lack_a_gpu_are_named():
    get = InstanceCatalogue.shipped().get
    assert torch_cuda_build(get("p3dn.24xlarge")) == "cu126"
    assert "12.6" in torch_build_note(get("p3dn.24xlarge"))
    assert "arm64" in torch_build_note(get("g5g.xlarge"))
    assert torch_build_note(get("g6.xlarge")) is None
    assert torch_cuda_build(get("g4ad.xlarge")) is None
    assert "12.6" in _settings("p3dn.24xlarge").notes[0]


def test_a_notebook_shows_the_reasons():
    assert "no bf16 units" in _settings("g4dn.xlarge")._repr_html_()
    assert "no bf16 units" in str(_settings("g4dn.xlarge"))
