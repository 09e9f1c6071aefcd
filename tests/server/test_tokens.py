"""Tokenizing and detokenizing, and embeddings, which no model here makes."""

from __future__ import annotations

import pytest
from live_endpoint import MODEL


def test_there_and_back(http, llm):
    text = "Hello there, \u00e9\U0001f600"
    reply = http.post("/tokenize", json={"prompt": text, "return_token_strs": True}).json()
    assert reply["tokens"] == llm.tokenizer.encode(text)
    assert (reply["count"], reply["max_model_len"]) == (len(reply["tokens"]), llm.max_context)
    assert len(reply["token_strs"]) == reply["count"]
    assert http.post("/detokenize", json={"tokens": reply["tokens"]}).json() == {"prompt": text}


def test_messages_are_tokenized_as_the_model_sees_them(http, llm):
    messages = [{"role": "user", "content": "Hi"}]
    reply = http.post("/tokenize", json={"messages": messages}).json()
    assert reply["tokens"] == llm.tokenizer.apply_chat_template(messages)
    bare = http.post("/tokenize", json={"messages": messages, "add_generation_prompt": False}).json()
    assert bare["tokens"] == llm.tokenizer.apply_chat_template(messages, add_generation_prompt=False)
    chat = {"messages": messages, "tools": [{"type": "function", "function": {"name": "clock"}}]}
    answer = http.post("/v1/chat/completions", json={**chat, "max_tokens": 1}).json()
    assert http.post("/tokenize", json=chat).json()["count"] == answer["usage"]["prompt_tokens"] > reply["count"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": [{"role": "user", "content": "b"}]}, "prompt"),
        ("/tokenize", {"prompt": "a", "add_generation_prompt": True}, "add_generation_prompt"),
        ("/tokenize", {"prompt": "a", "tools": []}, "tools"),
        ("/detokenize", {"tokens": [10**6]}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]"),
        ("/detokenize", {"tokens": "abc"}, "tokens"),
    ],
)
def test_what_is_wrong_is_named(http, path, body, param):
    reply = http.post(path, json=body)
    assert reply.status_code == 400 and reply.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}),
        ("/v1/completions", {"prompt": "x", "max_tokens": 1}),
        ("/v1/responses", {"input": "x", "max_output_tokens": 1}),
        ("/v1/embeddings", {"input": "x"}),
        ("/tokenize", {"prompt": "x"}),
        ("/detokenize", {"tokens": [1]}),
    ],
)
def test_every_route_knows_the_documented_names(http, path, body):
    answered = 400 if path == "/v1/embeddings" else 200
    assert http.post(path, json={**body, "model_name": MODEL}).status_code == answered
    assert http.post(path, json={**body, "model_name": "other"}).status_code == 404
    assert http.post(path, json={**body, "model_name": MODEL, "model": "other"}).status_code == 400
    reply = http.post(path, json={**body, "revision": "none-such"})
    assert (reply.status_code, reply.json()["error"]["param"]) == (404, "revision")
