import pytest

from widgets import ModelPicker
from workbench.errors import ConfigError, DownloadError
from workbench.model_defaults import ModelDefaults
from workbench.models.hub_search import HubModel
from workbench.parallel import GPUConfig
from workbench.session import LoadChoice


def test_the_choice_starts_as_given_and_automatic_is_none(front_end, menu):
    assert ModelPicker(menu=menu).choice == LoadChoice("default", None, None, None)
    given = LoadChoice("org/name", "cpu", "bf16", 512)
    assert ModelPicker(given, menu=menu).choice == given


def test_the_browser_gets_every_option_with_its_reason(front_end, menu):
    picker = ModelPicker(menu=menu)
    by_value = {option["value"]: option["reason"] for option in picker.get_state()["backends"]}
    assert by_value["cuda"] == "torch was built without CUDA"
    assert by_value["cpu"] is None
    assert picker.backend_hint == "no GPU can be used"


def test_choosing_in_the_browser(front_end, menu):
    picker = ModelPicker(menu=menu)
    front_end.tell(picker, type="choose", field="backend", value="cpu")
    front_end.tell(picker, type="choose", field="precision", value="fp32")
    front_end.tell(picker, type="choose", field="model", value=" /models/mine ")
    assert picker.choice == LoadChoice("/models/mine", "cpu", "fp32")
    # Nothing is left to explain but what can't be chosen.
    assert picker.backend_hint == "cuda: torch was built without CUDA"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("backend", "cuda", "torch was built without CUDA"),
        ("backend", "tpu", "use one of: auto, cuda, cpu"),
        ("precision", "fp16", "this CPU has no fp16"),
        ("model", "  ", "model is"),
        ("colour", "red", "use one of: model, backend, precision"),
    ],
)
def test_what_cannot_be_chosen_is_refused_and_nothing_changes(front_end, menu, field, value, message):
    picker = ModelPicker(menu=menu)
    before = picker.choice
    with pytest.raises(ConfigError, match=message):
        picker.choose(field, value)
    front_end.tell(picker, type="choose", field=field, value=value)
    assert message in picker.problem
    assert picker.choice == before


def test_the_next_good_choice_takes_the_complaint_away(front_end, menu):
    picker = ModelPicker(menu=menu)
    front_end.tell(picker, type="choose", field="backend", value="cuda")
    front_end.tell(picker, type="choose", field="backend", value="cpu")
    assert picker.problem == ""


def test_an_impossible_preset_is_refused(front_end, menu):
    with pytest.raises(ConfigError, match="torch was built without CUDA"):
        ModelPicker(LoadChoice(backend="cuda"), menu=menu)


def test_text_is_the_choice(front_end, menu):
    assert repr(ModelPicker(menu=menu)) == "ModelPicker\n  model      default\n  backend    auto\n  precision  auto"


def test_the_context_has_the_models_limit(front_end, menu):
    picker = ModelPicker(menu=menu)
    assert picker.wait(20)
    assert picker.max_context == 2048
    front_end.tell(picker, type="choose", field="context_length", value=4096)
    assert "trained for at most 2048" in picker.problem
    front_end.tell(picker, type="choose", field="context_length", value="8k")
    assert "'8k': must be a whole number of at least 1" in picker.problem
    with pytest.raises(ConfigError, match="trained for at most 2048"):
        picker.apply(LoadChoice("default", context_length=4096))
    assert picker.choice.context_length is None
    front_end.tell(picker, type="choose", field="context_length", value=512)
    assert (picker.choice.context_length, picker.problem) == (512, "")
    front_end.tell(picker, type="choose", field="context_length", value=None)
    assert picker.choice.context_length is None


def test_what_was_chosen_before_a_models_facts_came_gets_a_word(front_end, menu):
    picker = ModelPicker(menu=menu)
    assert picker.wait(20)
    picker.apply(LoadChoice("slow/model", "cpu", context_length=4096, parallel=GPUConfig([0, 1], "tensor")))
    assert picker.wait(20)
    assert "trained for at most 2048" in picker.problem
    assert picker.choice.context_length == 4096
    picker.choose("context_length", 64)
    assert picker.problem == ""
    picker.choose("tensor_size", 3)
    with pytest.raises(ConfigError, match="tensor_size 4: the model's attention heads can be split over 2, 3, 6 or 18"):
        picker.choose("tensor_size", 4)
    assert "can be split over 2, 3, 6 or 18." in picker.split_hint


