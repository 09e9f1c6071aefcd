"""An engine around the model made of a hash, built where it runs: here, or in a process of its own."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from engine.fake_runner import VOCAB_SIZE, FakeRunner, hashed_token, make_limits, spell
from engine.gate import Gate

from workbench.engine.build import BuiltEngine
from workbench.engine.engine import Engine
from workbench.engine.launch import EngineFacts
from workbench.engine.runner_status import RunnerStatus
from workbench.progress import Progress
from workbench.telemetry import HostUsage

# Prompts whose text cannot be made: after some tokens; at once; in the second of several answers with seed 1.
BAD_LATER = [13, 13, 13]
BAD_AT_ONCE = [14, 14, 14]
BAD_IN_ITS_SECOND_ANSWER = [15]
_SECOND_TOKEN = hashed_token(BAD_IN_ITS_SECOND_ANSWER, seed=1, index=1)


def spell_or_fail(token_ids, skip_special_tokens=True) -> str:
    """`spell`, except for the prompts above."""
    is_bad = (
        (token_ids[:3] == BAD_LATER and len(token_ids) > 6)
        or token_ids[:3] == BAD_AT_ONCE
        or (token_ids[:2] == [*BAD_IN_ITS_SECOND_ANSWER, _SECOND_TOKEN] and len(token_ids) > 4)
    )
    if is_bad:
        raise ValueError("no such text")
    return spell(token_ids)


@dataclass(frozen=True)
class FakeLaunch:
    """See EngineLaunch. `sabotage` is called before the engine is built; once the gate opens, the runner's words
    change."""

    gate: Gate
    overlaps: bool = False
    limits: dict = field(default_factory=dict)
    sabotage: Callable[[], object] | None = None

    def build(self, progress, backend=None) -> BuiltEngine:
        progress(Progress("make weights", 1, 2))
        if self.sabotage is not None:
            self.sabotage()
        limits = make_limits(**({"max_context": 4000, "num_blocks": 1100} | self.limits))
        runner = FakeRunner(limits, overlaps=self.overlaps, fails_at=self.gate.pass_through)
        engine = Engine(runner, limits, decode=spell_or_fail, vocab_size=VOCAB_SIZE, eos_token_ids=frozenset())
        facts = EngineFacts(limits, spec=None, weight_bytes=0, embedding=None, dtype="fp32", quantized=None)
        status = RunnerStatus("a hash")
        threading.Thread(target=self._change_words, args=(status,), daemon=True).start()
        return BuiltEngine(engine, facts, status, None, None, None, HostUsage())

    def _change_words(self, status: RunnerStatus) -> None:
        self.gate.wait_until_open()
        status.words = "a faster hash"


def kill_itself() -> None:
    os.kill(os.getpid(), 9)


def raise_unknown() -> None:
    """An error of a class that only the process that made it knows."""
    raise type("Unheard", (Exception,), {})("something new")


def log_a_warning() -> None:
    logging.getLogger("engine.fake").warning("hot: %d degrees", 90)
