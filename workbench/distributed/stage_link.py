"""The way of hidden states between the stages of a pipeline that compute with captured graphs.

A graph reads and writes the same tensors at every replay, so transfers come from and go to copies of their own, between
the graphs. NCCL orders a transfer among the device's work by itself; gloo blocks whoever receives.
"""

from __future__ import annotations

import torch
import torch.distributed as dist

from workbench.distributed.place import Place
from workbench.distributed.tensor_group import reaching_peers

__all__ = ["StageLink"]

# One is sent while the next is computed.
_NUM_OUTGOING = 2


class StageLink:
    """Of one rank, for steps of at most `max_tokens` rows of `hidden_size` numbers. `incoming` [tokens, hidden] is None
    for the first stage."""

    def __init__(self, place: Place, max_tokens: int, hidden_size: int, dtype: torch.dtype, device: str) -> None:
        self._place = place
        shape = (max_tokens, hidden_size)
        self.incoming = None if place.is_first_stage else torch.zeros(shape, dtype=dtype, device=device)
        num_outgoing = 0 if place.is_last_stage else _NUM_OUTGOING
        self._outgoing = [torch.empty(shape, dtype=dtype, device=device) for _ in range(num_outgoing)]
        self._sends: list[dist.Work | None] = [None] * num_outgoing
        self._turn = 0

    def receive(self, num_tokens: int) -> None:
        """Have the stage before fill the first rows of `incoming`."""
        if self.incoming is None:
            return
        with reaching_peers():
            dist.recv(self.incoming[:num_tokens], src=self._place.rank - self._place.tensor_size)

    def send(self, hidden: torch.Tensor) -> None:
        """Hand [tokens, hidden] to the stage after; the tensor may be written to at once."""
        if not self._outgoing:
            return
        self._turn = (self._turn + 1) % len(self._outgoing)
        work = self._sends[self._turn]
        outgoing = self._outgoing[self._turn][: len(hidden)]
        with reaching_peers():
            if work is not None:
                work.wait()
            outgoing.copy_(hidden)
            self._sends[self._turn] = dist.isend(outgoing, dst=self._place.rank + self._place.tensor_size)
