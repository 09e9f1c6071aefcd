"""What a model would write next after a text, the likeliest first; click to append. Knows no engine's insides."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from widgets.chat_prompt import token_bytes
from widgets.front_end import module_text, style_text
from widgets.latest_job import LatestJob
from widgets.part import Part
from widgets.shared_session import as_session
from workbench.errors import ConfigError
from workbench.failure import Failure
from workbench.session import Session
from workbench.twin import Twin

if TYPE_CHECKING:
    from workbench.llm import LlamaGPU

__all__ = ["NextTokens"]


class NextTokens(Part, anywidget.AnyWidget):
    """The `num_shown` likeliest next tokens after `text`, with their probabilities, before any sampling setting."""

    _esm = module_text("next_tokens")
    _css = style_text()

    text = traitlets.Unicode().tag(sync=True)
    # [text, probability] each, likeliest first.
    choices = traitlets.List().tag(sync=True)
    rest = traitlets.Float(0.0).tag(sync=True)
    busy = traitlets.Bool(False).tag(sync=True)
    failure = traitlets.Dict(None, allow_none=True).tag(sync=True)

    _job = LatestJob("workbench-next-tokens-none")

    def __init__(self, source: Session | LlamaGPU, text: str = "", *, num_shown: int = 10) -> None:
        if type(num_shown) is not int or not 1 <= num_shown <= 100:
            raise ConfigError(f"num_shown={num_shown!r}: must be an integer from 1 to 100")
        self._session = as_session(source)
        self._num_shown = num_shown
        self._job = LatestJob("workbench-next-tokens")
        super().__init__(text=text)
        self.on_msg(self._receive)
        if text:
            self.look(text)

    def look(self, text: str) -> None:
        """Ask the model; returns at once."""
        with self.hold_sync():
            self.text, self.busy, self.failure = text, True, None
        self._job.ask(lambda: self._look_now(text))

    def take(self, index: int) -> None:
        """Append a choice to the text and look again. Raises ConfigError if there is none."""
        if not 0 <= index < len(self.choices):
            raise ConfigError(f"index={index!r}: there are {len(self.choices)} choices")
        self.look(self.text + self.choices[index][0])

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the answer; True when it is there."""
        return self._job.wait(timeout_s)

    def close(self) -> None:
        """Drop what waits, and take the widget away."""
        self._job.close()
        super().close()

    def _look_now(self, text: str) -> None:
        failure, choices = None, []
        try:
            llm = self._session.llm
            completion = llm.submit(text, max_tokens=1, logprobs=True, top_logprobs=self._num_shown).result()
            spell = token_bytes(llm)
            choices = [
                [spell(token_id).decode(errors="replace"), round(math.exp(logprob), 5)]
                for token_id, logprob in completion.logprobs[0].top
            ]
        except Exception as error:
            failure = Failure.of(error).as_dict()
        with self.hold_sync():
            self.choices, self.busy, self.failure = choices, False, failure
            self.rest = max(0.0, 1.0 - sum(p for _, p in choices)) if choices else 0.0

    def _receive(self, _widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        try:
            if content.get("type") == "look":
                self.look(str(content.get("text", "")))
            elif content.get("type") == "take":
                self.take(int(content["index"]))
        except (ConfigError, KeyError, TypeError, ValueError) as error:
            self.failure = Failure.of(error).as_dict()

    def _settle(self, timeout_s: float) -> None:
        self.wait(timeout_s)

    def twin(self) -> Twin:
        """The text and its likeliest next tokens."""
        rows = tuple((repr(text), f"{probability:.0%}") for text, probability in self.choices)
        return Twin(f"NextTokens after {self.text!r}", rows)
