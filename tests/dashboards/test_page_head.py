"""What the head of a page links to, on a small app of its own."""

from __future__ import annotations

import httpx
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Route

from dashboards.page_head import PageHead, icon_link

PAGE = '<head><link rel="manifest" href="/manifest.json" /><title>t</title></head>'


async def test_a_page_gets_its_icon_and_loses_what_lies_at_the_root_of_the_host():
    routes = [Route("/", lambda _: HTMLResponse(PAGE)), Route("/text", lambda _: PlainTextResponse(PAGE))]
    transport = httpx.ASGITransport(PageHead(Starlette(routes=routes)))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        page = await client.get("/")
        assert page.text == f"<head><title>t</title>{icon_link()}</head>"
        assert int(page.headers["content-length"]) == len(page.content)
        assert (await client.get("/text")).text == PAGE
