"""Every field of OpenAI's API may be null or have the API's default; what asks for more is refused by its name."""

from __future__ import annotations

import json
from typing import Any, get_type_hints

import pytest
from live_endpoint import chat
from openai.types import completion_create_params as completions
from openai.types.chat import completion_create_params as chats
from openai.types.responses import response_create_params as responses

BODIES = {
    "/v1/chat/completions": chat(max_tokens=1),
    "/v1/completions": {"prompt": "Hi", "max_tokens": 1},
    "/v1/responses": {"input": "Hi", "max_output_tokens": 1},
}
SCHEMAS = {
    "/v1/chat/completions": chats.CompletionCreateParamsBase,
    "/v1/completions": completions.CompletionCreateParamsBase,
    "/v1/responses": responses.ResponseCreateParamsBase,
}
REQUIRED = {"messages", "prompt", "input"}
# What the API does when the field is left out, said in the request.
DEFAULTS: dict[str, Any] = {
    "access_programs": {"cyber": "standard"},
    "background": False,
    "background_options": {"completion_window": "soonest"},
    "best_of": 1,
    "echo": False,
    "frequency_penalty": 0,
    "function_call": "none",
    "functions": [],
    "image": {"context_compression": "auto"},
    "include": [],
    "logit_bias": {},
    "logprobs": False,
    "metadata": {},
    "modalities": ["text"],
    "n": 1,
    "parallel_tool_calls": True,
    "presence_penalty": 0,
    "prompt_cache_options": {"mode": "implicit", "ttl": "30m", "comparison_response_id": None},
    "prompt_cache_retention": "in_memory",
    "reasoning": {"effort": None, "summary": None},
    "reasoning_effort": "none",
    "response_format": {"type": "text"},
    "service_tier": "auto",
    "store": False,
    "stream": False,
    "suffix": "",
    "temperature": 1,
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1,
    "truncation": "disabled",
    "user": "",
    "verbosity": "medium",
}
# What other servers of the API take besides, sent by clients that know several.
FURTHER: dict[str, Any] = {
    "best_of": 1,
    "echo": False,
    "ignore_eos": False,
    "length_penalty": 1.0,
    "min_p": 0,
    "priority": 0,
    "prompt_logprobs": None,
    "repetition_penalty": 1,
    "suffix": None,
    "top_k": -1,
    "use_beam_search": False,
}
# Never honoured, with a value that asks for something.
ASKING: dict[str, Any] = {
    "access_programs": {"cyber": "daybreak_red"},
    "audio": {"voice": "alloy", "format": "wav"},
    "background": True,
    "background_options": {"completion_window": "8h"},
    "context_management": [{"type": "compaction"}],
    "conversation": "conv_1",
    "function_call": "auto",
    "functions": [{"name": "f"}],
    "image": {"context_compression": "enabled"},
    "max_tool_calls": 1,
    "modalities": ["text", "audio"],
    "moderation": {"model": "omni-moderation-latest"},
    "prediction": {"type": "content", "content": "x"},
    "previous_response_id": "resp_1",
    "prompt": {"id": "pmpt_1"},
    "prompt_cache_options": {"mode": "explicit"},
    "prompt_cache_retention": "forever",
    "reasoning": {"effort": "high"},
    "reasoning_effort": "high",
    "suffix": "the end",
    "truncation": "auto",
    "verbosity": "high",
    "web_search_options": {},
    "best_of": 2,
    "echo": True,
    "length_penalty": 2.0,
    "priority": 1,
    "prompt_logprobs": 1,
    "use_beam_search": True,
}
OWN = {("/v1/completions", "best_of"), ("/v1/completions", "echo"), ("/v1/completions", "prompt")}


def fields_of(path: str) -> list[str]:
    """The fields that the installed client of OpenAI knows for a route, without what every request has."""
    return [name for name in get_type_hints(SCHEMAS[path]) if name not in REQUIRED]


@pytest.mark.parametrize("path", BODIES)
def test_every_field_of_the_api_may_be_null_or_have_its_default(http, path):
    refusals = {}
    names = fields_of(path)
    cases = [{name: None} for name in names] + [{name: DEFAULTS[name]} for name in names if name in DEFAULTS]
    if path != "/v1/responses":
        cases += [{name: value} for name, value in FURTHER.items()]
    # A number here, and true or false in a chat.
    cases = [{"logprobs": 0} if path == "/v1/completions" and case == {"logprobs": False} else case for case in cases]
    together = {name: value for case in cases for name, value in case.items()}
    for case in [*cases, together]:
        reply = http.post(path, json={**case, **BODIES[path]})
        if reply.status_code != 200:
            refusals[str(case)[:60]] = reply.json()["error"]["message"]
    assert refusals == {}


@pytest.mark.parametrize("path", BODIES)
def test_a_value_that_asks_for_what_is_not_there_is_refused_by_name(http, path):
    known = {*fields_of(path), *FURTHER} if path != "/v1/responses" else {*fields_of(path), "prompt"}
    wrong = {}
    for name, value in ASKING.items():
        if name in known and (path, name) not in OWN:
            reply = http.post(path, json={**BODIES[path], name: value})
            if reply.status_code != 400 or reply.json()["error"]["param"] != name:
                wrong[name] = reply.text[:200]
    assert wrong == {}


@pytest.mark.parametrize("path", BODIES)
def test_a_padded_stream_says_the_same_in_pieces_of_one_size(http, path):
    """OpenAI's default, here when asked for."""

    def pieces(**options):
        reply = http.post(path, json={**BODIES[path], **longer, "stream": True, "temperature": 0, **options})
        events = [json.loads(line[6:]) for line in reply.text.splitlines() if line.startswith("data: {")]
        return [(text, event.get("obfuscation")) for event in events if (text := text_of(event))]

    def text_of(event):
        choice = event.get("choices", [{}])[0]
        return event.get("delta") or choice.get("text") or choice.get("delta", {}).get("content")

    longer = {"max_output_tokens" if path == "/v1/responses" else "max_tokens": 6}
    plain, padded = pieces(), pieces(stream_options={"include_obfuscation": True})
    assert [text for text, _ in padded] == [text for text, _ in plain] and {hidden for _, hidden in plain} == {None}
    assert {len(text) + len(hidden) for text, hidden in padded} == {64}


def test_the_defaults_are_those_of_fields_that_the_api_has():
    every = {name for path in BODIES for name in get_type_hints(SCHEMAS[path])}
    assert set(DEFAULTS) - every <= {"stream"}
