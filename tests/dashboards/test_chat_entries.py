from dashboards.chat_entries import chat_entries
from dashboards.meter import meter_html
from workbench.conversation import ContextUse, Conversation, MessageStatus, ReplyFigures, ToolStep
from workbench.failure import Failure


def _asked() -> tuple[Conversation, object]:
    conversation = Conversation()
    conversation.add("user", "q")
    return conversation, conversation.reply()


def _shape(conversation, live=""):
    entries = chat_entries(conversation, live).entries
    return [(entry["role"], entry.get("metadata", {}).get("title"), entry["content"]) for entry in entries]


def test_a_running_reply_shows_what_is_measured():
    conversation, reply = _asked()
    assert _shape(conversation, "3 tokens") == [("user", None, "q"), ("assistant", None, "<small>3 tokens</small>")]
    reply.text = "So"
    assert _shape(conversation)[1:] == [("assistant", None, "So"), ("assistant", None, "<small>…</small>")]


def test_thoughts_are_folds_that_are_open_while_they_last():
    conversation, reply = _asked()
    reply.text = "<think>hm"
    assert chat_entries(conversation).entries[1]["metadata"] == {"title": "Reasoning", "status": "pending"}
    reply.text, reply.status = "<think>hm</think>yes", MessageStatus.DONE
    assert _shape(conversation)[1:] == [("assistant", "Reasoning", "hm"), ("assistant", None, "yes")]


def test_tools_are_steps_with_arguments_and_result():
    conversation, reply = _asked()
    reply.steps = (ToolStep("1", "clock", "{}", "12:00"), ToolStep("2", "sum", '{"a": "```"}'))
    (_, title, content), (_, pending, arguments) = _shape(conversation)[1:3]
    assert title == "Called clock" and "12:00" in content
    assert pending == "Calling sum" and arguments.startswith("````````json")
    reply.steps = (ToolStep("1", "clock", "{}", "no", failed=True),)
    assert _shape(conversation)[1][1] == "clock failed"
    reply.steps = (ToolStep("1", "sum", '{"a', failed=True),)
    reply.text, reply.status = "Let me see.", MessageStatus.DONE
    (_, _, said), (_, title, content) = _shape(conversation)[1:3]
    assert said == "Let me see." and title == "Call of sum was cut off"
    assert '{"a' in content and "reached its length limit inside this call" in content
    # What was never answered is nothing that the model is told of, and going on takes it away.
    assert conversation.prompt()[1:] == [{"role": "assistant", "content": "Let me see."}]
    assert conversation.resume().steps == ()


def test_a_failure_says_cause_and_next_step():
    conversation, reply = _asked()
    reply.status, reply.failure = MessageStatus.FAILED, Failure("K", "It broke.", "Mend it.", "")
    assert _shape(conversation)[1][2] == "**It broke.**\n\nMend it."


def test_every_entry_belongs_to_a_message():
    conversation, reply = _asked()
    reply.text, reply.status = "<think>a</think>b", MessageStatus.DONE
    reply.figures = ReplyFigures(num_generated_tokens=4)
    second = conversation.add("user", "again")
    shown = chat_entries(conversation)
    assert shown.owners == [0, reply.number, reply.number, reply.number, second.number]
    assert (shown.owner(3), shown.owner([4, 0]), shown.owner(99)) == (reply.number, second.number, None)
    assert shown.entries[3]["content"] == "<small>4 tokens</small>"


def test_versions_are_counted():
    conversation, reply = _asked()
    reply.status = MessageStatus.DONE
    conversation.regenerate().status = MessageStatus.DONE
    assert _shape(conversation)[-1][2] == "<small>version 2 of 2</small>"


def test_a_reply_without_anything_is_still_there():
    conversation, reply = _asked()
    reply.status = MessageStatus.DONE
    assert len(_shape(conversation)) == 2


def test_the_meter_says_in_words_what_it_draws():
    html = meter_html(ContextUse(10, 20, 30, 100))
    assert "60 of 100 tokens: system 10, history 20, draft 30; 40 free" in html
    assert html.count("%") == 3
    assert "wb-full" in meter_html(ContextUse(50, 60, 0, 100))
    assert "&lt;b&gt;" in meter_html(None, "<b>")
