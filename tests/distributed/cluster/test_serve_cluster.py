"""`workbench serve --cluster` on two real Ray nodes, as clients see it: a node is killed, a model changed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from distributed.cluster.two_nodes import add_node, two_node_cluster

from workbench import EngineConfig, LlamaGPU
from workbench.distributed.cluster import ClusterConfig

pytest.importorskip("ray", reason="replicas on a cluster need Ray: pip install '.[cluster]'")
# Ray's own models use what pydantic no longer likes.
pytestmark = [pytest.mark.timeout(400), pytest.mark.filterwarnings("ignore::DeprecationWarning")]

KEY = "admin-key-of-the-tests"
LIMIT_S = 120


@pytest.fixture(scope="module")
def nodes():
    with two_node_cluster() as (cluster, nodes):
        yield cluster, nodes


@contextmanager
def serving(address: str, *options: str) -> Iterator[tuple[httpx.Client, subprocess.Popen[str]]]:
    """The command as a process of its own, and a client that may do everything."""
    command = [Path(sys.executable).with_name("workbench"), "serve", "--port", "0", "--no-access-log", "--cluster"]
    command += ["--model", "random:tiny", "--quant", "fp32", "--no-prefer-gpu", "--context-length", "1024"]
    process = subprocess.Popen(
        [*command, "--no-native-kernels", "--allow-random", "--cluster-address", address, *options],
        env={**os.environ, "WORKBENCH_ADMIN_KEY": KEY},
        stderr=subprocess.PIPE,
        text=True,
    )
    lines: list[str] = []
    url: list[str] = []
    is_up = threading.Event()

    def read() -> None:
        for line in process.stderr:
            lines.append(line)
            if " answers at " in line:
                url.append(line.split()[-1].removesuffix("/v1"))
                is_up.set()
        is_up.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        assert is_up.wait(LIMIT_S), "".join(lines)
        assert url, "".join(lines)
        headers = {"authorization": f"Bearer {KEY}"}
        with httpx.Client(base_url=url[0], headers=headers, timeout=LIMIT_S, trust_env=False) as client:
            yield client, process
    finally:
        process.kill()
        process.wait(30)
        reader.join(30)


def _wait_for(holds: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.5)


class _Stream:
    """One streamed answer, read in a thread."""

    def __init__(self, client: httpx.Client, number: int) -> None:
        self._body = {
            "prompt": f"abc {number}",
            "max_tokens": 600,
            "ignore_eos": True,
            "temperature": 0.9 * (number % 2),
            # A replica with other neighbours in its batch rounds otherwise: few choices leave few edges to fall off.
            "top_k": 4,
            "seed": number,
            "stream": True,
        }
        self._client = client
        self.has_begun = threading.Event()
        self.has_ended = threading.Event()
        self.text = ""
        self.error: object = None

    def read(self) -> str:
        try:
            with self._client.stream("POST", "/v1/completions", json=self._body) as reply:
                for line in reply.iter_lines():
                    if line.startswith("data: {"):
                        self._take(json.loads(line.removeprefix("data: ")))
        finally:
            self.has_begun.set()
            self.has_ended.set()
        return self.text

    def _take(self, event: dict) -> None:
        if "error" in event:
            self.error = event["error"]
            return
        self.text += event["choices"][0]["text"]
        self.has_begun.set()


def _read_all(client: httpx.Client, meanwhile: Callable[[list[_Stream]], None] = lambda streams: None) -> list[str]:
    streams = [_Stream(client, number) for number in range(4)]
    with ThreadPoolExecutor(len(streams)) as pool:
        texts = [pool.submit(stream.read) for stream in streams]
        for stream in streams:
            assert stream.has_begun.wait(LIMIT_S)
        meanwhile(streams)
        answers = [text.result(LIMIT_S) for text in texts]
    assert [stream.error for stream in streams] == [None] * len(streams)
    return answers


def test_a_node_killed_under_load_costs_no_answer_and_models_change_under_way(nodes):
    cluster, (_, second) = nodes
    with serving(cluster.address, "--replicas", "2") as (client, process):
        assert client.get("/health").json()["status"] == "ok"
        expected = _read_all(client)

        def kill(streams: list[_Stream]) -> None:
            assert not all(stream.has_ended.is_set() for stream in streams)
            cluster.remove_node(second, allow_graceful=False)

        assert _read_all(client, kill) == expected
        _wait_for(lambda: client.get("/health").json()["status"] == "degraded", "a lost node is noticed")
        assert client.post("/v1/completions", json={"prompt": "abc", "max_tokens": 4}).status_code == 200

        add_node(cluster)
        _wait_for(lambda: client.get("/health").json()["status"] == "ok", "the lost replica comes back")

        # The cluster is full: one of the two replicas makes room, and the other goes on serving.
        changed: list[httpx.Response] = []
        body = {"model_name": "random:tiny-qwen3"}
        loader = threading.Thread(target=lambda: changed.append(client.post("/v1/models/load", json=body)))
        loader.start()
        seen = set()
        while loader.is_alive():
            reply = client.post("/v1/completions", json={"prompt": "abc", "max_tokens": 4})
            assert reply.status_code == 200, reply.text
            seen.add(reply.json()["model"])
            loader.join(0.2)
        assert changed[0].status_code == 200, changed[0].text
        assert len(seen) == 2
        _wait_for(lambda: client.get("/health").json()["status"] == "ok", "both replicas hold the new model")

        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0
    from ray import serve

    assert serve.status().applications == {}


def test_replicas_come_with_the_queue(nodes):
    from ray import serve

    def num_replicas(*states: str) -> int:
        (application,) = serve.status().applications.values()
        counts = application.deployments["engine"].replica_states
        return sum(count for state, count in counts.items() if state in states)

    with LlamaGPU(
        "random:tiny",
        prefer_gpu=False,
        quant_type="fp32",
        engine=EngineConfig(context_length=1024, max_num_seqs=2, native_kernels=False),
        cluster=ClusterConfig(autoscale=(1, 2), address=nodes[0].address),
    ) as llm:
        assert num_replicas("RUNNING") == 1
        is_enough = threading.Event()

        def keep_asking() -> None:
            while not is_enough.is_set():
                llm.submit("abc", max_tokens=200, ignore_eos=True).result(LIMIT_S)

        with ThreadPoolExecutor(3) as pool:
            askers = [pool.submit(keep_asking) for _ in range(3)]
            try:
                _wait_for(lambda: num_replicas("RUNNING", "STARTING") == 2, "a second replica is started")
            finally:
                is_enough.set()
            for asker in askers:
                asker.result(LIMIT_S)
        _wait_for(lambda: num_replicas("RUNNING") == 2, "a second replica serves")
    assert "MetricsPusher.metrics_task" not in _tasks_of_handles()


def _tasks_of_handles() -> set[str]:
    """What Ray goes on to do in this process. One that finds no Ray starts one, again and again."""
    from ray.serve._private.router import SingletonThreadRouter

    return {task.get_coro().__qualname__ for task in asyncio.all_tasks(SingletonThreadRouter._asyncio_loop)}
