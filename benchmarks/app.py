"""How the app holds up: twenty chats at once, and how long a typed letter takes to show on an open page meanwhile.

    python -m benchmarks.app [--chats 20] [--tokens 48]

Needs Chromium. One page is open and typed into; the chats come from gradio_client, each in a session of its own.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import shutil
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from gradio_client import Client
from playwright.sync_api import Page, sync_playwright

from dashboards import launch
from workbench import EngineConfig, LlamaGPU

# From the key to the next picture that shows it.
_ECHO_MS = """() => new Promise((resolve) => {
    const box = document.querySelector('#wb-message textarea');
    const started = performance.now();
    const before = box.value;
    box.focus();
    document.execCommand('insertText', false, 'x');
    const look = () => box.value !== before
        ? requestAnimationFrame(() => resolve(performance.now() - started)) : requestAnimationFrame(look);
    requestAnimationFrame(look);
})"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chats", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=48)
    asked = parser.parse_args()
    # Without it gradio_client sends statistics, and a machine without a network waits for that in the end.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    engine = EngineConfig(context_length=1024, kv_cache_tokens=32_768, max_num_seqs=32, num_threads=1)
    with (
        LlamaGPU("default", prefer_gpu=False, engine=engine) as llm,
        launch(llm) as app,
        sync_playwright() as playwright,
    ):
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.goto(app.url)
        page.wait_for_selector("#wb-message textarea")
        page.get_by_text("is ready").wait_for()
        print(f"gradio {importlib.metadata.version('gradio')}, {llm.model_name}, {llm.dtype}")
        _report("echo, nothing else going on", _echoes(page, 20))
        clients = [Client(app.url, analytics_enabled=False, verbose=False) for _ in range(asked.chats)]
        _chats_with_echo(page, clients, asked.tokens)
        browser.close()


def _chats_with_echo(page: Page, clients: list[Client], num_tokens: int) -> None:
    sampling = f'{{"max_tokens": {num_tokens}, "ignore_eos": true}}'
    done = threading.Event()
    started_s = time.perf_counter()

    def chat(client: Client, number: int) -> str:
        return client.predict(f"Tell me about the number {number}.", sampling=sampling, api_name="/chat")

    with ThreadPoolExecutor(len(clients)) as pool:
        chats = [pool.submit(chat, client, number) for number, client in enumerate(clients)]
        for one in chats:
            one.add_done_callback(lambda _: done.set() if all(c.done() for c in chats) else None)
        # The page itself shows a reply too.
        page.locator("#wb-message textarea").fill("Tell me about the sea.")
        page.keyboard.press("Enter")
        echoes = []
        while not done.is_set():
            echoes += _echoes(page, 1)
            page.wait_for_timeout(150)
        answers = [one.result() for one in chats]
    seconds = time.perf_counter() - started_s
    print(f"{len(answers)} chats of {num_tokens} tokens, none failed: {seconds:.1f} s, "
          f"{len(answers) * num_tokens / seconds:.0f} tokens/s together")  # fmt: skip
    _report(f"echo during {len(answers)} chats", echoes)


def _echoes(page: Page, count: int) -> list[float]:
    return [page.evaluate(_ECHO_MS) for _ in range(count)]


def _report(what: str, echoes_ms: list[float]) -> None:
    slowest = sorted(echoes_ms)[int(0.95 * (len(echoes_ms) - 1))]
    print(f"{what}: median {statistics.median(echoes_ms):.0f} ms, 95 % within {slowest:.0f} ms, "
          f"at most {max(echoes_ms):.0f} ms ({len(echoes_ms)} letters)")  # fmt: skip


if __name__ == "__main__":
    main()
