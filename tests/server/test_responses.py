"""The Responses API through OpenAI's client: whole, streamed, parsed, with tools, and what is refused."""

from __future__ import annotations

import json

import pytest
from live_endpoint import MODEL
from openai.types.responses import Response
from pydantic import BaseModel

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


class Cat(BaseModel):
    name: str
    age: int


def test_an_input_text_is_a_users_message(client, llm):
    reply = client.responses.create(model=MODEL, input="Say hello.", max_output_tokens=6, temperature=0)
    assert reply.output_text == llm.chat("Say hello.", max_tokens=6)
    assert reply.status == "incomplete" and reply.incomplete_details.reason == "max_output_tokens"
    assert reply.usage.output_tokens == 6 and reply.store is False


def test_instructions_are_a_system_message(client, llm):
    reply = client.responses.create(
        model=MODEL, input="Say hello.", instructions="Be brief.", max_output_tokens=6, temperature=0
    )
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say hello."}]
    assert reply.output_text == llm.chat(messages, max_tokens=6)


def test_events_come_in_the_apis_order_and_make_up_the_response(client):
    events = list(
        client.responses.create(model=MODEL, input="Say hello.", max_output_tokens=4, temperature=0, stream=True)
    )
    names = [event.type for event in events]
    assert names[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert names[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == events[-1].response.output_text == events[-4].text


def test_the_clients_stream_helper_understands_the_events(client):
    asked = {"model": MODEL, "input": "A cat named Tom, 3 years old, as JSON.", "max_output_tokens": 60}
    with client.responses.stream(**asked, text_format=Cat, temperature=0) as stream:
        final = stream.get_final_response()
    assert final.output_parsed == Cat(name="Tom", age=3)


def test_parse_gives_an_object_of_the_schema(client):
    reply = client.responses.parse(
        model=MODEL,
        input="A cat named Tom, 3 years old, as JSON.",
        text_format=Cat,
        max_output_tokens=60,
        temperature=0,
    )
    assert reply.output_parsed == Cat(name="Tom", age=3) and reply.status == "completed"


@pytest.mark.parametrize("stream", [False, True])
def test_a_forced_function_is_called(client, stream):
    reply = client.responses.create(
        model=MODEL,
        input="What is the weather in Paris?",
        tools=[WEATHER],
        tool_choice="required",
        parallel_tool_calls=False,
        max_output_tokens=60,
        temperature=0,
        stream=stream,
    )
    if stream:
        events = list(reply)
        done = next(e for e in events if e.type == "response.function_call_arguments.done")
        assert json.loads(done.arguments).keys() == {"city"}
        reply = events[-1].response
    (call,) = reply.output
    assert (call.type, call.name, call.status) == ("function_call", "get_weather", "completed")
    assert json.loads(call.arguments).keys() == {"city"}


def test_calls_and_their_results_can_be_sent_back(client):
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "What is the weather?"}]},
        # As the client dumps one: null where nothing is asked for.
        {
            **{"type": "function_call", "call_id": "c1", "name": "get_weather", "arguments": '{"city": "Paris"}'},
            **{"async": None, "caller": None, "namespace": None},
        },
        {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
    ]
    reply = client.responses.create(model=MODEL, input=items, tools=[WEATHER], max_output_tokens=3)
    assert reply.output_text


def test_logprobs_come_where_they_are_included(client):
    reply = client.responses.create(
        model=MODEL,
        input="Say hello.",
        max_output_tokens=3,
        include=["message.output_text.logprobs"],
        top_logprobs=2,
        temperature=0,
    )
    part = reply.output[0].content[0]
    assert "".join(entry.token for entry in part.logprobs) == part.text
    assert all(len(entry.top_logprobs) == 2 for entry in part.logprobs)


def test_replies_fit_the_clients_own_types(http):
    body = {"input": "Say hello.", "max_output_tokens": 2, "tools": [WEATHER], "tool_choice": "none"}
    reply = http.post("/v1/responses", json=body).json()
    Response.model_validate(reply)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"background": True}, "background"),
        ({"truncation": "auto"}, "truncation"),
        ({"conversation": "c"}, "conversation"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
        ({"input": []}, "input"),
        ({"include": ["reasoning.encrypted_content"]}, "include[0]"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": "hiccup"}}}}, "text"),
    ],
)
def test_what_is_not_supported_is_named(http, fields, param):
    reply = http.post("/v1/responses", json={"input": "x", **fields})
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["param"] == param
