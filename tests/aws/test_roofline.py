"""The arithmetic of fit and speed, on numbers that can be checked by hand."""

from __future__ import annotations

import dataclasses

import pytest

from workbench.aws import InstanceCatalogue
from workbench.aws.roofline import Assumptions, Layout, NoLayout, choose_layout, estimate_decode
from workbench.aws.serving_plan import ServingPlan
from workbench.errors import ConfigError

_GIB = 1024**3
_IDEAL = Assumptions(bandwidth_efficiency=1, compute_efficiency=1, memory_share=1, workspace_bytes=0)
_PLAN = ServingPlan(weight_bytes=10 * 10**9, kv_bytes_per_token=100_000, context_tokens=1000)


def _row(name: str):
    return InstanceCatalogue.shipped().get(name)


def test_one_request_is_bandwidth_over_bytes():
    estimate = estimate_decode(_row("p5.4xlarge"), _PLAN, tensor_parallel_size=1, num_requests=1, assumptions=_IDEAL)
    assert estimate.step_s == pytest.approx((10e9 + 0.1e9) / 3350e9)
    assert estimate.limited_by == "memory bandwidth"


def test_the_cache_of_every_request_is_read_too():
    one, many = (
        estimate_decode(_row("p5.4xlarge"), _PLAN, tensor_parallel_size=1, num_requests=n, assumptions=_IDEAL).step_s
        for n in (1, 101)
    )
    assert many - one == pytest.approx(100 * 0.1e9 / 3350e9)


def test_arithmetic_bounds_large_batches():
    plan = dataclasses.replace(_PLAN, num_parameters=5 * 10**9, kv_bytes_per_token=1, context_tokens=1)
    estimate = estimate_decode(_row("p5.4xlarge"), plan, tensor_parallel_size=1, num_requests=1000, assumptions=_IDEAL)
    assert estimate.limited_by == "arithmetic"
    assert estimate.step_s == pytest.approx(2 * 5e9 * 1000 / 989e12)


def test_measured_decode_lies_near_the_prediction():
    # Measured on one H200: 15.01 GB of bf16 weights, 213 tokens/s alone, 22,700 at 256 requests of about 256 tokens.
    row = dataclasses.replace(_row("p5en.48xlarge"), accelerator_count=1)
    plan = ServingPlan(
        weight_bytes=15_010_000_000, kv_bytes_per_token=131_072, context_tokens=256, num_parameters=7_500_000_000
    )
    for num_requests, measured in ((1, 213), (256, 22_700)):
        estimate = estimate_decode(row, plan, tensor_parallel_size=1, num_requests=num_requests)
        assert 0.5 < measured / (num_requests / estimate.step_s) < 1.3


def test_pcie_makes_a_split_dearer_than_nvlink():
    plan = dataclasses.replace(_PLAN, num_layers=32, hidden_size=4096)
    pcie, nvlink = (
        estimate_decode(_row(name), plan, tensor_parallel_size=4, num_requests=8).communication_s
        for name in ("g5.12xlarge", "p4d.24xlarge")
    )
    assert pcie > 3 * nvlink > 0


def test_replicas_are_used_while_the_model_fits_one_gpu():
    layout = choose_layout(_row("g6.48xlarge"), dataclasses.replace(_PLAN, batch_size=64))
    assert isinstance(layout, Layout)
    assert (layout.tensor_parallel_size, layout.num_replicas, layout.requests_per_replica) == (1, 8, 8)


def test_a_model_too_big_for_one_gpu_is_split():
    plan = dataclasses.replace(_PLAN, weight_bytes=30 * 10**9)
    layout = choose_layout(_row("g6.48xlarge"), plan)
    assert isinstance(layout, Layout) and layout.tensor_parallel_size == 2


def test_what_does_not_fit_says_by_how_much():
    refusal = choose_layout(_row("g4dn.xlarge"), dataclasses.replace(_PLAN, weight_bytes=20 * _GIB))
    assert isinstance(refusal, NoLayout)
    assert "needs 20.1 GiB" in refusal.reason and "12.6 GiB" in refusal.reason
    split = choose_layout(_row("g4dn.12xlarge"), dataclasses.replace(_PLAN, weight_bytes=200 * _GIB))
    assert "split over 4 GPUs" in split.reason


def test_too_many_requests_for_the_cache_are_refused_with_the_number_held():
    refusal = choose_layout(_row("g4dn.xlarge"), dataclasses.replace(_PLAN, batch_size=500))
    assert isinstance(refusal, NoLayout)
    assert "requests of 1000 tokens, not 500" in refusal.reason


def test_few_kv_heads_are_copied_by_a_wide_split():
    plan = dataclasses.replace(_PLAN, kv_bytes_per_token=10_000_000, num_kv_heads=1)
    alone, split = (
        estimate_decode(_row("p5.48xlarge"), plan, tensor_parallel_size=n, num_requests=1, assumptions=_IDEAL)
        for n in (1, 8)
    )
    assert alone.bandwidth_s - split.bandwidth_s == pytest.approx(7 / 8 * 10e9 / 3350e9)


def test_a_part_of_a_gpu_has_that_part_of_its_bandwidth():
    whole, part = (
        estimate_decode(_row(name), _PLAN, tensor_parallel_size=1, num_requests=1).step_s
        for name in ("g6.xlarge", "g6f.4xlarge")
    )
    assert part == pytest.approx(2 * whole)


@pytest.mark.parametrize("name", ["inf2.48xlarge", "trn1.32xlarge", "g4ad.xlarge"])
def test_nothing_is_laid_out_on_what_cannot_run(name: str):
    assert isinstance(choose_layout(_row(name), _PLAN), NoLayout)


@pytest.mark.parametrize(
    ("field", "value"),
    [("weight_bytes", 0), ("batch_size", -1), ("context_tokens", 1.5), ("tokens_per_second", 0), ("num_layers", "32")],
)
def test_a_plan_with_a_wrong_number_names_it(field: str, value: object):
    with pytest.raises(ConfigError, match=f"{field}="):
        dataclasses.replace(_PLAN, **{field: value})


@pytest.mark.parametrize("field", ["bandwidth_efficiency", "memory_share", "pcie_gb_s"])
def test_an_impossible_assumption_names_it(field: str):
    with pytest.raises(ConfigError, match=f"{field}="):
        Assumptions(**{field: 0})
