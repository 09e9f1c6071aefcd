"""How sure a model was of each token: colours, alternatives, going on from one. Knows no engine's insides."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from widgets.chat_prompt import token_bytes
from widgets.front_end import module_text, style_text
from widgets.latest_job import LatestJob
from widgets.part import Part
from widgets.shared_session import as_session
from workbench.conversation import ScoredToken, perplexity, score_text
from workbench.errors import ConfigError, RequestError, WorkbenchError
from workbench.failure import Failure
from workbench.session import Session, SessionState, SessionStatus
from workbench.twin import Twin

if TYPE_CHECKING:
    from workbench.llm import LlamaGPU

__all__ = ["TokenHeatmap"]

_COLORINGS = ("probability", "entropy")
# What a page draws without stuttering; a longer text is scored whole and its beginning shown.
_MOST_SHOWN = 4000

OnPick = Callable[[int, str], None]


class TokenHeatmap(Part, anywidget.AnyWidget):
    """Tokens coloured by probability or entropy, with the likeliest alternatives of each by pointer and keyboard.

    Give scored `tokens`, or a `source` (an engine or a session) with a `text` to score; with a source further texts
    can be scored in the page. `on_pick(token_index, text)` is called when an alternative is chosen, with the text up
    to it and the alternative in place of the token; without it and with a source, the model goes on from there here.
    """

    _esm = module_text("token_heatmap")
    _css = style_text()

    tokens = traitlets.List().tag(sync=True)
    coloring = traitlets.Unicode("probability").tag(sync=True)
    summary = traitlets.Unicode().tag(sync=True)
    can_score = traitlets.Bool(False).tag(sync=True)
    can_pick = traitlets.Bool(False).tag(sync=True)
    # False while the source has no model.
    ready = traitlets.Bool(True).tag(sync=True)
    text = traitlets.Unicode().tag(sync=True)
    busy = traitlets.Bool(False).tag(sync=True)
    failure = traitlets.Dict(None, allow_none=True).tag(sync=True)

    # Until there is a session to leave.
    _forget: Callable[[], object] = staticmethod(lambda: None)
    _job = LatestJob("workbench-heatmap-none")

    def __init__(
        self,
        source: Session | LlamaGPU | None = None,
        text: str = "",
        *,
        tokens: Sequence[ScoredToken] = (),
        on_pick: OnPick | None = None,
    ) -> None:
        self._session = None if source is None else as_session(source)
        self._on_pick = self._pick_shown = on_pick
        self._scored: tuple[ScoredToken, ...] = ()
        self._job = LatestJob("workbench-heatmap")
        super().__init__(can_score=source is not None, text=text)
        if self._session is not None:
            self._follow_session(self._session.status)
            self._forget = self._session.observe(self._follow_session)
        self.show(tokens)
        self.on_msg(self._receive)
        if text and source is not None:
            self.score(text)

    @property
    def scored(self) -> tuple[ScoredToken, ...]:
        """The tokens that are shown."""
        return self._scored

    def show(self, tokens: Sequence[ScoredToken], on_pick: OnPick | None = None) -> None:
        """Show scored tokens in place of those that were.

        `on_pick` is what choosing an alternative of these tokens does, in place of what it does by default.
        """
        # A text that is shown later has nothing to do with where these tokens came from.
        self._scored, self._pick_shown = tuple(tokens), on_pick or self._on_pick
        with self.hold_sync():
            self.tokens = [_as_dict(token) for token in self._scored[:_MOST_SHOWN]]
            self.summary = _summary(self._scored)
            self._allow_picks()
            self.failure = None

    def score(self, text: str) -> None:
        """Have the model say how likely a given text is; returns at once. Raises ConfigError without a source."""
        if self._session is None:
            raise ConfigError("there is no engine to score with: TokenHeatmap(llm)")
        if not text:
            raise RequestError("the text is empty: give some text to score")
        self.text = text
        self._start(lambda llm: self.show(score_text(llm, text, token_bytes(llm))))

    def pick(self, index: int, alternative: int) -> None:
        """Choose an alternative of a token, as a click does. Raises ConfigError if there is none."""
        if not 0 <= index < len(self._scored) or not 0 <= alternative < len(self._scored[index].alternatives):
            raise ConfigError(f"token {index} has no alternative {alternative}")
        chosen = self._scored[index].alternatives[alternative].text
        start = "".join(token.text for token in self._scored[:index]) + chosen
        if self._pick_shown is not None:
            self._pick_shown(index, start)
        elif self._session is not None:
            self._start(lambda llm: self._go_on(llm, start))

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the scoring that runs; True when none runs any more."""
        return self._job.wait(timeout_s)

    def close(self) -> None:
        """Drop what waits, and take the widget away."""
        self._forget()
        self._job.close()
        super().close()

    def _follow_session(self, status: SessionStatus) -> None:
        """Called by the session's worker."""
        with self.hold_sync():
            self.ready = status.state is SessionState.READY
            self._allow_picks()

    def _allow_picks(self) -> None:
        """Whoever made this with an `on_pick` may need no model for it; everything else does."""
        with_source = self._session is not None
        self.can_pick = self._on_pick is not None or (self.ready if with_source else self._pick_shown is not None)

    def _go_on(self, llm: LlamaGPU, start: str) -> None:
        text = start + llm.infer(start, max_tokens=48)
        self.text = text
        self.show(score_text(llm, text, token_bytes(llm)))

    def _start(self, job: Callable[[Any], None]) -> None:
        with self.hold_sync():
            self.busy, self.failure = True, None
        self._job.ask(lambda: self._run(job))

    def _run(self, job: Callable[[Any], None]) -> None:
        failure = None
        try:
            job(self._session.llm)
        except Exception as error:
            failure = Failure.of(error).as_dict()
        with self.hold_sync():
            self.busy, self.failure = False, failure

    def _receive(self, _widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        try:
            match content.get("type"):
                case "score":
                    self.score(str(content.get("text", "")))
                case "pick":
                    self.pick(int(content["token"]), int(content["alternative"]))
                case "coloring" if content.get("by") in _COLORINGS:
                    self.coloring = content["by"]
        except (WorkbenchError, KeyError, TypeError, ValueError) as error:
            self.failure = Failure.of(error).as_dict()

    def _settle(self, timeout_s: float) -> None:
        self.wait(timeout_s)

    def twin(self) -> Twin:
        """The text with its probabilities as a static picture."""
        if not self._scored:
            return Twin("TokenHeatmap", (("tokens", "none"),))
        rows = (("tokens", str(len(self._scored))), ("text", "".join(token.text for token in self._scored)))
        return Twin("TokenHeatmap", rows, _static(self._scored[:_MOST_SHOWN]))


def _as_dict(token: ScoredToken) -> dict[str, Any]:
    return {
        "text": token.text,
        "p": None if token.probability is None else round(token.probability, 4),
        "h": None if token.entropy_nats is None else round(token.entropy_nats, 3),
        "rank": token.rank,
        "alts": [[alternative.text, round(alternative.probability, 4)] for alternative in token.alternatives],
    }


def _summary(tokens: Sequence[ScoredToken]) -> str:
    value = perplexity(tokens)
    if value is None:
        return ""
    unsure = sum(token.probability is not None and token.probability < 0.1 for token in tokens)
    more = f"; the first {_MOST_SHOWN:,} are shown" if len(tokens) > _MOST_SHOWN else ""
    return f"{len(tokens):,} tokens, perplexity {value:.2f}, {unsure} below 10 %{more}"


def _static(tokens: Sequence[ScoredToken]) -> str:
    """Spans with an underline that is the thicker the less likely the token: readable without colour."""
    spans = "".join(
        f'<span style="border-bottom:{_underline_px(token.probability)}px solid #c0507a" '
        f'title="{"" if token.probability is None else f"{token.probability:.0%}"}">{html.escape(token.text)}</span>'
        for token in tokens
    )
    return f'<div style="white-space:pre-wrap;line-height:2">{spans}</div>'


def _underline_px(probability: float | None) -> int:
    return 0 if probability is None else round(4 * (1 - probability))
