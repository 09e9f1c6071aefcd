"""Our engine and each peer that is installed, on one machine in one run, turn by turn: A B C, A B C.

    python benchmarks/peers.py --peer-python llama.cpp=/path/to/venv/bin/python --json peers.json --plot peers.html

Every engine lives in a child process of its own (`peer_engine.py`); while one works the others wait on their pipes. The
same random token ids go to all, new ones each time. Figures, in tokens/s, are medians over the rounds:

    decode    one request of 128 tokens: new tokens after the first, over the time after the first
    prefill   one request of 512 tokens, over the time to its first new token
    streams   8 requests of 128 tokens at once: all new tokens over the whole time, prompts included

`--peer-python NAME=PYTHON` names the interpreter of one engine; without it the engine runs under this one. An engine
that cannot start, or fails, is listed with its last words.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from workbench.backends.processor import Processor
from workbench.models import Catalogue

PROMPT, LONG_PROMPT, STREAMS = 128, 512, 8
FIGURES = ("decode", "prefill", "streams")
# Each new shape is compiled for a minute or more.
_FIGURES_OF = {"generate-compiled": ("decode",)}
_ALL = ("ours-gguf", "ours-bf16", "generate", "generate-compiled", "continuous-batching", "llama.cpp", "vllm")


class Peer:
    """A child process with one engine in it."""

    def __init__(self, name: str, python: str, arguments: list[str]) -> None:
        self.name = name
        self.error: str | None = None
        self.version = ""
        self._log = tempfile.TemporaryFile("w+")
        command = [python, str(Path(__file__).with_name("peer_engine.py")), name, *arguments]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )

    def start(self) -> None:
        """Wait until the engine is loaded."""
        self.version = self._answer().get("version", "")

    def seconds(self, prompts: list[list[int]], new_tokens: int) -> float | None:
        """What generating takes; None once the engine has failed."""
        if self.error is not None:
            return None
        print(json.dumps({"prompts": prompts, "new_tokens": new_tokens}), file=self._process.stdin, flush=True)
        return self._answer().get("seconds")

    def stop(self) -> None:
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        status = self._process.wait()
        self._log.seek(0)
        words = [text for text in self._log.read().splitlines() if text.strip()]
        self.error = f"exit status {status}: {words[-1].strip()[:200] if words else 'no words'}"
        return {}


def main() -> None:
    options = _options()
    peers = _start(options)
    rounds: dict[str, list[dict[str, float]]] = {peer.name: [] for peer in peers}
    for peer in peers:
        _warm_up(peer, options)
    for number in range(1, options.rounds + 1):
        for peer in peers:
            found = _measure(peer, options, seed=number)
            if peer.error is None:
                rounds[peer.name].append(found)
                print(number, peer.name, {name: round(rate, 1) for name, rate in found.items()}, flush=True)
    for peer in peers:
        peer.stop()
    report = _report(options, peers, rounds)
    print(_table(report))
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=1))
    if options.plot:
        _plot(report, options.plot)


def _start(options: argparse.Namespace) -> list[Peer]:
    files = Catalogue().resolve(options.model)
    arguments = [f"--model={options.model}", f"--folder={files.path}", f"--threads={options.threads}"]
    arguments += [f"--device={options.device}", f"--context={options.context}"]
    if files.gguf_path:
        arguments.append(f"--gguf={files.gguf_path}")
    if options.llama_extra_buffers:
        arguments.append("--llama-extra-buffers")
    peers = []
    for name in options.engines:
        # One after the other: loading is heavy, and an engine measures its machine while it starts.
        peer = Peer(name, options.peer_python.get(name, sys.executable), arguments)
        peer.start()
        print(name, peer.error or peer.version, flush=True)
        peers.append(peer)
    return peers


def _warm_up(peer: Peer, options: argparse.Namespace) -> None:
    """A few tokens; for an engine that compiles every shape, all that will be measured."""
    if peer.name in _FIGURES_OF:
        _measure(peer, options, seed=0)
    else:
        peer.seconds([[100 + i for i in range(PROMPT)]], 4)


def _measure(peer: Peer, options: argparse.Namespace, seed: int) -> dict[str, float]:
    """Tokens/s of each figure; the time to the first token is measured apart and taken off."""
    wanted = _FIGURES_OF.get(peer.name, FIGURES)
    new, found = options.new, {}
    numbers = random.Random(seed)

    def prompts(count: int, length: int) -> list[list[int]]:
        return [numbers.choices(range(100, 40000), k=length) for _ in range(count)]

    if "decode" in wanted:
        first, whole = (peer.seconds(prompts(1, PROMPT), n) for n in (1, new))
        if first and whole:
            found["decode"] = (new - 1) / (whole - first)
    if "prefill" in wanted:
        seconds = peer.seconds(prompts(1, LONG_PROMPT), 1)
        if seconds:
            found["prefill"] = LONG_PROMPT / seconds
    if "streams" in wanted:
        seconds = peer.seconds(prompts(STREAMS, PROMPT), new)
        if seconds:
            found["streams"] = STREAMS * new / seconds
    return found


def _report(options: argparse.Namespace, peers: list[Peer], rounds: dict[str, list[dict]]) -> dict[str, object]:
    processor = Processor()
    engines = {}
    for peer in peers:
        names = rounds[peer.name][0] if rounds[peer.name] else ()
        medians = {name: statistics.median(found[name] for found in rounds[peer.name]) for name in names}
        engines[peer.name] = {
            "version": peer.version, "error": peer.error, "rounds": rounds[peer.name], "tokens_per_s": medians,
        }  # fmt: skip
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{processor.name()}, {' '.join(processor.flags())}, {options.threads} threads",
        "python": platform.python_version(),
        "command": " ".join(sys.argv),
        "model": options.model,
        "new_tokens": options.new,
        "engines": engines,
    }


def _table(report: dict) -> str:
    """A Markdown table: each engine's figures, and ours (the first engine's) over them."""
    engines = report["engines"]
    ours = next(iter(engines.values()))["tokens_per_s"]
    lines = ["| engine | " + " | ".join(f"{name} (ours over it)" for name in FIGURES) + " |", "|---|---|---|---|"]
    for name, engine in engines.items():
        rates = engine["tokens_per_s"]
        cells = [
            f"{rates[figure]:,.0f} ({ours[figure] / rates[figure]:.2f})" if figure in rates and figure in ours else ""
            for figure in FIGURES
        ]
        lines.append(f"| {name}: {engine['error'] or engine['version']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _plot(report: dict, path: str) -> None:
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=1, cols=len(FIGURES), subplot_titles=[f"{name}, tokens/s" for name in FIGURES])
    for column, name in enumerate(FIGURES, 1):
        rates = {engine: found["tokens_per_s"].get(name) for engine, found in report["engines"].items()}
        known = {engine: rate for engine, rate in rates.items() if rate}
        figure.add_trace(go.Bar(x=list(known), y=list(known.values()), showlegend=False), row=1, col=column)
    figure.update_layout(title=f"{report['model']} on {report['machine']}, {report['date']}")
    figure.write_html(path, include_plotlyjs="cdn")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default")
    parser.add_argument("--engines", type=lambda text: text.split(","), default=list(_ALL))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=Processor().num_physical_cores())
    parser.add_argument("--context", type=int, default=2048, help="tokens a request may have")
    parser.add_argument("--new", type=int, default=128, help="tokens")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--peer-python", action="append", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--llama-extra-buffers", action="store_true", help="let llama.cpp repack weights (its default)")
    parser.add_argument("--json")
    parser.add_argument("--plot", help="an .html file")
    options = parser.parse_args()
    options.peer_python = dict(pair.split("=", 1) for pair in options.peer_python)
    return options


if __name__ == "__main__":
    main()
