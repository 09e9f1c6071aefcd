"""Our engine and each peer that is installed, on one machine in one run, turn by turn: A B C, A B C.

    python benchmarks/peers.py --peer-python llama.cpp=/path/to/venv/bin/python --json peers.json --plot peers.html

Every engine lives in a child process of its own (`workbench/benchmark/`); while one works the others wait on their
pipes. The same random token ids go to all, new ones each time. Figures, in tokens/s, are medians over the rounds:

    decode    one request of 128 tokens: new tokens after the first, over the time after the first
    prefill   one request of 512 tokens, over the time to its first new token
    streams   8 requests of 128 tokens at once: all new tokens over the whole time, prompts included

`--peer-python NAME=PYTHON` names the interpreter of one engine; without it the engine runs under this one. An engine
that cannot start, or fails, is listed with its last words. `workbench bench --peer` measures one workload in more ways.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

from workbench.backends import detect
from workbench.backends.processor import Processor
from workbench.benchmark import EngineChoice, Workload
from workbench.benchmark.engine_process import EngineProcess, Started
from workbench.benchmark.machine import machine_facts
from workbench.models import Catalogue

PROMPT, LONG_PROMPT, STREAMS = 128, 512, 8
FIGURES = ("decode", "prefill", "streams")
# Each new shape is compiled for a minute or more.
_FIGURES_OF = {"transformers-compiled": ("decode",)}
# Ours, with the precision after a colon, and the others.
_ALL = ("workbench:gguf", "workbench:bf16", "transformers", "transformers-compiled", "transformers-batching",
        "transformers-serve", "llama.cpp", "vllm")  # fmt: skip


class Peer:
    """One engine, its process, and what it said of itself."""

    def __init__(self, name: str, process: EngineProcess, started: Started | None, obstacle: str | None) -> None:
        self.name, self.started = name, started
        self._process, self._obstacle = process, obstacle

    @property
    def error(self) -> str | None:
        return self._obstacle or self._process.error

    @property
    def version(self) -> str:
        return "" if self.started is None else self.started.version

    def seconds(self, workload: Workload, seed: int) -> float | None:
        """What generating takes; None once the engine has failed."""
        if self.error is not None or self.started is None:
            return None
        prompts = workload.prompts(seed, self.started.vocab_size)
        answered = self._process.generate(prompts, workload.new_tokens)
        return None if answered is None else answered.seconds

    def stop(self) -> None:
        self._process.stop()


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
    peers = []
    for name in options.engines:
        # One after the other: loading is heavy, and an engine measures its machine while it starts.
        engine, _, quant = name.partition(":")
        python = options.peer_python.get(name, sys.executable)
        choice = EngineChoice(engine, options.backend, quant or None, python)
        words = choice.arguments(files, options.model, threads=options.threads, context_length=options.context)
        words = [*words, f"--sequences={STREAMS}"]
        if options.llama_extra_buffers:
            words.append("--llama-extra-buffers")
        process = EngineProcess(words, python)
        peer = Peer(name, process, process.start(), choice.obstacle(files))
        print(name, peer.error or peer.version, flush=True)
        peers.append(peer)
    return peers


def _warm_up(peer: Peer, options: argparse.Namespace) -> None:
    """A few tokens; for an engine that compiles every shape, all that will be measured."""
    if peer.name in _FIGURES_OF:
        _measure(peer, options, seed=0)
    else:
        peer.seconds(Workload(1, PROMPT, 4), 0)


def _measure(peer: Peer, options: argparse.Namespace, seed: int) -> dict[str, float]:
    """Tokens/s of each figure; the time to the first token is measured apart and taken off."""
    wanted = _FIGURES_OF.get(peer.name, FIGURES)
    new, found = options.new, {}
    if "decode" in wanted:
        first, whole = (
            peer.seconds(Workload(1, PROMPT, 1), 4 * seed),
            peer.seconds(Workload(1, PROMPT, new), 4 * seed + 1),
        )
        if first and whole:
            found["decode"] = (new - 1) / (whole - first)
    if "prefill" in wanted:
        seconds = peer.seconds(Workload(1, LONG_PROMPT, 1), 4 * seed + 2)
        if seconds:
            found["prefill"] = LONG_PROMPT / seconds
    if "streams" in wanted:
        seconds = peer.seconds(Workload(STREAMS, PROMPT, new), 4 * seed + 3)
        if seconds:
            found["streams"] = STREAMS * new / seconds
    return found


def _report(options: argparse.Namespace, peers: list[Peer], rounds: dict[str, list[dict]]) -> dict[str, object]:
    engines = {}
    for peer in peers:
        names = rounds[peer.name][0] if rounds[peer.name] else ()
        medians = {name: statistics.median(found[name] for found in rounds[peer.name]) for name in names}
        engines[peer.name] = {
            "version": peer.version, "error": peer.error, "rounds": rounds[peer.name], "tokens_per_s": medians,
        }  # fmt: skip
    return {
        "machine": machine_facts(detect(), options.threads),
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
    figure.update_layout(title=f"{report['model']} on {report['machine']['processor']}, {report['machine']['date']}")
    figure.write_html(path, include_plotlyjs=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default")
    parser.add_argument("--engines", type=lambda text: text.split(","), default=list(_ALL))
    parser.add_argument("--backend", default="cpu", choices=("cpu", "cuda", "rocm"))
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
