"""Memory, speed and quality of a model's precisions in one picture, measured on one's own prompts."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from widgets.front_end import module_text, style_text
from widgets.latest_job import LatestJob
from widgets.part import Part
from widgets.tradeoff_picture import tradeoff_svg, variant_words
from workbench.errors import ConfigError
from workbench.failure import Failure
from workbench.quantize import parse_quant_type
from workbench.quantize.sample_text import SAMPLE_TEXT
from workbench.tradeoff import MeasuredMethod, measured_frame, tradeoff
from workbench.twin import Twin

if TYPE_CHECKING:
    import pandas

__all__ = ["QuantizationTradeoff"]


class QuantizationTradeoff(Part, anywidget.AnyWidget):
    """Loads each of `precisions` once, measures it on `prompts` against the unquantised model, and unloads it.

    `run()` starts in the background, `wait()` waits for it; `frame` is the DataFrame behind the picture. `prompts` None
    is a built-in text; `options` go to `workbench.tradeoff.tradeoff` (such as `backend="cpu"`).
    """

    _esm = module_text("quantization_tradeoff")
    _css = style_text()

    model = traitlets.Unicode().tag(sync=True)
    precisions = traitlets.List(traitlets.Unicode()).tag(sync=True)
    prompts = traitlets.Unicode().tag(sync=True)
    picture = traitlets.Unicode().tag(sync=True)
    rows = traitlets.List().tag(sync=True)
    said = traitlets.Unicode().tag(sync=True)
    busy = traitlets.Bool(False).tag(sync=True)
    failure = traitlets.Dict(None, allow_none=True).tag(sync=True)

    # Until there is something to stop.
    _job = LatestJob("workbench-tradeoff-none")
    _stopping = threading.Event()

    def __init__(
        self,
        model: str | os.PathLike[str] = "default",
        precisions: Sequence[str] = ("fp32", "int8", "int4"),
        prompts: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        if isinstance(precisions, str) or isinstance(prompts, str):
            raise ConfigError("precisions and prompts: give lists, also for a single one")
        if not isinstance(model, str | os.PathLike):
            raise ConfigError(f"model is {model!r}: the name of a model, a folder or a file is needed")
        for name in precisions:
            parse_quant_type(name)
        self._options = options
        prompts = SAMPLE_TEXT.strip().split("\n\n") if prompts is None else prompts
        self._measured: tuple[MeasuredMethod, ...] = ()
        self._stopping = threading.Event()
        self._job = LatestJob("workbench-tradeoff")
        super().__init__(model=os.fspath(model), precisions=list(precisions), prompts="\n---\n".join(prompts))
        self.on_msg(self._receive)

    @property
    def measured(self) -> tuple[MeasuredMethod, ...]:
        """What was measured so far."""
        return self._measured

    @property
    def frame(self) -> pandas.DataFrame:
        """One row a precision."""
        return measured_frame(self._measured)

    def run(self) -> None:
        """Measure all precisions anew; returns at once. Nothing happens while a measurement runs."""
        if self.busy:
            return
        self._stopping.clear()
        self._measured = ()
        with self.hold_sync():
            self.busy, self.failure, self.rows, self.picture = True, None, [], ""
            self.said = f"Measuring {self.precisions[0]}" if self.precisions else ""
        self._job.ask(self._run)

    def stop(self) -> None:
        """Leave out the precisions that were not begun yet."""
        self._stopping.set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the measurement that runs; True when none runs any more."""
        return self._job.wait(timeout_s)

    def close(self) -> None:
        """Stop after the precision that is being measured, and take the widget away."""
        self.stop()
        self._job.close()
        super().close()

    def _run(self) -> None:
        failure = None
        prompts = [prompt.strip("\n") for prompt in self.prompts.split("\n---\n") if prompt.strip()]
        try:
            tradeoff(
                self.model,
                list(self.precisions),
                prompts,
                on_method=self._show,
                is_wanted=lambda: not self._stopping.is_set(),
                **self._options,
            )
        except Exception as error:
            failure = Failure.of(error).as_dict()
        with self.hold_sync():
            self.busy, self.failure = False, failure
            self.said = "Stopped" if self._stopping.is_set() else "" if failure else "Measured"

    def _show(self, measured: MeasuredMethod) -> None:
        self._measured = (*self._measured, measured)
        left = self.precisions[len(self._measured) :]
        with self.hold_sync():
            self.rows = [[one.method, variant_words(one)] for one in self._measured]
            self.picture = tradeoff_svg(self._measured)
            self.said = f"Measuring {left[0]}" if left else ""

    def _receive(self, _widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        match content.get("type"):
            case "run" if not self.busy:
                names = [name.strip() for name in str(content.get("precisions", "")).split(",") if name.strip()]
                self.precisions, self.prompts = names, str(content.get("prompts", ""))
                self.run()
            case "stop":
                self.stop()

    def twin(self) -> Twin:
        """Which precisions, and the picture once they were measured."""
        rows = (("model", self.model), ("precisions", ", ".join(self.precisions)))
        return Twin("QuantizationTradeoff", rows, tradeoff_svg(self._measured))
