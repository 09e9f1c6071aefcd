import contextlib
import io

import pytest

from workbench.carry_on import (
    choice_from_code,
    choice_from_command,
    choice_from_json,
    choice_from_text,
    choice_to_code,
    choice_to_command,
    choice_to_json,
)
from workbench.cli import main
from workbench.errors import ConfigError
from workbench.parallel import GPUConfig
from workbench.session import LoadChoice, load_engine

_CHOICES = [
    LoadChoice(),
    LoadChoice("org/name@main", "cuda", "bf16", 4096, (1,)),
    LoadChoice("/models/with space/it's.gguf", None, "int4", None),
    LoadChoice("x", "cuda", gpus=(0, 2)),
    LoadChoice("y", "cuda", None, 512, (1,), "fp8"),
    LoadChoice("z", "cpu", "bf16", 512, parallel=GPUConfig([0, 1], "data")),
    LoadChoice("v", "cuda", "bf16", cpu_offload_layers=4),
    LoadChoice("u", engine_name="vllm"),
    LoadChoice("t", "cpu", None, 512, draft_model="org/small model"),
    LoadChoice("s", kv_dtype="bf16", draft_model="small"),
    LoadChoice("org/large", draft_model="default"),
    LoadChoice("w", "cuda", parallel=GPUConfig(num_gpus=8, strategy="hybrid", pipeline_parallel_size=4)),
]


@pytest.mark.parametrize("choice", _CHOICES, ids=lambda choice: choice.model[:8])
@pytest.mark.parametrize("form", [choice_to_code, choice_to_command, choice_to_json])
def test_there_and_back(choice, form):
    assert choice_from_text(form(choice)) == choice


def test_the_code_cell_loads_the_same_as_the_panel(tiny_model_folder):
    choice = LoadChoice(str(tiny_model_folder), "cpu", "fp32", 64)
    namespace = {}
    exec(choice_to_code(choice), namespace)
    with namespace["llm"] as from_cell, load_engine(choice, lambda progress: None) as from_panel:
        for name in ("model_path", "dtype", "max_context", "device_index"):
            assert getattr(from_cell, name) == getattr(from_panel, name), name
        assert from_cell.backend.name == from_panel.backend.name


def test_the_command_line_is_one_that_the_program_takes(tiny_model_folder, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("Hello"))
    words = choice_to_command(LoadChoice(str(tiny_model_folder), "cpu", "fp32", 64), "generate").split()
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main([*words[1:], "-", "--max-tokens", "2", "--json"]) == 0
    assert '"length"' in out.getvalue()


def test_a_spread_over_chosen_gpus_has_no_command_line():
    choice = LoadChoice("x", "cuda", parallel=GPUConfig([3, 1], "tensor", load_balancing="adaptive"))
    for form in (choice_to_code, choice_to_json):
        assert choice_from_text(form(choice)) == choice
    with pytest.raises(ConfigError, match="the first GPUs with the usual share of them only"):
        choice_to_command(choice)


def test_a_command_line_says_how_replicas_are_balanced():
    choice = LoadChoice("x", "cuda", parallel=GPUConfig(num_gpus=2, strategy="data", load_balancing="prefix_affinity"))
    assert "--parallel data=2,balancing=prefix_affinity" in choice_to_command(choice)
    assert choice_from_text(choice_to_command(choice)) == choice
    with pytest.raises(ConfigError, match="balancing='nobody': must be one of round_robin"):
        choice_from_command("workbench serve --parallel data=2,balancing=nobody")


@pytest.mark.parametrize(
    "text",
    [
        "tensor",
        "tensor=0",
        "tensor=two",
        "rows=2",
        "data=2,data=3",
        "",
        "balancing=adaptive",
        "data=\u00b2",
        "data=" + "9" * 5000,
    ],
)
def test_sizes_that_make_no_sense_are_refused(text):
    with pytest.raises(ConfigError, match="parallel="):
        choice_from_command(f"workbench serve --parallel '{text}'")


