"""The magics in a real IPython shell, over a session whose engines are scripted."""

import pytest
from fake_llm import FakeFactory, FakeLlama, Gate
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from workbench.magics.workbench_magics import WorkbenchMagics
from workbench.session import LoadChoice, Session, SessionState


@pytest.fixture
def factory():
    return FakeFactory(words=["Hello", " there", "."])


@pytest.fixture
def shell(factory):
    shell = InteractiveShell()
    with Session(factory) as session:
        shell.register_magics(WorkbenchMagics(shell, session))
        yield shell
    InteractiveShell.clear_instance()


def _run(shell, code):
    with capture_output() as captured:
        result = shell.run_cell(code)
    words = captured.stdout + "".join(str(output) for output in captured.outputs)
    return result, words


def _error(shell, code):
    result, _ = _run(shell, code)
    return str(result.error_in_exec)


def test_load_status_chat_and_unload(shell, factory):
    _, words = _run(shell, "%wb load tiny --backend cpu --quant bf16 --context-length 64 --device-index 1")
    assert factory.choices == [LoadChoice("tiny", "cpu", "bf16", 64, (1,))]
    assert "load weights\nload weights: 25%\nload weights: 50%\nload weights: 75%\n" in words
    assert "tiny" in words
    assert "0 running, 0 waiting" in _run(shell, "%wb status")[1]
    _, words = _run(shell, "%%chat --system Short. --max-tokens 8 --seed 3\nHi\nyou")
    assert words.startswith("Hello there.\n")
    request = factory.made[0].requests[0]
    assert request["messages"] == [
        {"role": "system", "content": "Short."},
        {"role": "user", "content": "Hi\nyou"},
    ]
    assert (request["max_tokens"], request["seed"]) == (8, 3)
    assert "500 MB freed" in _run(shell, "%wb unload")[1]
    assert "no model was loaded" in _run(shell, "%wb unload")[1]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("%wb dance", "use one of status, plan, load, unload, serve, ps, use"),
        ("%wb load a b", "unrecognized arguments: b"),
        ("%wb load --context-length many", "invalid int value"),
        ("%wb serve", "no model is loaded: %wb load default"),
        ("%%chat\nHi", "no model is loaded"),
        ("%wb use nothing", "'nothing' is no LlamaGPU, Session or Workbench"),
        ("%%wb\ncell", "to chat in a cell use %%chat"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(shell, code, words):
    result, _ = _run(shell, code)
    assert type(result.error_in_exec).__name__ == "UsageError"
    assert words in str(result.error_in_exec)


def test_help_lists_the_commands(shell):
    for line in ("%wb help", "%wb --help"):
        _, words = _run(shell, line)
        assert all(f"%wb {command}" in words for command in ("status", "plan", "load", "unload", "serve", "ps", "use"))


def test_a_failed_load_gives_cause_and_next_step(shell, factory):
    from workbench.errors import ModelNotFoundError

    factory.load_error = ModelNotFoundError("no model 'x'")
    assert _error(shell, "%wb load x") == "no model 'x'\nCheck the spelling, or choose another model."


def test_an_interrupted_chat_stops_its_request_and_keeps_the_session(shell, factory, monkeypatch):
    _run(shell, "%wb load")

    class Interrupting:
        def __init__(self):
            self.was_closed = False

        def __iter__(self):
            try:
                raise KeyboardInterrupt
                yield
            finally:
                self.was_closed = True

    generation = Interrupting()
    monkeypatch.setattr(FakeLlama, "submit", lambda *_, **__: generation)
    result, _ = _run(shell, "%%chat\nHi")
    assert isinstance(result.error_in_exec, KeyboardInterrupt)
    assert generation.was_closed
    assert shell.magics_manager.registry["WorkbenchMagics"].session.status.state is SessionState.READY


@pytest.mark.parametrize("code", ['%wb load "x', "%%chat --system it's\nHi"])
def test_a_quote_that_is_not_closed_is_said_in_one_sentence(shell, code):
    result, words = _run(shell, code)
    assert isinstance(result.error_in_exec, UsageError)
    assert "no closing quotation: put text with an apostrophe in it in double quotes" in str(result.error_in_exec)
    assert "Traceback" not in words


def test_use_takes_an_engine_of_the_notebook_and_leaves_it_loaded(shell):
    llm = FakeLlama(LoadChoice("mine"), words=["Yes"], gate=Gate(), error=None)
    shell.user_ns["llm"] = llm
    assert "mine" in _run(shell, "%wb use llm")[1]
    assert _run(shell, "%%chat\nHi")[1] == "Yes\n"


def test_load_ext_and_unload_ext():
    shell = InteractiveShell()
    _run(shell, "%load_ext workbench")
    assert {"wb"} <= set(shell.magics_manager.magics["line"])
    assert "no model" in _error(shell, "%%chat\nHi")
    _run(shell, "%load_ext workbench")
    _run(shell, "%unload_ext workbench")
    assert "wb" not in shell.magics_manager.magics["line"]
