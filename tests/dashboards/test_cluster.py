"""What the Cluster tab knows: from the engine of this process, from an endpoint, and from one that tells little."""

from __future__ import annotations

import json
from dataclasses import replace

import httpx
import pytest
from live_endpoint import USE_KEY, start_endpoint

from dashboards.cluster import ClusterView, ClusterWatch, DeviceView, EngineView, replicas_of_stats
from dashboards.cluster_html import cluster_html
from dashboards.sources import EndpointCluster, EndpointSource, SessionCluster
from workbench.session import Session

ENGINE = EngineView("Replica 0", "GPU 0", True, num_in_flight=3, load=0.25, generated_tokens_total=100)
REPLICA = {
    "replica_id": 1,
    "is_alive": False,
    "gpu_ids": [2, 3],
    "num_in_flight": 4,
    "requests_total": 9,
    "bubble_share": 0.5,
    "ranks": [{"stage": stage, "weight_bytes": 10, "kv_bytes": 5} for stage in (0, 1)],
}


class _Reader:
    """Gives the views it was made with, one after the other."""

    def __init__(self, *views: ClusterView) -> None:
        self._views = list(views)

    async def read(self) -> ClusterView:
        return self._views.pop(0)


def _endpoint(**answers: str) -> EndpointCluster:
    """An endpoint that answers these paths (their slashes and dashes as underscores), and 404 elsewhere."""

    def answer(request: httpx.Request) -> httpx.Response:
        text = answers.get(request.url.path.strip("/").replace("/", "_").replace("-", "_"))
        return httpx.Response(404 if text is None else 200, text=text or "{}")

    return EndpointCluster(EndpointSource("http://elsewhere:1", transport=httpx.MockTransport(answer)))


async def test_speeds_are_what_came_since_the_last_look_and_pages_share_a_look():
    counts = [100, 150, 20]
    views = [ClusterView("here", (replace(ENGINE, generated_tokens_total=count),)) for count in counts]
    now_s = [10.0]
    watch = ClusterWatch(_Reader(*views), beat_s=1.0, clock=lambda: now_s[0])
    seen = []
    for step_s in (0.0, 0.5, 2.0, 2.0):
        now_s[0] += step_s
        seen.append((await watch.look()).engines[0].tokens_per_s)
    # Half a second after the first look nothing is read; a counter that went back is a new engine's.
    assert seen == [0.0, 0.0, 20.0, 0.0]


def test_replicas_are_read_from_the_documented_figures():
    (engine,) = replicas_of_stats([REPLICA], {2: 0.5}, on="GPU")
    assert (engine.name, engine.devices, engine.is_alive, engine.load) == ("Replica 1", "GPUs 2, 3", False, 0.5)
    assert (engine.weight_bytes, engine.kv_bytes, engine.num_processes, engine.bubble_share) == (20, 10, 2, 0.5)
    # As JSON has it, keys are text.
    assert replicas_of_stats([REPLICA], {"2": 0.5}, on="GPU") == (engine,)


def test_the_cards_say_everything_in_words_and_take_nothing_for_markup():
    view = ClusterView(
        "Two <copies>",
        (replace(ENGINE, tokens_per_s=12.34, weight_bytes=10**9, kv_bytes=0), replace(ENGINE, is_alive=False)),
        (DeviceView("cuda:0", "A <card>", 0.5, 80 * 10**9, 97.0, 0.25),),
        balancing="round_robin shares 5 requests out among 2 replicas.",
        degraded="replicas [1] of 2 have stopped",
    )
    text = cluster_html(view)
    assert "<copies>" not in text and "<card>" not in text
    for words in ("3 in flight, load 25%", "12.3 tokens/s", "weights 1,000 MB", "runs", "has stopped", "round_robin",
                  "Less than asked: replicas [1]", "memory: 50% of 80.0 GB in use", "busy 97 %"):  # fmt: skip
        assert words in text, words


async def test_one_process_says_so_in_words_here_and_behind_an_endpoint(session):
    here = await SessionCluster(session).read()
    assert "nothing to balance" in here.words and len(here.engines) == 1
    assert here.engines[0].is_alive and here.engines[0].weight_bytes > 10**8
    assert "cpu:0" in [device.name for device in here.devices]
    with start_endpoint(session.llm) as endpoint:
        source = EndpointSource(endpoint.url, USE_KEY)
        there = await EndpointCluster(source).read()
        await source.close()
    assert "nothing to balance" in there.words
    assert there.engines[0].is_alive and there.engines[0].num_in_flight == 0
    assert there.engines[0].generated_tokens_total == session.llm.stats().generated_tokens_total


async def test_nothing_loaded_is_said():
    with Session() as session:
        assert "No model is loaded" in (await SessionCluster(session).read()).words


async def test_another_kind_of_endpoint_is_shown_as_far_as_it_tells():
    metrics = 'x_num_requests_running{model_name="m"} 2.0\nx_generation_tokens_total{model_name="m"} 77.0\nodd\n'
    view = await _endpoint(metrics=metrics).read()
    assert "says nothing of its devices" in view.words
    assert (view.engines[0].num_in_flight, view.engines[0].generated_tokens_total) == (2, 77)
    assert (await _endpoint().read()).engines == ()


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "<html>", '{"multi_gpu_stats": null}'])
async def test_what_is_no_answer_is_said(text):
    assert "says nothing" in (await _endpoint(v1_multi_gpu_stats=text, health=text).read()).words


async def test_a_spread_model_behind_an_endpoint_has_its_replicas():
    stats = {
        "gpu_config": {"strategy": "data", "load_balancing": "least_loaded"},
        "load_balancing": {"total_requests": 9, "gpu_loads": {"2": 0.25}},
        "gpu_metrics": {"memory": {"2": 0.75, "10": 0.1}, "loads": {"2": 0.25}},
        "replicas": [REPLICA, {**REPLICA, "replica_id": 0, "is_alive": True}],
        "degraded_reason": "replicas [1] of 2 have stopped",
        "reason": "2 replicas",
    }
    view = await _endpoint(v1_multi_gpu_stats=json.dumps({"multi_gpu_stats": stats})).read()
    assert [engine.is_alive for engine in view.engines] == [False, True]
    assert "least_loaded shares 9 requests out among 2" in view.balancing and "[1] of 2" in view.degraded
    assert [(device.name, device.memory_share) for device in view.devices] == [("device 2", 0.75), ("device 10", 0.1)]
