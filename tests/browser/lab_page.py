"""A notebook page in a real browser: run its cells, use its panel, and note everything that goes wrong on it."""

from __future__ import annotations

import re
import time
from importlib.resources import files
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
from playwright.sync_api import Locator, Page

__all__ = ["LIMIT_S", "LabPage"]

_ARTIFACTS = Path(__file__).resolve().parents[2] / "test-artifacts"
_START_LIMIT_MS = 120_000
# Nothing here is timed: a busy machine gets the time that it needs.
LIMIT_S = 60.0
_NOTEBOOK = "[...window.jupyterapp.shell.widgets('main')].find((widget) => widget.context?.sessionContext)"


def _axe_source() -> str:
    """axe-core, which lies in a package: the page loads nothing from elsewhere."""
    return (files("axe_playwright_python") / "axe.min.js").read_text("utf-8")


class LabPage:
    """Drives one page. `problems` lists console errors, uncaught exceptions and requests to other hosts."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.problems: list[str] = []
        self._host = urlsplit(url).netloc
        self._url = url
        self._open()

    def take_problems(self) -> list[str]:
        """The problems since they were last taken."""
        problems, self.problems = self.problems, []
        return problems

    def reload(self) -> None:
        """Load the page anew; the kernel goes on."""
        self.page.reload()
        self._wait_until_ready()

    def start_over(self) -> None:
        """A new page with a new kernel, whatever became of them."""
        self.close_tab()
        self._end_sessions_and_clear_outputs()
        self.problems = []
        self.open_tab()

    def close_tab(self) -> None:
        """Close the browser's tab; the kernel goes on."""
        self._context = self.page.context
        self.page.close()

    def open_tab(self) -> None:
        """Open the notebook in a new tab, after `close_tab`."""
        self.page = self._context.new_page()
        self._open()

    def run_all(self) -> None:
        """Run every cell and wait for the last one; none may fail."""
        self.page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
        errors = self.page.locator("[data-mime-type='application/vnd.jupyter.error']").all_inner_texts()
        assert errors == []

    def execute(self, code: str) -> None:
        """Run code in the notebook's kernel, outside its cells, and wait for it. Raises what it raises."""
        reply = self.page.evaluate(
            f"""async (code) => {{
                const kernel = {_NOTEBOOK}.context.sessionContext.session.kernel;
                return (await kernel.requestExecute({{ code, silent: true, store_history: false }}).done).content;
            }}""",
            code,
        )
        assert reply["status"] == "ok", f"{reply.get('ename')}: {reply.get('evalue')}"

    def shut_down_kernel(self) -> None:
        """End the notebook's kernel, so that kernels of earlier tests take no memory."""
        self.page.evaluate(f"() => {_NOTEBOOK}.context.sessionContext.shutdown()")

    def restart_kernel(self) -> None:
        """Start the notebook's kernel anew, as the menu does."""
        self.page.evaluate(f"() => {_NOTEBOOK}.context.sessionContext.session.kernel.restart()")

    def cover(self) -> None:
        """Put another tab over the notebook."""
        self.page.evaluate("() => window.jupyterapp.commands.execute('launcher:create')")

    def uncover(self) -> None:
        """Bring the notebook back to the front."""
        self.page.evaluate(f"() => window.jupyterapp.shell.activateById({_NOTEBOOK}.id)")

    def set_theme(self, name: str) -> None:
        """Change Lab's theme and wait until it is on."""
        if self.page.evaluate("() => document.body.dataset.jpThemeName") == name:
            return
        self.page.evaluate("(theme) => window.jupyterapp.commands.execute('apputils:change-theme', { theme })", name)
        self.page.wait_for_function("(name) => document.body.dataset.jpThemeName === name", arg=name)
        # Lab covers the page meanwhile, which pales what is under it.
        self.page.locator("#jupyterlab-splash").wait_for(state="detached")

    def button(self, name: str) -> Locator:
        """A button of the panel that can be used now."""
        return self.page.locator(".wb-panel button[aria-disabled=false]").get_by_text(name, exact=True)

    @property
    def message_box(self) -> Locator:
        return self.page.get_by_role("textbox", name="Message", exact=True)

    @property
    def replies(self) -> Locator:
        return self.page.locator(".wb-message[data-role=assistant]")

    def wait_until(self, expression: str) -> None:
        """Wait until an expression holds in the notebook's kernel; it is asked between the kernel's other messages."""
        deadline_s = time.monotonic() + LIMIT_S
        while not self._holds(expression):
            assert time.monotonic() < deadline_s, f"never true: {expression}"
            self.page.wait_for_timeout(100)

    def wait_for_text(self, selector: str, pattern: str, timeout_s: float = LIMIT_S) -> str:
        """Wait until the element's text matches; gives the text."""
        found = self.page.locator(selector).filter(has_text=re.compile(pattern)).first
        found.wait_for(timeout=timeout_s * 1000)
        return found.inner_text()

    def section(self, title: str) -> Locator:
        """A section of the panel, unfolded."""
        # Looked for inside of whatever it filters.
        toggle = self.page.get_by_text(title, exact=True)
        button = self.page.locator(".wb-section-button").filter(has=toggle)
        if button.get_attribute("aria-expanded") == "false":
            button.click()
        return self.page.locator(".wb-section").filter(has=toggle)

    def violations(self, impacts: tuple[str, ...] = ("serious", "critical")) -> list[str]:
        """What axe-core finds wrong with the panel, of those impacts."""
        if not self.page.evaluate("() => Boolean(window.axe)"):
            self.page.evaluate(f"() => {{ {_axe_source()} }}")
        found = self.page.evaluate(
            "async () => (await axe.run('.wb-panel', { resultTypes: ['violations'] })).violations"
        )
        return [
            f"{one['id']} ({one['impact']}): {one['help']}: {[node['html'][:120] for node in one['nodes']][:3]}"
            for one in found
            if one["impact"] in impacts
        ]

    def show_plot(self) -> None:
        """Scroll to the live plot and wait until the kernel knows that it is seen: only then it is drawn."""
        self.page.locator(".wb-live").scroll_into_view_if_needed()
        self.wait_until("panel.plot.note.is_seen")

    def wait_for_points(self, at_least: int = 2, timeout_s: float = LIMIT_S) -> None:
        """Scroll to the live plot and wait until its first line, this process's memory, has that many points."""
        self.show_plot()
        self._wait_for_lines(
            "[...(lines[0].y ?? [])].filter((value) => value != null).length >= wanted", at_least, timeout_s
        )

    def wait_for_rate(self, above: float = 0.0, timeout_s: float = LIMIT_S) -> None:
        """Wait until the live plot's tokens per second have a point above a value."""
        self._wait_for_lines(
            "[...(lines.find((line) => line.name === 'Generation').y ?? [])].some((rate) => rate > wanted)",
            above,
            timeout_s,
        )

    def screenshot(self, name: str) -> None:
        """Keep a picture of the page in test-artifacts/."""
        _ARTIFACTS.mkdir(exist_ok=True)
        self.page.screenshot(path=_ARTIFACTS / f"{name}.png")

    def _holds(self, expression: str) -> bool:
        text = self.page.evaluate(
            f"""async (expression) => {{
                const kernel = {_NOTEBOOK}.context.sessionContext.session.kernel;
                const asked = {{ code: '', silent: true, user_expressions: {{ holds: `bool(${{expression}})` }} }};
                const answer = (await kernel.requestExecute(asked).done).content.user_expressions.holds;
                return answer.status === 'ok' ? answer.data['text/plain'] : `${{answer.ename}}: ${{answer.evalue}}`;
            }}""",
            expression,
        )
        assert text in ("True", "False"), text
        return text == "True"

    def _wait_for_lines(self, condition: str, wanted: float, timeout_s: float) -> None:
        script = f"""(wanted) => {{
            const lines = document.querySelector('.wb-live .js-plotly-plot')?.data ?? [];
            return lines.length > 1 && {condition};
        }}"""
        self.page.wait_for_function(script, arg=wanted, timeout=timeout_s * 1000)

    def _end_sessions_and_clear_outputs(self) -> None:
        """Have the server end the notebook's kernel: one that is stuck hears nobody else. A saved panel of that kernel
        would be looked for in the next one."""
        url = urlsplit(self._url)
        token = parse_qs(url.query)["token"][0]
        sessions = f"{url.scheme}://{url.netloc}/api/sessions"
        with httpx.Client(headers={"authorization": f"token {token}"}, timeout=LIMIT_S) as client:
            for session in client.get(sessions).raise_for_status().json():
                if url.path.endswith("/tree/" + session["path"]):
                    client.delete(f"{sessions}/{session['id']}").raise_for_status()
            address = f"{url.scheme}://{url.netloc}/api/contents/{url.path.split('/tree/')[1]}"
            content = client.get(address).raise_for_status().json()["content"]
            for cell in content["cells"]:
                cell["outputs"] = []
            client.put(address, json={"type": "notebook", "content": content}).raise_for_status()

    def _open(self) -> None:
        self.page.set_default_timeout(LIMIT_S * 1000)
        self.page.on("pageerror", self._note_error)
        self.page.on("console", self._note_console)
        self.page.on("request", self._note_request)
        self.page.goto(self._url)
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        self.page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=_START_LIMIT_MS)
        self.page.wait_for_function(
            f"() => window.jupyterapp && {_NOTEBOOK}?.context?.sessionContext?.session?.kernel?.status === 'idle'",
            timeout=_START_LIMIT_MS,
        )

    def _note_console(self, message) -> None:
        if message.type == "error":
            self.problems.append(f"console: {message.text} ({message.location})")

    def _note_error(self, error) -> None:
        self.problems.append(f"uncaught: {error}")

    def _note_request(self, request) -> None:
        address = urlsplit(request.url)
        if address.scheme not in ("data", "blob") and address.netloc != self._host:
            self.problems.append(f"request to another host: {request.url}")
