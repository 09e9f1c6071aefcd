"""Chat completions through OpenAI's client: whole, streamed, constrained, with tools, and what is refused."""

from __future__ import annotations

import json

import openai
import pytest
from live_endpoint import MODEL, USE_KEY, chat
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

HELLO = [{"role": "user", "content": "Say hello."}]


class Cat(BaseModel):
    name: str
    age: int


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city now.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 12}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}},
            "required": ["a"],
            "additionalProperties": False,
        },
    },
}


def test_a_whole_answer_is_what_the_engine_gives(client, llm):
    reply = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=8, temperature=0)
    assert reply.choices[0].message.content == llm.chat("Say hello.", max_tokens=8)
    assert reply.choices[0].finish_reason == "length"
    assert reply.object == "chat.completion" and reply.model == MODEL
    assert reply.usage.completion_tokens == 8
    assert reply.usage.prompt_tokens == len(llm.tokenizer.apply_chat_template(HELLO))
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + 8


def test_a_stream_has_role_text_end_and_usage_in_order(client):
    options = {"model": MODEL, "messages": HELLO, "max_tokens": 8, "temperature": 0}
    whole = client.chat.completions.create(**options).choices[0].message.content
    chunks = list(client.chat.completions.create(**options, stream=True, stream_options={"include_usage": True}))
    first, *pieces, end, usage = chunks
    assert first.choices[0].delta.role == "assistant" and first.choices[0].delta.content == ""
    assert "".join(chunk.choices[0].delta.content for chunk in pieces) == whole
    assert [chunk.choices[0].finish_reason for chunk in (*pieces, end)] == [None] * len(pieces) + ["length"]
    assert usage.choices == [] and usage.usage.completion_tokens == 8
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stream_ends_with_done_and_every_event_is_whole(http):
    reply = http.post("/v1/chat/completions", json=chat(stream=True))
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    events = reply.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    for event in events[:-2]:
        ChatCompletionChunk.model_validate(json.loads(event.removeprefix("data: ")))


def test_replies_fit_the_clients_own_types(http):
    body = http.post("/v1/chat/completions", json=chat(logprobs=True, top_logprobs=2)).json()
    ChatCompletion.model_validate(body, strict=True)


def test_n_answers_with_one_seed_are_repeatable_and_differ(client):
    options = {"model": MODEL, "messages": HELLO, "max_tokens": 8, "temperature": 1.5, "seed": 11, "n": 3}
    first, second = (client.chat.completions.create(**options) for _ in range(2))
    texts = [choice.message.content for choice in first.choices]
    assert [choice.index for choice in first.choices] == [0, 1, 2]
    assert texts == [choice.message.content for choice in second.choices]
    assert len(set(texts)) > 1
    assert first.usage.completion_tokens <= 24


def test_streamed_answers_are_told_apart_by_their_index(client):
    options = {"model": MODEL, "messages": HELLO, "max_tokens": 6, "temperature": 1.5, "seed": 11, "n": 2}
    whole = [choice.message.content for choice in client.chat.completions.create(**options).choices]
    streamed = ["", ""]
    for chunk in client.chat.completions.create(**options, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert streamed == whole


def test_logprobs_describe_every_token_of_the_text(client):
    reply = client.chat.completions.create(
        model=MODEL, messages=HELLO, max_tokens=6, temperature=0, logprobs=True, top_logprobs=3
    )
    choice = reply.choices[0]
    entries = choice.logprobs.content
    assert b"".join(bytes(entry.bytes) for entry in entries).decode() == choice.message.content
    for entry in entries:
        assert entry.logprob <= 0 and len(entry.top_logprobs) == 3
        assert max(top.logprob for top in entry.top_logprobs) == entry.logprob


def test_logprobs_without_top_logprobs_come_alone(client):
    reply = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=2, temperature=0, logprobs=True)
    assert [entry.top_logprobs for entry in reply.choices[0].logprobs.content] == [[], []]


def test_streamed_logprobs_are_those_of_the_whole_answer(client):
    options = {"model": MODEL, "messages": HELLO, "max_tokens": 5, "temperature": 0, "logprobs": True}
    whole = client.chat.completions.create(**options).choices[0].logprobs.content
    chunks = client.chat.completions.create(**options, stream=True)
    streamed = [e for c in chunks if c.choices[0].logprobs for e in c.choices[0].logprobs.content]
    assert [e.token for e in streamed] == [e.token for e in whole]


