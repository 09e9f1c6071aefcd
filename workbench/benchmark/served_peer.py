"""transformers' own server, `transformers serve`, as an engine of `peer_engine.py`: a child process, asked over HTTP.

Runs under any interpreter that has transformers, and imports nothing of this project.
"""

from __future__ import annotations

import ctypes
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Prompts = list[list[int]]

# The command itself would first look on the network for a newer version.
_SERVE = "from transformers.cli.transformers import app; app()"
_START_TIMEOUT_S = 600.0
_ANSWER_TIMEOUT_S = 600.0


class TransformersServe:
    """`transformers serve FOLDER` in bf16, asked for streams of raw text; `batching` adds its continuous batching.

    The server takes text only, so each token id stands for a word that is one token: prompts have the asked number of
    tokens, and one more where the tokenizer begins each text with one.
    """

    def __init__(self, folder: Path, device: str, num_threads: int, *, batching: bool) -> None:
        import transformers

        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
        self.vocab_size: int = transformers.AutoConfig.from_pretrained(folder).get_text_config().vocab_size
        self.version = f"bf16, transformers {transformers.__version__} over HTTP"
        self._words = _one_token_words(tokenizer)
        self._num_first_tokens = len(tokenizer("").input_ids)
        self._batching = batching
        self._port = _free_port()
        command = [sys.executable, "-c", _SERVE, "serve", str(folder), "--host", "127.0.0.1", "--dtype", "bfloat16"]
        command += ["--port", str(self._port), "--device", device, *(["--continuous-batching"] if batching else [])]
        environ = {**os.environ, "OMP_NUM_THREADS": str(num_threads), "HF_HUB_OFFLINE": "1"}
        self._server = subprocess.Popen(command, env=environ, stdout=sys.stderr, preexec_fn=_end_with_parent)
        self._wait_until_ready()

    def generate(self, prompts: Prompts, new_tokens: int) -> list[float]:
        """Have every prompt answered at once; gives seconds between two pieces of the first answer.

        Raises RuntimeError for an answer of another length, or none.
        """
        outcomes: list[list[float] | Exception | None] = [None] * len(prompts)
        threads = [
            threading.Thread(target=self._answer, args=(prompt, new_tokens, outcomes, number))
            for number, prompt in enumerate(prompts)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise RuntimeError(f"transformers serve: {outcome}") from outcome
        came_s = outcomes[0]
        assert isinstance(came_s, list)
        return [after - before for before, after in zip(came_s, came_s[1:])]  # noqa: B905

    def stop(self) -> None:
        """End the server."""
        self._server.terminate()
        try:
            self._server.wait(10)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()

    def _answer(self, prompt: list[int], new_tokens: int, outcomes: list[Any], number: int) -> None:
        try:
            outcomes[number] = self._stream(prompt, new_tokens)
        except Exception as error:  # the top of a thread: told by whoever waits for it
            outcomes[number] = error

    def _stream(self, prompt: list[int], new_tokens: int) -> list[float]:
        """When each piece of text came."""
        came_s: list[float] = []
        usage: dict[str, int] = {}
        for chunk in self._chunks(self._body(prompt, new_tokens)):
            usage = chunk.get("usage") or usage
            if chunk["choices"][0].get("text"):
                came_s.append(time.perf_counter())
        asked = (len(prompt) + self._num_first_tokens, new_tokens)
        if (usage.get("prompt_tokens"), usage.get("completion_tokens")) != asked:
            raise RuntimeError(f"asked for {asked[0]} + {asked[1]} tokens, it counted {usage}")
        return came_s

    def _body(self, prompt: list[int], new_tokens: int) -> dict[str, Any]:
        config = {"max_new_tokens": new_tokens, "do_sample": False, "pad_token_id": 0}
        # Its batching knows no least length; without an end token it cannot stop before.
        config |= {"eos_token_id": -1} if self._batching else {"min_new_tokens": new_tokens}
        text = "".join(self._words[token_id % len(self._words)] for token_id in prompt)
        return {"prompt": text, "stream": True, "generation_config": json.dumps(config)}

    def _chunks(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_ANSWER_TIMEOUT_S)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/v1/completions", json.dumps(body), headers)
            answer = connection.getresponse()
            if answer.status != 200:
                raise RuntimeError(f"HTTP {answer.status} {answer.read(300)!r}")
            for line in answer:
                if line.startswith(b"data: {"):
                    chunk = json.loads(line[6:])
                    if "error" in chunk:
                        raise RuntimeError(chunk["error"])
                    yield chunk
        finally:
            connection.close()

    def _wait_until_ready(self) -> None:
        end_s = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < end_s:
            status = self._server.poll()
            if status is not None:
                raise RuntimeError(f"transformers serve ended with status {status}")
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
            try:
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return
            except OSError:
                time.sleep(0.2)
            finally:
                connection.close()
        self.stop()
        raise RuntimeError(f"transformers serve did not answer within {_START_TIMEOUT_S:g} s")


def _one_token_words(tokenizer: Any) -> list[str]:
    """Words, with the space before them, that are one token alone and beside each other. At most 4096."""
    words = []
    for token_id in range(len(tokenizer)):
        word = tokenizer.decode([token_id])
        if word[:1] == " " and word[1:].isascii() and word[1:].isalpha():
            words.append(word)
        if len(words) == 4096:
            break
    if not words:
        raise RuntimeError("this tokenizer has no words that begin with a space")
    return words


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _end_with_parent() -> None:
    # PR_SET_PDEATHSIG: whoever is killed leaves no server behind.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
