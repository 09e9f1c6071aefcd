"""One chat: a line is a slash command or a message; the session outlives an interrupted and a failed reply."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import fields
from enum import Enum
from typing import TYPE_CHECKING, Any

from rich.console import Console

from workbench.cli.answer import answer_json, timings_line
from workbench.cli.conversation import Conversation
from workbench.cli.prompt import read_line
from workbench.errors import EngineStoppedError, WorkbenchError

if TYPE_CHECKING:
    from workbench.engine import Completion, Generation, SamplingParams
    from workbench.llm import LlamaGPU

__all__ = ["ChatSession", "Outcome"]

_HELP = """\
/system TEXT  set the system message (without TEXT: remove it)
/reset        forget the conversation, keep the system message
/exit         leave, as Ctrl-D does; Ctrl-C stops a reply"""


class Outcome(Enum):
    """What became of a line."""

    DONE = "done"
    FAILED = "failed"
    LEAVE = "leave"


class ChatSession:
    """A conversation with a loaded model. Replies go to stdout, everything about them to stderr."""

    def __init__(
        self, llm: LlamaGPU, sampling: SamplingParams, *, system: str | None = None, as_json: bool = False
    ) -> None:
        self._llm = llm
        self._options: dict[str, Any] = {field.name: getattr(sampling, field.name) for field in fields(sampling)}
        self._conversation = Conversation(system)
        self._as_json = as_json
        self._console = Console(stderr=True, highlight=False, markup=False)

    def run_terminal(self) -> None:
        """Converse until Ctrl-D or /exit. A reply that fails is shown, and the next message may follow."""
        self._note("/help lists the commands, Ctrl-C stops a reply, Ctrl-D leaves")
        outcome, was_interrupted = Outcome.DONE, False
        while outcome is not Outcome.LEAVE:
            try:
                if was_interrupted:
                    # Said in here, so that an impatient second Ctrl-C does not end the chat.
                    was_interrupted = False
                    print()
                    self._note("Ctrl-D or /exit leaves")
                outcome = self.handle(read_line("> "))
            except EOFError:
                print()
                return
            except KeyboardInterrupt:
                was_interrupted = True

    def run_lines(self, lines: Iterable[str]) -> bool:
        """Take each line as a message until they end or one says /exit. False when a reply failed."""
        all_done = True
        for line in lines:
            outcome = self.handle(line)
            if outcome is Outcome.LEAVE:
                break
            all_done &= outcome is Outcome.DONE
        return all_done

    def handle(self, line: str) -> Outcome:
        """Do what one line says. Raises EngineStoppedError, after which no reply can come."""
        text = line.strip()
        if not text:
            return Outcome.DONE
        if text.startswith("/"):
            return self._do_command(text)
        return self._reply_to(text)

    def _do_command(self, text: str) -> Outcome:
        name, _, argument = text.partition(" ")
        match name:
            case "/exit":
                return Outcome.LEAVE
            case "/reset":
                self._conversation.reset()
                self._note("the conversation is forgotten")
            case "/system":
                self._conversation.system = argument.strip() or None
                self._note("the system message is set" if argument.strip() else "the system message is removed")
            case "/help":
                self._note(_HELP)
            case _:
                self._note(f"{name} is no command; there are /system, /reset, /exit and /help")
                return Outcome.FAILED
        return Outcome.DONE

    def _reply_to(self, text: str) -> Outcome:
        self._conversation.ask(text)
        generation: Generation | None = None
        try:
            generation = self._llm.submit(messages=self._conversation.messages, **self._options)
            completion = self._show(generation)
        except EngineStoppedError:
            raise
        except WorkbenchError as error:
            self._show_error(error)
            return Outcome.FAILED
        finally:
            # What had come before a failure or an interrupt stays said.
            self._conversation.answer(generation.text if generation else "")
        if self._as_json:
            print(json.dumps({"role": "assistant", **answer_json(completion)}), flush=True)
        else:
            self._note(timings_line(completion.timings))
        return Outcome.DONE

    def _show(self, generation: Generation) -> Completion:
        """Stream the reply; an interrupt ends it there and is not passed on."""
        try:
            for chunk in generation:
                if not self._as_json:
                    sys.stdout.write(chunk.text)
                    sys.stdout.flush()
        except KeyboardInterrupt:
            generation.abort()
            self._end_line()
            self._note("stopped")
        else:
            self._end_line()
        return generation.result()

    def _end_line(self) -> None:
        if not self._as_json:
            print(flush=True)

    def _show_error(self, error: WorkbenchError) -> None:
        if self._as_json:
            print(json.dumps({"role": "assistant", "error": str(error)}), flush=True)
        else:
            self._end_line()
            self._console.print(f"error: {error}", style="red")

    def _note(self, text: str) -> None:
        self._console.print(text, style="dim")
