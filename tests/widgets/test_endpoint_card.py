"""The card over the real embedded model: one load for the whole file."""

import httpx
import pytest
from reverse_proxy import reverse_proxy

from widgets import EndpointCard
from workbench import LlamaGPU
from workbench.server import public_address
from workbench.server.endpoints import PROCESS_ENDPOINTS
from workbench.session import Session, SessionState

_LIMIT_S = 60


@pytest.fixture(scope="module")
def llm(embedded_model_folder):
    with LlamaGPU(str(embedded_model_folder), backend="cpu", context_length=512) as llm:
        yield llm


@pytest.fixture
def shared(llm):
    with Session() as session:
        session.adopt(llm)
        yield session


@pytest.fixture
def card(front_end, shared):
    card = EndpointCard(shared, name="card", drain_s=0.1)
    yield card
    card.close()
    PROCESS_ENDPOINTS.stop_all()


def _start(front_end, card):
    front_end.tell(card, type="start", host="lab.example.org")
    front_end.wait_for(lambda: card.state == "running")


def test_start_shows_an_address_that_answers_and_stop_ends_it(front_end, card):
    _start(front_end, card)
    key = card.endpoint.api_key
    reply = httpx.get(f"{card.local_url}/models", headers={"authorization": f"Bearer {key}"})
    assert reply.json()["data"]
    # The name under which the page was reached is allowed, others are not.
    for host, status in (("lab.example.org", 200), ("evil.example.org", 421)):
        headers = {"authorization": f"Bearer {key}", "host": host}
        assert httpx.get(f"{card.local_url}/models", headers=headers).status_code == status
    front_end.tell(card, type="stop")
    front_end.wait_for(lambda: card.state == "stopped")
    with pytest.raises(httpx.ConnectError):
        httpx.get(reply.url)


def test_the_key_leaves_the_kernel_only_when_it_is_copied(front_end, card):
    _start(front_end, card)
    key = card.endpoint.api_key
    assert key not in str(front_end.updates(card)) + str(card.get_state()) + str(card._repr_mimebundle_())
    front_end.tell(card, type="key")
    assert front_end.custom(card)[-1] == {"type": "key", "key": key}


def test_the_self_test_streams_through_the_real_engine(front_end, card):
    _start(front_end, card)
    front_end.tell(card, type="test")
    front_end.wait_for(lambda: "On this machine: Streams: " in card.probe)


def test_jupyters_token_goes_through_its_proxy_to_the_endpoint(front_end, card, shared, monkeypatch):
    _start(front_end, card)
    endpoint = card.endpoint
    # As jupyter-server-proxy does, this one passes the query string on as it is.
    with reverse_proxy(endpoint.url.removesuffix("/v1"), f"/user/ada/proxy/{endpoint.port}", says_prefix=True) as url:
        base = url.removesuffix(f"proxy/{endpoint.port}/")
        server = public_address.JupyterServer(base, "/user/ada/", "secret")
        monkeypatch.setattr(public_address, "find_jupyter_server", lambda: server)
        front_end.tell(card, type="test")
        front_end.wait_for(lambda: "Through the proxy: Streams: " in card.probe)
        second = EndpointCard(shared, name="card")
        headers = {"authorization": f"Bearer {endpoint.api_key}"}
        assert httpx.get(f"{url}v1/models?tokens=secret", headers=headers).status_code == 400
    assert second.public_path == f"/user/ada/proxy/{endpoint.port}/v1"
    there = f"{{origin}}{second.public_path}"
    assert there in second.outside_snippets["openai"] and "JUPYTER_TOKEN" in second.outside_snippets["openai"]
    assert "secret" not in str(second.get_state())
    assert card.outside_snippets == {}
    second.close()


def test_a_second_card_shows_what_runs_and_leaves_it_running(front_end, card, shared):
    _start(front_end, card)
    second = EndpointCard(shared, name="card")
    assert (second.state, second.local_url) == ("running", card.local_url)
    second.close()
    assert card.endpoint.is_running


def test_close_stops_what_the_card_started(front_end, card):
    _start(front_end, card)
    endpoint = card.endpoint
    card.close()
    assert not endpoint.is_running


def test_without_a_model_it_says_so(front_end):
    with Session() as session:
        card = EndpointCard(session)
        front_end.tell(card, type="start")
        assert card.failure["cause"] == "no model is loaded: load one, then it can be served"
        assert repr(card) == "EndpointCard\n  endpoint  not serving\n  name      default"
        card.close()


def test_the_endpoint_goes_with_its_model(front_end, shared, card, monkeypatch):
    _start(front_end, card)
    endpoint = card.endpoint
    # The session lets go of the model as it does when it unloads it; the other tests go on using it.
    monkeypatch.setattr(shared.llm, "unload", lambda: {})
    shared.unload()
    assert shared.wait(_LIMIT_S).state is SessionState.EMPTY
    assert not endpoint.is_running
    assert card.headline == "Not serving: the model was unloaded, load one first"
