"""The Cluster tab on a model with two replicas: one dies, is seen, and comes back; here and through its endpoint."""

from __future__ import annotations

import os
import signal

import pytest
from dashboards_page import WAIT_MS, AppPage
from distributed.group_model import ENGINE, save_model
from live_endpoint import USE_KEY, start_endpoint
from playwright.sync_api import Locator, expect

import dashboards
from workbench import LlamaGPU
from workbench.parallel import GPUConfig

pytestmark = pytest.mark.browser


def test_replicas_are_seen_to_work_to_die_and_to_come_back(tmp_path, open_page):
    model = str(save_model(tmp_path / "model", "llama"))
    config = GPUConfig(num_gpus=2, strategy="data", load_balancing="round_robin")
    with (
        LlamaGPU(model, prefer_gpu=False, quant_type="fp32", engine=ENGINE, parallel=config) as llm,
        start_endpoint(llm) as endpoint,
        dashboards.launch(llm, name="here") as here,
        dashboards.launch(url=endpoint.url, api_key=USE_KEY, name="there") as there,
    ):
        llm.batch_infer(["a", "b"], max_tokens=4, ignore_eos=True)
        pages = [open_page(app.url).wait_until_ready() for app in (here, there)]
        for page in pages:
            page.tab("Cluster")
            expect(page.part("wb-cluster")).to_contain_text("round_robin shares 2 requests out", timeout=WAIT_MS)
            expect(_replica(page, 1)).to_contain_text("1 request ")
        os.kill(llm.replicas()[0].ranks[0].process_id, signal.SIGKILL)
        for page in pages:
            expect(_replica(page, 0)).to_contain_text("has stopped", timeout=WAIT_MS)
            expect(page.part("wb-cluster")).to_contain_text("Less than asked")
            expect(page.part("wb-header")).to_contain_text("is ready")
        # Starting one anew is for whoever has the engine.
        expect(pages[1].part("wb-replicas-restart")).to_be_hidden()
        pages[0].press("wb-replicas-restart")
        for page in pages:
            expect(page.part("wb-cluster")).not_to_contain_text("has stopped", timeout=WAIT_MS)
            assert page.take_problems() == []
            page.close()


def _replica(page: AppPage, number: int) -> Locator:
    return page.part("wb-cluster").locator(".wb-card").filter(has_text=f"Replica {number}")
