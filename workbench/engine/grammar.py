"""Keeps an answer inside its structure: which tokens may come next, by llguidance. Knows no scheduler, no sampler."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from workbench.engine.structure import StructureKind, StructureSpec
from workbench.errors import OverloadedError, RequestError

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer
    from llguidance._lib import JsonCompileOptions

    from workbench.models import Tokenizer

__all__ = ["StructureCompiler", "TokenMatcher", "token_vocabulary"]

# Room to indent, but no endless white space between two JSON tokens, which small models fall into.
_JSON_WHITESPACE = r"[ ]?|\n[ \t]{0,20}"
# Bounds the memory of one compiled structure to some 50 MB in the worst case (llguidance: 1-2 kB per state).
_MAX_LEXER_STATES = 25_000
_BYTES_PER_STATE = 2048
# What a compiled structure takes at least, and for each character of its text. Measured with llguidance 1.9 for the
# smallest (45 kB), for choices (28 bytes per character) and for properties (118).
_LEAST_BYTES = 64 * 1024
_BYTES_PER_CHAR = 128
_NUM_COMPILE_THREADS = 2
# llguidance's names for what it has no sentence for.
_STOP_REASONS = {
    "LexerTooComplex": "it is too complex: its texts have too many forms",
    "ParserTooComplex": "it is too complex: too many ways lead through it",
    "MaxTokensParser": "it is too complex: it takes too many steps",
}
# A busy machine may take this many times longer over a structure than its own processor time.
_PATIENCE = 6


@dataclass(eq=False)
class _Compiled:
    """A structure that was compiled, or the reason why it is refused. `num_tokens` have been matched with it."""

    outcome: LLMatcher | str
    num_chars: int
    num_tokens: int = 0

    @property
    def num_bytes(self) -> int:
        """About what it takes. It grows while answers follow it, since its copies share the states that they find."""
        if isinstance(self.outcome, str):
            return self.num_chars
        num_states = min(self.num_tokens, _MAX_LEXER_STATES)
        return _LEAST_BYTES + _BYTES_PER_CHAR * self.num_chars + _BYTES_PER_STATE * num_states


class TokenMatcher:
    """How far one answer is in its structure. Used by the engine's thread only."""

    def __init__(self, compiled: _Compiled) -> None:
        assert not isinstance(compiled.outcome, str)  # refused ones are never followed
        self._compiled = compiled
        self._matcher = compiled.outcome.deep_copy()

    @property
    def is_complete(self) -> bool:
        """Whether the structure is finished and nothing can be added."""
        return self._matcher.is_stopped() and not self._matcher.is_error()

    @property
    def error(self) -> str | None:
        """Why the structure cannot be followed any further, or None."""
        return self._matcher.get_error() if self._matcher.is_error() else None

    def constrain(self, logits: torch.Tensor) -> None:
        """Set what may not come next to minus infinity in `logits` [vocab], in place.

        Where other settings have forbidden everything that may, the structure wins and these are all alike.
        """
        allowed = torch.from_numpy(self.allowed(logits.shape[0])).to(logits.device)
        logits.masked_fill_(~allowed, float("-inf"))
        if logits.max() == float("-inf"):
            logits.masked_fill_(allowed, 0.0)

    def allowed(self, vocab_size: int) -> np.ndarray:
        """Boolean [vocab_size]: the tokens that may come next."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        allowed = np.unpackbits(bits, count=min(vocab_size, bits.size * 8), bitorder="little").astype(bool)
        return np.pad(allowed, (0, vocab_size - allowed.size))

    def accept(self, token_id: int) -> bool:
        """Go on past a token; False if it may not come here, and then `error` says why."""
        self._compiled.num_tokens += 1
        return self._matcher.consume_token(token_id)


class StructureCompiler:
    """Compiles structures for one model's tokens and keeps the latest `max_compiled` ones, as long as they take less
    than `max_bytes` together. Every method may be called by any thread.

    `tokenizer` gives llguidance's view of the vocabulary; it is called once, when the first structure comes, and is no
    part of the time limit, which counts the compiler's own processor time. A structure that is refused is remembered
    too, so that sending it again costs nothing.
    """

    def __init__(
        self,
        tokenizer: Callable[[], LLTokenizer],
        *,
        timeout_s: float = 5.0,
        max_compiled: int = 256,
        max_bytes: int = 256 * 1024**2,
    ) -> None:
        self._make_tokenizer = tokenizer
        self._tokenizer: LLTokenizer | None = None
        self._timeout_s = timeout_s
        self._max_compiled = max_compiled
        self._max_bytes = max_bytes
        self._compiled: OrderedDict[StructureSpec, _Compiled] = OrderedDict()
        self._lock = threading.Lock()
        self._tokenizer_lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(_NUM_COMPILE_THREADS)

    @property
    def num_compiled(self) -> int:
        """How many structures are kept, refused ones included."""
        return len(self._compiled)

    @property
    def num_bytes(self) -> int:
        """About what they take in memory."""
        with self._lock:
            return self._sum_bytes()

    def prepare(self, spec: StructureSpec) -> None:
        """Compile in a thread of its own, so that `matcher` answers at once.

        Raises RequestError for a structure that cannot be enforced, or that takes longer than the time limit, and
        OverloadedError when too many others are being compiled.
        """
        self._find(spec)

    def matcher(self, spec: StructureSpec) -> TokenMatcher:
        """A new matcher at the structure's beginning. Raises what `prepare` raises."""
        return TokenMatcher(self._find(spec))

    def _find(self, spec: StructureSpec) -> _Compiled:
        with self._lock:
            found = self._compiled.get(spec)
            if found is not None:
                self._compiled.move_to_end(spec)
        if found is None:
            found = self._compile_in_thread(spec)
        if isinstance(found.outcome, str):
            raise RequestError(f"{spec.kind}: {found.outcome}")
        return found

    def _compile_in_thread(self, spec: StructureSpec) -> _Compiled:
        try:
            tokenizer = self._shared_tokenizer()
        except ValueError as error:
            return _Compiled(_gist(str(error)), len(spec.text))
        # The compiler cannot be interrupted: one that takes too long ends by itself and keeps its slot until then.
        if not self._slots.acquire(timeout=self._timeout_s):
            raise OverloadedError("too many structures are being compiled: try again")
        thread = threading.Thread(target=self._compile, args=(spec, tokenizer), name="workbench-structure", daemon=True)
        thread.start()
        is_late = self._wait(thread)
        with self._lock:
            found = self._compiled.get(spec)
        if found is None and not is_late:
            raise OverloadedError("the machine is too busy to compile a structure: try again")
        return found or _Compiled(f"compiling it took longer than {self._timeout_s:g} s", len(spec.text))

    def _wait(self, thread: threading.Thread) -> bool:
        """Wait for a thread to end, or for its processor time or our patience to run out; whether the first did."""
        ends_s = time.monotonic() + self._timeout_s * _PATIENCE
        while thread.is_alive() and time.monotonic() < ends_s:
            thread.join(self._timeout_s / 10)
            if thread.is_alive() and _processor_seconds(thread) >= self._timeout_s:
                return True
        return False

    def _compile(self, spec: StructureSpec, tokenizer: LLTokenizer) -> None:
        try:
            outcome = _compiled(spec, tokenizer)
        except (ValueError, RecursionError) as error:
            outcome = _gist(str(error))
        finally:
            self._slots.release()
        with self._lock:
            self._compiled[spec] = _Compiled(outcome, len(spec.text))
            while len(self._compiled) > 1 and self._is_too_much():
                self._compiled.popitem(last=False)

    def _is_too_much(self) -> bool:
        return len(self._compiled) > self._max_compiled or self._sum_bytes() > self._max_bytes

    def _sum_bytes(self) -> int:
        return sum(kept.num_bytes for kept in self._compiled.values())

    def _shared_tokenizer(self) -> LLTokenizer:
        with self._tokenizer_lock:
            if self._tokenizer is None:
                self._tokenizer = self._make_tokenizer()
            return self._tokenizer


