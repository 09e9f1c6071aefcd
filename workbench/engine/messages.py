"""What doors and engine core say to each other. Plain values only, so that they can cross a process boundary."""

from __future__ import annotations

from dataclasses import dataclass, field

from workbench.engine.logprobs import TokenLogprobs
from workbench.engine.sampling_params import SamplingParams
from workbench.engine.sequence import FinishReason
from workbench.errors import WorkbenchError
from workbench.telemetry import HistogramView, StepProfile
from workbench.twin import HasTwin, Twin

__all__ = [
    "Abort",
    "Chunk",
    "Embed",
    "Embedded",
    "EngineStats",
    "Fail",
    "Failed",
    "Message",
    "Profiled",
    "ReadStats",
    "Reply",
    "Request",
    "StartProfile",
    "Stop",
    "StopProfile",
    "Usage",
]


@dataclass(frozen=True)
class Request:
    """Generate `params.n` answers to a prompt. `submitted_s` is on the monotonic clock.

    `sent_token_ids` are tokens that another engine chose and sent before it ended: the answer, the only one, goes on
    behind them.
    """

    request_id: str
    prompt_token_ids: tuple[int, ...]
    params: SamplingParams
    seed: int
    submitted_s: float
    sent_token_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Abort:
    """Stop a request at the next step. Unknown or finished ids are ignored."""

    request_id: str


@dataclass(frozen=True)
class Embed:
    """Ask for one prompt's embedding; it comes back as an `Embedded`."""

    reply_id: str
    prompt_token_ids: tuple[int, ...]


@dataclass(frozen=True)
class Embedded:
    """An embedding, or why there is none."""

    reply_id: str
    values: tuple[float, ...] = ()
    error: WorkbenchError | None = None


@dataclass(frozen=True)
class ReadStats:
    """Ask for the engine's figures; they come back as an `EngineStats`."""

    reply_id: str


@dataclass(frozen=True)
class StartProfile:
    """Record steps from now on, `with_operations` torch's as well. Answered by `Profiled` without a profile."""

    reply_id: str
    with_operations: bool = False


@dataclass(frozen=True)
class StopProfile:
    """End the recording; it comes back as `Profiled`."""

    reply_id: str


@dataclass(frozen=True)
class Profiled:
    """What was recorded; None where nothing was."""

    reply_id: str
    profile: StepProfile | None = None


@dataclass(frozen=True)
class Failed:
    """A question's answer where the engine ended before it had one."""

    reply_id: str
    error: WorkbenchError


@dataclass(frozen=True)
class Stop:
    """End the core's loop; running requests are told so."""


@dataclass(frozen=True)
class Fail:
    """End the core's loop because what it runs on is gone; running requests are told the reason, and which process it
    was (see EngineStoppedError)."""

    reason: str
    ended_process: str | None = None


@dataclass(frozen=True)
class Usage:
    """Token counts and times of a finished answer; times are seconds on the monotonic clock.

    `num_cached_tokens` of the prompt came from the prefix cache. `first_token_s` is None if there was none, `started_s`
    (the first step that computed something of it) where that was not seen.
    """

    num_prompt_tokens: int
    num_generated_tokens: int
    num_cached_tokens: int
    submitted_s: float
    first_token_s: float | None
    finished_s: float
    started_s: float | None = None


@dataclass(frozen=True)
class Chunk:
    """What one step added to answer `index` of a request.

    `text` may be empty while characters or stop strings are held back. The last chunk carries `finish_reason` and
    `usage`; with `finish_reason` ERROR or ABORT also the `error`, if there is one. `prompt_logprobs` come with the
    first chunk: one entry per prompt token, None for the first.
    """

    request_id: str
    index: int
    text: str = ""
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] = ()
    prompt_logprobs: tuple[TokenLogprobs | None, ...] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None
    usage: Usage | None = None
    error: WorkbenchError | None = None


@dataclass(frozen=True, repr=False)
class EngineStats(HasTwin):
    """Figures of a running engine. Counters (`*_total`) and histograms only grow; the others are as of now.

    `inter_token_s` counts the time between two tokens of an answer, `batch_size` the answers in each step and
    `step_tokens` the tokens, of prompts and answers, that it computed.
    `draft_tokens_total` were guessed ahead, of which `accepted_draft_tokens_total` were right.
    `kv_blocks_peak` is the most blocks that were in use at the end of a step.
    """

    num_running: int = 0
    num_waiting: int = 0
    kv_blocks_used: int = 0
    kv_blocks_total: int = 0
    block_size: int = 0
    kv_bytes: int = 0
    weight_bytes: int = 0
    requests_total: int = 0
    requests_finished_total: int = 0
    prompt_tokens_total: int = 0
    generated_tokens_total: int = 0
    prefix_hit_tokens_total: int = 0
    preemptions_total: int = 0
    draft_tokens_total: int = 0
    accepted_draft_tokens_total: int = 0
    steps_total: int = 0
    finished_by_reason: dict[str, int] = field(default_factory=dict)
    inter_token_s: HistogramView | None = None
    batch_size: HistogramView | None = None
    step_tokens: HistogramView | None = None
    kv_blocks_peak: int = 0
    reply_id: str = ""

    def twin(self) -> Twin:
        """What can be counted, in words; without the histograms, which are of times."""
        ended = ", ".join(f"{count:,} by {reason}" for reason, count in sorted(self.finished_by_reason.items()))
        kv = f"{self.kv_blocks_used:,} of {self.kv_blocks_total:,} blocks of {self.block_size} tokens in use"
        rows = [
            ("requests", f"{self.num_running:,} running, {self.num_waiting:,} waiting"),
            ("so far", f"{self.requests_total:,}, of which {self.requests_finished_total:,} ended"),
            ("ended", ended or "none"),
            ("tokens", f"{self.prompt_tokens_total:,} of prompts, {self.generated_tokens_total:,} generated"),
            ("reused", f"{self.prefix_hit_tokens_total:,} tokens of prompts"),
            ("KV pool", f"{kv} ({self.kv_bytes / 1e6:,.0f} MB)"),
            ("weights", f"{self.weight_bytes / 1e6:,.0f} MB"),
        ]
        if self.draft_tokens_total:
            right = f"{self.accepted_draft_tokens_total:,} of {self.draft_tokens_total:,} tokens were right"
            rows.append(("guessed ahead", right))
        return Twin("EngineStats", tuple(rows))


# What a core is told, and what it says.
Message = Request | Abort | Embed | Fail | ReadStats | StartProfile | StopProfile | Stop
Reply = Chunk | Embedded | EngineStats | Failed | Profiled
