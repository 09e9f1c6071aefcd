"""A draft model behind `LlamaGPU` and the command line: the same text, counted memory, and refusals in words."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from workbench import LlamaGPU
from workbench.cli import main
from workbench.engine import EngineConfig
from workbench.engine.launch import check_drafts
from workbench.errors import ConfigError
from workbench.parallel import GPUConfig

QUIET = {"backend": "cpu", "quant_type": "fp32", "progress": lambda _: None}
SMALL = EngineConfig(context_length=256, kv_cache_tokens=1024)
PROMPT = {"input_data": "a prompt", "max_tokens": 60, "ignore_eos": True}


@pytest.fixture(scope="module")
def plain():
    """What the model says by itself, and what it takes."""
    with LlamaGPU("random:tiny", engine=SMALL, **QUIET) as llm:
        texts = [llm.infer(**PROMPT), llm.infer(**PROMPT, temperature=1.0, seed=3)]
        return texts, llm.weight_bytes, llm.limits.kv_bytes, llm.plan.devices[0].parts


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_the_text_is_the_same_and_the_draft_is_counted(plain, isolation):
    texts, weight_bytes, kv_bytes, parts = plain
    engine = replace(SMALL, isolation=isolation)
    with LlamaGPU("random:tiny", engine=engine, draft_model="random:tiny", **QUIET) as llm:
        assert [llm.infer(**PROMPT), llm.infer(**PROMPT, temperature=1.0, seed=3)] == texts
        stats = llm.stats()
        assert stats.draft_tokens_total > 20
        assert stats.accepted_draft_tokens_total > 0.9 * stats.draft_tokens_total
        # As large as the model itself, and its cache too.
        assert (llm.draft.name, llm.draft.weight_bytes, llm.draft.kv_bytes) == ("random:tiny", weight_bytes, kv_bytes)
        assert llm.weight_bytes == stats.weight_bytes == 2 * weight_bytes == llm.memory_owners().weights
        assert llm.limits.kv_bytes == stats.kv_bytes == 2 * kv_bytes
        planned = llm.plan.devices[0].parts
        assert (planned.weights, planned.kv) == (2 * parts.weights, 2 * parts.kv)
        assert llm.get_backend_info()["draft_model"] == "random:tiny"


def test_another_tokenizer_and_another_size_are_refused_before_weights_are_read(tiny_model_folder, tmp_path):
    steps = []
    with pytest.raises(
        ConfigError, match="has a vocabulary of 49,152 tokens, and random:tiny one of 512; a draft model must"
    ):
        LlamaGPU("random:tiny", draft_model="random:smollm2-135m", **QUIET | {"progress": steps.append})
    other = tmp_path / "other"
    shutil.copytree(tiny_model_folder, other)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    first, last = min(vocabulary, key=vocabulary.get), max(vocabulary, key=vocabulary.get)
    vocabulary[first], vocabulary[last] = vocabulary[last], vocabulary[first]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ConfigError, match="its tokenizer differs from that of .* in 2 of .* tokens, the first of them"):
        LlamaGPU(str(tiny_model_folder), draft_model=str(other), **QUIET | {"progress": steps.append})
    assert not any("weights" in step.stage for step in steps)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"engine": EngineConfig(draft_model="random:tiny"), "draft_model": "random:tiny"}, "beside engine"),
        ({"parallel": GPUConfig([0, 1], "tensor")}, "a model over several devices guesses nothing ahead"),
        ({"draft_model": " "}, "must be a model's name"),
    ],
)
def test_what_does_not_go_together_is_refused_in_words(options, said):
    with pytest.raises(ConfigError, match=f"draft_model.*{said}"):
        LlamaGPU("random:tiny", **{"draft_model": "random:tiny", **QUIET, **options})


def test_another_engine_refuses_it_before_anything_is_fetched():
    config = EngineConfig(draft_model="random:tiny", engine_name="vllm")
    with pytest.raises(ConfigError, match="draft_model='random:tiny': .*not 'vllm'"):
        check_drafts(config)


def test_the_command_line_takes_one(capsys, plain):
    words = ["generate", "a prompt", "--model", "random:tiny", "--quant", "fp32", "--backend", "cpu"]
    words += ["--context-length", "256", "--max-tokens", "60", "--ignore-eos"]
    assert main([*words, "--draft-model", "random:tiny-tied", "--draft-tokens", "3"]) == 0
    assert capsys.readouterr().out == plain[0][0] + "\n"
