"""What the panel costs: opening it, a busy kernel, Stop, and minutes of live plots. Prints one JSON line a measurement.

python benchmarks/panel.py open kernel stop
python benchmarks/panel.py plots --minutes 10
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_REPOSITORY = Path(__file__).resolve().parents[1]
_LIMIT_S = 300
_OPEN_PANEL = 'from widgets import Workbench\npanel = Workbench(backend="cpu", context_length=1024)\npanel'
_MOVING_PLOTS = """
import itertools, psutil
from fake_llm import FakeFactory
from widgets import Workbench
from workbench.session import LoadChoice, Session

class Moving:
    beats = itertools.count()
    def read(self):
        beat = next(self.beats)
        return {"generated_tokens_per_s": 50 + beat % 17, "requests_running": beat % 5, "ttft_s": 0.1 + beat % 3}

panel = Workbench(model="random:tiny", backend="cpu", session=Session(FakeFactory()))
panel.session.load(LoadChoice())
panel.session.wait(20)
panel.plot.sampler._probes += (Moving(),)
panel
"""
_THREE_GENERATIONS = """
running = [panel.session.submit(f"A story about {i}:", max_tokens=960, ignore_eos=True) for i in range(3)]
"""
_SECOND_PANEL = """
second = Workbench(backend="cpu", context_length=1024, name="second")
second.load_bar.load()
"""


class Kernel:
    """A real kernel, spoken to over its sockets as JupyterLab would."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def run(self, code: str) -> tuple[float, str]:
        """Run a cell: (seconds, text of its value)."""
        texts: list[str] = []

        def note(message: dict[str, Any]) -> None:
            assert message["msg_type"] != "error", "\n".join(message["content"]["traceback"])
            if message["msg_type"] == "execute_result":
                texts.append(message["content"]["data"]["text/plain"])

        started_s = time.perf_counter()
        self._client.execute_interactive(code, timeout=_LIMIT_S, output_hook=note)
        return time.perf_counter() - started_s, "".join(texts)

    def tell(self, model_id: str, **content: Any) -> None:
        """Send a widget a message."""
        data = {"comm_id": model_id, "data": {"method": "custom", "content": content}}
        self._client.shell_channel.send(self._client.session.msg("comm_msg", data))

    def next_message(self, timeout_s: float = _LIMIT_S) -> dict[str, Any]:
        """The next thing that the kernel publishes."""
        return self._client.get_iopub_msg(timeout=timeout_s)


