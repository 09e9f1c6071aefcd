import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from workbench.server.client_snippets import client_snippets, masked
from workbench.server.public_address import JupyterServer, find_jupyter_server, find_proxy, public_address

_LAB = JupyterServer("http://127.0.0.1:8888/", "/", "secret")


def _address(environment=None, server=None, has_proxy=True, is_sagemaker=False):
    return public_address(
        8123, environment=environment or {}, server=server, has_proxy=has_proxy, is_sagemaker=is_sagemaker
    )


def test_behind_a_hub_the_path_begins_with_the_users_prefix():
    server = JupyterServer("http://127.0.0.1:8888/user/ann/", "/user/ann/")
    address = _address({"JUPYTERHUB_SERVICE_PREFIX": "/user/ann/"}, server)
    assert (address.path, address.via) == ("/user/ann/proxy/8123/", "JupyterHub, through jupyter-server-proxy")
    assert address.local_proxy_url == "http://127.0.0.1:8888/user/ann/proxy/8123/"
    assert "JupyterHub token" in address.note


@pytest.mark.parametrize(
    ("server", "path"),
    [(None, "/jupyterlab/default/proxy/8123/"), (_LAB, "/proxy/8123/")],
)
def test_on_sagemaker_studio_and_notebook_instances(server, path):
    address = _address(server=server, is_sagemaker=True)
    assert (address.path, address.via) == (path, "SageMaker, through jupyter-server-proxy")


def test_without_the_proxy_it_says_what_to_install():
    address = _address(server=_LAB, has_proxy=False)
    assert address.path is None
    assert "pip install jupyter-server-proxy" in address.note


def test_where_it_is_not_known_whether_there_is_a_proxy_the_address_says_so():
    address = _address({"JUPYTERHUB_SERVICE_PREFIX": "/user/ann/"}, has_proxy=None)
    assert address.path == "/user/ann/proxy/8123/"
    assert address.note.startswith("If jupyter-server-proxy is installed") and "JupyterHub token" in address.note


@pytest.mark.parametrize(("token", "status", "found"), [("t", 200, True), ("t", 404, False), ("", 403, None)])
def test_the_jupyter_server_is_asked_whether_it_has_the_proxy(token, status, found):
    """It may run in another environment than the kernel."""
    asked = []

    class Jupyter(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Jupyter) as jupyter:
        threading.Thread(target=jupyter.serve_forever, daemon=True).start()
        server = JupyterServer(f"http://127.0.0.1:{jupyter.server_address[1]}/x/", "/x/", token)
        assert find_proxy(8123, server) is found
        jupyter.shutdown()
    assert asked == ["/x/proxy/8123/health" + ("?token=t" if token else "")]
    # Nobody answers there now.
    assert find_proxy(8123, server) is None
    assert find_proxy(8123, None) is None


def test_outside_of_jupyter_there_is_this_machine_only():
    assert _address().via == "this machine only"


def test_the_server_of_this_kernel_is_found_by_its_process(tmp_path):
    for pid in (11, 12):
        facts = {"pid": pid, "url": f"http://127.0.0.1:{pid}/x/", "base_url": "/x/", "token": "t"}
        (tmp_path / f"jpserver-{pid}.json").write_text(json.dumps(facts))
    (tmp_path / "jpserver-13.json").write_text("{broken")
    environment = {"JPY_PARENT_PID": "12", "JUPYTER_RUNTIME_DIR": str(tmp_path)}
    assert find_jupyter_server(environment) == JupyterServer("http://127.0.0.1:12/x/", "/x/", "t")
    assert find_jupyter_server({"JUPYTER_RUNTIME_DIR": str(tmp_path)}) is None


def test_a_key_is_never_in_a_snippet_and_masked_in_between():
    snippets = client_snippets("http://127.0.0.1:1/v1", "m")
    assert set(snippets) == {"curl", "openai", "langchain"}
    assert all("WORKBENCH_API_KEY" in text for text in snippets.values())
    assert "KEY" not in client_snippets("http://127.0.0.1:1/v1", "m", needs_key=False)["curl"]
    assert masked("sk-0123456789abcdef") == "sk-\u2022\u2022\u2022\u2022\u2022\u2022\u2022\u2022def"
    assert "0" not in masked("0123456789")


def test_the_python_snippets_are_python():
    for name in ("openai", "langchain"):
        compile(client_snippets("http://127.0.0.1:1/v1", "a'b")[name], name, "exec")
        compile(client_snippets("http://h/x/v1", "m", through_jupyter=True)[name], name, "exec")
