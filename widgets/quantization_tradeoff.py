"""Memory, speed and quality of a model's precisions in one picture, measured on one's own prompts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from widgets.front_end import module_text, style_text
from widgets.latest_job import LatestJob
from widgets.part import Part
from widgets.tradeoff_picture import tradeoff_svg, variant_words
from workbench.errors import ConfigError
from workbench.failure import Failure
from workbench.tradeoff import SAMPLE_PROMPTS, Variant, measure_tradeoff, variants_frame
from workbench.twin import Twin

if TYPE_CHECKING:
    import pandas

    from workbench.llm import LlamaGPU

__all__ = ["QuantizationTradeoff"]


class QuantizationTradeoff(Part, anywidget.AnyWidget):
    """Loads each of `precisions` once, measures it on `prompts` and unloads it; the first is the reference.

    `run()` starts in the background, `wait()` waits for it; `frame` is the DataFrame behind the picture. `options` go
    to `LlamaGPU` (such as `backend="cpu"`); `load(precision)` replaces it.
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
        model: str = "default",
        precisions: Sequence[str] = ("fp32", "int8", "int4"),
        prompts: Sequence[str] = SAMPLE_PROMPTS,
        *,
        load: Callable[[str], LlamaGPU] | None = None,
        **options: Any,
    ) -> None:
        if isinstance(precisions, str) or isinstance(prompts, str):
            raise ConfigError("precisions and prompts: give lists, also for a single one")
        self._options = options
        self._load = load or self._load_llm
        self._variants: tuple[Variant, ...] = ()
        self._stopping = threading.Event()
        self._job = LatestJob("workbench-tradeoff")
        super().__init__(model=str(model), precisions=list(precisions), prompts="\n---\n".join(prompts))
        self.on_msg(self._receive)

    @property
    def variants(self) -> tuple[Variant, ...]:
        """What was measured so far."""
        return self._variants

    @property
    def frame(self) -> pandas.DataFrame:
        """One row a precision."""
        return variants_frame(self._variants)

    def run(self) -> None:
        """Measure all precisions anew; returns at once. Nothing happens while a measurement runs."""
        if self.busy:
            return
        self._stopping.clear()
        self._variants = ()
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

    def _load_llm(self, precision: str) -> LlamaGPU:
        from workbench.llm import LlamaGPU

        return LlamaGPU(self.model, quant_type=precision, **self._options)

    def _run(self) -> None:
        failure = None
        prompts = [prompt.strip("\n") for prompt in self.prompts.split("\n---\n") if prompt.strip()]
        try:
            measure_tradeoff(
                self._load,
                list(self.precisions),
                prompts,
                on_variant=self._show,
                is_wanted=lambda: not self._stopping.is_set(),
            )
        except Exception as error:
            failure = Failure.of(error).as_dict()
        with self.hold_sync():
            self.busy, self.failure = False, failure
            self.said = "Stopped" if self._stopping.is_set() else "" if failure else "Measured"

    def _show(self, variant: Variant) -> None:
        self._variants = (*self._variants, variant)
        left = self.precisions[len(self._variants) :]
        with self.hold_sync():
            self.rows = [[one.name, variant_words(one)] for one in self._variants]
            self.picture = tradeoff_svg(self._variants)
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
        return Twin("QuantizationTradeoff", rows, tradeoff_svg(self._variants))
