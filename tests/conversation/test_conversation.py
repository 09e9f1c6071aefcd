import pytest

from workbench.conversation import Conversation, MessageStatus, ReplyFigures, ToolStep
from workbench.errors import RequestError

RUNNING, DONE, STOPPED, FAILED = MessageStatus


def _chat(*texts: str) -> Conversation:
    """Questions and replies in turn."""
    conversation = Conversation()
    for index, text in enumerate(texts):
        conversation.add("assistant" if index % 2 else "user", text)
    return conversation


def _texts(conversation: Conversation) -> list[str]:
    return [message.text for message in conversation.messages]


def _contents(conversation: Conversation) -> list[object]:
    return [message["content"] for message in conversation.prompt()]


def test_the_prompt_is_system_then_the_turns():
    conversation = Conversation("Be brief.")
    conversation.add("user", "Hi")
    conversation.add("assistant", "Hello")
    conversation.add("user", "And?")
    conversation.reply()
    assert conversation.prompt() == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "And?"},
    ]


def test_a_stopped_reply_counts_with_the_text_it_had():
    conversation = _chat("Hi")
    conversation.add("assistant", "Hel", STOPPED)
    assert _contents(conversation) == ["Hi", "Hel"]


def test_a_question_without_an_answer_is_left_out():
    conversation = _chat("first")
    conversation.add("assistant", "", FAILED)
    conversation.add("user", "second")
    assert _contents(conversation) == ["second"]


def test_regenerating_makes_a_version_and_both_can_be_shown():
    conversation = _chat("q1", "a1", "q2", "a2")
    again = conversation.regenerate()
    assert _contents(conversation) == ["q1", "a1", "q2"]
    again.text, again.status = "a2b", DONE
    assert _texts(conversation) == ["q1", "a1", "q2", "a2b"]
    assert (conversation.versions(again.number).index, conversation.versions(again.number).count) == (1, 2)
    assert conversation.show_next(again.number, -1).text == "a2"
    assert _texts(conversation) == ["q1", "a1", "q2", "a2"]
    assert conversation.versions(again.number).index == 0
    assert conversation.show_next(conversation.messages[-1].number, -1).text == "a2"


def test_regenerating_an_earlier_reply_opens_a_branch_and_the_old_one_is_kept():
    conversation = _chat("q1", "a1", "q2", "a2")
    first = conversation.messages[1]
    again = conversation.regenerate(first.number)
    again.text, again.status = "a1b", DONE
    assert _texts(conversation) == ["q1", "a1b"]
    conversation.show(first.number)
    assert _texts(conversation) == ["q1", "a1", "q2", "a2"]


def test_regenerating_a_question_without_a_reply_gives_its_first():
    conversation = _chat("q1")
    reply = conversation.regenerate()
    assert (reply.parent, reply.is_running) == (conversation.messages[0].number, True)


def test_editing_a_question_waits_for_a_new_reply_and_editing_a_reply_keeps_what_follows():
    conversation = _chat("q1", "a1", "q2", "a2")
    question, reply = conversation.messages[0], conversation.messages[1]
    conversation.edit(question.number, "q1b")
    assert _texts(conversation) == ["q1b"]
    conversation.show(question.number)
    edited = conversation.edit(reply.number, "a1b")
    assert _texts(conversation) == ["q1", "a1b", "q2", "a2"]
    conversation.show_next(edited.number, -1)
    assert _texts(conversation) == ["q1", "a1", "q2", "a2"]
    assert len({message.number for message in conversation.all_messages}) == len(conversation.all_messages)


def test_editing_can_be_told_what_to_keep():
    conversation = _chat("q1", "a1", "q2")
    conversation.edit(conversation.messages[0].number, "Q1", keep_following=True)
    assert _texts(conversation) == ["Q1", "a1", "q2"]
    with pytest.raises(RequestError, match="empty"):
        conversation.edit(conversation.messages[0].number, " \n")


