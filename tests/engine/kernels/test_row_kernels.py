"""Normalisation, activation, rotary embedding, matrix-vector products and the feeding of tokens against torch."""

import torch
import torch.nn.functional as F

from workbench.engine.kernels.copy_ints import copy_ints
from workbench.engine.kernels.feed_ids import feed_ids
from workbench.engine.kernels.gemv import gemv, gemv_gated
from workbench.engine.kernels.norm import add_rms_norm
from workbench.engine.kernels.rope_store import rope_and_store
from workbench.engine.kernels.silu_mul import silu_mul
from workbench.engine.kernels.table_rows import table_rows
from workbench.engine.low_bit_weight import LowBitKind, LowBitWeight


def rms_norm(x, weight, eps=1e-5):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_add_rms_norm(device):
    x, delta = torch.randn(2, 3, 96, device=device)
    weight = torch.randn(96, device=device)
    residual, out = x.clone(), torch.empty_like(x)
    add_rms_norm(residual, delta, weight, 1e-5, out)
    close(residual, x + delta)
    close(out, rms_norm(x + delta, weight))
    add_rms_norm(residual, None, weight, 1e-5, out)
    close(residual, x + delta)


def test_ints_go_to_a_device_and_back(device):
    on_gpu = device != "cpu"
    for count in (0, 1, 700, 20_000):
        host = torch.arange(count, dtype=torch.int32, pin_memory=on_gpu)
        back = torch.zeros(count, dtype=torch.int32, pin_memory=on_gpu)
        there = torch.zeros(count + 1, dtype=torch.int32, device=device)
        copy_ints(host, there[:count])
        copy_ints(there[:count], back)
        if on_gpu:
            torch.cuda.synchronize()
        assert torch.equal(back, host) and there[count] == 0


def test_silu_mul(device):
    gate_up = torch.randn(3, 1100, device=device)
    out = silu_mul(gate_up, gate_up.new_empty(3, 550))
    close(out, F.silu(gate_up[:, :550]) * gate_up[:, 550:])


def test_rows_of_a_table(device):
    table = LowBitWeight.pack(torch.randn(7, 1100, device=device), LowBitKind.INT8)
    ids = torch.tensor([6, 0, 0, 3], device=device)
    torch.testing.assert_close(table_rows(table, ids, torch.float32), table.dense(torch.float32)[ids])
    assert table_rows(table, ids.int(), torch.bfloat16).dtype is torch.bfloat16


def test_gemv_with_everything_around_it(device):
    x, norm = torch.randn(2, 300, device=device)
    weight, bias, before = (torch.randn(*s, device=device) for s in ((50, 300), (50,), (50,)))
    close(gemv(x, weight, x.new_empty(50)), weight @ x)
    close(gemv(x, weight, x.new_empty(50), bias=bias, norm=norm, eps=1e-5), weight @ rms_norm(x, norm) + bias)
    total = before.clone()
    close(gemv(x, weight, total, add_to=total), before + weight @ x)


def test_gemv_gated(device):
    x, norm = torch.randn(2, 300, device=device)
    gate_up = torch.randn(100, 300, device=device)
    gate, up = (gate_up @ rms_norm(x, norm)).split(50)
    out = gemv_gated(x, gate_up, x.new_empty(50), norm=norm, eps=1e-5)
    torch.testing.assert_close(out, F.silu(gate) * up, rtol=1e-3, atol=1e-3)


def rotated(x, cos, sin, positions):
    half, at = x.shape[-1] // 2, positions.long()
    turned = torch.cat((-x[..., half:], x[..., :half]), -1)
    return x * cos[at][:, None] + turned * sin[at][:, None]


def test_rope_and_store(device):
    heads, kv_heads, dim, rows = 5, 2, 16, 3
    for normed in (False, True):
        qkv = torch.randn(rows, (heads + 2 * kv_heads) * dim, device=device)
        angles = torch.rand(100, dim // 2, device=device).repeat(1, 2)
        cos, sin = angles.cos(), angles.sin()
        positions, slots = (torch.tensor(n, dtype=torch.int32, device=device) for n in ((7, 0, 99), (3, 33, 17)))
        norms = torch.randn(2, dim, device=device) if normed else (None, None)
        keys, values = torch.zeros(2, 4, 16, kv_heads, dim, device=device)
        q, k, v = qkv.clone().view(rows, -1, dim).split((heads, kv_heads, kv_heads), dim=1)
        if normed:
            q, k = rms_norm(q, norms[0]), rms_norm(k, norms[1])

        rope_and_store(
            qkv, cos, sin, positions, slots, keys, values, heads, query_norm=norms[0], key_norm=norms[1], eps=1e-5
        )
        close(qkv.view(rows, -1, dim)[:, :heads], rotated(q, cos, sin, positions))
        close(keys.flatten(0, 1)[slots.long()], rotated(k, cos, sin, positions))
        close(values.flatten(0, 1)[slots.long()], v)
        untouched = torch.ones(64, dtype=torch.bool)
        untouched[slots.long().cpu()] = False
        assert not keys.flatten(0, 1)[untouched.to(device)].any()


def test_feed_ids_takes_what_the_host_does_not_know_from_the_step_before(device):
    known, rows, chosen = (
        torch.tensor(n, dtype=torch.int32, device=device) for n in ((5, -1, 0, -1, -1), (0, 2, 0, 0, 1), (40, -1, 42))
    )
    assert feed_ids(known, rows, chosen, torch.empty_like(known)).tolist() == [5, 42, 0, 40, 0]