def test_a_stop_string_ends_the_answer_and_neither_text_nor_logprobs_tell_of_it(client):
    options = {"model": MODEL, "messages": HELLO, "max_tokens": 12, "temperature": 0}
    whole = client.chat.completions.create(**options).choices[0].message.content
    stop = whole[len(whole) // 2 :][:4]
    reply = client.chat.completions.create(**options, stop=[stop], logprobs=True).choices[0]
    assert reply.finish_reason == "stop"
    assert reply.message.content == whole.split(stop)[0]
    told = b"".join(bytes(entry.bytes) for entry in reply.logprobs.content).decode()
    assert reply.message.content.startswith(told[: len(reply.message.content)])
    streamed = client.chat.completions.create(**options, stop=[stop], stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == whole.split(stop)[0]


def test_parse_gives_an_object_of_the_schema(client):
    reply = client.chat.completions.parse(
        model=MODEL,
        messages=[{"role": "user", "content": "A cat named Tom, 3 years old, as JSON."}],
        response_format=Cat,
        max_tokens=60,
        temperature=0,
    )
    assert reply.choices[0].message.parsed == Cat(name="Tom", age=3)
    assert reply.choices[0].finish_reason == "stop"


def test_json_object_gives_json(client):
    reply = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "A cat named Tom as JSON."}],
        response_format={"type": "json_object"},
        stop=["}"],
        max_tokens=60,
        temperature=0,
    )
    assert reply.choices[0].message.content.startswith("{")


@pytest.mark.parametrize(
    ("structured", "allowed"),
    [
        ({"regex": "[0-9]{3}"}, lambda text: len(text) == 3 and text.isdigit()),
        ({"choice": ["red", 'a "quoted" é']}, lambda text: text in ("red", 'a "quoted" é')),
        ({"grammar": 'start: "x" | "y"'}, lambda text: text in ("x", "y")),
        ({"grammar": 'root ::= "x" | "y"'}, lambda text: text in ("x", "y")),
        ({"json": {"enum": [1, 2]}}, lambda text: json.loads(text) in (1, 2)),
    ],
)
def test_other_structures_are_kept(client, structured, allowed):
    reply = client.chat.completions.create(
        model=MODEL,
        messages=HELLO,
        max_tokens=20,
        temperature=1,
        seed=4,
        extra_body={"structured_outputs": structured},
    )
    assert allowed(reply.choices[0].message.content)
    assert reply.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_a_forced_tool_is_called_with_arguments_of_its_schema(client, choice):
    reply = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[WEATHER],
        tool_choice=choice,
        parallel_tool_calls=False,
        max_tokens=60,
        temperature=0,
    )
    (call,) = reply.choices[0].message.tool_calls
    assert call.function.name == "get_weather" and call.id
    assert set(json.loads(call.function.arguments)) == {"city"}
    assert reply.choices[0].finish_reason == "tool_calls"
    assert reply.choices[0].message.content is None


