"""The chat's prompt on a real terminal: Ctrl-C counts at any moment."""

import sys
from contextlib import suppress

from cli.terminal import CTRL_C, Terminal

CHAT = """
from workbench.cli.chat_session import ChatSession
from workbench.engine import SamplingParams
ChatSession(None, SamplingParams()).run_terminal()
"""
# Interrupts at the worst moment, every time: the prompt is written, and waiting for a key has not begun. Called from C
# without a step of Python in between, at which the interrupt would be noticed.
INTERRUPTED_BEFORE_EACH_WAIT = """
import ctypes, functools, os, readline, signal
readline.set_pre_input_hook(functools.partial(ctypes.CDLL(None).kill, os.getpid(), signal.SIGINT))
"""


def type_until_read(terminal: Terminal) -> None:
    """Terminals drop what is typed before an interrupt, and some interrupts may still be on their way."""
    for _ in range(60):
        terminal.press("/help\n")
        with suppress(AssertionError):
            terminal.wait_for("forget the conversation", timeout_s=1.0)
            return
    raise AssertionError(f"/help was never read; on the terminal is:\n{terminal.written}")


def test_an_interrupt_between_the_prompt_and_the_wait_is_noticed_without_a_key():
    with Terminal(sys.executable, "-c", INTERRUPTED_BEFORE_EACH_WAIT + CHAT) as terminal:
        for _ in range(3):
            terminal.wait_for("> ")
            terminal.wait_for("Ctrl-D or /exit leaves")


def test_many_interrupts_at_once_do_not_end_the_chat_and_what_is_typed_is_read():
    with Terminal(sys.executable, "-c", CHAT) as terminal:
        terminal.wait_for("> ")
        for _ in range(3):
            terminal.press(CTRL_C * 5)
            terminal.wait_for("Ctrl-D or /exit leaves")
        type_until_read(terminal)
        assert terminal.leave() == 0
