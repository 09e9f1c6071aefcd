"""A served model is spread over processes by the documented route, loses some and all, says so, and is whole again."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from distributed.group_model import save_model
from live_endpoint import ADMIN_KEY, http_client, start_endpoint

from workbench.errors import EngineStoppedError, ModelFormatError, ModelLoadError
from workbench.failure import Failure
from workbench.server.spreading import not_spread
from workbench.session import LoadChoice, Session


def test_a_spread_model_answers_loses_a_replica_and_comes_back(tmp_path: Path) -> None:
    model = str(save_model(tmp_path / "model", "llama"))
    body = {"prompt": "one two", "max_tokens": 6, "temperature": 0}
    spread = {"num_gpus": 2, "strategy": "data", "load_balancing": "least_loaded", "on_cpu": True}
    with Session() as session:
        session.load(LoadChoice(model, "cpu", "fp32"))
        session.wait()
        with start_endpoint(session.llm, session=session, may_change=True) as endpoint:
            with http_client(endpoint, ADMIN_KEY) as admin:
                admin.timeout = 240
                whole = admin.post("/v1/completions", json=body).json()["choices"][0]["text"]
                before = session.llm
                reply = admin.post("/v1/multi-gpu/config", json={**spread, "strategy": "tensor", "num_gpus": 3})
                assert reply.status_code == 400 and "1, 2, 4, 8" in reply.json()["error"]["message"]
                # The model's shape says so: it went on serving.
                assert session.llm is before and before.is_loaded

                reply = admin.post("/v1/multi-gpu/config", json=spread)
                assert reply.status_code == 200 and reply.json()["gpu_config"]["data_parallel_size"] == 2
                texts = [admin.post("/v1/completions", json=body).json()["choices"][0]["text"] for _ in range(2)]
                assert texts == [whole, whole]
                stats = admin.get("/v1/multi-gpu/stats").json()["multi_gpu_stats"]
                assert stats["load_balancing"]["gpu_assignments"] == {"0": 1, "1": 1}
                assert admin.get("/health").json() == {"status": "ok"}

                os.kill(stats["replicas"][0]["ranks"][0]["process_id"], signal.SIGKILL)
                texts = [admin.post("/v1/completions", json=body).json()["choices"][0]["text"] for _ in range(2)]
                assert texts == [whole, whole]
                assert admin.get("/health").json() == {"status": "degraded"}
                stats = admin.get("/v1/multi-gpu/stats").json()["multi_gpu_stats"]
                assert [replica["is_alive"] for replica in stats["replicas"]] == [False, True]
                assert stats["state"] == "degraded"
                figures = admin.get("/metrics").text
                for number, up in ((0, "0.0"), (1, "1.0")):
                    labels = f'{{model_name="{session.llm.model_name}",replica="{number}"}}'
                    assert f"workbench_replica_up{labels} {up}" in figures
                    assert f"workbench_pipeline_bubble_ratio{labels}" in figures
                assert stats["replicas"][0]["ended"].startswith("replica 0 of 2's process was killed (SIGKILL)")

                # The config that is in use starts what of it has died, beside what lives.
                living = stats["replicas"][1]["ranks"]
                assert admin.post("/v1/multi-gpu/config", json=spread).status_code == 200
                stats = admin.get("/v1/multi-gpu/stats").json()["multi_gpu_stats"]
                assert stats["state"] == "running" and stats["replicas"][1]["ranks"] == living

                # So does what the figures show as the config.
                ranks = [replica["ranks"] for replica in stats["replicas"]]
                assert admin.post("/v1/multi-gpu/config", json={**stats["gpu_config"], "on_cpu": True}).is_success
                stats = admin.get("/v1/multi-gpu/stats").json()["multi_gpu_stats"]
                assert [replica["ranks"] for replica in stats["replicas"]] == ranks

                for replica in stats["replicas"]:
                    os.kill(replica["ranks"][0]["process_id"], signal.SIGKILL)
                reply = admin.post("/v1/completions", json=body)
                assert reply.status_code == 503
                assert "of 2's process was killed (SIGKILL)" in reply.json()["error"]["message"]
                assert admin.get("/health").json() == {"status": "engine_dead"}
                stats = admin.get("/v1/multi-gpu/stats").json()["multi_gpu_stats"]
                assert stats["state"] == "dead" and "of 2's process was killed (SIGKILL)" in stats["reason"]
                assert [replica["num_in_flight"] for replica in stats["replicas"]] == [0, 0]
                assert admin.post("/v1/multi-gpu/config", json=spread).status_code == 200
                assert admin.post("/v1/completions", json=body).json()["choices"][0]["text"] == whole


def test_quantised_weights_are_refused_while_the_model_serves(tmp_path: Path) -> None:
    model = str(save_model(tmp_path / "model", "llama"))
    with Session() as session:
        session.load(LoadChoice(model, "cpu", "int8"))
        session.wait()
        with start_endpoint(session.llm, session=session, may_change=True) as endpoint:
            with http_client(endpoint, ADMIN_KEY) as admin:
                before = session.llm
                reply = admin.post("/v1/multi-gpu/config", json={"num_gpus": 2, "on_cpu": True})
                assert reply.status_code == 400 and "must be fp32, bf16 or fp16" in reply.json()["error"]["message"]
                assert session.llm is before and before.is_loaded


def test_a_process_that_ended_meanwhile_is_not_the_askers_fault() -> None:
    for error in (EngineStoppedError("rank 1 of 2 was killed"), ModelLoadError("the load was cut off: it was killed")):
        killed = not_spread(Failure.of(error))
        assert (killed.status_code, killed.code) == (503, "replica_not_started")
        assert "was killed" in killed.detail
    assert not_spread(Failure.of(ModelFormatError("cannot be split"))).status_code == 400
