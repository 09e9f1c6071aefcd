"""Writing a model quantised, on the Models tab: into a folder, to S3, or into the cache that loading reads."""

from __future__ import annotations

import asyncio
import html
import threading
from collections.abc import AsyncIterator

import gradio as gr

from dashboards.parts import AppParts, shown_error
from dashboards.tabs.progress_bar import progress_bar
from workbench.errors import LoadCancelled, WorkbenchError
from workbench.models.quantized_folder import QuantizedFolder, quantize_to_folder
from workbench.progress import Progress
from workbench.quantize import parse_quant_type
from workbench.quantize.quant_type import available_names

__all__ = ["QuantizePart"]

_OPTIONS = {"show_progress": "hidden", "api_visibility": "private"}
_LOOK_INTERVAL_S = 0.3


class QuantizePart:
    """Builds the part into the Blocks that is open; `model` names the model that is quantised."""

    def __init__(self, parts: AppParts, model: gr.Dropdown) -> None:
        self._parts = parts
        # Weights are made on the CPU; a .gguf file is packed already.
        names = [name for name in available_names("cpu") if name != "gguf"]
        with gr.Accordion("Quantise and keep", open=False, elem_id="wb-quantize"):
            gr.Markdown(
                "Loading with a quantisation makes its weights each time they are not cached. Here they are written, "
                "and load quickly from then on.",
                elem_classes="wb-figures",
            )
            self.kind = gr.Dropdown(names, value="int8", label="Quantisation", elem_id="wb-quantize-kind")
            self.out = gr.Textbox(
                "",
                label="Folder to write, or s3://bucket/prefix",
                info="empty: the cache, which loading this model with this quantisation reads",
                elem_id="wb-quantize-out",
            )
            with gr.Row(elem_classes="wb-bar-of-buttons"):
                self.start = gr.Button("Quantise", variant="primary", size="sm", elem_id="wb-quantize-start")
                self.stop = gr.Button("Cancel quantising", size="sm", elem_id="wb-quantize-stop")
            self.said = gr.HTML("", elem_id="wb-quantize-said", padding=False)
        # Raised by whoever presses the button; one model is quantised at a time.
        self._is_cancelled = threading.Event()
        self.start.click(
            self._quantize,
            [model, self.kind, self.out],
            [self.said],
            concurrency_limit=1,
            concurrency_id="model",
            **_OPTIONS,
        )
        self.stop.click(self._cancel, None, None, concurrency_limit=None, **_OPTIONS)

    async def _quantize(self, request: gr.Request, model: str, kind: str, out: str) -> AsyncIterator[str]:
        try:
            self._parts.require_admin(request)
            self._parts.require_session()
        except WorkbenchError as error:
            raise shown_error(error) from None
        newest: Progress | None = None
        is_cancelled = self._is_cancelled = threading.Event()

        def note(progress: Progress) -> None:
            nonlocal newest
            newest = progress
            if is_cancelled.is_set():
                raise LoadCancelled("quantising was cancelled")

        work = asyncio.create_task(
            asyncio.to_thread(
                quantize_to_folder, model, parse_quant_type(kind).config, out.strip() or None, progress=note
            )
        )
        try:
            while not work.done():
                yield progress_bar(f"Quantising to {kind}", newest)
                await asyncio.wait({work}, timeout=_LOOK_INTERVAL_S)
            yield _result_html(await work)
        except LoadCancelled:
            yield "<p>Quantising was cancelled; nothing was kept.</p>"
        except WorkbenchError as error:
            # Nothing goes on any more.
            yield ""
            raise shown_error(error) from None
        finally:
            # Also where the page has gone; of work that goes on without it nobody asks how it ended.
            is_cancelled.set()
            work.add_done_callback(lambda ended: ended.cancelled() or ended.exception())

    async def _cancel(self, request: gr.Request) -> None:
        try:
            self._parts.require_admin(request)
        except WorkbenchError as error:
            raise shown_error(error) from None
        self._is_cancelled.set()


def _result_html(made: QuantizedFolder) -> str:
    before, after = made.original_bytes / 1e6, made.quantized_bytes / 1e6
    how = "Read from the cache" if made.from_cache else "Quantised"
    return (
        f"<p>{how} in {made.elapsed_s:.1f} s: {before:,.0f} MB in bf16 became {after:,.0f} MB "
        f"({after / before:.0%}); {len(made.kept_layers)} layers kept more precision. It lies at "
        f"<b>{html.escape(str(made.path))}</b>.</p>"
    )
