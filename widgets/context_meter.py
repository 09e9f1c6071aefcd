"""How full a model's context is with the next prompt, counted in the background. Knows no widget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from widgets.chat_prompt import count_tokens
from widgets.latest_job import LatestJob
from workbench.conversation import measure_context
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from workbench.llm import LlamaGPU

__all__ = ["ContextMeter"]

# The engine, the prompt, and what is being written but not sent.
NextPrompt = tuple["LlamaGPU", Sequence[Mapping[str, Any]], str]


class ContextMeter:
    """`ask()` returns at once; `show(figures)` is called on the meter's thread with JSON values.

    `next_prompt()` gives what would be sent now; it is asked when the counting begins, so the newest is counted.
    """

    def __init__(self, next_prompt: Callable[[], NextPrompt], show: Callable[[dict[str, Any]], None]) -> None:
        self._next_prompt = next_prompt
        self._show = show
        self._job = LatestJob("workbench-context")

    def ask(self) -> None:
        """Count soon."""
        self._job.ask(self._measure)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until nothing is counted; True when that is so."""
        return self._job.wait(timeout_s)

    def close(self) -> None:
        """Count no more."""
        self._job.close()

    def _measure(self) -> None:
        try:
            llm, prompt, draft = self._next_prompt()
            use = measure_context(lambda messages: count_tokens(llm, messages), prompt, draft, llm.max_context)
        except WorkbenchError as error:
            self._show({"line": f"The context can't be counted: {error}"})
            return
        self._show(
            {
                "system": use.system_tokens,
                "history": use.history_tokens,
                "draft": use.draft_tokens,
                "max": use.max_context,
                "fits": use.fits,
                "line": use.line(),
            }
        )
