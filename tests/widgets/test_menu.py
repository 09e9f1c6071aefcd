import pytest

from widgets.menu import AUTO, Menu
from widgets.model_facts import ModelFacts
from workbench.errors import ConfigError


def test_automatic_comes_first_with_what_it_stands_for(menu):
    first = menu.backends[0]
    assert (first.value, first.label, first.note) == (AUTO, "Automatic (cpu)", "no GPU can be used")
    assert menu.precisions(AUTO)[0].label.startswith("Automatic (")


def test_what_cannot_be_used_is_listed_with_its_reason(menu):
    reasons = {option.value: option.reason for option in menu.backends}
    assert reasons == {AUTO: None, "cuda": "torch was built without CUDA", "cpu": None}
    precisions = {option.value: option.reason for option in menu.precisions("cpu")}
    assert {name: precisions[name] for name in (AUTO, "fp32", "bf16", "fp16", "int8", "int4")} == {
        **dict.fromkeys((AUTO, "fp32", "bf16", "int8", "int4")),
        "fp16": "this CPU has no fp16",
    }
    assert {option.value: option.reason is None for option in menu.kv_dtypes("cpu", "bf16")} == {
        AUTO: True,
        "fp32": False,
        "fp16": False,
        "fp8": False,
    }


def test_a_model_is_spread_over_processes_of_the_cpu_and_over_gpus_that_are_there(menu, gpu_menu):
    assert [option.reason for option in menu.splits("cpu")] == [None] * 5
    assert menu.splits("cpu")[3].label == "Replicas: the whole model on each process"
    assert {option.reason for option in menu.splits("cuda")[1:]} == {
        "needs 2 GPUs or more; there are none here",
        "needs 4 GPUs or more; there are none here",
    }
    reasons = {option.value: option.reason for option in gpu_menu.splits(AUTO)}
    assert (reasons["tensor"], reasons["hybrid"]) == (None, "needs 4 GPUs or more; there are 2 here")
    # A model's heads may allow other sizes than there are devices for.
    odd = ModelFacts(tensor_sizes=(1, 3, 9))
    reason = "the model's attention heads can be split over 3 or 9 (of 2 here)"
    assert gpu_menu.splits(AUTO, facts=odd)[1].reason == reason
    assert menu.splits("cpu", facts=odd)[1].reason is None
    assert [menu.first_spread("tensor", "cpu", facts).num_devices for facts in (odd, ModelFacts())] == [3, 2]
    assert "weights in int8 are not split" in menu.splits("cpu", "int8")[1].reason
    assert "keys and values in fp8 are not split" in menu.splits("cpu", "bf16", "fp8")[1].reason
    # Each copy of the whole model is like one on one device.
    assert [menu.splits("cpu", *kept)[3].reason for kept in (("int8",), ("bf16", "fp8"))] == [None, None]


def test_a_probe_that_failed_is_a_reason_and_one_that_worked_a_note(menu):
    from workbench.quantize import Capability, CapabilityState
    from workbench.quantize.capabilities import remember_capabilities

    remember_capabilities(
        [
            Capability("nf4", "cpu", CapabilityState.NOT, "it fails here"),
            Capability("fp8", "cpu", CapabilityState.SLOW, "5.0 times as long as the unquantised product", 0.2),
        ]
    )
    options = {option.value: option for option in menu.precisions("cpu")}
    assert options["nf4"].reason == "it fails here"
    assert (options["fp8"].reason, options["fp8"].note) == (None, "slow: 5.0 times as long as the unquantised product")
    assert options["int8"].reason is None


def test_an_unknown_backend_lists_the_known_ones(menu):
    with pytest.raises(ConfigError, match="use one of: auto, cuda, cpu"):
        menu.precisions("tpu")


def test_this_machine_has_the_embedded_model_and_a_cpu():
    menu = Menu.of_this_machine()
    assert menu.models[0].value == "default"
    assert "fetched on first load" in menu.models[0].label
    assert next(option for option in menu.backends if option.value == "cpu").reason is None
    assert {option.value for option in menu.backends} == {AUTO, "cpu", "cuda", "rocm"}