def test_gpus_are_chosen_one_by_one_and_go_with_the_backend(front_end, gpu_menu):
    picker = ModelPicker(menu=gpu_menu)
    assert picker.gpu_options[1]["label"] == "1: H100 (60 of 80 GB free)"
    front_end.tell(picker, type="choose", field="gpus", value=[1])
    assert picker.choice.gpus == (1,)
    front_end.tell(picker, type="choose", field="gpus", value=[0, 1])
    assert "choose that first" in picker.problem
    assert picker.choice.gpus == (1,)
    front_end.tell(picker, type="choose", field="kv_dtype", value="fp8")
    assert picker.choice.kv_dtype == "fp8"
    front_end.tell(picker, type="choose", field="gpus", value=[7])
    assert "gpus '7' is not known; use one of: 0, 1" in picker.problem
    front_end.tell(picker, type="choose", field="backend", value="cpu")
    assert (picker.choice.gpus, picker.gpu_options, picker.choice.kv_dtype) == ((), [], None)


def test_each_change_is_told(front_end, menu):
    told = []
    picker = ModelPicker(menu=menu, on_change=told.append)
    front_end.tell(picker, type="choose", field="precision", value="bf16")
    picker.apply(LoadChoice("other", "cpu", "fp32", 64))
    assert told == [LoadChoice(precision="bf16"), LoadChoice("other", "cpu", "fp32", 64)]
    with pytest.raises(ConfigError):
        picker.apply(LoadChoice("other", "cuda"))
    assert picker.choice == told[-1]


def test_a_saved_default_comes_with_its_model(front_end, menu):
    picker = ModelPicker(LoadChoice("other", "cpu", "int8", 256), menu=menu)
    front_end.tell(picker, type="save")
    assert picker.saved
    front_end.tell(picker, type="choose", field="model", value="default")
    assert not picker.saved
    front_end.tell(picker, type="choose", field="model", value="other")
    assert picker.choice == LoadChoice("other", "cpu", "int8", 256)
    front_end.tell(picker, type="forget")
    assert not picker.saved


def test_what_was_saved_for_a_model_goes_with_it_and_what_was_chosen_by_hand_stays(front_end, menu):
    picker = ModelPicker(LoadChoice("other", "cpu", "bf16", 512), menu=menu)
    picker.save_default()
    picker.choose("model", "default")
    assert picker.choice == LoadChoice("default", "cpu", "bf16")
    picker.choose("model", "other")
    picker.choose("model", "default")
    assert picker.choice == LoadChoice("default")
    picker.choose("model", "other")
    picker.choose("precision", "int4")
    picker.choose("model", "default")
    assert picker.choice == LoadChoice("default", None, "int4")
    picker.close()


def test_a_settings_folder_that_cannot_be_read_does_not_keep_the_pickers_shut(front_end, menu, tmp_path):
    (tmp_path / "file").write_text("")
    picker = ModelPicker(menu=menu, defaults=ModelDefaults(tmp_path / "file" / "model_defaults.json"))
    front_end.tell(picker, type="save")
    assert "cannot be written" in picker.problem
    picker.close()
    with pytest.raises(ConfigError, match="must be a LoadChoice"):
        ModelPicker("default", menu=menu)


def test_a_default_saved_where_a_gpu_is_does_not_keep_the_model_from_being_chosen_here(front_end, menu, gpu_menu):
    ModelPicker(LoadChoice("default", "cuda"), menu=gpu_menu).save_default()
    picker = ModelPicker(menu=menu)
    assert picker.choice == LoadChoice("default")
    assert picker.problem.startswith("what is saved for default can't be used here: backend 'cuda'")
    picker.choose("model", "other")
    assert picker.problem == ""
    picker.choose("model", "default")
    assert "can't be used here" in picker.problem


def test_the_hub_is_searched_in_the_background(front_end, menu):
    def search(text):
        if text == "down":
            raise DownloadError("the hub can't be searched")
        return [HubModel(f"org/{text}", 8_000_000_000, 16_000_000_000, 1, True)]

    picker = ModelPicker(menu=menu, search=search)
    front_end.tell(picker, type="find", text="llama")
    front_end.wait_for(lambda: picker.found)
    assert picker.found == [{"name": "org/llama", "facts": "8.0 billion weights, 16.0 GB, gated: needs an account"}]
    front_end.tell(picker, type="find", text="down")
    front_end.wait_for(lambda: picker.search_note == "the hub can't be searched")


