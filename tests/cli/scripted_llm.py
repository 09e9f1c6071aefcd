"""A `LlamaGPU` whose replies are written down. What it hands out are the engine's own generations and chunks."""

from __future__ import annotations

from workbench.engine import Chunk, FinishReason, Generation
from workbench.engine.messages import Usage
from workbench.mailbox import Mailbox

INTERRUPT = object()


class ScriptedMailbox(Mailbox):
    """Raises KeyboardInterrupt where the script says INTERRUPT, as Ctrl-C does while a reply is waited for."""

    def get(self, timeout_s=None):
        chunk = super().get(timeout_s)
        if chunk is INTERRUPT:
            raise KeyboardInterrupt
        return chunk


class ScriptedLlama:
    """Answers each request with the next of `replies`: a list of pieces, INTERRUPT, and errors at the end."""

    def __init__(self, *replies) -> None:
        self._replies = list(replies)
        self.opened_with: dict = {}
        self.requests: list[dict] = []
        self.aborted: list[str] = []
        self.is_unloaded = False

    def open(self, **options):
        """The `open_llm` of the command line's services."""
        self.opened_with = options
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.is_unloaded = True

    def submit(self, prompt=None, *, messages=None, **sampling):
        reply = self._replies.pop(0)
        self.requests.append({"prompt": prompt, "messages": messages, "sampling": sampling})
        if isinstance(reply, Exception):
            raise reply
        mailbox = ScriptedMailbox()
        name, n = f"request-{len(self.requests)}", sampling["n"]
        generation = Generation(name, n, 1234, mailbox, lambda _: self._abort(name, mailbox))
        for index in range(n):
            _write(mailbox, name, index, reply)
        return generation

    def _abort(self, name, mailbox):
        self.aborted.append(name)
        mailbox.put(_last(name, 0, FinishReason.ABORT))


def _write(mailbox, name, index, reply):
    pieces = list(reply)
    if isinstance(pieces[-1], Exception):
        error = pieces.pop()
        last = Chunk(name, index, finish_reason=FinishReason.ERROR, error=error)
    else:
        last = _last(name, index, FinishReason.STOP)
    for position, piece in enumerate(pieces):
        mailbox.put(piece if piece is INTERRUPT else Chunk(name, index, text=piece, token_ids=(position,)))
        if piece is INTERRUPT:
            return
    mailbox.put(last)


def _last(name, index, reason):
    usage = Usage(
        num_prompt_tokens=7,
        num_generated_tokens=5,
        num_cached_tokens=2,
        submitted_s=10.0,
        first_token_s=10.25,
        finished_s=10.75,
    )
    return Chunk(name, index, finish_reason=reason, usage=usage)
