"""A front end without a browser: widgets talk to it through comm messages as they would to JupyterLab."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import comm
import pytest
from comm.base_comm import BaseComm
from fake_llm import FakeFactory

from widgets.menu import Menu, Option
from widgets.model_facts import ModelFacts
from workbench.backends import BackendChoice, BackendStatus, CPUBackend, CUDABackend, DeviceInfo
from workbench.backends.facts import DtypeChoice
from workbench.session import LoadChoice, Session

_LIMIT_S = 20
# Of every model: 18 heads, 6 of them for keys and values.
_FACTS = ModelFacts(2048, (1, 2, 3, 6, 18))


class FrontEnd:
    """Keeps every message that widgets send, and sends them what a user does."""

    def __init__(self) -> None:
        self._messages: list[tuple[str, str, dict[str, Any]]] = []
        self._arrived = threading.Condition()

    def take(self, comm_id: str, kind: str, data: dict[str, Any]) -> None:
        with self._arrived:
            self._messages.append((comm_id, kind, data))
            self._arrived.notify_all()

    def custom(self, widget: Any) -> list[dict[str, Any]]:
        """Custom messages of a widget so far."""
        return [data["content"] for data in self._of(widget) if data.get("method") == "custom"]

    def updates(self, widget: Any) -> list[dict[str, Any]]:
        """Changes of a widget's traits so far, each as one message."""
        return [data["state"] for data in self._of(widget) if data.get("method") == "update"]

    def opening(self, widget: Any) -> dict[str, Any]:
        """The state a widget was opened with."""
        return next(
            data["state"]
            for comm_id, kind, data in self._messages
            if comm_id == widget.model_id and kind == "comm_open"
        )

    def wait_for(self, condition: Callable[[], Any]) -> Any:
        """Wait until `condition()` holds; it is asked again at every message."""
        with self._arrived:
            assert self._arrived.wait_for(condition, _LIMIT_S), "the front end waited in vain"
        return condition()

    def closed(self) -> set[str]:
        """Ids of the comms that were closed."""
        return {comm_id for comm_id, kind, _ in self._messages if kind == "comm_close"}

    def opened(self) -> set[str]:
        """Ids of the comms that were opened."""
        return {comm_id for comm_id, kind, _ in self._messages if kind == "comm_open"}

    def tell(self, widget: Any, **content: Any) -> None:
        """Send a widget a custom message."""
        widget.comm.handle_msg({"content": {"data": {"method": "custom", "content": content}}, "buffers": []})

    def _of(self, widget: Any) -> list[dict[str, Any]]:
        return [data for comm_id, kind, data in self._messages if comm_id == widget.model_id and kind == "comm_msg"]


@pytest.fixture
def front_end(monkeypatch: pytest.MonkeyPatch) -> FrontEnd:
    """The front end that widgets made in this test are shown in."""
    front_end = FrontEnd()

    class RecordingComm(BaseComm):
        def publish_msg(self, msg_type, data=None, metadata=None, buffers=None, **keys):
            front_end.take(self.comm_id, msg_type, data or {})

    monkeypatch.setattr(comm, "create_comm", RecordingComm)
    monkeypatch.delenv("WORKBENCH_HEADLESS", raising=False)
    return front_end


@pytest.fixture
def menu() -> Menu:
    """A machine with a CPU that lacks fp16, and a GPU that torch can't use."""

    class SmallCPU(CPUBackend):
        def supports_dtype(self, dtype: str, index: int = 0) -> str | None:
            return "this CPU has no fp16" if dtype == "fp16" else None

    device = DeviceInfo(0, "Test CPU", 8_000_000_000, 4_000_000_000, ("fp32", "bf16"), "x86_64", 2)
    cpu = SmallCPU()
    statuses = [
        BackendStatus(CUDABackend(), False, "torch was built without CUDA", ()),
        BackendStatus(cpu, True, None, (device,)),
    ]
    models = [Option("default", "default (embedded)"), Option("other", "other (folder)")]
    return Menu(models, statuses, BackendChoice(cpu, "no GPU can be used"), facts_of=lambda model: _FACTS)


@pytest.fixture
def gpu_menu() -> Menu:
    """A machine with two GPUs that only exist in words."""

    class TwoGPUs(CUDABackend):
        def unavailable_reason(self) -> str | None:
            return None

        def devices(self) -> list[DeviceInfo]:
            return [
                DeviceInfo(i, "H100", 80_000_000_000, 60_000_000_000, ("fp32", "bf16"), "sm_90", 132) for i in range(2)
            ]

        def default_dtype(self, index: int = 0) -> DtypeChoice:
            return DtypeChoice("bf16", "fast there")

    cuda, cpu = TwoGPUs(), CPUBackend()
    host = DeviceInfo(0, "Test CPU", 8_000_000_000, 4_000_000_000, ("fp32", "bf16"), "x86_64", 2)
    statuses = [BackendStatus(cuda, True, None, tuple(cuda.devices())), BackendStatus(cpu, True, None, (host,))]
    models = [Option("default", "default (embedded)")]
    return Menu(models, statuses, BackendChoice(cuda, "a GPU is there"), facts_of=lambda model: _FACTS)


@pytest.fixture
def factory() -> FakeFactory:
    """Makes the engines of `session`."""
    return FakeFactory()


@pytest.fixture
def session(factory: FakeFactory):
    """A session with nothing loaded."""
    with Session(factory) as session:
        yield session


@pytest.fixture
def ready_session(session: Session) -> Session:
    """A session with a model."""
    session.load(LoadChoice())
    session.wait(_LIMIT_S)
    return session
