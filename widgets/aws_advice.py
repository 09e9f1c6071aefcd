"""Which EC2 instance would serve a model: a form, a figure and a table. The arithmetic is elsewhere."""

from __future__ import annotations

import ipywidgets
import plotly.graph_objects as go

from widgets.aws_figure import advice_figure, advice_summary
from widgets.part import Part
from workbench.aws import Advice, advise
from workbench.aws.prices import PriceSource
from workbench.errors import ConfigError, WorkbenchError
from workbench.planner.serving import serving_plan
from workbench.twin import Twin, is_headless

__all__ = ["AWSAdvice"]

_MAX_TWIN_ROWS = 5


class AWSAdvice(Part, ipywidgets.VBox):
    """Advice for `model`, of which only config and headers are read; cheapest token first.

    `context` is in tokens, `batch` in requests at the same time, `budget` in US dollars an hour. `prices` is the
    shipped table unless given (`workbench.aws.LivePrices()` asks AWS). A click on Advise computes again.
    """

    def __init__(
        self,
        model: str = "default",
        *,
        context: int = 2048,
        batch: int = 8,
        tokens_per_second: float = 0.0,
        budget: float = 0.0,
        spot: bool = False,
        quant: str | None = None,
        region: str | None = None,
        prices: PriceSource | None = None,
    ) -> None:
        self._quant = quant
        self._region = region
        self._prices = prices
        self.advice: Advice | None = None
        self.model = ipywidgets.Text(model, description="Model")
        self.context = ipywidgets.BoundedIntText(context, min=1, max=10_000_000, description="Context")
        self.batch = ipywidgets.BoundedIntText(batch, min=1, max=100_000, description="Requests")
        self.speed = ipywidgets.BoundedFloatText(tokens_per_second, min=0, max=1e9, description="Tokens/s")
        self.budget = ipywidgets.BoundedFloatText(budget, min=0, max=1e6, description="USD/h")
        self.spot = ipywidgets.Checkbox(spot, description="Spot prices")
        self.button = ipywidgets.Button(description="Advise", tooltip="Compute again")
        self.summary = ipywidgets.Label("")
        self.figure = go.Figure() if is_headless() else go.FigureWidget()
        self.table = ipywidgets.HTML("")
        fields = [self.model, self.context, self.batch, self.speed, self.budget, self.spot, self.button]
        shown = [] if is_headless() else [self.figure]
        super().__init__([ipywidgets.HBox(fields), self.summary, *shown, self.table])
        self.children[0].layout.flex_flow = "row wrap"
        self.add_class("wb-aws")
        self.button.on_click(lambda _: self.compute())
        self.compute()

    def compute(self) -> None:
        """Advise on what the fields say now. What is wrong with them is shown in words."""
        try:
            plan = serving_plan(
                self.model.value,
                context=self.context.value,
                batch=self.batch.value,
                quant=self._quant,
                tokens_per_second=self.speed.value or None,
                budget_usd_per_hour=self.budget.value or None,
                region=self._region,
                spot=self.spot.value,
            )
            self.advice = advise(plan, prices=self._prices)
        except (WorkbenchError, ConfigError) as error:
            self.advice = None
            self.summary.value, self.table.value = str(error), ""
            return
        self._show(self.advice)

    def close(self) -> None:
        """Take the widget and its parts away."""
        for part in (*self.children[0].children, *self.children):
            part.close()
        super().close()

    def twin(self) -> Twin:
        """The cheapest types and their cost, without colours."""
        if self.advice is None:
            return Twin("AWSAdvice", (("problem", self.summary.value),))
        rows = [
            (row.instance.name, f"{row.as_row()['USD per million tokens']} USD per million tokens")
            for row in self.advice.rows[:_MAX_TWIN_ROWS]
        ]
        return Twin(f"AWSAdvice for {self.model.value}", tuple(rows))

    def _show(self, advice: Advice) -> None:
        made = advice_figure(advice)
        with self.figure.batch_update():
            self.figure.data = ()
            self.figure.add_traces(made.data)
            self.figure.update_layout(made.layout)
        self.summary.value = advice_summary(advice)
        self.table.value = advice._repr_html_()
