"""The trade-off of a model's precisions on the Models tab: memory, speed and quality, measured one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import gradio as gr

from dashboards.parts import AppParts, shown_error
from widgets.tradeoff_picture import tradeoff_svg
from workbench.errors import ConfigError, WorkbenchError
from workbench.quantize.sample_text import SAMPLE_TEXT
from workbench.tradeoff import MeasuredMethod, tradeoff

__all__ = ["TradeoffPart"]

_HEADERS = ["Precision", "Weights, MB", "Tokens/s", "Same first choice", "Perplexity", "Note"]
_SAMPLE_LINES = "\n".join(SAMPLE_TEXT.strip().split("\n\n")[:2])
_NAMES = ("fp32", "bf16", "int8", "int4", "dynamic")
_OPTIONS = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": 1, "concurrency_id": "model"}


class TradeoffPart:
    """Builds the part into the Blocks that is open; `model` names the model that is measured."""

    def __init__(self, parts: AppParts, model: gr.Dropdown) -> None:
        self._parts = parts
        with gr.Accordion("Trade-off of precisions, measured here", open=False, elem_id="wb-tradeoff"):
            self.names = gr.CheckboxGroup(
                list(_NAMES),
                value=["bf16", "int8"],
                label="Loaded one after the other, held against the unquantised model",
            )
            self.prompts = gr.Textbox(
                "\n".join(SAMPLE_TEXT.strip().split("\n\n")[:2]), label="Texts of yours, one a line", lines=3
            )
            self.measure = gr.Button("Measure", size="sm", variant="primary", elem_id="wb-measure")
            self.table = gr.Dataframe(
                headers=_HEADERS, value=[], interactive=False, show_label=False, elem_id="wb-tradeoff-table"
            )
            self.plot = gr.HTML("", elem_id="wb-tradeoff-plot", padding=False)
        self.measure.click(self._measure, [model, self.names, self.prompts], [self.table, self.plot], **_OPTIONS)

    async def _measure(
        self, request: gr.Request, model: str, names: list[str], prompts: str
    ) -> AsyncIterator[tuple[Any, Any]]:
        texts = [line for line in prompts.splitlines() if line.strip()]
        try:
            self._parts.require_admin(request)
            self._parts.require_session()
            if not names or not texts:
                raise ConfigError("choose a precision, and give a text")
        except WorkbenchError as error:
            raise shown_error(error) from None
        done: list[MeasuredMethod] = []
        is_wanted = True
        work = asyncio.create_task(
            asyncio.to_thread(tradeoff, model, names, texts, on_method=done.append, is_wanted=lambda: is_wanted)
        )
        num_shown = -1
        try:
            while not work.done() or num_shown < len(done):
                if num_shown < len(done):
                    num_shown = len(done)
                    yield [_cells(variant) for variant in done], _progress_html(len(done), names) + tradeoff_svg(done)
                await asyncio.wait({work}, timeout=0.3)
            await work
        except WorkbenchError as error:
            raise shown_error(error) from None
        finally:
            is_wanted = False


def _progress_html(num_done: int, names: list[str]) -> str:
    if num_done >= len(names):
        return ""
    return f'<p role="status">{num_done} of {len(names)} are measured; each is loaded, asked and unloaded.</p>'


def _cells(variant: MeasuredMethod) -> list[Any]:
    if variant.problem:
        return [variant.method, None, None, None, None, variant.problem]
    return [
        variant.method,
        round(variant.weight_bytes / 1e6),
        None if variant.tokens_per_s is None else round(variant.tokens_per_s, 1),
        None if variant.top1_agreement is None else f"{variant.top1_agreement:.1%}",
        None if variant.perplexity is None else round(variant.perplexity, 2),
        "",
    ]
