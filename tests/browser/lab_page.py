"""A notebook page in a real browser: run its cells, use its panel, and note everything that goes wrong on it."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Locator, Page

__all__ = ["LabPage"]

_ARTIFACTS = Path(__file__).resolve().parents[2] / "test-artifacts"
_START_LIMIT_MS = 120_000
# anywidget gives a module two seconds to start, and plotly's 5 MB take longer on a busy machine. The plot comes all the
# same; tests that look at it wait for its points.
_SLOW_START = "[anywidget] Failed to initialize model."
_NOTEBOOK = "[...window.jupyterapp.shell.widgets('main')].find((widget) => widget.context?.sessionContext)"


# Logged by Jupyter's widget manager about once in six runs of a busy machine, while the page is made narrow. The panel
# goes on working; which widget's state it is was not found out.
_RARE_STATE_RACE = "Error setting state: Cannot read properties of undefined (reading 'length')"


def _axe_source() -> str:
    """axe-core, which lies in a package: the page loads nothing from elsewhere."""
    return (files("axe_playwright_python") / "axe.min.js").read_text("utf-8")


class LabPage:
    """Drives one page. `problems` lists console errors, uncaught exceptions and requests to other hosts."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.problems: list[str] = []
        self._host = urlsplit(url).netloc
        page.on("pageerror", self._note_error)
        page.on("console", self._note_console)
        page.on("request", self._note_request)
        page.goto(url)
        self._wait_until_ready()

    def take_problems(self) -> list[str]:
        """The problems since they were last taken."""
        problems, self.problems = self.problems, []
        return problems

    def reload(self) -> None:
        """Load the page anew; the kernel goes on."""
        self.page.reload()
        self._wait_until_ready()

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

    def button(self, name: str) -> Locator:
        """A button of the panel that can be used now."""
        return self.page.locator(".wb-panel button[aria-disabled=false]").get_by_text(name, exact=True)

    @property
    def message_box(self) -> Locator:
        return self.page.get_by_role("textbox", name="Message", exact=True)

    @property
    def replies(self) -> Locator:
        return self.page.locator(".wb-message[data-role=assistant]")

    def wait_for_text(self, selector: str, pattern: str, timeout_s: float = 30) -> str:
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

    def wait_for_points(self, at_least: int = 2, timeout_s: float = 30) -> None:
        """Wait until the live plot's first line, this process's memory, has that many points."""
        self._wait_for_lines(
            "[...(lines[0].y ?? [])].filter((value) => value != null).length >= wanted", at_least, timeout_s
        )

    def wait_for_rate(self, above: float = 0.0, timeout_s: float = 30) -> None:
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

    def _wait_for_lines(self, condition: str, wanted: float, timeout_s: float) -> None:
        script = f"""(wanted) => {{
            const lines = document.querySelector('.wb-live .js-plotly-plot')?.data ?? [];
            return lines.length > 1 && {condition};
        }}"""
        self.page.wait_for_function(script, arg=wanted, timeout=timeout_s * 1000)

    def _wait_until_ready(self) -> None:
        self.page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=_START_LIMIT_MS)
        self.page.wait_for_function(
            f"() => window.jupyterapp && {_NOTEBOOK}?.context?.sessionContext?.session?.kernel?.status === 'idle'",
            timeout=_START_LIMIT_MS,
        )

    def _note_console(self, message) -> None:
        if message.type == "error" and message.text != _RARE_STATE_RACE:
            self.problems.append(f"console: {message.text} ({message.location})")

    def _note_error(self, error) -> None:
        if _SLOW_START not in str(error):
            self.problems.append(f"uncaught: {error}")

    def _note_request(self, request) -> None:
        address = urlsplit(request.url)
        if address.scheme not in ("data", "blob") and address.netloc != self._host:
            self.problems.append(f"request to another host: {request.url}")
