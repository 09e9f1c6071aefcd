"""Quantisation, balancers and backends that plugins bring work where ours do."""

from __future__ import annotations

import pytest
import torch

from workbench.backends import CPUBackend, detect, get_backend, select_backend
from workbench.errors import ConfigError
from workbench.llm import LlamaGPU
from workbench.parallel import Balancer, GPUConfig, WorkerLoad, make_balancer
from workbench.plugins import BasePlugin, PluginMetadata, default_plugins, hookimpl
from workbench.quantize import QuantizationConfig, QuantizationManager
from workbench.quantize.quant_type import parse_quant_type


class Halves:
    """Rounds weights to halves."""

    def unavailable_reason(self, device_type):
        return None if device_type == "cpu" else "it was made for the CPU"

    def apply(self, model, config, samples):
        for parameter in model.parameters():
            parameter.data = (parameter.data * 2).round() / 2
        return ()


class Last(Balancer):
    name = "last-one"

    def choose(self, loads, prompt=None):
        return loads[-1].worker_id


class OwnCPU(CPUBackend):
    name = "own-cpu"


class Parts(BasePlugin):
    metadata = PluginMetadata("parts", "1.0", permissions=("quantization_methods", "load_balancers", "backends"))

    @hookimpl
    def register_quantization_methods(self, register):
        register("halves", Halves)

    @hookimpl
    def register_load_balancers(self, register):
        register("last-one", Last)

    @hookimpl
    def register_backends(self, register):
        register("own-cpu", OwnCPU)


plugin = Parts()


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("workbench.plugins.loader.try_import", lambda candidate, limit_s: None)
    manager = default_plugins()
    manager.load("parts", f"{__name__}:plugin")
    yield manager
    manager.unload_plugin("parts")


@pytest.mark.parametrize(
    "name_it",
    [
        lambda: QuantizationConfig("halves"),
        lambda: parse_quant_type("halves"),
        lambda: GPUConfig(gpu_ids=[0], load_balancing="last-one"),
        lambda: get_backend("own-cpu"),
    ],
)
def test_enabled_plugins_are_known_before_any_model_is_loaded(monkeypatch: pytest.MonkeyPatch, name_it) -> None:
    monkeypatch.setattr("workbench.plugins.loader.try_import", lambda candidate, limit_s: None)
    manager = default_plugins()
    # Stands for a plugin that the user has enabled.
    monkeypatch.setattr(manager, "load_enabled", lambda: manager.load("parts", f"{__name__}:plugin"))
    try:
        name_it()
        assert manager.is_active("parts")
    finally:
        manager.unload_plugin("parts")


def test_a_method_quantises_by_its_name(parts) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4))
    manager = QuantizationManager(QuantizationConfig("halves"))
    made = manager.quantize_model(model, "m")
    assert (made[0].weight * 2 % 1 == 0).all() and manager.get_quantization_stats("m")["quantization_type"] == "halves"


def test_a_model_is_loaded_with_it(parts) -> None:
    with LlamaGPU("random:tiny", prefer_gpu=False, auto_detect_aws=False, quant_type="halves") as llm:
        assert llm.quantization.quantization_type.value == "halves"
        assert len(llm.submit([1, 2], max_tokens=2).result().token_ids) == 2


def test_a_balancer_chooses(parts) -> None:
    balancer = make_balancer("last-one")
    assert balancer.choose([WorkerLoad(0), WorkerLoad(1)]) == 1
    assert make_balancer("round-robin").name == "round_robin"
    with pytest.raises(ConfigError, match="last-one"):
        make_balancer("fastest")


def test_a_backend_is_taken_when_asked_for(parts) -> None:
    assert get_backend("own-cpu").name == "own-cpu"
    assert [status.name for status in detect()] == ["rocm", "cuda", "cpu", "own-cpu"]
    assert select_backend(prefer_gpu=False).backend.name == "cpu"


def test_without_the_plugin_none_of_it_is_there() -> None:
    with pytest.raises(ConfigError, match="'halves' is not known"):
        QuantizationConfig("halves")
    with pytest.raises(ConfigError):
        make_balancer("last-one")
    with pytest.raises(ConfigError):
        get_backend("own-cpu")
    assert make_balancer("adaptive").name == "adaptive" and get_backend("cpu").name == "cpu"


def test_our_own_methods_came_through_the_same_door(parts) -> None:
    from workbench.quantize.methods import METHODS, choose_method

    assert choose_method(QuantizationConfig("int4"), "cpu") in METHODS.values()
    found = parts.at("quantization_methods")
    assert found["int8"].is_built_in and not found["halves"].is_built_in
    with pytest.raises(ConfigError, match="made for the CPU"):
        choose_method(QuantizationConfig("halves"), "cuda")
