import threading

import pytest
from fake_llm import FakeFactory, Gate

from widgets.reply import Reply
from workbench.conversation import MessageStatus
from workbench.errors import InferenceError, PromptTooLongError
from workbench.session import LoadChoice

_LIMIT_S = 20


class Heard:
    def __init__(self):
        self.texts = []
        self.end = None
        self.has_text = threading.Event()

    def text(self, piece):
        self.texts.append(piece)
        self.has_text.set()

    def ended(self, end):
        self.end = end


def _reply(factory, heard, submit=None):
    llm = factory(LoadChoice(), lambda progress: None)
    return Reply(submit or (lambda: llm.submit("hi")), heard.text, heard.ended, interval_s=0.01)


def test_a_reply_streams_and_ends_with_its_timings():
    heard = Heard()
    reply = _reply(FakeFactory(words=["a", "b", "c"]), heard)
    reply.start()
    assert reply.join(_LIMIT_S)
    assert "".join(heard.texts) == "abc"
    assert (heard.end.status, heard.end.finish_reason) == (MessageStatus.DONE, "stop")
    assert heard.end.timings.num_generated_tokens == 3


def test_stop_keeps_what_has_come():
    factory, heard = FakeFactory(words=["a", "b", "c"]), Heard()
    factory.reply_gate = Gate(is_open=False)
    reply = _reply(factory, heard)
    reply.start()
    factory.reply_gate.let()
    assert heard.has_text.wait(_LIMIT_S)
    reply.stop()
    assert reply.join(_LIMIT_S)
    assert heard.texts == ["a"]
    assert heard.end.status is MessageStatus.STOPPED


def test_stop_before_the_request_has_started_still_stops_it():
    factory, heard = FakeFactory(words=["a"]), Heard()
    may_submit = threading.Event()
    llm = factory(LoadChoice(), lambda progress: None)

    def submit():
        assert may_submit.wait(_LIMIT_S)
        return llm.submit("hi")

    reply = _reply(factory, heard, submit)
    reply.start()
    reply.stop()
    may_submit.set()
    assert reply.join(_LIMIT_S)
    assert heard.texts == []
    assert heard.end.status is MessageStatus.STOPPED


def test_a_refused_request_fails_in_words():
    def refuse():
        raise PromptTooLongError(900, 512)

    heard = Heard()
    reply = _reply(FakeFactory(), heard, refuse)
    reply.start()
    assert reply.join(_LIMIT_S)
    assert heard.end.status is MessageStatus.FAILED
    assert "900 tokens" in heard.end.failure.cause


@pytest.mark.parametrize("error", [InferenceError("the step failed"), ValueError("a bug")])
def test_a_failure_on_the_way_keeps_the_text_before_it(error):
    heard = Heard()
    reply = _reply(FakeFactory(words=["a", "b"], reply_error=error), heard)
    reply.start()
    assert reply.join(_LIMIT_S)
    assert "".join(heard.texts) == "ab"
    assert str(error) in heard.end.failure.cause


def test_an_ended_reply_holds_no_request():
    heard = Heard()
    reply = _reply(FakeFactory(), heard)
    reply.start()
    assert reply.join(_LIMIT_S)
    assert reply._generation is None
    reply.stop()
