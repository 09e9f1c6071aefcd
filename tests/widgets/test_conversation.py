from widgets.conversation import Conversation, MessageStatus

RUNNING, DONE, STOPPED, FAILED = MessageStatus


def test_the_prompt_is_system_then_the_turns():
    conversation = Conversation("Be brief.")
    conversation.add("user", "Hi")
    conversation.add("assistant", "Hello")
    conversation.add("user", "And?")
    conversation.add("assistant", status=RUNNING)
    assert conversation.prompt() == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "And?"},
    ]


def test_a_stopped_reply_counts_with_the_text_it_had():
    conversation = Conversation()
    conversation.add("user", "Hi")
    conversation.add("assistant", "Hel", STOPPED)
    assert conversation.prompt()[-1] == {"role": "assistant", "content": "Hel"}


def test_a_question_without_an_answer_is_left_out():
    conversation = Conversation()
    conversation.add("user", "first")
    conversation.add("assistant", "", FAILED)
    conversation.add("user", "second")
    assert [message["content"] for message in conversation.prompt()] == ["second"]


def test_numbers_are_not_used_again_after_clear():
    conversation = Conversation("system stays")
    first = conversation.add("user", "a").number
    conversation.clear()
    assert conversation.messages == ()
    assert conversation.add("user", "b").number > first
    assert conversation.prompt()[0]["role"] == "system"
