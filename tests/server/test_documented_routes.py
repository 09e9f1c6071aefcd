"""The routes of the documented surface beside OpenAI's: monitoring, precision, several devices, probes."""

from __future__ import annotations

import threading

import pytest
from live_endpoint import MODEL, chat


def test_queues_batches_and_workers_show_the_real_engine(http):
    http.post("/v1/chat/completions", json=chat())
    queues = http.get("/v1/monitor/queues").json()
    assert (
        queues["completion_queues"] == queues["chat_queues"] == {"size": 0, "workers": queues["chat_queues"]["workers"]}
    )
    assert queues["total_requests"] > 0 and queues["chat_queues"]["workers"] >= 1
    batches = http.get("/v1/monitor/batches").json()
    assert batches["batch_stats"]["total_batches"] > 0
    assert batches["batch_stats"]["total_requests"] >= queues["total_requests"]
    assert batches["batch_stats"]["avg_processing_time"] > 0
    workers = http.get("/v1/monitor/workers").json()
    idents = {thread.ident for thread in threading.enumerate()}
    assert {"workbench-engine", "workbench-server"} <= set(workers["workers"])
    assert all(worker["thread_id"] in idents for worker in workers["workers"].values())
    assert workers["total_workers"] == len(workers["workers"])


def test_device_configuration_is_held_against_this_machine(admin):
    reply = admin.post("/v1/multi-gpu/config", json={"gpu_ids": [900, 901], "strategy": "tensor_parallel"})
    assert reply.status_code == 400 and reply.json()["error"]["code"] == "gpu_unavailable"
    reply = admin.post("/v1/multi-gpu/config", json={"gpu_ids": ["GPU-5a3c"], "strategy": "tensor_parallel"})
    assert reply.status_code == 400 and "GPU-5a3c" in reply.json()["error"]["message"]
    # The model of this endpoint belongs to the tests.
    reply = admin.post("/v1/multi-gpu/config", json={"num_gpus": 2, "load_balancer": "round_robin", "on_cpu": True})
    assert reply.status_code == 409 and reply.json()["error"]["code"] == "model_is_shared"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "gpu_ids"),
        ({"gpu_ids": [-1]}, "gpu_ids[0]"),
        ({"gpu_ids": [True]}, "gpu_ids[0]"),
        ({"gpu_ids": []}, "gpu_ids"),
        ({"gpu_ids": [0, 0]}, "gpu_ids"),
        ({"gpu_ids": [0], "num_gpus": 2}, "num_gpus"),
        ({"gpu_ids": [0], "strategy": "magic"}, "strategy"),
        ({"gpu_ids": [0], "load_balancing": "magic"}, "load_balancing"),
        ({"gpu_ids": [0], "tensor_parallel_size": 2}, "tensor_parallel_size"),
        ({"gpu_ids": [0], "tensor_parallel_size": 0}, "tensor_parallel_size"),
        ({"gpu_ids": [0], "memory_split": [0.5, 0.6]}, "memory_split"),
        ({"gpu_ids": [0], "memory_fraction": 1.1}, "memory_fraction"),
    ],
)
def test_a_wrong_device_configuration_is_named(admin, body, field):
    reply = admin.post("/v1/multi-gpu/config", json=body)
    assert reply.status_code == 400 and reply.json()["error"]["message"].startswith(field)


def test_device_figures_have_the_documented_shape(http):
    reply = http.get("/v1/multi-gpu/stats").json()
    assert reply["status"] == "success"
    assert set(reply["multi_gpu_stats"]["gpu_metrics"]) == {"loads", "memory"}
    assert http.get("/v1/multi-gpu/stats", params={"include_metrics": "perhaps"}).status_code == 400


def test_precision_is_taken_for_the_next_load(admin):
    for name in ("int8", "int4", "dynamic", "bf16", "fp32"):
        reply = admin.post("/v1/quantization/config", json={"quantization_type": name}).json()
        assert reply["quantization_config"]["quantization_type"] == name
        flags = {k: v for k, v in reply["quantization_config"].items() if k not in ("quantization_type", "group_size")}
        same = admin.post("/v1/quantization/config", json={"quantization_type": name, **flags})
        assert same.json() == reply, "what it says it does can be asked for"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"quantization_type": "int3"}, "quantization_type"),
        ({"quantization_type": "nf4", "symmetric": False}, "symmetric"),
        ({"quantization_type": "int8", "symmetric": False}, "symmetric"),
        ({"quantization_type": "bf16", "dynamic": True}, "dynamic"),
        ({"quantization_type": "int4", "bits": 4}, "bits"),
        ({"quantization_type": "int8", "dynamic": 1}, "dynamic"),
    ],
)
def test_a_precision_that_a_load_cannot_have_is_named(admin, body, param):
    reply = admin.post("/v1/quantization/config", json=body)
    assert reply.status_code == 400 and reply.json()["error"]["param"] == param


def test_the_store_of_quantised_models(admin):
    assert admin.post("/v1/quantization/cache", json={"model_name": "no-such"}).status_code == 404
    assert admin.post("/v1/quantization/cache", json={"model_name": "x", "action": "burn"}).status_code == 400
    body = {"model_name": MODEL, "action": "clear"}
    assert admin.post("/v1/quantization/cache", json=body).json()["status"] == "cache_cleared"
    missing = admin.post("/v1/quantization/cache", json={**body, "action": "load"})
    assert missing.status_code == 404 and missing.json()["error"]["code"] == "not_found"
    for kind in ("bf16", "gguf", "int3"):
        refused = admin.post("/v1/quantization/cache", json={**body, "quantization_type": kind})
        assert refused.status_code == 400 and refused.json()["error"]["param"] == "quantization_type"


def test_precision_figures_are_those_of_the_loaded_model(http, llm):
    reply = http.get("/v1/quantization/stats").json()
    assert reply["model_stats"]["quantization_type"] == "bf16"
    assert reply["model_stats"]["quantized_size"] == round(llm.weight_bytes / 2**20, 2)
    assert http.get("/v1/quantization/stats", params={"model_name": "other"}).status_code == 404


def test_a_query_that_means_nothing_is_named(http):
    for path in ("/v1/quantization/stats?bogus=1", "/v1/models?bogus=1"):
        reply = http.get(path)
        assert reply.status_code == 400 and reply.json()["error"]["param"] == "bogus"
        assert reply.json()["error"]["code"] == "unknown_parameter"


def test_a_head_is_answered_as_the_get_without_its_body(http):
    for path in ("/health", "/v1/models"):
        reply = http.head(path)
        assert (reply.status_code, reply.content) == (200, b"")
        assert reply.headers["content-length"] == http.get(path).headers["content-length"]
    assert http.head("/v1/completions").status_code == 405


def test_health_and_readiness(http):
    assert http.get("/health").json() == {"status": "ok"}
    assert http.get("/ready").json() == {"status": "ready"}
