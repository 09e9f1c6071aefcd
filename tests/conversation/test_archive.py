import json

import pytest

from workbench.conversation import (
    Conversation,
    MessageStatus,
    ReplyFigures,
    ToolStep,
    archive_of_texts,
    conversation_text,
    export_conversations,
    import_conversations,
)
from workbench.errors import ConfigError
from workbench.failure import Failure


def _branched() -> Conversation:
    conversation = Conversation("Be kind.", title="Ü")
    conversation.add("user", "q1")
    reply = conversation.add("assistant", "a1")
    reply.figures = ReplyFigures("m", "stop", 10, 0, 4, 0.1, 0.5, 20.0, 2048, 7)
    reply.steps = (ToolStep("c1", "clock", "{}", "12:00"),)
    again = conversation.regenerate()
    again.text, again.status = "a1b", MessageStatus.FAILED
    again.failure = Failure("Kind", "cause", "next", "details")
    conversation.add("user", "q2")
    conversation.undo()
    conversation.show(reply.number)
    return conversation


def test_what_is_exported_comes_back_with_all_branches():
    conversation = _branched()
    (back,) = import_conversations(export_conversations([conversation]))
    assert back.all_messages == conversation.all_messages
    assert back.messages == conversation.messages
    assert (back.title, back.system, back.conversation_id) == ("Ü", "Be kind.", conversation.conversation_id)
    assert export_conversations([back]) == export_conversations([conversation])
    (of_text,) = import_conversations(archive_of_texts([conversation_text(conversation)]))
    assert export_conversations([of_text]) == export_conversations([conversation])


def test_what_was_taken_back_stays_so():
    conversation = Conversation()
    conversation.add("user", "q1")
    conversation.undo()
    (back,) = import_conversations(export_conversations([conversation]))
    assert (back.messages, len(back.all_messages)) == ((), 1)


def test_a_running_reply_is_stored_as_stopped():
    conversation = Conversation()
    conversation.add("user", "q")
    conversation.reply().text = "so far"
    (back,) = import_conversations(export_conversations([conversation]))
    assert (back.messages[-1].text, back.messages[-1].status) == ("so far", MessageStatus.STOPPED)


@pytest.mark.parametrize("wrap", [lambda messages: messages, lambda messages: {"messages": messages}])
def test_plain_chat_messages_are_read_too(wrap):
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    (conversation,) = import_conversations(json.dumps(wrap(messages)))
    assert conversation.prompt() == messages


def test_parts_of_a_message_are_read_where_they_are_text():
    parts = [{"type": "text", "text": "Hello"}, {"type": "text", "text": " there"}]
    (found,) = import_conversations(json.dumps([{"role": "user", "content": parts}]))
    assert [message.text for message in found.messages] == ["Hello there"]
    with pytest.raises(ConfigError, match="no pictures"):
        import_conversations(json.dumps([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]))


def _stored(**changes: object) -> str:
    content = json.loads(export_conversations([_branched()]))
    content["conversations"][0].update(changes)
    return json.dumps(content)


def _with_message(**changes: object) -> str:
    message = {"number": 0, "parent": None, "role": "user", "text": "q", "status": "done", **changes}
    return _stored(messages=[message], shown=[])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not json", "no JSON"),
        ("3", "format must be"),
        ('{"format": "other"}', "format must be"),
        ('{"format": "workbench.conversations", "version": 2}', "version 2"),
        ('{"format": "workbench.conversations", "version": 1}', "conversations must be a list"),
        ('[{"role": "robot", "content": "x"}]', "role 'robot'"),
        ('[{"role": "user"}]', "content must be text"),
        (_stored(extra=1), "unknown field 'extra'"),
        (_stored(title=3), "title must be text"),
        (_stored(shown=[99]), "no message 99"),
        (_stored(shown=[[]]), "shown"),
        (_with_message(number="0"), "number must be an integer"),
        (_with_message(parent=5), "parent 5 does not come before it"),
        (_with_message(status="asleep"), "'asleep' is not known"),
        (_with_message(figures={"ttft_s": "soon"}), r"figures.ttft_s must be float \| None"),
        (_with_message(figures={"speed": 1}), "unknown field 'speed'"),
        (_with_message(steps=[{"name": "x"}]), "steps"),
        (_with_message(failure={"kind": "x"}), "failure"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(text, words):
    with pytest.raises(ConfigError, match=words):
        import_conversations(text)
