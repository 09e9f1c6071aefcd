"""The panel in a real kernel, spoken to over the kernel's own sockets as JupyterLab would."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from jupyter_client.manager import start_new_kernel

_REPOSITORY = Path(__file__).resolve().parents[2]
_LIMIT_S = 60
_OPEN_PANEL = """
from fake_llm import FakeFactory, Gate
from widgets import Workbench
from workbench.session import Session

factory = FakeFactory()
factory.load_gate = Gate(is_open=False)
factory.reply_gate = Gate(is_open=False)
panel = Workbench(session=Session(factory))
panel
"""


class KernelClient:
    """Runs code and talks to widgets; keeps what the kernel publishes."""

    def __init__(self, client):
        self._client = client
        self.published = []

    def run(self, code):
        """Run a cell; gives the text of its value."""
        text = []

        def note(message):
            self._note(message)
            assert message["msg_type"] != "error", "\n".join(message["content"]["traceback"])
            if message["msg_type"] == "execute_result":
                text.append(message["content"]["data"]["text/plain"])

        self._client.execute_interactive(code, timeout=_LIMIT_S, output_hook=note)
        return "".join(text)

    def run_cell(self, cell_id, code):
        """Run a cell as JupyterLab does, which names it."""
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
        message = self._client.session.msg("execute_request", content, metadata={"cellId": cell_id})
        self._client.shell_channel.send(message)
        reply = self._client.get_shell_msg(timeout=_LIMIT_S)
        while reply["parent_header"]["msg_id"] != message["header"]["msg_id"]:
            reply = self._client.get_shell_msg(timeout=_LIMIT_S)
        assert reply["content"]["status"] == "ok", reply["content"]

    def tell(self, model_id, **content):
        data = {"method": "custom", "content": content}
        message = self._client.session.msg("comm_msg", {"comm_id": model_id, "data": data})
        self._client.shell_channel.send(message)

    def wait_for(self, condition):
        """Read what the kernel publishes until `condition(state updates, custom messages)` holds."""
        while not any(condition(data) for data in self._comm_data()):
            self._note(self._client.get_iopub_msg(timeout=_LIMIT_S))

    def streams(self):
        return [message for message in self.published if message["msg_type"] == "stream"]

    def _note(self, message):
        self.published.append(message)

    def _comm_data(self):
        return [message["content"]["data"] for message in self.published if message["msg_type"] == "comm_msg"]


@pytest.fixture(scope="module")
def kernel():
    path = os.pathsep.join(map(str, (_REPOSITORY, _REPOSITORY / "tests")))
    manager, client = start_new_kernel(kernel_name="python3", env={**os.environ, "PYTHONPATH": path})
    yield KernelClient(client)
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def _is_state(data, **wanted):
    return data["method"] == "update" and wanted.items() <= data["state"].items()


def test_load_chat_and_stop_while_the_kernel_stays_free(kernel):
    kernel.run_cell("panel", _OPEN_PANEL)
    ids = {name: kernel.run(f"panel.{name}.model_id").strip("'") for name in ("load_bar", "chat")}

    kernel.tell(ids["load_bar"], type="load")
    kernel.wait_for(lambda data: _is_state(data, state="loading"))
    # plotly, which draws on a thread, would find half a module while a cell imports it.
    assert kernel.run("'pandas' in __import__('sys').modules") == "True"
    # It answers while the load waits at its gate.
    assert kernel.run("1 + 1") == "2"
    kernel.run("factory.load_gate.open()")
    kernel.wait_for(lambda data: _is_state(data, state="ready"))

    kernel.tell(ids["chat"], type="ask", text="Hi")
    kernel.wait_for(lambda data: _is_state(data, busy=True))
    kernel.run("factory.reply_gate.let()")
    kernel.wait_for(lambda data: "Hello" in "".join(data.get("content", {}).get("blocks", ())))
    assert kernel.run("1 + 1") == "2"
    kernel.tell(ids["chat"], type="stop")
    kernel.wait_for(lambda data: _is_state(data, busy=False))
    assert kernel.run("panel.chat.messages[-1]['status']") == "'stopped'"

    # What a saved notebook shows is what was so at the last change.
    kept = [message for message in kernel.published if message["msg_type"] == "update_display_data"]
    assert {"ready: default, cpu, fp32", "2 messages"} <= set(
        re.findall(r">([^<]+)<", kept[-1]["content"]["data"]["text/html"])
    )
    # Programs that run notebooks, and name no cell, get the words in place of the widget, the same in every run.
    assert kernel.run("panel").startswith("Workbench 'workbench'\n  model ")
    shown = kernel.run("monitor = __import__('widgets').MemoryMonitor(statuses=[])\nmonitor")
    assert shown == "MemoryMonitor\n  plot  memory, by owner, busy over the last 120 s"
    kernel.run("monitor.close()")

    # Workers speak through traits and messages only; printed text would land in whatever cell runs.
    assert kernel.streams() == []


def test_closing_the_panel_leaves_no_thread_in_the_kernel(kernel):
    kernel.run("panel = Workbench(session=Session(FakeFactory()))\npanel.close()")
    names = "[t.name for t in __import__('threading').enumerate() if t.name.startswith('workbench-')]"
    assert kernel.run(names) == "[]"


_ALONE = """
import gc, weakref
from fake_llm import FakeFactory
from widgets import ChatBox, EndpointCard, MemoryMonitor, TokenHeatmap
from workbench.session import LoadChoice

llm = FakeFactory()(LoadChoice(), lambda progress: None)
made = [*globals().get("made", ()), weakref.ref(llm)]
monitor = MemoryMonitor(llm)
heatmap, card = TokenHeatmap(llm), EndpointCard(llm)
ChatBox(llm)
"""


def test_a_cell_that_runs_again_leaves_nothing_of_its_widgets(kernel):
    for _ in range(3):
        kernel.run_cell("cell-1", _ALONE)
    kernel.run_cell("cell-2", "other = MemoryMonitor(llm)")
    names = "[t.name for t in __import__('threading').enumerate() if t.name == 'workbench-sampler']"
    assert kernel.run(f"len({names})") == "2"
    assert kernel.run("gc.collect() * 0 + sum(one() is not None for one in made)") == "1"
    assert kernel.run("made[-1]() is llm and monitor.comm is not None") == "True"
