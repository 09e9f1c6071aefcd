"""Conversations as tokens: as the model's own template has them, and with nothing smuggled in."""

from __future__ import annotations

import pytest

from workbench.errors import RequestError
from workbench.models.tokenizer import load_tokenizer
from workbench.server.chat_messages import ChatEncoder, ChatMessage, Conversation
from workbench.server.tools import Function, ToolCall

HELLO = ChatMessage("user", "Hello there.\n\nHow are you?")
# Tells of functions in the form that Hermes and Qwen models know.
NATIVE = (
    "{% if tools %}<tools>{{ tools | tojson }}</tools> "
    'say <tool_call>{"name": x, "arguments": y}</tool_call>{% endif %}'
    "{% for m in messages %}<|im_start|>{{ m.role }} {{ m.content }}{% for c in m.tool_calls or [] %}"
    "CALL {{ c.function.name }} {{ c.function.arguments.a }}{% endfor %}<|im_end|>{% endfor %}"
)


@pytest.fixture
def tokenizer(embedded_model_folder):
    return load_tokenizer(embedded_model_folder)


def decoded(tokenizer, ids):
    return tokenizer.decode(ids, False)


def test_plain_messages_are_as_the_template_has_them(tokenizer):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": HELLO.content}]
    conversation = Conversation((ChatMessage("system", "Be brief."), HELLO))
    assert ChatEncoder(tokenizer).encode(conversation) == tokenizer.apply_chat_template(messages)


def test_control_tokens_change_no_other_token(tokenizer):
    encoder = ChatEncoder(tokenizer)
    with_text = encoder.encode(Conversation((ChatMessage("user", "<|im_end|>"), HELLO)))
    without = encoder.encode(Conversation((ChatMessage("user", "zzz"), HELLO)))
    same_end = len(tokenizer.encode(HELLO.content))
    assert with_text[-same_end:] == without[-same_end:]
    assert decoded(tokenizer, with_text) == decoded(tokenizer, without).replace("zzz", "<|im_end|>")


@pytest.mark.parametrize(
    "text", ["<|im_start|>", "<|im_end|>" * 50, "<|endoftext|>", "<repo_name>a<|im_end|>b", "<|im_<|im_end|>end|>"]
)
def test_no_text_becomes_a_control_token(tokenizer, text):
    encoder = ChatEncoder(tokenizer)
    specials = {i for i, token in tokenizer.hf.added_tokens_decoder.items() if token.special}
    plain = encoder.encode(Conversation((ChatMessage("user", "x"),)))
    ids = encoder.encode(Conversation((ChatMessage("user", text),)))
    assert [i for i in ids if i in specials] == [i for i in plain if i in specials]
    assert text in decoded(tokenizer, ids)


FUNCTION = Function("add", "Adds <|im_end|> numbers.", {"type": "object"})
CALLING = (
    ChatMessage("user", "Add."),
    ChatMessage("assistant", "", (ToolCall("c1", "add", '{"a": 7}'),)),
    ChatMessage("tool", "8", tool_call_id="c1"),
)


def test_a_template_that_knows_no_functions_is_told_in_words(tokenizer):
    text = decoded(tokenizer, ChatEncoder(tokenizer).encode(Conversation(CALLING, (FUNCTION,))))
    assert '"name": "add"' in text and "<tool_response>\n8\n</tool_response>" in text
    assert text.count("<|im_start|>system") == 1
    system = (ChatMessage("system", "Be brief."), *CALLING)
    text = decoded(tokenizer, ChatEncoder(tokenizer).encode(Conversation(system, (FUNCTION,))))
    assert text.count("<|im_start|>system\nBe brief.\n\nYou can call functions.") == 1


def test_a_template_that_knows_functions_is_given_them(tokenizer):
    tokenizer.hf.chat_template = NATIVE
    text = decoded(tokenizer, ChatEncoder(tokenizer).encode(Conversation(CALLING, (FUNCTION,))))
    assert "<tools>" in text and "CALL add 7" in text and "You can call functions" not in text
    assert text.count("<|im_end|>") == len(CALLING) + 1, "the one in the description is text"


def test_without_a_template_there_is_no_chat(tokenizer):
    tokenizer.hf.chat_template = None
    with pytest.raises(RequestError, match="no chat template"):
        ChatEncoder(tokenizer).encode(Conversation((HELLO,)))


def test_what_the_template_refuses_is_the_callers_error(tokenizer):
    tokenizer.hf.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(RequestError, match="roles must alternate"):
        ChatEncoder(tokenizer).encode(Conversation((HELLO,)))


def test_a_templates_own_code_runs_in_the_sandbox(tokenizer):
    tokenizer.hf.chat_template = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    with pytest.raises(RequestError):
        ChatEncoder(tokenizer).encode(Conversation((HELLO,)))


def test_thinking_is_a_switch_only_where_the_template_has_it(tokenizer):
    conversation = Conversation((HELLO,), enable_thinking=False)
    with pytest.raises(RequestError, match="enable_thinking"):
        ChatEncoder(tokenizer).encode(conversation)
    tokenizer.hf.chat_template = "{% if enable_thinking %}think{% else %}answer{% endif %}"
    assert decoded(tokenizer, ChatEncoder(tokenizer).encode(conversation)) == "answer"
