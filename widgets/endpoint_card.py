"""Start, stop and addresses of the OpenAI-compatible endpoint over a session's model. Knows no routes."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from widgets.front_end import module_text, style_text
from widgets.part import Part
from widgets.shared_session import as_session
from workbench.errors import EngineStoppedError
from workbench.failure import Failure
from workbench.session import Session, SessionState, SessionStatus
from workbench.twin import Twin

if TYPE_CHECKING:
    from workbench.llm import LlamaGPU

__all__ = ["EndpointCard"]

# Stands for the page's own origin, which the browser knows and the kernel does not.
_ORIGIN = "{origin}"
_KEY_WORDS = {True: "Every call needs the key.", False: "Whoever reaches the address may call it."}


class EndpointCard(Part, anywidget.AnyWidget):
    """Serves an engine, or what a session has loaded, to OpenAI clients, and tells how to reach it.

    `name` and `options` go to `workbench.server.serve`: one endpoint of a name runs in a process. The key stays in the
    kernel, out of the page and the saved notebook, until "Copy key" is pressed. The endpoint stops with the model, and
    with the card that started it.
    """

    _esm = module_text("endpoint_card")
    _css = style_text()

    state = traitlets.Unicode("stopped").tag(sync=True)
    ready = traitlets.Bool(False).tag(sync=True)
    headline = traitlets.Unicode("Not serving").tag(sync=True)
    local_url = traitlets.Unicode().tag(sync=True)
    # What comes behind the page's own origin; the browser knows that, the kernel does not.
    public_path = traitlets.Unicode().tag(sync=True)
    via = traitlets.Unicode().tag(sync=True)
    note = traitlets.Unicode().tag(sync=True)
    masked_key = traitlets.Unicode().tag(sync=True)
    needs_key = traitlets.Bool(True).tag(sync=True)
    snippets = traitlets.Dict().tag(sync=True)
    # For callers elsewhere, where Jupyter lets programs through; with a place for the page's origin.
    outside_snippets = traitlets.Dict().tag(sync=True)
    probe = traitlets.Unicode().tag(sync=True)
    failure = traitlets.Dict(None, allow_none=True).tag(sync=True)

    # Until there is a session to leave.
    _forget: Callable[[], object] = staticmethod(lambda: None)
    _worker: threading.Thread | None = None
    _endpoint: Any = None
    # Whether the endpoint goes when the card goes.
    owns_endpoint = False

    def __init__(self, source: Session | LlamaGPU | None = None, *, name: str = "default", **options: Any) -> None:
        self._session = session = as_session(source)
        self._name = name
        self._options = options
        self._lock = threading.RLock()
        super().__init__()
        self._take_running()
        self._follow_session(session.status)
        self._forget = session.observe(self._follow_session)
        self.on_msg(self._receive)

    @property
    def endpoint(self) -> Any:
        """The running `workbench.server.Endpoint`, or None."""
        return self._endpoint

    def start(self, *, page_host: str = "") -> None:
        """Serve, as a click on Start does; returns at once. Raises EngineStoppedError while nothing is loaded.

        `page_host` is the name of the page that asks: behind a proxy, calls come under it.
        """
        with self._lock:
            if self.state in ("starting", "running", "stopping"):
                return
            if self._session.status.state is not SessionState.READY:
                raise EngineStoppedError("no model is loaded: load one, then it can be served")
            self._show_state("starting", "Starting")
            self._work(lambda: self._start(page_host))

    def stop(self) -> None:
        """Stop serving; running requests get a moment to end. Returns at once."""
        with self._lock:
            if self.state != "running":
                return
            self._show_state("stopping", "Stopping: running requests may end")
            self._work(self._stop)

    def test(self) -> None:
        """Stream a few tokens through every address, and say whether they come one by one. Returns at once."""
        with self._lock:
            if self.state == "running":
                self.probe = "Testing\u2026"
                self._work(self._test)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for what was started, stopped or tested; True when it is done."""
        worker = self._worker
        if worker is not None:
            worker.join(timeout_s)
        return worker is None or not worker.is_alive()

    def close(self) -> None:
        """Stop what this card started, and take the card away."""
        self._forget()
        self.wait(5.0)
        if self.owns_endpoint and self._endpoint is not None:
            self._endpoint.stop(drain_s=0.5)
        self._endpoint = None
        super().close()

    def _work(self, job: Callable[[], None]) -> None:
        self._worker = threading.Thread(target=self._run, args=(job,), name="workbench-endpoint-card", daemon=True)
        self._worker.start()

    def _run(self, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception as error:
            failure = Failure.of(error).as_dict()
        else:
            return
        with self._lock, self.hold_sync():
            self._show_state("stopped", "Could not start")
            self.failure = failure

    def _start(self, page_host: str) -> None:
        from workbench.server import serve

        options = dict(self._options)
        if page_host:
            options["allowed_hosts"] = tuple(dict.fromkeys((*options.get("allowed_hosts", ()), page_host)))
        endpoint = serve(self._session.llm, name=self._name, **options)
        self.owns_endpoint = True
        self._show_running(endpoint)

    def _stop(self) -> None:
        self._endpoint.stop()
        self._show_stopped("Not serving")

    def _test(self) -> None:
        from workbench.server.public_address import find_jupyter_server, find_proxy, public_address
        from workbench.server.stream_probe import probe_stream

        endpoint, server = self._endpoint, find_jupyter_server()
        results = [f"On this machine: {probe_stream(endpoint.url, endpoint.api_key).message}"]
        address = public_address(endpoint.port, server=server, has_proxy=find_proxy(endpoint.port, server))
        if address.local_proxy_url and server is not None:
            query = {"token": server.token} if server.token else None
            proxied = probe_stream(f"{address.local_proxy_url}v1", endpoint.api_key, query=query)
            results.append(f"Through the proxy: {proxied.message}")
        self.probe = " ".join(results)

    def _take_running(self) -> None:
        """Show an endpoint of this name that serves the session's model already; whoever started it stops it."""
        # Without this module nothing was ever served, and loading it takes a moment.
        endpoints = sys.modules.get("workbench.server.endpoints")
        if endpoints is None or self._session.status.state is not SessionState.READY:
            return
        endpoint = endpoints.PROCESS_ENDPOINTS.get_serving(self._name, self._session.llm)
        if endpoint is not None:
            self._show_running(endpoint)

    def _show_running(self, endpoint: Any) -> None:
        from workbench.server.client_snippets import client_snippets, masked
        from workbench.server.public_address import find_jupyter_server, find_proxy, public_address

        server = find_jupyter_server()
        address = public_address(endpoint.port, server=server, has_proxy=find_proxy(endpoint.port, server))
        needs_key = endpoint.api_key is not None
        with self._lock, self.hold_sync():
            self._endpoint = endpoint
            self.local_url = endpoint.url
            self.public_path = f"{address.path}v1" if address.path else ""
            self.via, self.note = address.via, address.note
            self.needs_key = needs_key
            self.masked_key = f"{masked(endpoint.api_key)}. {_KEY_WORDS[needs_key]}"
            model = self._session.llm.model_name
            self.snippets = client_snippets(endpoint.url, model, needs_key=needs_key)
            self.outside_snippets = (
                client_snippets(f"{_ORIGIN}{self.public_path}", model, needs_key=needs_key, through_jupyter=True)
                if address.path and address.takes_token
                else {}
            )
            self.failure, self.probe = None, ""
            self._show_state("running", "Serving")

    def _show_stopped(self, headline: str) -> None:
        with self._lock, self.hold_sync():
            self._endpoint, self.owns_endpoint = None, False
            self.local_url = self.public_path = self.masked_key = self.probe = ""
            self.snippets = self.outside_snippets = {}
            self._show_state("stopped", headline)

    def _show_state(self, state: str, headline: str) -> None:
        self.state, self.headline = state, headline

    def _follow_session(self, status: SessionStatus) -> None:
        """Called by the session's worker: without its model an endpoint has nothing to say."""
        with self._lock:
            self.ready = status.state is SessionState.READY
            endpoint = self._endpoint
            if self.state == "stopped" and self.ready:
                self.headline = "Not serving"
            elif self.state == "stopped" and ":" not in self.headline:
                self.headline = "Not serving: load a model first"
        if endpoint is not None and status.state in (SessionState.UNLOADING, SessionState.EMPTY):
            endpoint.stop(drain_s=0.5)
            self._show_stopped("Not serving: the model was unloaded, load one first")

    def _receive(self, _widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        match content.get("type"):
            case "start":
                try:
                    self.start(page_host=str(content.get("host") or ""))
                except EngineStoppedError as error:
                    self.failure = Failure.of(error).as_dict()
            case "stop":
                self.stop()
            case "test":
                self.test()
            case "key" if self._endpoint is not None:
                self.send({"type": "key", "key": self._endpoint.api_key})

    def twin(self) -> Twin:
        """State in words; no address and no key, which differ from run to run."""
        return Twin("EndpointCard", (("endpoint", self.headline.split(":")[0].lower()), ("name", self._name)))
