import pytest

from widgets import ModelPicker
from workbench import LlamaGPU, plan
from workbench.backends import CPUBackend
from workbench.engine import EngineConfig
from workbench.errors import ConfigError
from workbench.parallel import GPUConfig
from workbench.server.served_model import ServedModel
from workbench.session import LoadChoice
from workbench.stand_in import find_stand_in


def _find(model="org/big-70b", environment=None, **asked):
    asked = {"backend": None, "quant_type": None, "context_length": None, **asked}
    return find_stand_in(
        model, **asked, environment={"WORKBENCH_MODEL": "default"} if environment is None else environment
    )


def test_without_the_variable_nothing_is_replaced():
    assert _find(environment={}) is None
    assert _find("default") is None


def test_what_this_machine_lacks_is_chosen_anew_and_the_rest_kept():
    stand_in = _find(backend="rocm", quant_type="no-such-type", context_length=131072)
    assert (stand_in.model, stand_in.backend, stand_in.quant_type) == ("default", None, None)
    assert stand_in.context_length == 2048
    kept = _find(backend="cpu", quant_type="int8", context_length=256)
    assert (kept.backend.name, kept.quant_type, kept.context_length) == ("cpu", "int8", 256)
    assert isinstance(_find(backend=CPUBackend()).backend, CPUBackend)


def test_a_cell_for_a_big_model_on_a_gpu_runs_on_a_small_one(tiny_model_folder, monkeypatch, caplog):
    monkeypatch.setenv("WORKBENCH_MODEL", str(tiny_model_folder))
    with LlamaGPU(
        "meta-llama/Llama-3.1-70B-Instruct",
        backend="rocm",
        quant_type="no-such-type",
        device_index=3,
        engine=EngineConfig(
            context_length=65536,
            kv_cache_tokens=10**6,
            draft_model="org/small",
            native_kernels=False,
            serve_at_once=False,
            isolation="thread",
        ),
        parallel=GPUConfig(num_gpus=4, strategy="tensor"),
    ) as llm:
        assert llm.model_path == str(tiny_model_folder)
        assert llm.infer("Hello", max_tokens=2, ignore_eos=True)
        # How it runs is kept: a notebook with plugins of its own needs its engine in the same process.
        assert llm.runner_reason == "torch's operators: native_kernels=False"
        assert llm.isolation_reason == "as asked" and not llm.engine_config.serve_at_once
        # A client in the notebook asks for the model by the name that it has there.
        assert ServedModel.of(llm).names[-1] == "meta-llama/Llama-3.1-70B-Instruct"
    assert "stands in for meta-llama/Llama-3.1-70B-Instruct" in caplog.text


def test_the_panel_takes_what_was_chosen_for_the_big_model(tiny_model_folder, monkeypatch):
    monkeypatch.setenv("WORKBENCH_MODEL", str(tiny_model_folder))
    big = LoadChoice("org/big", "rocm", "no-such-type", 65536, (0, 1), "fp8", 8, draft_model="org/small")
    picker = ModelPicker(big)
    assert picker.choice == LoadChoice(str(tiny_model_folder), context_length=2048)
    picker.close()
    monkeypatch.delenv("WORKBENCH_MODEL")
    with pytest.raises(ConfigError, match="rocm"):
        ModelPicker(big)


def test_a_plan_is_of_the_model_that_would_be_loaded(tiny_model_folder, monkeypatch, caplog):
    monkeypatch.setenv("WORKBENCH_MODEL", str(tiny_model_folder))
    big = {"context": 65536, "gpus": [0, 1, 2, 3], "parallel": "tensor", "backend": "rocm", "quant": "no-such-type"}
    made = plan("meta-llama/Llama-3.1-70B-Instruct", **big)
    assert made.fits
    assert (made.model, len(made.devices)) == (str(tiny_model_folder), 1)
    assert "stands in for meta-llama/Llama-3.1-70B-Instruct" in caplog.text
    # An instance is planned for as it was asked, whatever this machine has.
    there = plan("meta-llama/Llama-3.1-70B-Instruct", instance="g5.xlarge", quant="bf16")
    assert (there.model, there.quant) == (str(tiny_model_folder), "bf16")


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_variable_is_none(name):
    assert _find(environment={"WORKBENCH_MODEL": name}) is None