def test_a_cell_is_read_and_never_run():
    assert choice_from_code("x = 1\nWorkbench(model='m', precision='fp16')") == LoadChoice("m", None, "fp16")
    with pytest.raises(ConfigError, match="is not a plain value"):
        choice_from_code("LlamaGPU(__import__('os').getcwd())")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("print(1)", "exactly one call"),
        ("LlamaGPU('a')\nLlamaGPU('b')", "there are 2"),
        ("LlamaGPU('a', temperature=1)", "'temperature' is not part of a choice"),
        ("LlamaGPU('a', context_length='long')", "must be a whole number"),
        ("LlamaGPU('a', gpus=1)", "gpus=1: must be a list"),
        ("LlamaGPU(", "no Python"),
        ("workbench serve --port 80", "'--port' is not part of a choice"),
        ("workbench serve --model", "--model needs a value"),
        ("workbench serve --context-length x", "must be a whole number"),
        ("workbench serve 'x", "not a command line"),
        ("{", "no JSON"),
        ("LlamaGPU('a', 'b')", "'b': give it by its name"),
        ("Workbench('a')", "'a': give it by its name"),
        ("LlamaGPU('a', model='b')", "model is given twice"),
        ("LlamaGPU('a', context_length=1, engine=EngineConfig(context_length=2))", "context_length is given twice"),
        ("LlamaGPU('a', engine=EngineConfig(512, block_size=32))", "'block_size' is not part of a choice"),
        ("LlamaGPU('a', engine=Other(context_length=2))", "is not a plain value"),
        ("LlamaGPU('a', device_index=[0])", r"device_index=\[0\]: must be a whole number"),
        ("LlamaGPU('a', device_index=0, gpus=(1,))", "device_index and gpus are both given"),
        ("LlamaGPU('a', gpus=([0],))", "must be different indexes"),
        ("LlamaGPU('a', parallel=GPUConfig([0, 1], 'tensor', 3, 4, 5, 0.5, 'adaptive', 8))", "too many positional"),
        ("LlamaGPU('a', parallel=GPUConfig([0, 1], gpu_ids=[2]))", "multiple values"),
        ("workbench", "'' is no command that loads a model"),
        ("workbench frobnicate --model x", "'frobnicate' is no command that loads a model"),
        ("workbench serve --parallel data=999999999999", "num_gpus=999999999999: must be at most 65,536"),
        ("workbench plan a b", "'b' is not part of a choice"),
        ("workbench plan a --gpus 2", "give --parallel tensor=2"),
        ("workbench plan a --instance g5.xlarge", "'--instance' is not part of a choice"),
        ("{}", "format must be"),
        ('{"format": "workbench.choice", "version": 9}', "version 9"),
        ('{"format": "workbench.choice", "version": 1, "engine": 1}', "'engine' is not part"),
        ('{"format": "workbench.choice", "version": 1, "backend": 1}', "backend=1: must be a name"),
    ],
)
def test_what_is_wrong_is_named(text, words):
    with pytest.raises(ConfigError, match=words):
        choice_from_text(text)


def test_a_line_that_plans_and_settings_by_their_place_are_read_whole():
    line = "workbench plan random:llama-3.1-8b --context 4096 --quant bf16 --backend cuda --gpus 0,2 --kv-dtype fp8"
    expected = LoadChoice("random:llama-3.1-8b", "cuda", "bf16", 4096, (0, 2), "fp8")
    assert choice_from_text(line) == choice_from_text(f"$ {line}") == expected
    assert choice_from_text("LlamaGPU('a', engine=EngineConfig(512))") == LoadChoice("a", context_length=512)
    cell = "LlamaGPU('a', parallel=GPUConfig([0, 1, 2, 3], 'hybrid', 2, 2, 1, 0.5))"
    config = GPUConfig([0, 1, 2, 3], "hybrid", 2, 2, 1, 0.5)
    assert choice_from_text(cell) == LoadChoice("a", parallel=config)


def test_each_form_has_its_own_door():
    choice = LoadChoice("m", "cpu")
    assert choice_from_command(choice_to_command(choice)) == choice
    assert choice_from_json(choice_to_json(choice)) == choice
