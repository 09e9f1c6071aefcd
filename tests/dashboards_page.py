"""A page of the app as its tests use it: what a person does, and what must never happen while they do."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Locator, Page, expect

WAIT_MS = 45_000
# The machine may have much else to do.
expect.set_options(timeout=30_000)
# Chromium's own remarks, which tell of nothing that is wrong.
_HARMLESS = ("Autofocus processing was blocked", "Password field is not contained in a form")


class AppPage:
    """One open page. `problems` collects console errors, failed scripts, and requests to other hosts."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.problems: list[str] = []
        self._host = urlsplit(url).netloc
        page.set_default_timeout(WAIT_MS)
        page.on("console", self._note_console)
        page.on("pageerror", lambda error: self.problems.append(f"script: {error}"))
        page.on("request", lambda request: self._note_request(request.url))
        self._url = url
        page.goto(url)

    def start_over(self) -> None:
        """Open the page anew, whatever became of it; what it notes of streams that break off by this is no problem."""
        self.page.goto("about:blank")
        self.problems = []
        self.page.goto(self._url)
        self.wait_until_ready()

    def wait_until_ready(self) -> AppPage:
        """Wait until the header says that the model is ready."""
        expect(self.page.locator("#wb-header")).to_contain_text("is ready", timeout=WAIT_MS)
        return self

    def kept_by_the_browser(self) -> str | None:
        """What the browser keeps of the conversations, as it stands there."""
        return self.page.evaluate("localStorage.getItem('workbench-conversations')")

    @property
    def box(self) -> Locator:
        return self.page.locator("#wb-message textarea")

    @property
    def chat(self) -> Locator:
        return self.page.locator("#wb-chatbot [role=log]")

    @property
    def notes(self) -> Locator:
        """The lines of figures under the replies."""
        return self.page.locator("#wb-chatbot small")

    def part(self, elem_id: str) -> Locator:
        return self.page.locator(f"#{elem_id}")

    def press(self, elem_id: str) -> None:
        self.part(elem_id).click()

    def tab(self, name: str) -> None:
        """Show a tab, out of the overflow menu where there is no room."""
        tab = self.page.get_by_role("tab", name=name, exact=True)
        if not tab.is_visible():
            self.page.locator(".overflow-menu > button").first.click()
            tab = self.page.locator(".overflow-dropdown button").filter(has_text=name)
        tab.click()

    def choose(self, elem_id: str, value: str) -> None:
        """Choose in a dropdown, or type what it does not list. Chosen is what the field shows once it is left."""
        field = self.page.locator(f"#{elem_id} input")
        deadline = time.monotonic() + WAIT_MS / 1000
        while time.monotonic() < deadline:
            field.fill(value)
            field.press("Enter")
            field.blur()
            # A list that comes from the server at this moment puts back what was chosen before, and until it has come
            # the new value is none of its own.
            self.page.wait_for_timeout(100)
            if field.input_value() == value:
                return
        expect(field).to_have_value(value)

    def set(self, label: str, value: str) -> None:
        # What a label says of its field follows its name.
        field = self.page.get_by_label(re.compile(rf"^\s*{label}\b")).first
        field.fill(value)
        field.blur()

    def upload(self, elem_id: str, file: Path) -> None:
        """Give a file to an upload button, through the window in which one is chosen."""
        with self.page.expect_file_chooser() as chooser:
            self.press(elem_id)
        chooser.value.set_files(file)

    def unfold(self, label: str) -> None:
        fold = self.page.locator("button.label-wrap").filter(has_text=label).first
        if "open" not in (fold.get_attribute("class") or ""):
            fold.click()

    def new_chat(self, *, most_tokens: int = 12) -> None:
        """An empty conversation and short replies; what else is set stays, at first that of the strict preset."""
        self.tab("Chat")
        self.set("Most tokens of a reply", str(most_tokens))
        self.press("wb-new")
        expect(self.part("wb-chatbot")).to_contain_text("Ask something")

    def send(self, text: str) -> None:
        self.box.fill(text)
        self.box.press("Enter")

    def ask(self, text: str, *, replies: int = 1) -> None:
        """Send and wait for the end of the reply, the `replies`th of the conversation."""
        self.send(text)
        self.wait_for_replies(replies)

    def wait_for_replies(self, count: int) -> None:
        """Wait until so many replies are there and the last of them has ended."""
        expect(self.notes).to_have_count(count, timeout=WAIT_MS)
        expect(self.notes.last).to_contain_text("first token after", timeout=WAIT_MS)
        expect(self.part("wb-stop")).to_be_disabled(timeout=WAIT_MS)

    def wait_for_text(self, characters: int = 12) -> None:
        """Wait until a running reply has so much text."""
        self.page.wait_for_function(
            "n => { const all = document.querySelectorAll('#wb-chatbot .bot .prose');"
            " return [...all].map(e => e.innerText).join('').length > n + 30; }",
            arg=characters,
            timeout=WAIT_MS,
        )
        expect(self.part("wb-stop")).to_be_enabled()

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Wait for something on the server's side, while the page lives on."""
        for _ in range(WAIT_MS // 50):
            if is_so():
                return
            self.page.wait_for_timeout(50)
        raise AssertionError("it did not come to pass")

    @contextmanager
    def saved_file(self) -> Iterator[list[str]]:
        """The text of the file that the block has the page save."""
        texts: list[str] = []
        with self.page.expect_download(timeout=WAIT_MS) as download:
            yield texts
        texts.append(Path(download.value.path()).read_text())

    def take_problems(self) -> list[str]:
        problems, self.problems = self.problems, []
        return problems

    def screenshot(self, path: Path) -> None:
        self.page.screenshot(path=path, full_page=True)

    def close(self) -> None:
        self.page.context.close()

    def _note_console(self, message) -> None:
        if message.type in ("error", "warning") and not any(words in message.text for words in _HARMLESS):
            self.problems.append(f"{message.type}: {message.text}")

    def _note_request(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob", "about") and parts.netloc != self._host:
            self.problems.append(f"request to another host: {url}")
