"""An engine without a model: its requests go on when a test says so, and it can die at any moment."""

from __future__ import annotations

import asyncio
import itertools
import threading
from dataclasses import dataclass, field
from types import SimpleNamespace

from workbench.errors import EngineStoppedError, RequestError


class ScriptedGeneration:
    """Yields what `say` is given until `finish`, `fail` or `abort`."""

    def __init__(self, engine: ScriptedEngine, prompt: object) -> None:
        self.engine, self.prompt = engine, prompt
        self.seed = 7
        self.timings: SimpleNamespace | None = None
        self.was_aborted = threading.Event()
        self._said: list[str] = []
        self._steps: list[object] = []
        self._lock = threading.Lock()
        self._wake = None

    @property
    def text(self) -> str:
        return "".join(self._said)

    def say(self, word: str) -> None:
        self._push(word)

    def finish(self, *words: str, total_s: float = 1.0) -> None:
        for word in words:
            self.say(word)
        self._push(total_s)

    def fail(self, error: Exception) -> None:
        self._push(error)

    def abort(self) -> None:
        self.was_aborted.set()
        self._push(0.0)

    async def __aiter__(self):
        event, loop = asyncio.Event(), asyncio.get_running_loop()
        while True:
            with self._lock:
                step = self._steps.pop(0) if self._steps else None
                self._wake = lambda: loop.call_soon_threadsafe(event.set)
            if step is None:
                await event.wait()
                event.clear()
            elif isinstance(step, Exception):
                raise step
            elif isinstance(step, float):
                self.timings = SimpleNamespace(total_s=step, num_generated_tokens=len(self._said))
                return
            else:
                self._said.append(step)
                yield SimpleNamespace(text=step)

    def results(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(text=self.text, prompt=self.prompt, timings=self.timings)]

    def _push(self, step: object) -> None:
        with self._lock:
            self._steps.append(step)
            wake = self._wake
        if wake is not None:
            wake()


@dataclass
class ScriptedEngine:
    """`die()` is what the loss of a device looks like: requests end with EngineStoppedError, new ones are refused."""

    replica_id: object
    kv_blocks_used: int = 0
    kv_blocks_total: int = 100
    is_dead: bool = False
    num_unloads: int = 0
    resumes: bool = False
    generations: list[ScriptedGeneration] = field(default_factory=list)
    was_asked: threading.Event = field(default_factory=threading.Event)
    has_one: threading.Event = field(default_factory=threading.Event)
    has_two: threading.Event = field(default_factory=threading.Event)

    def submit(self, prompt=None, *, messages=None, **sampling):
        if self.is_dead:
            raise EngineStoppedError(f"engine {self.replica_id} is dead")
        if prompt == "":
            raise RequestError("the prompt is empty")
        self.generations.append(ScriptedGeneration(self, messages if prompt is None else prompt))
        self.has_one.set()
        if len(self.generations) == 2:
            self.has_two.set()
        return self.generations[-1]

    def resume(self, ended, prompt=None, *, messages=None, **sampling):
        if not self.resumes:
            raise RequestError("nothing is resumed here")
        generation = self.submit(prompt, messages=messages, **sampling)
        generation._said = list(ended._said)
        return generation

    def stats(self):
        self.was_asked.set()
        return SimpleNamespace(kv_blocks_used=self.kv_blocks_used, kv_blocks_total=self.kv_blocks_total)

    def unload(self) -> dict[str, int]:
        self.num_unloads += 1
        if self.is_dead:
            return {}
        self.die()
        return {"cpu": 100}

    def die(self) -> None:
        self.is_dead = True
        for generation in self.generations:
            generation.fail(EngineStoppedError(f"engine {self.replica_id} died"))


class ScriptedFactory:
    """Makes engines and keeps all of them, in order; `fail_at` is the number of the one that cannot be made."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.made: list[ScriptedEngine] = []
        self.before_making = lambda: None
        self._fail_at = fail_at
        self._numbers = itertools.count()

    def __call__(self, replica_id: object) -> ScriptedEngine:
        if next(self._numbers) == self._fail_at:
            raise RuntimeError("no room for this one")
        self.before_making()
        self.made.append(ScriptedEngine(replica_id))
        return self.made[-1]