def test_undo_gives_the_question_back_and_forgets_nothing():
    conversation = _chat("q1", "a1", "q2", "a2")
    taken = conversation.messages[2]
    assert conversation.undo() == "q2"
    assert _texts(conversation) == ["q1", "a1"]
    conversation.add("user", "q2b")
    assert conversation.versions(taken.number).count == 2
    conversation.show(taken.number)
    assert _texts(conversation) == ["q1", "a1", "q2", "a2"]
    assert [conversation.undo(), conversation.undo()] == ["q2", "q1"]
    assert conversation.messages == ()
    with pytest.raises(RequestError, match="nothing to take back"):
        conversation.undo()


def test_going_on_with_a_reply_ends_the_prompt_with_its_text():
    conversation = _chat("q1", "Once upon")
    reply = conversation.resume()
    assert conversation.continues_reply
    reply.text += " a time"
    assert _contents(conversation) == ["q1", "Once upon"]
    reply.status = DONE
    assert not conversation.continues_reply
    assert _contents(conversation) == ["q1", "Once upon a time"]


def test_a_reply_can_be_begun_for_the_model():
    conversation = _chat("q1")
    reply = conversation.reply(start="Sure:")
    assert (conversation.continues_reply, _contents(conversation)) == (True, ["q1", "Sure:"])
    reply.status = DONE
    with pytest.raises(RequestError, match="no reply to go on with"):
        _chat("q1").resume()


def test_a_branch_is_a_conversation_of_its_own():
    conversation = _chat("q1", "a1", "q2", "a2")
    branch = conversation.branch(conversation.messages[1].number)
    branch.add("user", "other")
    assert _texts(branch) == ["q1", "a1", "other"]
    assert _texts(conversation) == ["q1", "a1", "q2", "a2"]
    assert branch.conversation_id != conversation.conversation_id
    branch.messages[0].text = "changed"
    assert conversation.messages[0].text == "q1"


def test_nothing_changes_while_a_reply_runs():
    conversation = _chat("q1", "a1")
    conversation.regenerate()
    changes = [conversation.regenerate, conversation.reply, conversation.undo, conversation.resume]
    changes += [lambda: conversation.edit(0, "x"), lambda: conversation.branch(0), lambda: conversation.show(1)]
    for change in changes:
        with pytest.raises(RequestError, match="running"):
            change()


def test_unknown_messages_and_roles_are_refused():
    with pytest.raises(RequestError, match="no message 7"):
        _chat("q1").show(7)
    with pytest.raises(RequestError, match="role 'robot'"):
        _chat("q1").add("robot", "beep")


def test_numbers_are_not_used_again_after_clear():
    conversation = Conversation("system stays")
    first = conversation.add("user", "a").number
    conversation.clear()
    assert conversation.messages == ()
    assert conversation.add("user", "b").number > first
    assert conversation.prompt()[0]["role"] == "system"


def test_the_title_is_the_first_question_until_there_is_another():
    conversation = _chat("What is\nthe capital of a country that has a very long name?")
    assert conversation.title == "What is the capital of a country that h…"
    conversation.title = "  Capitals "
    assert conversation.title == "Capitals"


def test_tool_steps_come_before_the_text_of_their_reply():
    conversation = _chat("How late is it?")
    reply = conversation.add("assistant", "It is noon.")
    reply.steps = (ToolStep("c1", "clock", "{}", "12:00", said="Let me look."), ToolStep("c2", "clock", "{}"))
    assert conversation.prompt()[1:] == [
        {
            "role": "assistant",
            "content": "Let me look.",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}],
        },
        {"role": "tool", "content": "12:00", "tool_call_id": "c1"},
        {"role": "assistant", "content": "It is noon."},
    ]


def test_the_note_says_what_a_reply_cost_and_whether_it_was_cut():
    reply = _chat("q").add("assistant", "a")
    assert reply.note == ""
    reply.figures = ReplyFigures(
        finish_reason="length",
        num_prompt_tokens=1000,
        num_generated_tokens=24,
        ttft_s=0.123,
        tokens_per_s=31.25,
        max_context=2048,
    )
    expected = "24 tokens, 31.2 tokens/s, first token after 0.12 s, context 1,024 of 2,048"
    assert reply.note == f"Cut at the length limit, {expected}"
    reply.status = STOPPED
    assert reply.note == f"Stopped, {expected}"
