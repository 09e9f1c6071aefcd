"""The magics themselves: parse a line, ask the session, show the answer. Each has its equivalent in plain Python."""

from __future__ import annotations

import argparse
import inspect
import shlex
import sys
from typing import Any, NoReturn

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, line_cell_magic, magics_class
from IPython.display import display

from workbench.engine import SamplingParams
from workbench.errors import ConfigError, EngineStoppedError, WorkbenchError
from workbench.magics.progress_lines import ProgressLines
from workbench.magics.tables import endpoints_twin, plan_of, receipt_twin, status_twin
from workbench.session import LoadChoice, Session, SessionState

__all__ = ["WorkbenchMagics"]

_COMMANDS = ("status", "plan", "load", "unload", "serve", "ps", "use")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}\n{self.format_usage().strip()}")


@magics_class
class WorkbenchMagics(Magics):
    """`%wb` commands work on one session of the shell; `%wb use NAME` takes an engine, a session or a panel instead."""

    def __init__(self, shell: Any, session: Session | None = None) -> None:
        super().__init__(shell)
        # `shell` of the class above may be None by its type.
        self._shell = shell
        self._own_session = session or Session()
        self.session = self._own_session

    def close(self) -> None:
        """Unload what these magics loaded."""
        self._own_session.close()

    @line_cell_magic
    def wb(self, line: str, cell: str | None = None) -> Any:
        """Load, watch and serve a model.

        %wb status                      what is loaded, and how full it is
        %wb plan MODEL [options]        what it would take, without loading
        %wb load MODEL [options]        load (options: --backend --quant --context-length --device-index)
        %wb unload                      unload, and say what was freed
        %wb serve [--port N]            serve to OpenAI clients; %wb serve --stop ends it
        %wb ps                          endpoints of this process
        %wb help                        these lines
        %wb use NAME                    work on a LlamaGPU, Session or Workbench of this notebook
        """
        if cell is not None:
            raise UsageError("%wb takes one line; to chat in a cell use %%chat")
        command, *words = _split("%wb", line) or ["status"]
        if command in ("help", "--help", "-h"):
            print(inspect.getdoc(WorkbenchMagics.wb))
            return None
        if command not in _COMMANDS:
            raise UsageError(f"%wb {command}: not known; use one of {', '.join(_COMMANDS)}")
        return _shown(getattr(self, f"_{command}"), words)

    @cell_magic
    def chat(self, line: str, cell: str) -> None:
        """Send the cell to the loaded model, as a user's message, and stream the reply.

        %%chat [--system TEXT] [--max-tokens N] [--temperature T] [--seed N]
        """
        _shown(lambda words: self._chat(words, cell), _split("%%chat", line))

    def _status(self, words: list[str]) -> None:
        _parse("%wb status", words)
        display(status_twin(self.session))

    def _plan(self, words: list[str]) -> Any:
        return plan_of(_choice("%wb plan", words))

    def _load(self, words: list[str]) -> None:
        choice = _choice("%wb load", words)
        forget = self.session.observe(ProgressLines(lambda text: print(text, flush=True)))
        try:
            self.session.load(choice)
            status = self.session.wait()
        except KeyboardInterrupt:
            self.session.cancel()
            raise
        finally:
            forget()
        if status.failure is not None:
            raise UsageError(f"{status.failure.cause}\n{status.failure.next_step}")
        display(status_twin(self.session))

    def _unload(self, words: list[str]) -> None:
        _parse("%wb unload", words)
        self.session.unload()
        display(receipt_twin(self.session.wait()))

    def _serve(self, words: list[str]) -> Any:
        parser = _Parser("%wb serve", add_help=False)
        parser.add_argument("--port", type=int, default=0)
        parser.add_argument("--stop", action="store_true")
        options = parser.parse_args(words)
        from workbench.server.endpoints import PROCESS_ENDPOINTS

        if options.stop:
            endpoint = PROCESS_ENDPOINTS.get("default")
            if endpoint is None:
                raise ConfigError("nothing is being served")
            endpoint.stop()
            return endpoint
        return self._llm().serve(port=options.port)

    def _ps(self, words: list[str]) -> None:
        _parse("%wb ps", words)
        display(endpoints_twin())

    def _use(self, words: list[str]) -> None:
        parser = _Parser("%wb use", add_help=False)
        parser.add_argument("name")
        value = self._shell.user_ns.get(parser.parse_args(words).name)
        session = value if isinstance(value, Session) else getattr(value, "session", None)
        if isinstance(session, Session):
            self.session = session
        elif hasattr(value, "submit") and hasattr(value, "is_loaded"):
            session = Session()
            session.adopt(value)
            self.session = session
        else:
            raise ConfigError(f"{words[0]!r} is no LlamaGPU, Session or Workbench of this notebook")
        display(status_twin(self.session))

    def _chat(self, words: list[str], cell: str) -> None:
        parser = _Parser("%%chat", add_help=False)
        parser.add_argument("--system")
        parser.add_argument("--max-tokens", type=int, default=SamplingParams().max_tokens)
        parser.add_argument("--temperature", type=float, default=0.0)
        parser.add_argument("--seed", type=int)
        options = vars(parser.parse_args(words))
        system = options.pop("system")
        messages = [{"role": "system", "content": system}] if system else []
        generation = self._llm().submit(messages=[*messages, {"role": "user", "content": cell.strip()}], **options)
        # Leaving the loop, also by an interrupt, stops this request and no other; what has come stays in the output.
        for chunk in generation:
            sys.stdout.write(chunk.text)
            sys.stdout.flush()
        sys.stdout.write("\n")

    def _llm(self) -> Any:
        if self.session.status.state is not SessionState.READY:
            raise EngineStoppedError("no model is loaded: %wb load default")
        return self.session.llm


def _shown(run: Any, words: list[str]) -> Any:
    """Errors of ours are for the user, not for a traceback, whose frames would keep the model alive as well."""
    try:
        return run(words)
    except WorkbenchError as error:
        message = str(error)
    raise UsageError(message)


def _split(name: str, line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        reason = str(error)
    raise UsageError(f"{name}: {reason[:1].lower()}{reason[1:]}: put text with an apostrophe in it in double quotes")


def _parse(name: str, words: list[str]) -> argparse.Namespace:
    return _Parser(name, add_help=False).parse_args(words)


def _choice(name: str, words: list[str]) -> LoadChoice:
    parser = _Parser(name, add_help=False)
    parser.add_argument("model", nargs="?", default="default")
    parser.add_argument("--backend")
    parser.add_argument("--quant", dest="precision")
    parser.add_argument("--context-length", type=int)
    parser.add_argument("--device-index", type=int, dest="gpu")
    options = vars(parser.parse_args(words))
    gpu = options.pop("gpu")
    return LoadChoice(**options, gpus=() if gpu is None else (gpu,))
