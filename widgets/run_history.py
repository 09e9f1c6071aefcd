"""Every load and reply as a row; two of them compared; out as DataFrame, CSV and S3. Runs nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from widgets.front_end import module_text, style_text
from widgets.latest_job import LatestJob
from widgets.part import Part
from widgets.reply_news import hear_replies
from widgets.shared_session import as_session
from workbench.errors import WorkbenchError
from workbench.failure import Failure
from workbench.run_log import Run, RunLog, load_words
from workbench.session import Session
from workbench.twin import Twin

if TYPE_CHECKING:
    import pandas

    from workbench.conversation import Message, ReplyFigures
    from workbench.llm import LlamaGPU

__all__ = ["RunHistory"]

_MOST_SHOWN = 200
# A chat and its caller may both tell of a reply, one right after the other.
_MOST_HEARD = 16


class RunHistory(Part, anywidget.AnyWidget):
    """A table of runs. `source` is a session, or an engine from a cell, whose loads and chat replies are noted from now
    on; `watch` adds another session, `note_reply` a reply from elsewhere. `runs` is where they are kept.

    `frame` is the pandas DataFrame behind it.
    """

    _esm = module_text("run_history")
    _css = style_text()

    rows = traitlets.List().tag(sync=True)
    chosen = traitlets.List(traitlets.Int()).tag(sync=True)
    differences = traitlets.List().tag(sync=True)
    # Why there are no rows.
    hint = traitlets.Unicode("nothing is watched: give it a session or an engine").tag(sync=True)
    said = traitlets.Unicode().tag(sync=True)
    failure = traitlets.Dict(None, allow_none=True).tag(sync=True)

    # Until there is something to leave.
    _forgets: tuple[Callable[[], object], ...] | list[Callable[[], object]] = ()
    _job = LatestJob("workbench-run-history-none")

    def __init__(
        self, source: Session | LlamaGPU | None = None, *, log: RunLog | None = None, s3_client: Any = None
    ) -> None:
        # One made for an engine alone is let go with the widget.
        self._session = None if source is None else as_session(source)
        self._heard: tuple[ReplyFigures, ...] = ()
        self.runs = log or RunLog()
        self._s3_client = s3_client
        self._forgets: list[Callable[[], object]] = []
        self._job = LatestJob("workbench-run-history")
        super().__init__(rows=[_as_row(run) for run in self.runs.runs[-_MOST_SHOWN:]])
        self._forgets.append(self.runs.observe(self._show))
        if self._session is not None:
            self.watch(self._session)
        self.on_msg(self._receive)

    @property
    def frame(self) -> pandas.DataFrame:
        """One row a run."""
        return self.runs.to_frame()

    def diff(self, first: int, second: int) -> pandas.DataFrame:
        """The fields in which two runs differ. Raises ConfigError for a run that is not there."""
        return self.runs.diff(first, second)

    def to_csv(self, path: Any = None) -> str:
        """The runs as CSV text, also written to `path` if one is given."""
        return self.runs.to_csv(path)

    def to_s3(self, url: str) -> str:
        """Write the CSV to an s3:// address; gives the address of the object. Raises WorkbenchError."""
        return self.runs.to_s3(url, client=self._s3_client)

    def watch(self, session: Session, predicted: Callable[[], dict[str, Any]] = dict) -> None:
        """Note the session's loads and its chats' replies from now on."""
        self.hint = "loads and replies are noted here"
        self._forgets.append(self.runs.watch(session, predicted))
        self._forgets.append(hear_replies(session, partial(self._hear_reply, session)))

    def _hear_reply(self, session: Session, message: Message, sampling: Mapping[str, Any]) -> None:
        """Called on the reply's thread."""
        facts, choice = session.status.facts, session.status.choice
        where = {}
        if facts is not None:
            where = {"backend": facts.backend, "precision": facts.precision, "context": facts.max_context}
        self._note(message, sampling, load_words(choice) if choice else "", where)

    def note_reply(self, message: Message, sampling: Mapping[str, Any], **facts: Any) -> None:
        """Note a chat's reply with the sampling settings it was made with; one that was heard of already only once."""
        self._note(message, sampling, "", facts)

    def _note(self, message: Message, sampling: Mapping[str, Any], load: str, facts: Mapping[str, Any]) -> None:
        figures = message.figures
        if figures is None or any(figures is one for one in self._heard):
            return
        self._heard = (*self._heard, figures)[-_MOST_HEARD:]
        words = [f"{name}={str(value).replace(' ', '')}" for name, value in sorted(sampling.items())]
        self.runs.add(
            "reply",
            figures.model,
            figures.finish_reason or message.status.value,
            seconds=None if figures.total_s is None else round(figures.total_s, 3),
            tokens_per_s=None if figures.tokens_per_s is None else round(figures.tokens_per_s, 1),
            ttft_s=None if figures.ttft_s is None else round(figures.ttft_s, 3),
            prompt_tokens=figures.num_prompt_tokens,
            generated_tokens=figures.num_generated_tokens,
            seed=figures.seed,
            settings=" ".join(filter(None, (load, *words))),
            **facts,
        )

    def choose(self, *numbers: int) -> None:
        """Mark up to two runs; of two the differences are shown. Raises ConfigError for a run that is not there."""
        chosen = [self.runs.run(number).number for number in numbers[-2:]]
        rows = self.runs.differences(*chosen) if len(chosen) == 2 else []
        with self.hold_sync():
            self.chosen = chosen
            self.differences = [[name, _words(name, before), _words(name, after)] for name, before, after in rows]

    def close(self) -> None:
        """Note nothing more, and take the widget away. The log stays."""
        for forget in self._forgets:
            forget()
        self._job.close()
        super().close()

    def _show(self, run: Run) -> None:
        """Called by whoever noted the run."""
        self.rows = [*self.rows, _as_row(run)][-_MOST_SHOWN:]

    def _receive(self, _widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        try:
            match content.get("type"):
                case "choose":
                    number = int(content["number"])
                    others = [one for one in self.chosen if one != number]
                    self.choose(*(others if number in self.chosen else [*others, number]))
                case "csv":
                    self.send({"type": "csv", "text": self.to_csv()})
                case "s3":
                    self._send_to_s3(str(content.get("url", "")))
        except (WorkbenchError, KeyError, TypeError, ValueError) as error:
            self.failure = Failure.of(error).as_dict()

    def _send_to_s3(self, url: str) -> None:
        def send() -> None:
            try:
                said, failure = f"Written to {self.to_s3(url)}", None
            except WorkbenchError as error:
                said, failure = "", Failure.of(error).as_dict()
            with self.hold_sync():
                self.said, self.failure = said, failure

        self.said = "Sending\u2026"
        self._job.ask(send)

    def twin(self) -> Twin:
        """How many runs there are, and each in a line without times and measured figures."""
        rows = tuple((f"{run.number} {run.kind}", f"{run.model}: {run.outcome}") for run in self.runs.runs[-20:])
        return Twin(f"RunHistory ({len(self.runs)} runs)", rows)


def _as_row(run: Run) -> dict[str, Any]:
    return {name: _words(name, value) for name, value in asdict(run).items()} | {"number": run.number}


def _words(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value / 1e9:.2f} GB" if name.endswith("_bytes") else str(value)
