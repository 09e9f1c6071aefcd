"""The endpoint's /docs in a browser: it renders and answers without a word to any other host."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from live_endpoint import USE_KEY, start_endpoint
from playwright.sync_api import expect

from workbench import LlamaGPU

pytestmark = pytest.mark.browser


def test_every_route_is_shown_and_can_be_tried_without_another_host(machinery, tiny_model_folder):
    with LlamaGPU(tiny_model_folder, prefer_gpu=False, auto_detect_aws=False) as llm, start_endpoint(llm) as endpoint:
        root = endpoint.url.removesuffix("/v1")
        page = machinery.browser.new_page()
        asked, problems = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
        try:
            page.goto(f"{root}/docs")
            expect(page.locator("#operations-generate-create_chat_completion_v1_chat_completions_post")).to_be_visible()
            expect(page.locator(".opblock-summary-path", has_text="/v1/models/unload")).to_be_visible()
            page.get_by_role("button", name="Authorize").first.click()
            page.get_by_label("auth-bearer-value").fill(USE_KEY)
            page.get_by_role("button", name="Apply credentials").first.click()
            page.locator(".close-modal").click()
            models = page.locator("#operations-models-list_models_v1_models_get")
            models.locator(".opblock-summary").click()
            models.get_by_role("button", name="Try it out").click()
            models.get_by_role("button", name="Execute").click()
            expect(models.locator(".live-responses-table")).to_contain_text('"object": "list"')
            hosts = {urlsplit(url).netloc for url in asked if not url.startswith(("data:", "blob:"))}
            assert hosts == {urlsplit(root).netloc}
            assert problems == []
        finally:
            page.close()
