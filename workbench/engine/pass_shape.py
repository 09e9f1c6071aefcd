"""How a pass over the model is cut and padded, so that a row has the same bits whatever else is computed.

On a CPU, libraries sum a product in other orders for a few rows and for many. A token's last bits, and with them a
draw, would depend on how many answers run. Within one order nothing depends on it. Knows no model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["PassShape", "pass_shape"]

# torch's attention takes so many keys at a time; shorter rests come in steps, so that few lengths occur.
_KEYS_AT_ONCE = 512
_KEY_STEP = 64


@dataclass(frozen=True)
class PassShape:
    """From `least_rows` to `most_rows` (None: any number) tokens a pass.

    In attention, queries of one head come in multiples of `query_rows`. With `fixed_positions` the keys that they see
    are padded to lengths that are summed alike.
    """

    least_rows: int = 1
    most_rows: int | None = None
    query_rows: int = 1
    fixed_positions: bool = False

    def num_positions(self, length: int, block_size: int) -> int:
        """How many keys, padding included, attention over `length` tokens reads: a multiple of `block_size`."""
        blocks = -(-length // block_size)
        if not self.fixed_positions:
            return blocks * block_size
        # MKL cuts a sum over more than half of them in another place than one over all.
        rest = (length - 1) % _KEYS_AT_ONCE + 1
        padded = _KEYS_AT_ONCE if rest > _KEYS_AT_ONCE // 2 else -(-rest // _KEY_STEP) * _KEY_STEP
        return -(-(length - rest + padded) // block_size) * block_size


# oneDNN in bfloat16 has an order for one row, one for up to 32, and one for more: seen on a Xeon with AMX for matrices
# of 192 to 49,152 rows; the one row apart was seen on an EPYC. MKL in float32 has one for up to 15 rows, one for 16 to
# 56 and one for more, and attention's products go by them too: seen on a Xeon with AVX-512, with 1 and 2 threads, for
# matrices of 64 to 49,152 rows of 64 to 8,192 numbers and heads of 16 to 128 numbers. float16 has orders of its own,
# and the same between these numbers.
_IN_MANY_ORDERS = PassShape(least_rows=16, most_rows=48, query_rows=16, fixed_positions=True)
_OF_A_CPU = {
    torch.bfloat16: PassShape(least_rows=2, most_rows=32),
    torch.float16: _IN_MANY_ORDERS,
    torch.float32: _IN_MANY_ORDERS,
}


def pass_shape(device: str, dtype: torch.dtype | None) -> PassShape:
    """For a model whose numbers are `dtype` on `device`, by torch's operators."""
    return _OF_A_CPU.get(dtype, PassShape()) if device == "cpu" and dtype is not None else PassShape()
