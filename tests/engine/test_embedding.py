"""Embeddings equal those of transformers' own model, alone and beside a running batch."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from workbench import LlamaGPU
from workbench.errors import EngineStoppedError, PromptTooLongError, RequestError

TEXTS = [[5], [7, 8, 9], list(range(20, 90))]


def with_recipe(source, folder, pooling, normalize):
    shutil.copytree(source, folder)
    names = ["Transformer", "Pooling", *(["Normalize"] if normalize else [])]
    paths = ["", "1_Pooling", "2_Normalize"]
    modules = [{"path": p, "type": f"sentence_transformers.models.{n}"} for n, p in zip(names, paths, strict=False)]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{pooling}": True}))
    return folder


@pytest.fixture(scope="module", params=[("lasttoken", True), ("mean_tokens", False)], ids=["last", "mean"])
def model(request, tiny_model_folder, tmp_path_factory):
    pooling, normalize = request.param
    folder = with_recipe(tiny_model_folder, tmp_path_factory.mktemp("embeds") / "model", pooling, normalize)
    with LlamaGPU(folder, prefer_gpu=False, auto_detect_aws=False, quant_type="fp32", context_length=128) as llm:
        yield llm, folder, pooling, normalize


@pytest.fixture
def expected(model):
    from transformers import AutoModel

    _, folder, pooling, normalize = model
    reference = AutoModel.from_pretrained(str(folder), dtype=torch.float32, attn_implementation="eager")

    @torch.inference_mode()
    def embed(ids):
        states = reference(torch.tensor([ids])).last_hidden_state[0]
        pooled = states[-1] if pooling == "lasttoken" else states.mean(0)
        return pooled / pooled.norm() if normalize else pooled

    return embed


def test_they_are_those_of_the_models_author(model, expected):
    for ids in TEXTS:
        torch.testing.assert_close(torch.tensor(model[0].embed(ids)), expected(ids), rtol=1e-4, atol=1e-5)


def test_a_running_batch_changes_nothing_and_is_not_changed(model, expected):
    llm = model[0]
    alone = llm.infer([3, 4, 5], max_tokens=60, ignore_eos=True)
    pieces = llm.stream_infer([3, 4, 5], max_tokens=60, ignore_eos=True)
    first = next(pieces)
    torch.testing.assert_close(torch.tensor(llm.embed(TEXTS[1])), expected(TEXTS[1]), rtol=1e-4, atol=1e-5)
    assert first + "".join(pieces) == alone


def test_what_cannot_be_embedded_is_refused(model):
    llm = model[0]
    with pytest.raises(PromptTooLongError):
        llm.embed([1] * 129)
    with pytest.raises(RequestError):
        llm.embed([])
    with pytest.raises(RequestError):
        llm.embed([10**9])


def test_other_models_say_that_they_make_none(tiny_model_folder):
    llm = LlamaGPU(tiny_model_folder, prefer_gpu=False, auto_detect_aws=False)
    with pytest.raises(RequestError, match="no embeddings"):
        llm.embed([1, 2])
    llm.unload()
    with pytest.raises(EngineStoppedError):
        llm.embed([1, 2])
