"""What the Models tab loads, where it does not take a browser to see it."""

from __future__ import annotations

from types import SimpleNamespace

import gradio as gr
import pytest

from dashboards.tabs.models import ModelsTab
from widgets.menu import Menu, Option
from workbench.backends import BackendChoice, BackendStatus, CPUBackend, CUDABackend, DeviceInfo
from workbench.session import LoadChoice, SessionStatus


class _Session:
    status = SessionStatus()

    def __init__(self):
        self.loaded = []

    def load(self, choice):
        self.loaded.append(choice)


@pytest.fixture
def session():
    return _Session()


@pytest.fixture
def tab(session):
    cpu = DeviceInfo(0, "CPU", 64_000_000_000, 1, ("fp32",), "x86_64", 8)
    statuses = [BackendStatus(CUDABackend(), False, "no", ()), BackendStatus(CPUBackend(), True, None, (cpu,))]
    menu = Menu([Option("default", "default")], statuses, BackendChoice(CPUBackend(), "no GPU can be used"))
    parts = SimpleNamespace(require_admin=lambda request: None, require_session=lambda: session, session=session)
    with gr.Blocks():
        return ModelsTab(parts, menu)


async def test_what_is_chosen_is_what_is_loaded(tab, session):
    await tab._load(None, "default", "auto", "int8", 2048, " org/small ")
    await tab._load(None, "default", "auto", "auto", 0, "")
    expected = LoadChoice("default", None, "int8", 2048, draft_model="org/small")
    assert session.loaded == [expected, LoadChoice("default")]
