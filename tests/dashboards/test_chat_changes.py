"""What a person does to a conversation, where it does not take a browser to see it."""

from __future__ import annotations

import json

import pytest

from dashboards.chat_changes import ChatChanges
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
