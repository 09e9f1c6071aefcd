"""Figures for Prometheus: vLLM's names under our own prefix, all of them, also before anything has happened."""

from __future__ import annotations

import re

import pytest
from live_endpoint import MODEL, chat, http_client
from prometheus_client.parser import text_string_to_metric_families

from workbench.engine import EngineStats
from workbench.server.metrics import Metrics

# The names of vLLM's own figures after their prefix, as they are exported.
GAUGES = (
    "num_requests_running",
    "num_requests_waiting",
    "num_requests_waiting_by_reason",
    "kv_cache_usage_perc",
    "engine_sleep_state",
)
COUNTERS = (
    "prefix_cache_queries_total",
    "prefix_cache_hits_total",
    "num_preemptions_total",
    "prompt_tokens_total",
    "prompt_tokens_cached_total",
    "generation_tokens_total",
    "request_success_total",
    "admission_rejections_total",
)
HISTOGRAMS = (
    "request_prompt_tokens",
    "request_generation_tokens",
    "iteration_tokens_total",
    "request_params_n",
    "request_params_max_tokens",
    "time_to_first_token_seconds",
    "inter_token_latency_seconds",
    "request_time_per_output_token_seconds",
    "e2e_request_latency_seconds",
    "request_queue_time_seconds",
    "request_inference_time_seconds",
    "request_prefill_time_seconds",
    "request_decode_time_seconds",
)
SAMPLES = {f"workbench_{name}" for name in (*GAUGES, *COUNTERS, *(f"{name}_count" for name in HISTOGRAMS))}


class Engine:
    """Where the figures come from, without a model until one is put in."""

    model_id = ""
    found: EngineStats | None = None

    def stats(self):
        return self.found

    def replicas(self):
        return []


def figures(text: str) -> dict[str, float]:
    """Every sample by name and labels; fails for a text that Prometheus would not read."""
    assert list(text_string_to_metric_families(text))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def names(found: dict[str, float]) -> set[str]:
    return {re.split(r"[{ ]", name)[0] for name in found}


def test_every_name_is_there_and_zero_before_there_is_a_model():
    engine = Engine()
    metrics = Metrics(engine, lambda: 0)
    found = figures(metrics.text().decode())
    assert SAMPLES - names(found) == set()
    asleep = 'workbench_engine_sleep_state{model_name="",sleep_state="discard_all"}'
    assert {name for name, value in found.items() if value and "_created" not in name} == {asleep}
    engine.model_id, engine.found = "m", EngineStats()
    found = figures(metrics.text().decode())
    assert SAMPLES - names(found) == set()
    assert not [name for name in found if 'model_name=""' in name], "the empty name is gone with the first model"
    assert found['workbench_engine_sleep_state{model_name="m",sleep_state="awake"}'] == 1
    assert found[asleep.replace('""', '"m"')] == 0


def test_a_request_shows_in_all_that_it_concerns(http, llm):
    before, steps_before = figures(http.get("/metrics").text), llm.stats().steps_total
    http.post("/v1/chat/completions", json=chat(max_completion_tokens=4))
    http.post("/v1/chat/completions", json={})
    after = figures(http.get("/metrics").text)
    assert SAMPLES - names(after) == set()

    def grown(name: str, **labels: str) -> float:
        pairs = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
        key = f"workbench_{name}{{{pairs}}}"
        return after[key] - before.get(key, 0)

    assert grown("generation_tokens_total", model_name=MODEL) == 4
    assert grown("request_success_total", model_name=MODEL, finished_reason="length") == 1
    for name in (*HISTOGRAMS, "http_requests_total"):
        if name not in ("iteration_tokens_total", "inter_token_latency_seconds", "http_requests_total"):
            assert grown(f"{name}_count", model_name=MODEL) == 1, name
    steps = llm.stats().steps_total - steps_before
    assert grown("iteration_tokens_total_count", model_name=MODEL) == steps >= 4
    computed = grown("prompt_tokens_total", model_name=MODEL) + 4 - 1
    assert grown("iteration_tokens_total_sum", model_name=MODEL) == pytest.approx(computed, abs=1)
    for status in ("200", "400"):
        assert grown("http_requests_total", handler="/v1/chat/completions", method="POST", status=status) == 1


def test_no_label_can_be_chosen_by_callers(http):
    http.get("/v1/some/random/path/of-a-caller")
    http.request("BREW", "/v1/models")
    text = http.get("/metrics").text
    assert "of-a-caller" not in text and "BREW" not in text


def test_all_names_stay_when_the_model_is_unloaded(make_endpoint, tiny_model_folder):
    from workbench import LlamaGPU
    from workbench.session import Session

    session = Session()
    session.adopt(LlamaGPU(tiny_model_folder, prefer_gpu=False, auto_detect_aws=False))
    endpoint = make_endpoint(session=session, may_change=True)
    with http_client(endpoint, "admin-key-of-the-tests") as client:
        assert client.post("/v1/models/unload").status_code == 200
        found = figures(client.get("/metrics").text)
    assert SAMPLES - names(found) == set()
    assert found['workbench_engine_sleep_state{model_name="",sleep_state="discard_all"}'] == 1
