"""What the magics show: a session, its receipt after unloading, the endpoints of the process. Values in words."""

from __future__ import annotations

from typing import Any

from workbench.session import LoadChoice, Session, SessionStatus
from workbench.twin import HasTwin, Twin

__all__ = ["endpoints_twin", "plan_of", "receipt_twin", "status_twin"]


class _Table(HasTwin):
    def __init__(self, twin: Twin) -> None:
        self._twin = twin

    def twin(self) -> Twin:
        return self._twin


def status_twin(session: Session) -> HasTwin:
    """What is loaded, and what the engine is doing."""
    status = session.status
    rows = [("state", status.state.value)]
    if status.facts is not None:
        rows += [("model", status.facts.model), ("backend", status.facts.backend), ("weights", status.facts.precision)]
        rows.append(("context", f"{status.facts.max_context} tokens"))
    stats = session.stats()
    if stats is not None:
        rows.append(("requests", f"{stats.num_running} running, {stats.num_waiting} waiting"))
        if stats.kv_blocks_total:
            rows.append(("KV pool", f"{stats.kv_blocks_used / stats.kv_blocks_total:.0%} in use"))
    if status.failure is not None:
        rows += [("cause", status.failure.cause), ("next step", status.failure.next_step)]
    return _Table(Twin("Workbench", tuple(rows)))


def receipt_twin(status: SessionStatus) -> HasTwin:
    """What unloading gave back."""
    rows = tuple((device, f"{count / 1e6:,.0f} MB freed") for device, count in status.freed_bytes.items())
    return _Table(Twin("Unloaded", rows or (("nothing", "no model was loaded"),)))


def endpoints_twin() -> HasTwin:
    """The endpoints of this process, running or not."""
    from workbench.server.endpoints import PROCESS_ENDPOINTS

    rows = tuple(
        (name, f"{endpoint.url} ({'running' if endpoint.is_running else 'stopped'})")
        for name, endpoint in PROCESS_ENDPOINTS.running().items()
    )
    return _Table(Twin("Endpoints", rows or (("none", "nothing is being served"),)))


def plan_of(choice: LoadChoice) -> Any:
    """What a choice would take (see `workbench.plan`)."""
    from workbench.planner import plan

    return plan(
        choice.model,
        backend=choice.backend,
        gpus=list(choice.gpus) or None,
        quant=choice.precision,
        context=choice.context_length,
        kv_dtype=choice.kv_dtype,
    )