def test_a_model_is_spread_over_gpus(front_end, gpu_menu):
    picker = ModelPicker(menu=gpu_menu)
    front_end.tell(picker, type="choose", field="split", value="tensor")
    assert (picker.sizes, picker.gpus) == ({"tensor_size": 2}, [0, 1])
    assert picker.choice == LoadChoice("default", "cuda", parallel=GPUConfig([0, 1], "tensor"))
    for field, value, problem in [
        ("gpus", [1], "two GPUs or more"),
        ("tensor_size", 3, "the sizes multiply to 3; 2 GPUs are there"),
        ("data_size", 2, "tensor has tensor_size only"),
        ("tensor_size", 0, "must be a whole number of at least 1"),
        ("split", "hybrid", "needs 4 GPUs or more; there are 2 here"),
    ]:
        front_end.tell(picker, type="choose", field=field, value=value)
        assert problem in picker.problem
    # Quantised weights are not split.
    front_end.tell(picker, type="choose", field="precision", value="int8")
    assert (picker.split, picker.choice.parallel) == ("auto", None)


def test_a_model_is_spread_over_processes_of_the_cpu_and_back(front_end, menu):
    picker = ModelPicker(menu=menu)
    front_end.tell(picker, type="choose", field="split", value="hybrid")
    assert picker.sizes == {"tensor_size": 1, "pipeline_size": 2, "data_size": 2}
    front_end.tell(picker, type="choose", field="data_size", value=1)
    sizes = {"tensor_parallel_size": 1, "pipeline_parallel_size": 2, "data_parallel_size": 1}
    choice = LoadChoice("default", "cpu", parallel=GPUConfig([0, 1], "hybrid", **sizes))
    assert picker.choice == choice
    assert "hybrid (tensor 1, pipeline 2, data 1)" in repr(picker)
    front_end.tell(picker, type="save")
    front_end.tell(picker, type="choose", field="split", value="auto")
    assert picker.choice == LoadChoice()
    # The default that was saved brings the spread back.
    picker.choose("model", "other")
    picker.choose("model", "default")
    assert (picker.choice, picker.split) == (choice, "hybrid")
    with pytest.raises(ConfigError, match="16 processes are the most here"):
        picker.apply(LoadChoice(backend="cpu", parallel=GPUConfig(num_gpus=17, strategy="data")))


def test_layers_in_the_hosts_memory_go_with_one_gpu(front_end, gpu_menu, menu):
    picker = ModelPicker(menu=gpu_menu)
    front_end.tell(picker, type="choose", field="cpu_offload_layers", value=4)
    assert (picker.choice.cpu_offload_layers, picker.problem) == (4, "")
    front_end.tell(picker, type="choose", field="cpu_offload_layers", value=0)
    assert "at least 1" in picker.problem
    front_end.tell(picker, type="choose", field="backend", value="cpu")
    assert picker.choice.cpu_offload_layers is None
    with pytest.raises(ConfigError, match="on a CPU every layer"):
        ModelPicker(menu=menu).choose("cpu_offload_layers", 2)


def test_a_draft_model_goes_with_one_device(front_end, gpu_menu, menu):
    picker = ModelPicker(menu=menu)
    assert picker.draft_reason == ""
    front_end.tell(picker, type="choose", field="draft_model", value=" org/small ")
    assert (picker.choice, picker.draft_model) == (LoadChoice("default", draft_model="org/small"), "org/small")
    assert "org/small" in repr(picker)
    # It would have to share the vocabulary of the next model too.
    front_end.tell(picker, type="choose", field="model", value="other")
    assert picker.choice == LoadChoice("other")
    picker.choose("draft_model", "org/small")
    front_end.tell(picker, type="choose", field="split", value="data")
    assert (picker.draft_model, picker.draft_reason) == ("", "a model over several devices guesses nothing ahead")
    front_end.tell(picker, type="choose", field="draft_model", value="org/small")
    assert "draft_model 'org/small' can't be used here: a model over several devices" in picker.problem
    on_gpu = ModelPicker(menu=gpu_menu)
    front_end.tell(on_gpu, type="choose", field="draft_model", value="org/small")
    assert on_gpu.choice == LoadChoice(draft_model="org/small")


def test_an_engine_that_is_not_installed_is_shown_with_its_reason(front_end, menu):
    picker = ModelPicker(menu=menu)
    (vllm,) = [option for option in picker.engines if option["value"] == "vllm"]
    if vllm["reason"] is None:
        pytest.skip("vLLM is installed here")
    assert "vllm is not installed" in vllm["reason"]
    front_end.tell(picker, type="choose", field="engine_name", value="vllm")
    assert picker.problem.startswith("engine_name 'vllm' can't be used here: ")
    picker.apply(LoadChoice(engine_name="paged"))
    assert picker.choice.engine_name is None
