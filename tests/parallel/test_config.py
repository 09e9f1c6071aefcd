"""`GPUConfig` takes every documented spelling, fits sizes to the GPUs, and refuses what cannot be meant."""

from __future__ import annotations

import dataclasses
import pickle

import pytest

from workbench.errors import ConfigError
from workbench.parallel import GPUConfig, ParallelismStrategy, ParallelShape


def test_documented_defaults() -> None:
    config = GPUConfig(gpu_ids=[0, 1])
    assert config.gpu_ids == [0, 1]
    assert config.strategy is ParallelismStrategy.TENSOR
    assert (config.tensor_parallel_size, config.pipeline_parallel_size, config.data_parallel_size) == (2, 2, 1)
    assert (config.memory_fraction, config.load_balancing) == (0.9, "round_robin")
    assert config.shape == ParallelShape(tensor=2)


@pytest.mark.parametrize("name", ["tensor", "tensor_parallel", "TENSOR", "Tensor-Parallel", ParallelismStrategy.TENSOR])
def test_spellings_of_a_strategy(name: object) -> None:
    assert GPUConfig([0, 1], strategy=name).strategy is ParallelismStrategy.TENSOR


def test_other_names() -> None:
    config = GPUConfig(strategy="pipeline_parallel", num_gpus=4, stages=4, load_balancer="least-loaded")
    assert (config.gpu_ids, config.num_gpus) == ([0, 1, 2, 3], 4)
    assert config.pipeline_parallel_size == config.stages == 4
    assert config.load_balancing == config.load_balancer == "least_loaded"


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({"num_gpus": 1}, ParallelShape()),
        ({"num_gpus": 3}, ParallelShape(tensor=3)),
        ({"num_gpus": 3, "strategy": "pipeline"}, ParallelShape(pipeline=3)),
        ({"num_gpus": 3, "strategy": "data"}, ParallelShape(data=3)),
        ({"num_gpus": 2, "strategy": "hybrid"}, ParallelShape(tensor=2)),
        ({"num_gpus": 8, "strategy": "hybrid"}, ParallelShape(2, 2, 2)),
        ({"num_gpus": 8, "strategy": "hybrid", "tensor_parallel_size": 4}, ParallelShape(4, 2, 1)),
        ({"num_gpus": 6, "strategy": "hybrid", "data_parallel_size": 3}, ParallelShape(2, 1, 3)),
        ({"num_gpus": 2, "strategy": "data", "tensor_parallel_size": 2}, ParallelShape(data=2)),
    ],
)
def test_sizes_fit_the_gpus(settings: dict, shape: ParallelShape) -> None:
    config = GPUConfig(**settings)
    assert config.shape == shape
    assert shape.tensor * shape.pipeline * shape.data == config.num_gpus


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "gpu_ids is missing"),
        ({"gpu_ids": []}, "at least one"),
        ({"gpu_ids": [0, 0]}, "named once"),
        ({"gpu_ids": [-1]}, "-1 is neither"),
        ({"gpu_ids": [True]}, "True is neither"),
        ({"gpu_ids": "01"}, "must be a list"),
        ({"gpu_ids": 2}, "must be a list"),
        ({"gpu_ids": [0, 1], "num_gpus": 3}, "gpu_ids names 2"),
        ({"num_gpus": 0}, "num_gpus=0"),
        ({"num_gpus": 2, "strategy": "sideways"}, "tensor, pipeline, data, hybrid"),
        ({"num_gpus": 2, "tensor_parallel_size": 0}, "tensor_parallel_size=0"),
        ({"num_gpus": 2, "pipeline_parallel_size": "2"}, "pipeline_parallel_size='2'"),
        ({"num_gpus": 2, "tensor_parallel_size": 4}, "uses 4 of 2 gpu_ids"),
        ({"num_gpus": 4, "tensor_parallel_size": 2}, "hybrid"),
        ({"num_gpus": 6, "strategy": "hybrid", "tensor_parallel_size": 4}, "multiply to 6"),
        ({"num_gpus": 2, "stages": 2, "pipeline_parallel_size": 1}, "another name"),
        ({"num_gpus": 2, "memory_fraction": 0}, "memory_fraction=0"),
        ({"num_gpus": 2, "memory_fraction": 1.5}, "memory_fraction=1.5"),
        ({"num_gpus": 2, "memory_fraction": float("nan")}, "memory_fraction=nan"),
        ({"num_gpus": 2, "load_balancing": "random"}, "load_balancing='random'.*round_robin, least_loaded"),
        ({"num_gpus": 2, "load_balancer": "random"}, "load_balancer='random'"),
        ({"num_gpus": 2, "load_balancer": "adaptive", "load_balancing": "round_robin"}, "another name"),
    ],
)
def test_what_is_refused(settings: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        GPUConfig(**settings)


def test_it_cannot_be_changed_but_replaced_and_copied() -> None:
    config = GPUConfig([0, 1], "data")
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.strategy = ParallelismStrategy.TENSOR
    assert dataclasses.replace(config, load_balancing="adaptive").load_balancing == "adaptive"
    assert pickle.loads(pickle.dumps(config)) == config
    assert config.on([3]).shape == ParallelShape()


def test_a_size_that_the_strategy_does_not_use_makes_no_other_config() -> None:
    assert GPUConfig([0, 1], "data", tensor_parallel_size=1, pipeline_parallel_size=1) == GPUConfig([0, 1], "data")
    assert GPUConfig([0, 1], "data") != GPUConfig([0, 1], "tensor")
    assert GPUConfig([0, 1], "data") != GPUConfig([1, 0], "data")


def test_the_engines_share_of_memory_counts_where_it_has_none_of_its_own() -> None:
    assert GPUConfig([0]).with_fraction(0.5).memory_fraction == 0.5
    assert GPUConfig([0], memory_fraction=0.8).with_fraction(0.5).memory_fraction == 0.8