@contextmanager
def _kernel() -> Iterator[Kernel]:
    from jupyter_client.manager import start_new_kernel

    path = os.pathsep.join(map(str, (_REPOSITORY, _REPOSITORY / "tests")))
    manager, client = start_new_kernel(kernel_name="python3", env={**os.environ, "PYTHONPATH": path})
    try:
        yield Kernel(client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def measure_open() -> dict[str, Any]:
    """Seconds from running the panel's cell to its end, once torch is imported."""
    with _kernel() as kernel:
        kernel.run("import torch")
        first_s, _ = kernel.run(_OPEN_PANEL)
        again_s = [kernel.run(_OPEN_PANEL)[0] for _ in range(3)]
    return {"open_s": round(first_s, 2), "open_again_s": round(statistics.median(again_s), 2)}


def measure_kernel() -> dict[str, Any]:
    """Milliseconds of `1 + 1` while a model loads, while three generations run, and while a second panel loads a model
    beside them."""
    with _kernel() as kernel:
        kernel.run(_OPEN_PANEL)
        kernel.run("panel.load_bar.load()")
        loading = []
        while kernel.run("panel.session.status.state.value")[1] != "'ready'":
            loading.append(kernel.run("1 + 1")[0])
        kernel.run(_THREE_GENERATIONS)
        generating = [kernel.run("1 + 1")[0] for _ in range(100)]
        assert kernel.run("sum(not one.is_finished for one in running)")[1] == "3", "the generations ended too early"
        kernel.run(_SECOND_PANEL)
        both = []
        while kernel.run("second.session.status.state.value")[1] != "'ready'":
            both.append(kernel.run("1 + 1")[0])
        assert kernel.run("sum(not one.is_finished for one in running)")[1] == "3", "the generations ended too early"
        kernel.run("for one in running: one.abort()")
    return {
        "loading": _spread_ms(loading),
        "three_generations": _spread_ms(generating),
        "loading_beside_three_generations": _spread_ms(both),
    }


def measure_stop(num_rounds: int = 10) -> dict[str, Any]:
    """Milliseconds from Stop to the last token, over the panel's own messages."""
    times_s = []
    with _kernel() as kernel:
        kernel.run(_OPEN_PANEL)
        kernel.run("panel.load_bar.load(); panel.session.wait(300)")
        chat_id = kernel.run("panel.chat.model_id")[1].strip("'")
        for _ in range(num_rounds):
            kernel.run("panel.chat.clear()")
            kernel.tell(chat_id, type="ask", text="Tell me a very long story about the sea.")
            num_pieces = 0
            while num_pieces < 10:
                num_pieces += _is_piece(kernel.next_message())
            kernel.tell(chat_id, type="stop")
            stopped_s = last_s = time.perf_counter()
            while not _is_end(message := kernel.next_message()):
                if _is_piece(message):
                    last_s = time.perf_counter()
            times_s.append(last_s - stopped_s)
    return {"last_token_after_stop": _spread_ms(times_s)}


def measure_plots(minutes: float) -> dict[str, Any]:
    """Growth of the kernel's memory and of the browser's heap over minutes of moving plots, in MB."""
    sys.path.insert(0, str(_REPOSITORY / "tests"))
    from browser.conftest import _chromium, _write_notebook
    from browser.lab_page import LabPage
    from browser.lab_server import LabServer
    from playwright.sync_api import sync_playwright

    with (
        tempfile.TemporaryDirectory() as home,
        sync_playwright() as playwright,
        LabServer(Path(home)) as server,
    ):
        _write_notebook(server.root / "plots.ipynb", (_MOVING_PLOTS,))
        browser = playwright.chromium.launch(executable_path=_chromium(), args=["--no-sandbox", "--disable-gpu"])
        lab = LabPage(browser.new_page(viewport={"width": 1300, "height": 1400}), server.page_url("plots.ipynb"))
        lab.run_all()
        lab.page.locator(".wb-live").wait_for(timeout=1000 * _LIMIT_S)
        lab.wait_for_points(at_least=10, timeout_s=_LIMIT_S)
        # The first minute fills the window and the caches of both sides.
        lab.page.wait_for_timeout(60_000)
        heap, rss = _heap_bytes(lab), _rss_bytes(lab)
        lab.page.wait_for_timeout(minutes * 60_000)
        heap_after, rss_after = _heap_bytes(lab), _rss_bytes(lab)
        browser.close()
    return {
        "minutes": minutes,
        "kernel_growth_mb": round((rss_after - rss) / 1e6, 1),
        "browser_heap_growth_mb": round((heap_after - heap) / 1e6, 1),
        "browser_heap_mb": round(heap_after / 1e6, 1),
    }


def _heap_bytes(lab: Any) -> float:
    session = lab.page.context.new_cdp_session(lab.page)
    session.send("HeapProfiler.collectGarbage")
    session.send("Performance.enable")
    metrics = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
    return metrics["JSHeapUsedSize"]


def _rss_bytes(lab: Any) -> float:
    with tempfile.NamedTemporaryFile("r") as file:
        lab.execute(f"import gc; gc.collect()\nopen({file.name!r}, 'w').write(str(psutil.Process().memory_info().rss))")
        return float(file.read())


def _is_piece(message: dict[str, Any]) -> bool:
    content = message["content"].get("data", {}).get("content", {})
    return message["msg_type"] == "comm_msg" and content.get("type") == "blocks"


def _is_end(message: dict[str, Any]) -> bool:
    data = message["content"].get("data", {})
    return message["msg_type"] == "comm_msg" and data.get("state", {}).get("busy") is False


def _spread_ms(times_s: list[float]) -> dict[str, float]:
    ordered = sorted(times_s)
    return {
        "median_ms": round(1000 * statistics.median(ordered), 1),
        "p95_ms": round(1000 * ordered[int(0.95 * (len(ordered) - 1))], 1),
        "max_ms": round(1000 * ordered[-1], 1),
        "count": len(ordered),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", choices=["open", "kernel", "stop", "plots"])
    parser.add_argument("--minutes", type=float, default=10.0, help="how long the plots run")
    options = parser.parse_args()
    measures = {
        "open": measure_open,
        "kernel": measure_kernel,
        "stop": measure_stop,
        "plots": lambda: measure_plots(options.minutes),
    }
    for name in options.what:
        print(json.dumps({name: measures[name]()}), flush=True)


if __name__ == "__main__":
    main()
