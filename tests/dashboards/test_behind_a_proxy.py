"""The app under a hub's path, through a real reverse proxy, and behind its own gate."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect
from reverse_proxy import reverse_proxy

from dashboards.launching import make_app
from workbench.server.settings import AppSettings, ListenSettings

pytestmark = pytest.mark.browser

PREFIX = "/user/x/proxy/8000"
KEY = "a-key-for-this-app"


@pytest.mark.parametrize(
    ("says_prefix", "scope", "answer"),
    [(True, "admin_key", "0 requests cancelled"), (False, "app_key", "needs a key with the admin scope")],
    ids=["header", "root_path"],
)
def test_the_app_works_under_a_path_prefix_with_a_key(session, open_page, says_prefix, scope, answer):
    settings = AppSettings(root_path="" if says_prefix else PREFIX, require_key=True)
    with (
        make_app(session=session, listen=ListenSettings(port=0), settings=settings, **{scope: KEY}) as app,
        reverse_proxy(app.url, PREFIX, says_prefix=says_prefix) as address,
    ):
        page = open_page(address)
        # The browser notes the 401 of the first visit, as it should, and asks for nothing outside of the prefix.
        problems = page.take_problems()
        assert problems and all("401" in problem for problem in problems)
        page.page.get_by_label("API key").fill("wrong")
        page.page.get_by_role("button", name="Log in").click()
        expect(page.page.get_by_role("alert")).to_contain_text("not known")
        page.page.get_by_label("API key").fill(KEY)
        page.page.get_by_role("button", name="Log in").click()
        page.take_problems()
        page.wait_until_ready()
        assert page.page.url == address
        page.new_chat()
        page.ask("Say hello.")
        page.tab("Monitor")
        if not says_prefix:
            expect(page.part("wb-live-plot").locator(".js-plotly-plot")).to_be_visible(timeout=60_000)
        page.press("wb-cancel-all")
        expect(page.page.get_by_text(answer)).to_be_visible()
        assert page.take_problems() == []
        page.close()
