"""What `workbench app` and `workbench serve` load further models with."""

from workbench.cli.model_settings import ModelSettings
from workbench.cli.serve import engine_factory
from workbench.cli.services import Services
from workbench.engine import EngineConfig
from workbench.parallel import GPUConfig
from workbench.session import LoadChoice


def opened(choice, model=None, engine=None):
    """Keywords with which a choice is opened."""
    asked = {}
    services = Services(open_llm=lambda **options: asked.update(options))
    engine_factory(services, model or ModelSettings(), engine or EngineConfig())(choice, lambda progress: None)
    return asked


def test_a_choice_decides_what_it_names():
    settings = EngineConfig(context_length=4096, kv_dtype="fp8", max_num_seqs=3)
    choice = LoadChoice("other", "cuda", "int8", 2048, gpus=(1,), cpu_offload_layers=2, draft_model="small")
    asked = opened(choice, ModelSettings(device_index=3), settings)
    assert (asked["model_path"], asked["backend"], asked["quant_type"]) == ("other", "cuda", "int8")
    assert asked["device_index"] == 1
    expected = EngineConfig(
        context_length=2048, kv_dtype="fp8", max_num_seqs=3, cpu_offload_layers=2, draft_model="small"
    )
    assert asked["engine"] == expected


def test_what_a_choice_leaves_open_is_as_at_the_start():
    settings = EngineConfig(context_length=4096, max_num_seqs=3)
    asked = opened(LoadChoice("other"), ModelSettings(device_index=3), settings)
    assert (asked["device_index"], asked["engine"]) == (3, settings)


def test_a_draft_model_goes_with_its_model_only():
    settings = EngineConfig(draft_model="small")
    assert opened(LoadChoice("big"), ModelSettings("big"), settings)["engine"].draft_model == "small"
    assert opened(LoadChoice("other"), ModelSettings("big"), settings)["engine"].draft_model is None


def test_a_spread_choice_says_itself_which_devices():
    choice = LoadChoice(parallel=GPUConfig([0, 1]))
    asked = opened(choice, ModelSettings(device_index=3))
    assert (asked["device_index"], asked["parallel"]) == (0, choice.parallel)