@pytest.mark.parametrize("max_tokens", [4, 40])
def test_a_forced_call_that_is_cut_short_is_no_text(client, max_tokens):
    options = {"model": MODEL, "messages": HELLO, "max_tokens": max_tokens, "temperature": 0}
    options |= {"tools": [WEATHER], "tool_choice": "required"}
    (choice,) = client.chat.completions.create(**options).choices
    assert not choice.message.content
    assert choice.finish_reason == "length"
    assert all(json.loads(call.function.arguments) for call in choice.message.tool_calls or [])
    chunks = list(client.chat.completions.create(**options, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ""
    assert chunks[-1].choices[0].finish_reason == "length"


def test_a_streamed_call_puts_together_to_the_whole_one(client):
    chunks = client.chat.completions.create(
        model=MODEL,
        messages=HELLO,
        tools=[WEATHER, ADD],
        tool_choice={"type": "function", "function": {"name": "add"}},
        max_tokens=60,
        temperature=0,
        stream=True,
    )
    name, arguments, ends = "", "", []
    for chunk in chunks:
        for delta in chunk.choices[0].delta.tool_calls or ():
            assert delta.index == 0
            name += delta.function.name or ""
            arguments += delta.function.arguments
        ends += [chunk.choices[0].finish_reason] if chunk.choices[0].finish_reason else []
    assert name == "add" and 0 <= json.loads(arguments)["a"] <= 99
    assert ends == ["tool_calls"]


def test_tools_that_may_be_called_leave_the_text_free(client):
    reply = client.chat.completions.create(
        model=MODEL, messages=HELLO, tools=[WEATHER], tool_choice="auto", max_tokens=6, temperature=0
    )
    assert reply.choices[0].message.content and reply.choices[0].message.tool_calls is None


def test_a_conversation_with_calls_and_results_goes_on(client):
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
    reply = client.chat.completions.create(
        model=MODEL,
        messages=[
            {"role": "user", "content": "What is the weather in Paris?"},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
        ],
        tools=[WEATHER],
        max_tokens=4,
    )
    assert reply.choices[0].finish_reason in ("stop", "length")


def test_a_reply_can_be_sent_back_as_it_came(client):
    first = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=4).choices[0].message
    client.chat.completions.create(
        model=MODEL, messages=[*HELLO, first, {"role": "user", "content": "And now?"}], max_tokens=2
    )


def test_parts_of_text_are_joined_by_lines(client, llm):
    parts = [{"type": "text", "text": "Say"}, {"type": "text", "text": "hello."}]
    reply = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": parts}], max_tokens=4, temperature=0
    )
    assert reply.choices[0].message.content == llm.chat("Say\nhello.", max_tokens=4)


def test_the_last_message_can_be_gone_on_with(http, llm):
    messages = [*HELLO, {"role": "assistant", "content": "Hello, dear"}]
    body = {"messages": messages, "max_tokens": 4, "temperature": 0, "continue_final_message": True}
    reply = http.post("/v1/chat/completions", json=body).json()
    ids = llm.tokenizer.apply_chat_template(messages, continue_final_message=True)
    assert reply["choices"][0]["message"]["content"] == llm.infer(ids, max_tokens=4)


def test_logit_bias_decides_the_token(client, llm):
    (token_id,) = llm.tokenizer.encode(" cat")
    reply = client.chat.completions.create(
        model=MODEL, messages=HELLO, max_tokens=2, temperature=0, logit_bias={str(token_id): 100}
    )
    assert reply.choices[0].message.content == " cat cat"


def test_names_of_the_documented_surface_are_accepted(http):
    reply = http.post("/v1/chat/completions", json=chat(model_name=MODEL), headers={"x-api-key": ""})
    assert reply.status_code == 401, "two keys are not one"
    http.headers.pop("authorization")
    reply = http.post("/v1/chat/completions", json=chat(model_name=MODEL), headers={"x-api-key": USE_KEY})
    assert reply.status_code == 200


def test_an_unknown_model_is_a_404_that_names_the_loaded_one(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-4o", messages=HELLO)
    assert caught.value.code == "model_not_found" and MODEL in caught.value.message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"no_such_thing": 1}, "no_such_thing"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_object"}, "structured_outputs": {"regex": "a"}}, "response_format"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "("}}, "structured_outputs"),
        ({"response_format": {"type": "json_object"}, "min_tokens": 2}, "response_format"),
        ({"tools": [WEATHER], "structured_outputs": {"regex": "a"}}, "tools"),
        ({"tools": [WEATHER, WEATHER]}, "tools"),
        ({"chat_template_kwargs": {"enable_thinking": True}}, "messages"),
        ({"messages": [{"role": "user", "content": "x", "name": "y"}]}, "messages[0].name"),
        ({"messages": [{"role": "assistant"}]}, "messages[0].content"),
    ],
)
def test_what_is_not_supported_is_named(http, fields, param):
    reply = http.post("/v1/chat/completions", json=chat(**fields))
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error" and error["param"] == param


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "u", "metadata": {"a": "b"}, "store": True, "service_tier": "auto", "prompt_cache_key": "k"},
        {"functions": None, "function_call": "none", "modalities": ["text"], "verbosity": "medium", "audio": None},
        {"response_format": {"type": "text"}, "top_k": -1, "min_p": 0, "safety_identifier": "s"},
        {"tools": [], "stop": [], "stop_token_ids": [], "logit_bias": {}},
    ],
)
def test_what_asks_for_nothing_is_accepted(http, fields):
    assert http.post("/v1/chat/completions", json=chat(**fields)).status_code == 200
