"""/v1/embeddings, with a model that makes them and with one that does not."""

from __future__ import annotations

import json
import shutil

import openai
import pytest
from live_endpoint import MODEL, USE_KEY, http_client, start_endpoint

from workbench import LlamaGPU
from workbench.errors import EngineStoppedError
from workbench.server.settings import RateLimits, ServerSettings, WireLimits


@pytest.fixture(scope="module")
def embedding_llm(tiny_model_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("embeds") / "model"
    shutil.copytree(tiny_model_folder, folder)
    modules = [{"path": "", "type": "x.Transformer"}, {"path": "1_Pooling", "type": "x.Pooling"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    with LlamaGPU(folder, prefer_gpu=False, auto_detect_aws=False, quant_type="fp32", context_length=64) as llm:
        yield llm


@pytest.fixture(scope="module")
def embedding_endpoint(embedding_llm):
    settings = ServerSettings(wire=WireLimits(max_prompts=4), rates=RateLimits(tokens_per_minute=1000))
    with start_endpoint(embedding_llm, settings) as endpoint:
        yield endpoint


@pytest.fixture
def embeds(embedding_endpoint):
    with http_client(embedding_endpoint) as client:
        yield lambda **body: client.post("/v1/embeddings", json=body)


def test_openais_client_gets_them_in_order(embedding_llm, embedding_endpoint):
    texts = ["one text", "another, longer text"]
    with openai.OpenAI(base_url=embedding_endpoint.url, api_key=USE_KEY, max_retries=0) as client:
        plain = client.embeddings.create(model=embedding_llm.model_name, input=texts, encoding_format="float")
        packed = client.embeddings.create(model=embedding_llm.model_name, input=texts)
    for index, text in enumerate(texts):
        own = embedding_llm.embed(text)
        assert plain.data[index].index == index
        assert plain.data[index].embedding == pytest.approx(own, rel=1e-6)
        assert packed.data[index].embedding == pytest.approx(own, rel=1e-6)
    assert plain.usage.prompt_tokens == plain.usage.total_tokens > 0


def test_token_ids_are_texts_too(embeds, embedding_llm):
    reply = embeds(input=[[5, 6, 7], [8]], model_name=embedding_llm.model_name)
    assert [len(item["embedding"]) for item in reply.json()["data"]] == [embedding_llm.spec.hidden_size] * 2
    one = embeds(input=[5, 6, 7]).json()["data"]
    assert one[0]["embedding"] == reply.json()["data"][0]["embedding"]


def test_they_are_charged_like_prompts(embeds):
    before = int(embeds(input=[1]).headers["x-ratelimit-remaining-tokens"])
    after = int(embeds(input=[[9] * 50, [9] * 50]).headers["x-ratelimit-remaining-tokens"])
    assert 50 <= before - after <= 101


def test_what_fails_costs_nothing(embeds, embedding_llm, monkeypatch):
    def embed(text):
        raise EngineStoppedError("the engine has died")

    before = int(embeds(input=[1]).headers["x-ratelimit-remaining-tokens"])
    monkeypatch.setattr(embedding_llm, "embed", embed)
    failed = embeds(input=[[9] * 50, [9] * 50])
    assert failed.status_code == 503 and int(failed.headers["x-ratelimit-remaining-tokens"]) >= before


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": [1] * 65}, "input"),
        ({"input": [10**6]}, "input"),
        ({"input": ["a"] * 5}, "input"),
        ({"input": "a", "dimensions": 3}, "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "a", "model_name": "other", "model": "one"}, "model"),
    ],
)
def test_what_is_wrong_is_named(embeds, body, param):
    reply = embeds(**body)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == param


def test_a_model_that_generates_text_says_so(client):
    with pytest.raises(openai.BadRequestError, match="was not trained to make embeddings") as raised:
        client.embeddings.create(model=MODEL, input="hello")
    assert (raised.value.code, raised.value.param) == ("model_does_not_support_embeddings", "model")
