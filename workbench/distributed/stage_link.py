"""The ways between the stages of a pipeline that compute with captured graphs: of hidden states to the stage after, and
of chosen tokens from the last stage to the first.

A graph reads and writes the same tensors at every replay, so transfers come from and go to copies of their own, between
the graphs. NCCL orders a transfer among the device's work by itself; gloo blocks whoever receives.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist

from workbench.distributed.place import Place
from workbench.distributed.tensor_group import reaching_peers

__all__ = ["StageLink"]

# One is sent while the next is computed.
_NUM_OUTGOING = 2


class StageLink:
    """Of one rank, for steps of at most `max_tokens` rows of `hidden_size` numbers, which choose at most `max_chosen`
    tokens; those of `num_slots` steps are kept. `tokens_group` has this rank's fellows of the first and the last stage.

    `incoming` [tokens, hidden] is None for the first stage, `fed` [slots * max_chosen] for all others.
    """

    def __init__(
        self, place: Place, max_tokens: int, hidden_size: int, dtype: torch.dtype, device: str,
        *, num_slots: int, max_chosen: int, tokens_group: dist.ProcessGroup | None,
    ) -> None:  # fmt: skip
        self._place = place
        self._tokens_group = tokens_group
        is_end = place.num_stages > 1 and (place.is_first_stage or place.is_last_stage)
        slots = torch.zeros(num_slots if is_end else 0, max_chosen, dtype=torch.int32, device=device)
        self._slots = list(slots.unbind())
        self._token_transfers: list[dist.Work | None] = [None] * len(self._slots)
        self.fed = slots.view(-1) if is_end and place.is_first_stage else None
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

    def await_tokens(self, slots: Sequence[int]) -> None:
        """For the first stage: have what comes after this on the device wait for the tokens of these slots."""
        with reaching_peers():
            for slot in slots if self.fed is not None else ():
                self._end_transfer(slot)

    def exchange_tokens(self, slot: int, chosen: torch.Tensor) -> None:
        """Bring the tokens [count] that a step chose from the last stage to a slot of the first one's. There `chosen`
        says how many; nobody waits for them before `await_tokens`."""
        if not self._slots or not len(chosen):
            return
        tokens = self._slots[slot][: len(chosen)]
        ranks = self._place.num_stages * self._place.tensor_size
        with reaching_peers():
            self._end_transfer(slot)
            if self._place.is_first_stage:
                last = ranks - self._place.tensor_size + self._place.tensor_rank
                self._token_transfers[slot] = dist.irecv(tokens, src=last, group=self._tokens_group)
            else:
                tokens.copy_(chosen)
                first = self._place.tensor_rank
                self._token_transfers[slot] = dist.isend(tokens, dst=first, group=self._tokens_group)

    def _end_transfer(self, slot: int) -> None:
        transfer, self._token_transfers[slot] = self._token_transfers[slot], None
        if transfer is not None:
            transfer.wait()