def _processor_seconds(thread: threading.Thread) -> float:
    """What a running thread has used; where the system does not tell, no limit but patience holds."""
    if thread.ident is None:
        return 0.0
    try:
        return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
    except (AttributeError, OSError):
        return 0.0


def token_vocabulary(tokenizer: Tokenizer, vocab_size: int, eos_token_ids: frozenset[int]) -> LLTokenizer:
    """llguidance's view of a model's tokens; `vocab_size` counts the model's output rows.

    Takes some tenths of a second. Raises ValueError for a tokenizer that it cannot read.
    """
    from llguidance.hf import from_tokenizer

    if not eos_token_ids:
        raise ValueError("this model has no end-of-sequence token, so its answers cannot be constrained")
    # A slow tokenizer, which llguidance's annotation leaves out, is refused by it in words.
    hf: Any = tokenizer.hf
    return from_tokenizer(hf, n_vocab=max(vocab_size, tokenizer.vocab_size), eos_token=sorted(eos_token_ids))


def _compiled(spec: StructureSpec, tokenizer: LLTokenizer) -> LLMatcher | str:
    """A matcher at the beginning, or the reason why this structure is refused."""
    from llguidance import LLMatcher, LLParserLimits

    limits = LLParserLimits(max_lexer_states=_MAX_LEXER_STATES, verbose_errors=False)
    matcher = LLMatcher(tokenizer, _grammar(spec), log_level=0, limits=limits)
    if matcher.is_error():
        return _reason(matcher)
    if matcher.is_stopped() and not matcher.is_accepting():
        return "it allows no answer at all"
    if warnings := matcher.get_grammar_warnings():
        return f"it cannot be enforced: {_gist(warnings[0])}"
    # Tried on a copy, since some limits and contradictions only show when the first token is looked for.
    probe = matcher.deep_copy()
    if not any(probe.compute_bitmask()) or probe.is_error():
        return _reason(probe)
    return matcher


