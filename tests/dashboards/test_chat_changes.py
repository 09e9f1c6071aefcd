"""What a person does to a conversation, where it does not take a browser to see it."""

from __future__ import annotations

import json

import pytest

from dashboards.chat_changes import ChatChanges
from dashboards.chat_settings import ChatSettings
from dashboards.desk import Desk
from dashboards.toolbox import Toolbox
from workbench.conversation import Conversation, export_conversations
from workbench.errors import RequestError


def test_a_file_without_a_message_is_said_to_be_one():
    changes, desk = ChatChanges(None, Toolbox([])), Desk()
    for text in ("[]", export_conversations([]), export_conversations([Conversation("Be brief.")])):
        with pytest.raises(RequestError, match="no message in that file"):
            changes.take_in(desk, text.encode())
    changes.take_in(desk, json.dumps([{"role": "user", "content": "Hi"}]).encode("utf-8-sig"))
    assert [message.text for message in desk.current.messages] == ["Hi"]


def test_a_deleted_conversation_can_be_brought_back():
    changes, desk = ChatChanges(None, Toolbox([])), Desk()
    for text in ("one", "two"):
        changes.take_in(desk, json.dumps([{"role": "user", "content": text}]).encode())
    desk.delete()
    assert (_texts(desk.current), len(desk.conversations)) == (["one"], 2)
    # One without a message is not worth bringing back.
    desk.new()
    desk.delete()
    desk.bring_back()
    assert (_texts(desk.current), desk.deleted) == (["two"], None)


class _Asked:
    """Takes what it is asked, and answers nothing."""

    def __init__(self):
        self.asked = []

    async def stream(self, ask):
        self.asked.append(ask)
        for piece in ():
            yield piece


def _texts(conversation):
    return [message.text for message in conversation.messages]


async def test_going_on_from_a_token_is_in_the_conversation_that_was_scored():
    source, desk = _Asked(), Desk()
    changes = ChatChanges(source, Toolbox([]))
    desk.new("Be brief.")
    first = desk.current
    first.system = "Be brief."
    first.add("user", "The capital of France?")
    desk.scored_reply = (first, first.add("assistant", "Paris."))
    desk.new()
    second = desk.current
    second.add("user", "A poem?")
    second.add("assistant", "Cats purr.")
    changes.go_on_scored(desk, "London", ChatSettings(system="Be loud."))
    await desk.reply.ended()
    assert desk.current is first
    assert _texts(first) == ["The capital of France?", "London"]
    assert _texts(second) == ["A poem?", "Cats purr."]
    assert [message["content"] for message in source.asked[0].messages] == [
        "Be brief.",
        "The capital of France?",
        "London",
    ]


async def test_a_scored_reply_that_is_gone_is_said_to_be():
    desk = Desk()
    desk.current.add("user", "Hi")
    desk.scored_reply = (desk.current, desk.current.add("assistant", "Hello"))
    desk.current.clear()
    desk.new()
    desk.current.add("user", "Hi")
    desk.current.add("assistant", "Hello")
    with pytest.raises(RequestError, match="not here any more"):
        ChatChanges(_Asked(), Toolbox([])).go_on_scored(desk, "Hm", ChatSettings())
    assert _texts(desk.current) == ["Hi", "Hello"]
