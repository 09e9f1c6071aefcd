import io
import json

import pytest
from cli.scripted_llm import INTERRUPT, ScriptedLlama

from workbench.cli import main
from workbench.cli.services import Services
from workbench.errors import EngineStoppedError, InferenceError, PromptTooLongError


@pytest.fixture
def chat(monkeypatch):
    """Runs `workbench chat` with these lines on stdin, through a pipe."""

    def run(llm, *lines, options=()):
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        return main(["chat", *options], Services(open_llm=llm.open))

    return run


def contents(request):
    return [message["content"] for message in request["messages"]]


def test_keeps_the_conversation(chat, capsys):
    llm = ScriptedLlama(["Hello", "!"], ["Fine."])
    assert chat(llm, "hi", "", "how are you?") == 0
    captured = capsys.readouterr()
    assert captured.out == "Hello!\nFine.\n"
    assert captured.err.count("5 tokens, 8.0 tokens/s, first after 0.25 s") == 2
    assert contents(llm.requests[1]) == ["hi", "Hello!", "how are you?"]
    assert llm.is_unloaded


def test_slash_commands(chat, capsys):
    llm = ScriptedLlama(["a"], ["b"], ["c"])
    assert chat(llm, "/system Be brief.", "one", "/reset", "two", "/system", "/help", "three", "/exit", "four") == 0
    assert contents(llm.requests[0]) == ["Be brief.", "one"]
    assert llm.requests[0]["messages"][0]["role"] == "system"
    assert contents(llm.requests[1]) == ["Be brief.", "two"]
    assert contents(llm.requests[2]) == ["two", "b", "three"]
    assert len(llm.requests) == 3
    assert "/exit" in capsys.readouterr().err


def test_an_unknown_slash_command_is_no_message(chat, capsys):
    llm = ScriptedLlama()
    assert chat(llm, "/sytem x") == 1
    assert "/sytem is no command; there are /system" in capsys.readouterr().err
    assert llm.requests == []


def test_an_interrupt_stops_the_reply_and_the_next_one_comes(chat, capsys):
    llm = ScriptedLlama(["Once upon", INTERRUPT], ["Yes?"])
    assert chat(llm, "tell me a story", "stop") == 0
    captured = capsys.readouterr()
    assert captured.out == "Once upon\nYes?\n"
    assert "stopped" in captured.err
    assert llm.aborted[0] == "request-1"
    assert contents(llm.requests[1]) == ["tell me a story", "Once upon", "stop"]


def test_an_interrupt_before_any_text_takes_the_question_back(chat):
    llm = ScriptedLlama([INTERRUPT], ["Yes?"])
    assert chat(llm, "one", "two") == 0
    assert contents(llm.requests[1]) == ["two"]


@pytest.mark.parametrize("failure", [PromptTooLongError(900, 800), ["Half", InferenceError("the step failed")]])
def test_a_failed_reply_leaves_the_chat_usable(chat, capsys, failure):
    llm = ScriptedLlama(failure, ["Fine."])
    assert chat(llm, "one", "two") == 1
    captured = capsys.readouterr()
    assert captured.out.endswith("Fine.\n")
    assert "error: " in captured.err
    assert contents(llm.requests[1])[-1] == "two"


def test_a_dead_engine_ends_the_chat(chat, capsys):
    llm = ScriptedLlama(EngineStoppedError("the engine's loop died"), ["never"])
    assert chat(llm, "one", "two") == 1
    assert "the engine's loop died" in capsys.readouterr().err
    assert len(llm.requests) == 1


def test_json_lines(chat, capsys):
    llm = ScriptedLlama(["Hello", "!"], PromptTooLongError(900, 800))
    assert chat(llm, "hi", "long", options=["--json"]) == 1
    reply, failed = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (reply["role"], reply["text"], reply["finish_reason"]) == ("assistant", "Hello!", "stop")
    assert "900 tokens" in failed["error"]


def test_options(chat):
    llm = ScriptedLlama(["a"])
    assert chat(llm, "hi", options=["--system", "Be kind.", "--temperature", "0.5"]) == 0
    assert contents(llm.requests[0]) == ["Be kind.", "hi"]
    assert llm.requests[0]["sampling"]["temperature"] == 0.5
    assert llm.requests[0]["sampling"]["max_tokens"] == 1024


def test_one_reply_at_a_time(chat, capsys):
    assert chat(ScriptedLlama(), options=["--n", "2"]) == 2
    assert "--n 2" in capsys.readouterr().err
