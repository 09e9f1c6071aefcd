"""Text completions: prompts of every form, echo with scores, best_of, streams, and what is refused."""

from __future__ import annotations

import json

import pytest
from live_endpoint import MODEL
from openai.types import Completion

PROMPT = "The capital of France is"


def complete(client, **options):
    return client.completions.create(**{"model": MODEL, "prompt": PROMPT, "max_tokens": 4, "temperature": 0, **options})


def test_every_form_of_one_prompt_gives_the_same(client, llm):
    ids = llm.tokenizer.encode(PROMPT)
    texts = [complete(client, prompt=prompt).choices[0].text for prompt in (PROMPT, [PROMPT], ids, [ids])]
    assert texts == [llm.infer(PROMPT, max_tokens=4)] * 4


def test_the_default_length_is_that_of_the_api(http):
    reply = http.post("/v1/completions", json={"prompt": PROMPT, "temperature": 0, "ignore_eos": True})
    assert reply.json()["usage"]["completion_tokens"] == 16


def test_prompts_of_a_batch_keep_their_order(client, llm):
    prompts = [PROMPT, "One, two, three,", "Water boils at"]
    reply = complete(client, prompt=prompts, n=2, seed=3)
    assert [choice.index for choice in reply.choices] == list(range(6))
    assert [choice.text for choice in reply.choices[::2]] == [llm.infer(p, max_tokens=4) for p in prompts]
    assert reply.usage.prompt_tokens == sum(len(llm.tokenizer.encode(p)) for p in prompts)
    assert reply.usage.completion_tokens == 24


def test_a_streamed_batch_puts_together_to_the_whole_one(client):
    options = {"prompt": [PROMPT, "One, two, three,"], "n": 2, "temperature": 1, "seed": 3}
    whole = [choice.text for choice in complete(client, **options).choices]
    streamed = [""] * 4
    for chunk in complete(client, **options, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert streamed == whole


@pytest.mark.parametrize("stream", [False, True])
def test_echo_gives_the_prompt_back_first(client, llm, stream):
    options = {"echo": True, "logprobs": 1, "stream": stream}
    reply = complete(client, **options)
    choices = [chunk.choices[0] for chunk in reply] if stream else [reply.choices[0]]
    text = "".join(choice.text for choice in choices)
    tokens = [token for choice in choices if choice.logprobs for token in choice.logprobs.tokens]
    offsets = [offset for choice in choices if choice.logprobs for offset in choice.logprobs.text_offset]
    assert text == PROMPT + llm.infer(PROMPT, max_tokens=4)
    assert "".join(tokens) == text
    assert [text[at : at + len(token)] for at, token in zip(offsets, tokens, strict=True)] == tokens


def test_scoring_a_prompt_generates_nothing(client, llm):
    reply = complete(client, echo=True, logprobs=2, max_tokens=0)
    choice = reply.choices[0]
    expected = llm.submit(PROMPT, max_tokens=0, prompt_logprobs=2).result().prompt_logprobs
    assert choice.text == PROMPT and choice.finish_reason == "length" and reply.usage.completion_tokens == 0
    assert choice.logprobs.token_logprobs[0] is None
    assert choice.logprobs.token_logprobs[1:] == pytest.approx([entry.logprob for entry in expected[1:]])
    assert all(len(top) >= 2 for top in choice.logprobs.top_logprobs[1:])


def test_best_of_gives_the_likeliest(client):
    options = {"temperature": 1, "seed": 5, "logprobs": 0}
    made = complete(client, **options, n=6).choices
    best = complete(client, **options, best_of=6, n=2)

    def mean(choice):
        return sum(choice.logprobs.token_logprobs) / len(choice.logprobs.token_logprobs)

    assert [c.text for c in best.choices] == [c.text for c in sorted(made, key=mean, reverse=True)[:2]]
    assert best.usage.completion_tokens == 24


def test_replies_fit_the_clients_own_types(http):
    body = {"prompt": PROMPT, "max_tokens": 2, "logprobs": 1}
    Completion.model_validate(http.post("/v1/completions", json=body).json(), strict=True)


def test_a_stream_ends_with_usage_and_done(http):
    body = {"prompt": PROMPT, "max_tokens": 2, "stream": True, "stream_options": {"include_usage": True}}
    events = http.post("/v1/completions", json=body).text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    usage = json.loads(events[-3].removeprefix("data: "))
    assert usage["choices"] == [] and usage["usage"]["completion_tokens"] == 2


def test_special_tokens_in_a_prompt_are_special(http, llm):
    reply = http.post("/v1/completions", json={"prompt": "<|im_start|>user", "max_tokens": 1}).json()
    assert reply["usage"]["prompt_tokens"] == len(llm.tokenizer.encode("<|im_start|>user")) == 2


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"suffix": "the end"}, "suffix"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 0, "echo": True, "n": 2}, "max_tokens"),
        ({"best_of": 1, "n": 2}, "best_of"),
        ({"best_of": 3, "stream": True}, "best_of"),
        ({"logprobs": 6}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"messages": []}, "messages"),
    ],
)
def test_what_is_not_supported_is_named(http, fields, param):
    reply = http.post("/v1/completions", json={"prompt": PROMPT, **fields})
    assert reply.status_code == 400 and reply.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"min_tokens": 9, "max_tokens": 2}, "min_tokens"), ({"stop_token_ids": [10**9]}, "stop_token_ids")],
)
def test_what_the_engine_refuses_is_named_too(http, fields, param):
    reply = http.post("/v1/completions", json={"prompt": PROMPT, **fields})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)
