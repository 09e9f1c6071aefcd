"""Under which addresses a port of this machine is reached from a browser: directly, or behind Jupyter's proxy."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["JupyterServer", "PublicAddress", "find_jupyter_server", "find_proxy", "public_address"]

_SAGEMAKER_FILE = Path("/opt/ml/metadata/resource-metadata.json")


@dataclass(frozen=True)
class JupyterServer:
    """The Jupyter server that started this kernel: its address on this machine and its token."""

    url: str
    base_path: str
    token: str = ""


@dataclass(frozen=True)
class PublicAddress:
    """Where a port is reached from outside.

    `path` is what comes behind the page's own origin ("/user/ann/proxy/8000/"), None where there is no proxy;
    `via` says what is in between; `note` what a caller must know. `local_proxy_url` reaches the same through the
    Jupyter server on this machine, None where that is not known. `takes_token` is whether a program gets through with
    a token of Jupyter's.
    """

    via: str
    path: str | None = None
    note: str = ""
    local_proxy_url: str | None = None
    takes_token: bool = False


def public_address(
    port: int,
    *,
    environment: Mapping[str, str] = os.environ,
    server: JupyterServer | None = None,
    has_proxy: bool | None = None,
    is_sagemaker: bool | None = None,
) -> PublicAddress:
    """How to reach `port` of this machine from a browser or another machine.

    `server` is the Jupyter server of this kernel, `has_proxy` whether that has jupyter-server-proxy, None where it is
    not known (see `find_proxy`).
    """
    is_sagemaker = _SAGEMAKER_FILE.exists() if is_sagemaker is None else is_sagemaker
    hub_prefix = environment.get("JUPYTERHUB_SERVICE_PREFIX")
    if hub_prefix:
        via, base = "JupyterHub", hub_prefix
    elif is_sagemaker:
        # Studio serves under /jupyterlab/default, notebook instances at the root.
        via, base = "SageMaker", server.base_path if server else "/jupyterlab/default/"
    elif server is not None:
        via, base = "Jupyter", server.base_path
    else:
        return PublicAddress("this machine only", note="Other machines can't reach it; an SSH tunnel to the port can.")
    if has_proxy is False:
        note = (
            "From outside this machine a proxy is needed: `pip install jupyter-server-proxy` and restart Jupyter. "
            "The chat in the panel needs none."
        )
        return PublicAddress(f"{via}, without jupyter-server-proxy", note=note)
    path = f"{base.rstrip('/')}/proxy/{port}/"
    via = f"{via}, through jupyter-server-proxy"
    unknown = (
        "" if has_proxy else "If jupyter-server-proxy is installed where Jupyter itself runs: a streaming test tells. "
    )
    note = unknown + {
        "JupyterHub": "Callers from outside need a JupyterHub token as well: add ?token=... or sign in first.",
        "SageMaker": "Reached with the session of a signed-in browser; programs outside of it are turned away.",
    }.get(via.split(",")[0], "Callers need Jupyter's token as well: add ?token=... or sign in first.")
    note += " Answers are streamed to calls that send `Accept: text/event-stream`."
    local = None if server is None else f"{server.url.rstrip('/')}/proxy/{port}/"
    return PublicAddress(via, path, note, local, takes_token=not via.startswith("SageMaker"))


def find_proxy(port: int, server: JupyterServer | None) -> bool | None:
    """Whether the Jupyter server passes calls on to `port`, on which an endpoint answers; None where it does not tell.

    It may run in another environment than this kernel, so it is asked. Takes 2 seconds at most.
    """
    import httpx

    if importlib.util.find_spec("jupyter_server_proxy") is not None:
        return True
    if server is None:
        return None
    query = {"token": server.token} if server.token else None
    try:
        reply = httpx.get(f"{server.url.rstrip('/')}/proxy/{port}/health", params=query, timeout=2.0, trust_env=False)
    except httpx.HTTPError:
        return None
    return {200: True, 404: False}.get(reply.status_code)


def find_jupyter_server(
    environment: Mapping[str, str] = os.environ, files: Iterable[Path] | None = None
) -> JupyterServer | None:
    """The running Jupyter server that started this kernel, None outside of one."""
    try:
        parent_pid = int(environment.get("JPY_PARENT_PID", ""))
    except ValueError:
        return None
    for path in _server_files(environment) if files is None else files:
        facts = _read(path)
        if facts.get("pid") == parent_pid and isinstance(facts.get("url"), str):
            return JupyterServer(facts["url"], str(facts.get("base_url", "/")), str(facts.get("token", "")))
    return None


def _server_files(environment: Mapping[str, str]) -> list[Path]:
    from jupyter_core.paths import jupyter_runtime_dir

    folder = Path(environment.get("JUPYTER_RUNTIME_DIR") or jupyter_runtime_dir())
    return sorted(folder.glob("jpserver-*.json"))


def _read(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}