def _grammar(spec: StructureSpec) -> str:
    from llguidance import LLMatcher

    options: JsonCompileOptions = {"whitespace_pattern": _JSON_WHITESPACE}
    match spec.kind:
        case StructureKind.JSON_SCHEMA if spec.text.strip() == "false":
            raise ValueError("it allows no answer at all")
        case StructureKind.JSON_SCHEMA:
            return LLMatcher.grammar_from_json_schema(spec.text, overrides=options)
        case StructureKind.JSON_OBJECT:
            return LLMatcher.grammar_from_json_schema({"type": "object"}, overrides=options)
        case StructureKind.REGEX:
            return LLMatcher.grammar_from_regex(spec.text)
        case StructureKind.GRAMMAR:
            return LLMatcher.grammar_from_lark(_as_lark(spec.text))


def _as_lark(grammar: str) -> str:
    """Lark as it is; GBNF, which is known by its "::=", translated."""
    if "::=" not in grammar:
        return grammar
    from llguidance.gbnf_to_lark import gbnf_to_lark

    try:
        return gbnf_to_lark(grammar)
    except Exception as error:  # the translator raises nothing more exact
        raise ValueError(str(error)) from error


def _reason(matcher: LLMatcher) -> str:
    words = _gist(matcher.get_error()) or matcher.stop_reason()
    # llguidance has a sentence for what is written wrongly, and a name for what leads nowhere.
    return "it allows no answer at all" if words.startswith("NoExtension") else _STOP_REASONS.get(words, words)


def _gist(message: str) -> str:
    """One line of a message that may show the place of an error on several."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    told = next((line for line in lines if line.startswith("error: ")), lines[0] if lines else "")
    return told.removeprefix("error: ")[:300]
