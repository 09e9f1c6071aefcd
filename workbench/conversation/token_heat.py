"""How sure the model was of each token: what a heat map shows. Made from log-probabilities; knows no engine.

Token texts come as bytes, since several tokens can share one character.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Alternative", "ScoredToken", "TokenScore", "entropy_nats", "perplexity", "scored_tokens", "texts_of"]


class TokenScore(Protocol):
    """The engine's report of one token (`workbench.engine.TokenLogprobs`); log-probabilities are natural ones."""

    @property
    def token_id(self) -> int: ...
    @property
    def logprob(self) -> float: ...
    @property
    def top(self) -> tuple[tuple[int, float], ...]: ...


@dataclass(frozen=True)
class Alternative:
    """A token that could have stood there."""

    text: str
    logprob: float
    token_id: int | None = None

    @property
    def probability(self) -> float:
        """Between 0 and 1."""
        return math.exp(self.logprob)


@dataclass(frozen=True)
class ScoredToken:
    """One token of a text and how likely the model found it.

    `logprob` (natural) is None where nothing comes before it. `entropy_nats` is that of the model's choice, as far as
    the alternatives tell (a lower bound); None without alternatives. A token that ends inside of a character has an
    empty `text`: the one that completes the character shows it.
    """

    text: str
    logprob: float | None
    alternatives: tuple[Alternative, ...] = ()
    token_id: int | None = None

    @property
    def probability(self) -> float | None:
        """Between 0 and 1, None where the log-probability is."""
        return None if self.logprob is None else math.exp(self.logprob)

    @property
    def entropy_nats(self) -> float | None:
        """Entropy over the alternatives, with what they leave as one more."""
        return entropy_nats([alternative.logprob for alternative in self.alternatives])

    @property
    def rank(self) -> int | None:
        """1 for the likeliest token; None for one that is not among the alternatives."""
        ids = [alternative.token_id for alternative in self.alternatives]
        return ids.index(self.token_id) + 1 if self.token_id in ids and self.token_id is not None else None


def entropy_nats(logprobs: Sequence[float]) -> float | None:
    """Entropy of a distribution of which only the likeliest entries are known: never more than the true one."""
    if not logprobs:
        return None
    probabilities = [math.exp(logprob) for logprob in logprobs]
    rest = max(0.0, 1.0 - sum(probabilities))
    return -sum(p * math.log(p) for p in [*probabilities, rest] if p > 0)


def perplexity(tokens: Iterable[ScoredToken]) -> float | None:
    """The exponential of the mean negative log-probability; None where no token has one."""
    logprobs = [token.logprob for token in tokens if token.logprob is not None]
    return math.exp(-sum(logprobs) / len(logprobs)) if logprobs else None


def scored_tokens(
    scores: Sequence[TokenScore | None],
    bytes_of: Callable[[int], bytes],
    *,
    token_ids: Sequence[int] | None = None,
) -> tuple[ScoredToken, ...]:
    """Heat-map tokens from what the engine reports, one for each entry.

    `token_ids` are needed for a scored prompt, whose first entry is None. `bytes_of` spells a token.
    """
    ids = token_ids if token_ids is not None else [score.token_id for score in scores if score is not None]
    texts = texts_of([bytes_of(token_id) for token_id in ids])
    return tuple(
        ScoredToken(
            text=text,
            logprob=None if score is None else score.logprob,
            alternatives=() if score is None else _alternatives(score, bytes_of),
            token_id=token_id,
        )
        for token_id, text, score in zip(ids, texts, scores, strict=True)
    )


def texts_of(spellings: Sequence[bytes]) -> list[str]:
    """The text of each token such that they make up the whole: bytes of one character go to the token that ends it."""
    texts: list[str] = []
    open_bytes = b""
    for spelling in spellings:
        whole, open_bytes = _split_open(open_bytes + spelling)
        texts.append(whole.decode(errors="replace"))
    if open_bytes and texts:
        texts[-1] += open_bytes.decode(errors="replace")
    return texts


def _split_open(spelled: bytes) -> tuple[bytes, bytes]:
    """What can be shown, and the beginning of a character at its end."""
    for length in range(1, min(3, len(spelled)) + 1):
        lead = spelled[-length]
        # A lead byte says how many bytes its character has; what is no lead byte begins none.
        if 0xC0 <= lead < 0xF8:
            needed = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
            return (spelled[:-length], spelled[-length:]) if needed > length else (spelled, b"")
        if lead < 0x80 or lead >= 0xF8:
            break
    return spelled, b""


def _alternatives(score: TokenScore, bytes_of: Callable[[int], bytes]) -> tuple[Alternative, ...]:
    return tuple(
        Alternative(bytes_of(token_id).decode(errors="replace"), logprob, token_id) for token_id, logprob in score.top
    )
