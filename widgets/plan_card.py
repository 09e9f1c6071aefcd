"""What a choice would take and how fast it would be, priced anew as it changes. Plans; loads nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from widgets.advice_choice import choice_with_advice
from widgets.choice_check import require_choice
from widgets.front_end import module_text, style_text
from widgets.latest_job import LatestJob
from widgets.part import Part
from widgets.plan_view import Measured, comparison_rows, plan_arguments, plan_as_view
from workbench.errors import ConfigError, WorkbenchError
from workbench.failure import Failure
from workbench.session import LoadChoice
from workbench.twin import Twin

if TYPE_CHECKING:
    from workbench.planner import Plan

__all__ = ["PlanCard"]

MakePlan = Callable[..., "Plan"]


def _plan(model: str, **arguments: Any) -> Plan:
    from workbench.planner import plan

    return plan(model, **arguments)


class PlanCard(Part, anywidget.AnyWidget):
    """Memory by part against what is free on each device, speed, and what would make it fit.

    `price(choice)` plans in the background; the newest choice wins. `on_apply(change)` is called with the arguments of
    `workbench.plan` that an advice changes, when its button is pressed; without it the card applies the change to its
    own choice. `make_plan` is `workbench.plan`.
    """

    _esm = module_text("plan_card")
    _css = style_text()

    state = traitlets.Unicode("empty").tag(sync=True)
    model = traitlets.Unicode().tag(sync=True)
    view = traitlets.Dict().tag(sync=True)
    batch = traitlets.Int(1).tag(sync=True)
    measured = traitlets.List().tag(sync=True)
    failure = traitlets.Dict(None, allow_none=True).tag(sync=True)

    _plan_of_loaded: Plan | None = None
    _job = LatestJob("workbench-plan-card-none")

    def __init__(
        self,
        choice: LoadChoice | None = None,
        *,
        on_apply: Callable[[Mapping[str, Any]], None] | None = None,
        make_plan: MakePlan = _plan,
        reclaim_bytes: Callable[[], int] = lambda: 0,
    ) -> None:
        self._choice = choice
        self._on_apply = on_apply or self._apply_here
        self._make_plan = make_plan
        self._reclaim_bytes = reclaim_bytes
        self._plan: Plan | None = None
        self._seen = Measured()
        self._lock = threading.RLock()
        self._job = LatestJob("workbench-plan")
        super().__init__()
        self.on_msg(self._receive)
        if choice is not None:
            self.price(choice)

    @property
    def plan(self) -> Plan | None:
        """The plan that is shown; None until there is one."""
        return self._plan

    def plan_of(self, choice: LoadChoice | None) -> Plan | None:
        """The plan of that choice, if it is the one at hand; a context that was settled since does not matter."""
        own = self._choice
        if choice is None or own is None or replace(own, context_length=choice.context_length) != choice:
            return None
        return self._plan

    def price(self, choice: LoadChoice) -> None:
        """Plan a choice in the background, in place of the one before. Raises ConfigError for what is no choice."""
        require_choice(choice)
        with self._lock:
            self._choice = choice
            self.state = "pricing"
        self._ask()

    def choose_batch(self, batch: int | None) -> None:
        """Plan for so many requests at once. Raises ConfigError below 1 and above 1,024."""
        if type(batch) is not int or not 1 <= batch <= 1024:
            raise ConfigError(f"batch={batch!r}: must be an integer from 1 to 1024")
        self.batch = batch
        self._ask()

    def apply(self, index: int | None) -> None:
        """Take the advice of that index, as its button does. Raises ConfigError if there is none, and what `on_apply`
        does."""
        advice = self._plan.advice if self._plan else ()
        if type(index) is not int or not 0 <= index < len(advice):
            raise ConfigError(f"index={index!r}: there are {len(advice)} pieces of advice")
        change = dict(advice[index].change)
        before = self.batch
        self.batch = change.get("batch", before)
        try:
            self._on_apply(change)
        except Exception:
            self.batch = before
            raise

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the planning that runs; True when none runs any more."""
        return self._job.wait(timeout_s)

    def show_loaded(self, llm: Any, choice: LoadChoice | None = None) -> None:
        """Compare with what an engine took that was loaded from `choice` (None: from the card's own); `note_speed` adds
        to that. Plans the loaded context in the background."""
        own = self._choice or LoadChoice(str(llm.model_path))
        choice = choice or own
        limits, weight_bytes = getattr(llm, "limits", None), getattr(llm, "weight_bytes", None)
        kv_tokens = getattr(limits, "num_blocks", 0) * getattr(limits, "block_size", 0)
        self._seen = Measured(
            weight_bytes=weight_bytes, kv_bytes=getattr(limits, "kv_bytes", None), kv_tokens=kv_tokens
        )
        self._plan_of_loaded = self._plan if choice == own else None
        self._show_measured()
        self._ask(replace(choice, context_length=llm.max_context))

    def show_unloaded(self) -> None:
        """Forget what was measured."""
        self._seen, self._plan_of_loaded, self.measured = Measured(), None, []

    def note_speed(
        self,
        tokens_per_s: float | None,
        ttft_s: float | None,
        *,
        prompt_tokens: int | None = None,
        cached_tokens: int | None = None,
        generated_tokens: int | None = None,
    ) -> None:
        """A reply came, to `prompt_tokens` of which `cached_tokens` were computed before: its speed goes beside the one
        that is predicted for such a reply."""
        self._seen = replace(
            self._seen,
            tokens_per_s=tokens_per_s,
            ttft_s=ttft_s,
            prompt_tokens=prompt_tokens,
            cached_tokens=cached_tokens or 0,
            generated_tokens=generated_tokens or 0,
        )
        self._show_measured()

    def close(self) -> None:
        """Drop what is being planned, and take the card away."""
        self._job.close()
        super().close()

    def _ask(self, loaded: LoadChoice | None = None) -> None:
        choice = loaded or self._choice
        if choice is not None:
            self._job.ask(lambda: self._run(choice, is_loaded=loaded is not None))

    def _run(self, choice: LoadChoice, *, is_loaded: bool) -> None:
        """On the job's thread."""
        try:
            arguments = plan_arguments(choice, 1 if is_loaded else self.batch, choice.kv_dtype)
            reclaim_bytes = self._reclaim_bytes()
            if reclaim_bytes:
                arguments["reclaim_bytes"] = reclaim_bytes
            plan = self._make_plan(choice.model, **arguments)
        except Exception as error:
            failure = Failure.of(error).as_dict()
            if not isinstance(error, WorkbenchError):
                failure["cause"] = f"This choice can't be planned: {failure['cause']}"
        else:
            self._show(choice, plan, is_loaded=is_loaded)
            return
        with self._lock, self.hold_sync():
            self._plan, self.state, self.model, self.failure = None, "failed", choice.model, failure

    def _show(self, choice: LoadChoice, plan: Plan, *, is_loaded: bool) -> None:
        if is_loaded:
            self._plan_of_loaded = plan
            chosen = self._choice and replace(self._choice, context_length=choice.context_length)
            if chosen not in (None, choice):
                # Something else was chosen while it was loaded: the card goes on showing that.
                self._show_measured()
                return
        with self._lock, self.hold_sync():
            self._plan, self.state, self.model, self.failure = plan, "ready", choice.model, None
            self.view = plan_as_view(plan, choice.engine_name)
        self._show_measured()

    def _show_measured(self) -> None:
        if self._plan_of_loaded is not None:
            self.measured = comparison_rows(self._plan_of_loaded, self._seen)

    def _apply_here(self, change: Mapping[str, Any]) -> None:
        if self._choice is not None:
            self.price(choice_with_advice(self._choice, change))

    def _receive(self, _widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        try:
            if content.get("type") == "batch":
                self.choose_batch(content.get("batch"))
            elif content.get("type") == "apply":
                self.apply(content.get("index"))
        except ConfigError as error:
            if content.get("type") == "apply":
                # Said beside the plan, which stays.
                self.failure = Failure.of(error).as_dict()
            else:
                # The traits are as they were, so their values alone would not reach the page.
                self.send({"type": "refused", "cause": str(error)})

    def _settle(self, timeout_s: float) -> None:
        self.wait(timeout_s)

    def twin(self) -> Twin:
        """The verdict, without what is free at the moment."""
        if self._plan is None:
            return Twin("PlanCard", (("plan", self.failure["cause"] if self.failure else "nothing planned yet"),))
        plan = self._plan
        parts = plan.devices[0].parts
        rows = [("model", plan.model), ("weights", plan.quant), ("context", f"{plan.context:,} tokens")]
        rows += [
            (
                "needs",
                ", ".join(f"{p['name'].lower()} {p['bytes'] / 1e6:,.0f} MB" for p in self.view["devices"][0]["parts"]),
            )
        ]
        return Twin("PlanCard", tuple(rows) if parts else ())
