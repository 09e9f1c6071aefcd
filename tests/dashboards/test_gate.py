"""The layer before the app, on a small app of its own."""

from __future__ import annotations

import httpx
import pytest
from starlette.responses import PlainTextResponse

from dashboards.gate import Gate, key_of
from workbench.server.auth import FailureLimit
from workbench.server.keys import KeyFile, KeyRing, Scope, static_key

KEY = static_key("ada", Scope.ADMIN, "a-key-for-the-tests")
HTML = {"accept": "text/html"}


async def _inner(scope, receive, send):
    key = key_of(scope)
    await PlainTextResponse(f"inside as {key.name if key else 'anybody'}")(scope, receive, send)


def _client(gate: Gate) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(gate), base_url="http://test", follow_redirects=False)


@pytest.fixture
def clock():
    return [1_000_000.0]


@pytest.fixture
def client(clock):
    return _client(Gate(_inner, KeyRing([KEY.key]), clock=lambda: clock[0], failures=FailureLimit(per_minute=3)))


async def _log_in(client: httpx.AsyncClient, secret: str) -> httpx.Response:
    return await client.post("/gate/login", content=f"key={secret}")


async def test_without_keys_everybody_is_let_in():
    reply = await _client(Gate(_inner, None)).get("/")
    assert reply.text == "inside as anybody"


async def test_a_browser_gets_the_login_page_and_a_program_a_401(client):
    page = await client.get("/", headers=HTML)
    assert (page.status_code, "API key" in page.text, "inside" in page.text) == (401, True, False)
    reply = await client.get("/gradio_api/info")
    assert reply.status_code == 401 and reply.headers["www-authenticate"].startswith("Bearer")
    assert (await client.post("/gradio_api/queue/join", headers=HTML)).status_code == 401


async def test_a_key_lets_in_by_header_or_by_cookie(client):
    reply = await client.get("/", headers={"authorization": f"Bearer {KEY.secret}"})
    assert reply.text == "inside as ada"
    reply = await _log_in(client, KEY.secret)
    assert (reply.status_code, reply.headers["location"]) == (303, "../")
    cookie = reply.headers["set-cookie"]
    assert "HttpOnly" in cookie and "samesite=lax" in cookie.lower() and KEY.secret not in cookie
    assert (await client.get("/")).text == "inside as ada"
    await client.get("/gate/logout")
    assert (await client.get("/")).status_code == 401


async def test_behind_a_prefix_the_cookie_is_for_that_prefix_only(client):
    reply = await client.post(
        "/gate/login", content=f"key={KEY.secret}", headers={"x-forwarded-context": "/user/ada/proxy/8000/"}
    )
    assert "; Path=/user/ada/proxy/8000;" in reply.headers["set-cookie"] + ";"


async def test_a_wrong_header_is_not_mended_by_a_cookie(client):
    await _log_in(client, KEY.secret)
    assert (await client.get("/", headers={"authorization": "Bearer wrong"})).status_code == 401


@pytest.mark.parametrize("cookie", ["", "x", "%%%", "MS4yLjM=", "YS5iLmM=", "w6k=", "=" * 50])
async def test_a_made_up_cookie_is_refused(client, cookie):
    assert (await client.get("/", headers={"cookie": f"workbench-app={cookie}"})).status_code == 401


async def test_a_cookie_ends(client, clock):
    await _log_in(client, KEY.secret)
    clock[0] += 8 * 24 * 3600
    assert (await client.get("/", headers=HTML)).status_code == 401


async def test_a_cookie_of_another_process_is_refused(client):
    await _log_in(client, KEY.secret)
    other = _client(Gate(_inner, KeyRing([KEY.key])))
    other.cookies = client.cookies
    assert (await other.get("/")).status_code == 401


async def test_a_revoked_key_is_refused_at_once(tmp_path):
    file = KeyFile(tmp_path / "keys.json")
    made = file.create("guest")
    client = _client(Gate(_inner, KeyRing([], file)))
    await _log_in(client, made.secret)
    assert (await client.get("/")).text == "inside as guest"
    file.revoke(made.key.key_id)
    assert (await client.get("/")).status_code == 401


async def test_guessing_is_slowed_down(client):
    codes = [(await _log_in(client, "wrong")).status_code for _ in range(5)]
    assert codes[0] == 401 and codes[-1] == 429


async def test_every_answer_says_that_nothing_may_come_from_elsewhere(client):
    for path in ("/", "/gate/logout"):
        policy = (await client.get(path, headers=HTML)).headers["content-security-policy"]
        assert "connect-src 'self'" in policy and "img-src 'self'" in policy


async def test_a_huge_form_is_cut_off(client):
    assert (await client.post("/gate/login", content="key=" + "x" * 100_000)).status_code == 401
