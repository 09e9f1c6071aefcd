"""The panel: everything about one loaded model on one page. Composes; each part does its own work."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import ipywidgets

from widgets.advice_choice import choice_with_advice
from widgets.carry_on_box import CarryOnBox
from widgets.cell_run import composes
from widgets.chat_box import ChatBox
from widgets.chat_settings import ChatSettings
from widgets.endpoint_card import EndpointCard
from widgets.gpu_map import GPUMap
from widgets.live_plot import LivePlot
from widgets.load_bar import LoadBar
from widgets.menu import Menu
from widgets.model_picker import ModelPicker
from widgets.next_tokens import NextTokens
from widgets.part import Part
from widgets.plan_card import MakePlan, PlanCard
from widgets.plan_view import planned_bytes
from widgets.run_history import RunHistory
from widgets.section import Section
from widgets.shared_session import require_session
from widgets.token_heatmap import TokenHeatmap
from workbench.conversation import Message
from workbench.errors import ConfigError, EngineStoppedError
from workbench.session import LoadChoice, Session, SessionState, SessionStatus
from workbench.telemetry import Sampler
from workbench.twin import Twin

if TYPE_CHECKING:
    from workbench.llm import LlamaGPU
    from workbench.run_log import RunLog

__all__ = ["Workbench"]

_LONGEST_REPLY_END_S = 10.0


class Workbench(Part, ipywidgets.VBox):
    """The workbench panel. Show it by making it the last value of a cell.

    `model`, `backend`, `precision` and `context_length` preset the pickers (None: chosen for you, or as saved for the
    model). `llm` shares an engine that is loaded already; `session` shares another surface's session. `system` and
    `sampling` go to the chat. `history` is the log that runs are noted in (None: one of its own).

    One panel of a `name` is open at a time: making another closes the first with its widgets and threads. If the new
    one asks for the same thing, the loaded model and the conversations stay and are handed over; else it is
    unloaded.
    """

    # Open panels by name. A cell that is run again has no other way to find the panel that it replaces.
    _panels: ClassVar[dict[str, Workbench]] = {}
    _panels_lock: ClassVar[threading.Lock] = threading.Lock()

    # Until there is something to close.
    name: str = ""
    _parts: tuple[ipywidgets.Widget, ...] = ()
    _forget: Callable[[], object] = staticmethod(lambda: None)
    _finalize: Callable[[], object] = staticmethod(lambda: None)
    # Set when another panel takes this one's endpoint on.
    _owned_endpoint = False

    @composes
    def __init__(
        self,
        llm: LlamaGPU | None = None,
        *,
        model: str = "default",
        backend: str | None = None,
        precision: str | None = None,
        context_length: int | None = None,
        session: Session | None = None,
        system: str | None = None,
        sampling: Mapping[str, Any] | None = None,
        menu: Menu | None = None,
        make_plan: MakePlan | None = None,
        history: RunLog | None = None,
        name: str = "workbench",
    ) -> None:
        if llm is not None and session is not None:
            raise ConfigError("llm and session are both given: an engine is shared by one of them")
        if llm is not None and not hasattr(llm, "is_loaded"):
            raise ConfigError(f"llm: {type(llm).__name__} is no LlamaGPU; a model by its name is model=...")
        if session is not None:
            require_session(session)
        if llm is not None and not llm.is_loaded:
            raise EngineStoppedError("llm is unloaded: load it again before it is shared")
        menu = menu or Menu.of_this_machine()
        self._asked = (LoadChoice(model, backend, precision, context_length), llm, session)
        # Whatever can be refused is refused here, before the earlier panel is closed.
        if sampling is not None:
            ChatSettings(sampling)
        self.picker = ModelPicker(self._asked[0], menu=menu, on_change=self._follow_choice)
        self.name = name
        earlier = self._replace_earlier()
        kept = earlier.session if earlier is not None else None
        self.session = kept or session or Session()
        if llm is not None:
            self.session.adopt(llm)
        self._make_parts(menu, make_plan, system, sampling, history or (earlier.history.runs if earlier else None))
        # What its reply has come to is told once the reply's thread has ended, which a stop makes it do.
        if earlier is not None and earlier.chat.wait(_LONGEST_REPLY_END_S):
            self.chat.take_over(earlier.chat, system)
        if earlier is not None:
            self.endpoint.owns_endpoint = earlier._owned_endpoint
        self._lay_out()
        self._forget = self.session.observe(self._follow_session)
        self._follow_session(self.session.status)
        self._follow_choice(self.picker.choice)
        own_session = self.session if session is None else None
        # At the latest when the process ends, the threads end and the engine is unloaded.
        self._finalize = weakref.finalize(self, _shut_down, own_session, self.plot.sampler)

    def _make_parts(
        self,
        menu: Menu,
        make_plan: MakePlan | None,
        system: str | None,
        sampling: Mapping[str, Any] | None,
        log: RunLog | None,
    ) -> None:
        session = self.session
        self.load_bar = LoadBar(session, lambda: self.picker.choice)
        self.plan_card = PlanCard(
            on_apply=self._apply_advice,
            reclaim_bytes=self._loaded_bytes,
            **({"make_plan": make_plan} if make_plan else {}),
        )
        self.chat = ChatBox(
            session, system=system, sampling=sampling, on_reply=self._note_reply, on_inspect=self._inspect
        )
        self.plot = LivePlot(session, statuses=menu.statuses)
        self.endpoint = EndpointCard(session, name=self.name)
        self.heatmap = TokenHeatmap(session)
        self.next_tokens = NextTokens(session)
        self.history = RunHistory(log=log)
        self.history.watch(session, self._predicted)
        self.carry_on = CarryOnBox(on_open=self.picker.apply)
        self.gpu_map = GPUMap(self._choose_gpus, statuses=menu.statuses, most_chosen=1)

    def _lay_out(self) -> None:
        head = ipywidgets.Box([ipywidgets.VBox([self.picker, self.load_bar]), self.plan_card])
        head.add_class("wb-columns")
        head.add_class("wb-head")
        self.plan_card.add_class("wb-plan-column")
        columns = ipywidgets.Box([self.chat, self.plot])
        columns.add_class("wb-columns")
        self.chat.add_class("wb-chat-column")
        self.inside = Section("Look inside", [self.heatmap, self.next_tokens])
        sections = [
            Section("Endpoint", [self.endpoint]),
            self.inside,
            Section("GPUs", [self.gpu_map]),
            Section("Run history", [self.history]),
            Section("Carry on elsewhere", [self.carry_on]),
        ]
        boxes = (head, head.children[0], columns)
        self._parts = (
            *(self.picker, self.load_bar, self.plan_card, self.chat, self.plot, self.endpoint),
            *(self.heatmap, self.next_tokens, self.history, self.carry_on, self.gpu_map),
            *sections,
            *boxes,
            *(box.layout for box in boxes),
        )
        super().__init__([head, columns, *sections])
        self.add_class("wb-panel")

    def _replace_earlier(self) -> Workbench | None:
        """Close the open panel of this name, and take this one's place. Gives it if its session can be kept."""
        with self._panels_lock:
            earlier = self._panels.pop(self.name, None)
            self._panels[self.name] = self
        if earlier is None:
            return None
        if not self._can_take_over(earlier):
            earlier.close()
            return None
        earlier._owned_endpoint = earlier.endpoint.owns_endpoint
        earlier.endpoint.owns_endpoint = False
        earlier._finalize.detach()
        earlier.close()
        earlier.plot.sampler.stop()
        return earlier

    def _can_take_over(self, earlier: Workbench) -> bool:
        """Whether what `earlier` has loaded is what this panel was asked for."""
        _, llm, _ = self._asked
        return earlier._asked == self._asked and (llm is None or earlier.session.is_sharing(llm))

    def close(self) -> None:
        """Stop reply, plot and endpoint, unload an engine that the panel loaded, and take the panel away."""
        with self._panels_lock:
            if self._panels.get(self.name) is self:
                del self._panels[self.name]
        self._forget()
        for part in self._parts:
            part.close()
        super().close()
        self._finalize()
        self._keep_words()

    def __enter__(self) -> Workbench:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def twin(self) -> Twin:
        """The panel in words."""
        parts = (self.picker, self.load_bar, self.chat, self.plot)
        twins = [part.twin() for part in parts]
        num_messages = len(self.chat.conversation.messages)
        # Numbers of the plot stand in the plot's own words.
        rows = (*twins[0].rows, *twins[1].rows, ("chat", f"{num_messages} messages"), *twins[3].rows[:1])
        return Twin(f"Workbench {self.name!r}", rows)

    def _worded(self) -> tuple[ipywidgets.Widget, ...]:
        return (self.picker, self.load_bar, self.chat)

    def _follow_choice(self, choice: LoadChoice) -> None:
        """The pickers say something else."""
        # The first choice is made before there is anything else.
        if self._parts:
            self.plan_card.price(choice)
            self.carry_on.show(choice)

    def _follow_session(self, status: SessionStatus) -> None:
        """Called by the session's worker."""
        if status.state is SessionState.READY:
            self.plan_card.show_loaded(self.session.llm, status.choice)
        elif status.state in (SessionState.EMPTY, SessionState.FAILED):
            self.plan_card.show_unloaded()

    def _apply_advice(self, change: Mapping[str, Any]) -> None:
        """Set the panel to a piece of the plan's advice."""
        self.picker.apply(choice_with_advice(self.picker.choice, change))

    def _choose_gpus(self, backend: str, indexes: tuple[int, ...]) -> None:
        self.picker.apply(replace(self.picker.choice, backend=backend, gpus=indexes, parallel=None))

    def _loaded_bytes(self) -> int:
        """What a load would give back first: two models never lie in memory at once."""
        stats = self.session.stats()
        return 0 if stats is None else stats.weight_bytes + stats.kv_bytes

    def _predicted(self) -> dict[str, Any]:
        plan = self.plan_card.plan_of(self.session.status.choice)
        if plan is None:
            return {}
        stats = self.session.stats()
        kv_tokens = 0 if stats is None else stats.kv_blocks_total * stats.block_size
        return {
            "predicted_bytes": planned_bytes(plan, kv_tokens),
            "predicted_tokens_per_s": round(plan.speed.tokens_per_s, 1),
        }

    def _note_reply(self, message: Message) -> None:
        """Called on the reply's thread."""
        figures = message.figures
        if figures is None:
            return
        self.plan_card.note_speed(
            figures.tokens_per_s,
            figures.ttft_s,
            prompt_tokens=figures.num_prompt_tokens,
            cached_tokens=figures.num_cached_tokens,
            generated_tokens=figures.num_generated_tokens,
        )

    def _inspect(self, message: Message) -> None:
        """Show a reply's tokens; a picked alternative becomes a new version of the reply."""
        self.heatmap.show(message.tokens, lambda _, start: self.chat.continue_from(message, start))
        self.inside.unfold()


def _shut_down(session: Session | None, sampler: Sampler) -> None:
    sampler.stop()
    if session is not None:
        session.close()
