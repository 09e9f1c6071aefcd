"""The app from code and from the command line: who gets in, what programs may call, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest
from gradio_client import Client
from live_endpoint import USE_KEY, start_endpoint, wait_until_idle

import dashboards
from dashboards.launching import make_app
from workbench.cli import main
from workbench.errors import ConfigError, EngineStoppedError
from workbench.server.keys import Scope, default_key_file
from workbench.server.settings import AppSettings, ListenSettings


def _client(app, **options) -> Client:
    """A client that tells nobody of itself."""
    return Client(app.url, analytics_enabled=False, verbose=False, **options)


@pytest.fixture(scope="module")
def client(app) -> Client:
    return _client(app)


def test_a_program_chats_scores_and_asks_for_the_status(client, session):
    expected = session.llm.chat("Say hello.", max_tokens=8)
    sampling = '{"max_tokens": 8}'
    assert client.predict("Say hello.", sampling=sampling, api_name="/chat") == expected
    history = '[{"role": "user", "content": "Say hello."}, {"role": "assistant", "content": "Hello!"}]'
    assert client.predict("And now?", history=history, system="Be kind.", sampling=sampling, api_name="/chat")
    tokens = client.predict("The capital of France is Paris.", api_name="/score")
    assert "".join(token["text"] for token in tokens) == "The capital of France is Paris."
    assert client.predict(api_name="/status")["is_ready"] is True


def test_text_comes_as_it_grows_and_cancelling_stops_the_model(client, session):
    job = client.submit("Tell me a long story.", sampling='{"max_tokens": 1800, "ignore_eos": true}', api_name="/chat")
    deadline_s = time.monotonic() + 60
    while len(job.outputs()) < 4 and time.monotonic() < deadline_s:
        time.sleep(0.05)
    texts = job.outputs()
    assert len(texts) >= 4 and texts[-1].startswith(texts[0])
    assert session.stats().num_running == 1
    job.cancel()
    wait_until_idle(session.llm, timeout_s=30)


def test_what_is_wrong_reaches_the_program(client):
    with pytest.raises(Exception, match="unknown sampling parameter 'heat'"):
        client.predict("Hi", sampling='{"heat": 1}', api_name="/chat")


def test_events_of_the_page_are_no_public_api(client):
    names = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(names) == {"/chat", "/status", "/score"}


def test_twenty_chats_at_once_all_answer_in_one_batch(client, session):
    before = session.stats()
    sampling = '{"max_tokens": 8, "ignore_eos": true}'
    jobs = [client.submit(f"Name {n} things.", sampling=sampling, api_name="/chat") for n in range(20)]
    assert all(job.result(timeout=120) for job in jobs)
    after = session.stats()
    assert after.requests_finished_total - before.requests_finished_total == 20
    # One after the other they would take eight steps each.
    assert after.steps_total - before.steps_total < 20 * 8 * 0.7


def test_away_from_loopback_a_key_of_ones_own_is_needed(session):
    listen = ListenSettings(host="0.0.0.0", port=0)
    with pytest.raises(ConfigError, match="workbench keys create"):
        make_app(session=session, listen=listen, settings=AppSettings())


def test_a_stored_key_opens_the_app_and_its_scope_counts(session):
    use, admin = default_key_file().create("guest"), default_key_file().create("boss", Scope.ADMIN)
    listen = ListenSettings(host="0.0.0.0", port=0)
    with make_app(session=session, listen=listen, settings=AppSettings()) as app:
        assert httpx.get(app.url, headers={"accept": "text/html"}, trust_env=False).status_code == 401
        for key in (use, admin):
            headers = {"Authorization": f"Bearer {key.secret}"}
            client = _client(app, headers=headers)
            assert client.predict("Hi", sampling='{"max_tokens": 2}', api_name="/chat")
        wrong_host = httpx.get(app.url, headers={"host": "evil.example"}, trust_env=False)
        assert wrong_host.status_code == 421


def test_launching_again_gives_the_same_app_or_takes_its_place(session):
    app = dashboards.launch(session.llm, name="here")
    try:
        assert dashboards.launch(session.llm, name="here") is app
        other = dashboards.launch(session.llm, name="here", require_key=True, admin_key="a-key-of-the-tests")
        assert not app.is_running and other.is_running and other.port == app.port
        assert httpx.get(other.url, trust_env=False).status_code == 401
        assert str(other.port) in other._repr_html_()
    finally:
        app.stop()
        other.stop()
    assert session.llm.is_loaded


def test_the_app_is_never_shared_also_where_gradio_would_do_so_by_itself(session, monkeypatch, capsys):
    tunnels = []
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    monkeypatch.setenv("GRADIO_SHARE", "True")
    monkeypatch.setattr("gradio.tunneling.Tunnel.start_tunnel", lambda tunnel: tunnels.append(tunnel) or "http://x")
    with dashboards.launch(session, name="not shared") as app:
        config = httpx.get(f"{app.url}config", trust_env=False).json()
        assert not config.get("share_url") and not config.get("is_colab")
        listening = [one for one in psutil.Process().net_connections("tcp") if one.status == psutil.CONN_LISTEN]
        assert {one.laddr.ip for one in listening if one.laddr.port == app.port} == {"127.0.0.1"}
    assert tunnels == []
    with pytest.raises(ConfigError, match="no public tunnel"):
        dashboards.launch(session, share=True)
    assert main(["app", "--share"]) == 2
    assert "--share" in capsys.readouterr().err


def test_what_cannot_be_launched_is_refused(session):
    with pytest.raises(ConfigError, match="either"):
        dashboards.launch()
    with pytest.raises(ConfigError, match="either"):
        dashboards.launch(session.llm, url="http://127.0.0.1:1")
    with pytest.raises(ConfigError, match="root_path"):
        dashboards.launch(session.llm, root_path="x")

    class Unloaded:
        is_loaded = False

    with pytest.raises(EngineStoppedError):
        dashboards.launch(Unloaded())


def test_the_app_chats_with_a_remote_endpoint(session):
    with start_endpoint(session.llm) as endpoint, dashboards.launch(url=endpoint.url, api_key=USE_KEY) as app:
        client = _client(app)
        deadline_s = time.monotonic() + 30
        while not client.predict(api_name="/status")["is_ready"]:
            assert time.monotonic() < deadline_s
        expected = session.llm.chat("Say hello.", max_tokens=8)
        assert client.predict("Say hello.", sampling='{"max_tokens": 8}', api_name="/chat") == expected


def test_stopping_the_app_stops_its_replies(session):
    with dashboards.launch(session.llm, name="to stop") as app, ThreadPoolExecutor(1) as pool:
        client = _client(app)
        client.submit("Tell me a story.", sampling='{"max_tokens": 1800, "ignore_eos": true}', api_name="/chat")
        deadline_s = time.monotonic() + 60
        while session.stats().num_running == 0 and time.monotonic() < deadline_s:
            time.sleep(0.02)
        pool.submit(app.stop).result()
        wait_until_idle(session.llm, timeout_s=30)


def test_the_command_opens_the_app_and_ends_on_sigterm(workbench_home):
    command = [sys.executable, "-m", "workbench.cli", "app", "--model", "random:tiny", "--no-prefer-gpu", "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "200"})
    try:
        line = ""
        while "the app is at" not in line:
            line = process.stderr.readline()
            assert line, "the command ended before the app was there"
        url = line.split()[-1]
        assert "gradio" in httpx.get(url, headers={"accept": "text/html"}, trust_env=False, timeout=60).text
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.stderr.close()
