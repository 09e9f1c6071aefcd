"""Attention over a pool that keeps keys and values in 8 bits, by torch's own operators."""

import torch

from workbench.engine.attention import AttentionOptions, LayerShape
from workbench.engine.paged_step import ChunkRows, DecodeRows, KVPool, TorchStep

SHAPE = LayerShape(num_kv_heads=2, key_dim=16, value_dim=16)


def attend(dtype: torch.dtype, *, rounded: bool) -> torch.Tensor:
    """A prompt of 20 tokens and, beside it, one token behind another prompt's 5, whose block held infinities."""
    generator = torch.Generator().manual_seed(0)
    pool = KVPool({0: SHAPE}, 4, 16, dtype, "cpu")
    for tensor in (pool.keys[0], pool.values[0]):
        tensor.copy_(torch.full(tensor.shape, 448.0))
    pool.clear(torch.arange(4))
    new = [torch.randn(26, heads, 16, generator=generator) for heads in (4, 2, 2)]
    query, key, value = new if not rounded else [new[0], *(t.to(torch.float8_e4m3fn).float() for t in new[1:])]
    pool.write(0, torch.arange(5), key[:5], value[:5])
    slots = torch.cat((torch.tensor([5]), torch.arange(16, 36)))
    decode = DecodeRows(0, torch.tensor([0]), torch.tensor([6]))
    step = TorchStep(pool, slots, [decode], [ChunkRows(1, 20, 20, torch.tensor([1, 2]))])
    return step.attend(0, query[5:], key[5:], value[5:], AttentionOptions(scale=0.25))


def test_eight_bits_give_what_rounded_numbers_give() -> None:
    torch.testing.assert_close(attend(torch.float8_e4m3fn, rounded=False), attend(torch.float32, rounded=True))
