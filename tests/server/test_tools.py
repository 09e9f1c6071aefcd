"""Calls in a model's text: found however it is cut, told from text, and the grammar that makes them."""

from __future__ import annotations

import json

import pytest

from workbench.engine import StructureSpec
from workbench.engine.grammar import StructureCompiler, token_vocabulary
from workbench.models.tokenizer import load_tokenizer
from workbench.server.tools import (
    Function,
    TextPiece,
    ToolCall,
    ToolCallParser,
    ToolChoice,
    ToolMode,
    call_text,
    cut_call,
    tool_grammar,
)

CALL = call_text("add", '{"a": 1}')
TRICKY = call_text("say", json.dumps({"text": "</tool_call> <tool_call> }"}))
ADD = Function("add", "Adds.", {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})
SAY = Function("say", "", None)


def read(text, size):
    """What a parser makes of `text` in pieces of `size` characters: the text, and the calls."""
    parser = ToolCallParser()
    found = [piece for i in range(0, len(text), size) for piece in parser.feed(text[i : i + size])]
    found += parser.finish()
    said = "".join(piece.text for piece in found if isinstance(piece, TextPiece))
    return said, [(piece.name, json.loads(piece.arguments)) for piece in found if isinstance(piece, ToolCall)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    ("text", "said", "calls"),
    [
        ("Just text.", "Just text.", []),
        (CALL, "", [("add", {"a": 1})]),
        (f"{CALL}\n{CALL}", "", [("add", {"a": 1})] * 2),
        (f"Let me see. {CALL}", "Let me see.", [("add", {"a": 1})]),
        (f"{CALL} \n", "", [("add", {"a": 1})]),
        (" An answer with blanks \n", " An answer with blanks \n", []),
        (TRICKY, "", [("say", {"text": "</tool_call> <tool_call> }"})]),
        ("1 < 2 and <tool is no call", "1 < 2 and <tool is no call", []),
        ("<tool_call>", "<tool_call>", []),
        (CALL[:-15], CALL[:-15], []),
        ("", "", []),
    ],
)
def test_calls_are_found_however_the_text_is_cut(text, said, calls, size):
    assert read(text, size) == (said, calls)


def test_text_is_given_as_soon_as_it_cannot_be_a_call():
    parser = ToolCallParser()
    assert parser.feed("Hello <") == [TextPiece("Hello")]
    assert parser.feed("b>") == [TextPiece(" <b>")]


@pytest.mark.parametrize(
    ("text", "said", "name", "arguments"),
    [
        (f"Let me see. {CALL[:-15]}", "Let me see.", "add", CALL[CALL.index('{"a"') : -15]),
        ('<tool_call>\n{"name": "ad', "", "", ""),
        ("Well.\n<tool_", "Well.", "", ""),
    ],
)
def test_the_call_that_a_text_breaks_off_in_is_found(text, said, name, arguments):
    before, call = cut_call(text)
    assert (before, call.name, call.arguments) == (said, name, arguments)


def test_a_text_that_ends_in_no_call_has_none():
    assert cut_call("1 <") is None and cut_call("Just text.") is None


def test_every_call_has_its_own_id():
    parser = ToolCallParser()
    first, second = parser.feed(CALL + CALL)
    assert first.call_id != second.call_id


@pytest.fixture(scope="module")
def accepts(embedded_model_folder):
    """Whether a grammar allows a whole text."""
    tokenizer = load_tokenizer(embedded_model_folder)
    vocabulary = token_vocabulary(tokenizer, tokenizer.vocab_size, tokenizer.eos_token_ids)
    compiler = StructureCompiler(lambda: vocabulary)

    def check(spec, text):
        matcher = compiler.matcher(spec)
        is_allowed = all(matcher.accept(token_id) for token_id in tokenizer.encode(text))
        return is_allowed and (matcher.is_complete or matcher.accept(min(tokenizer.eos_token_ids)))

    return check


CALL_2 = call_text("say", '{"text": "x"}')


@pytest.mark.parametrize(
    ("choice", "answer", "allowed", "forbidden"),
    [
        (ToolChoice(ToolMode.AUTO), None, ["Hi.", CALL, f"Well. {CALL}", f"{CALL}{CALL_2}", ""], ["<tool_call>no"]),
        (ToolChoice(ToolMode.AUTO, parallel=False), None, ["Hi.", CALL], [f"{CALL}{CALL}"]),
        (ToolChoice(ToolMode.REQUIRED), None, [CALL, f"{CALL}\n{CALL_2}"], ["Hi.", f"Well. {CALL}", ""]),
        (ToolChoice(ToolMode.REQUIRED), None, ["\n".join([CALL] * 16)], ["\n".join([CALL] * 17)]),
        (ToolChoice(ToolMode.REQUIRED, parallel=False), None, [CALL, CALL_2], [f"{CALL}\n{CALL}"]),
        (ToolChoice(ToolMode.REQUIRED, parallel=False, name="add"), None, [CALL], [CALL_2]),
        (ToolChoice(ToolMode.AUTO), StructureSpec("json_object"), ["{}", CALL], ["Hi.", "[]"]),
    ],
)
def test_the_grammar_allows_what_was_chosen(accepts, choice, answer, allowed, forbidden):
    spec = tool_grammar((ADD, SAY), choice, answer)
    assert [text for text in allowed if not accepts(spec, text)] == []
    assert [text for text in forbidden if accepts(spec, text)] == []


def test_arguments_follow_their_schema(accepts):
    spec = tool_grammar((ADD,), ToolChoice(ToolMode.REQUIRED), None)
    assert accepts(spec, call_text("add", '{"a": 12}'))
    for wrong in ('{"a": "x"}', "{}", "[]"):
        assert not accepts(spec, call_text("add", wrong))
