"""The device's sampler against a plain one over sorted probabilities."""

import torch

from workbench.engine.kernels.sample_tokens import sample_tokens


def expected_token(logits, temperature, top_k, top_p, min_p, draw):
    if temperature == 0:
        return int(logits.argmax())
    probs = (logits / temperature).softmax(-1)
    ordered = probs.sort(descending=True).values
    keep = torch.ones_like(probs, dtype=torch.bool)
    if top_k:
        keep &= probs >= ordered[int(top_k) - 1]
    if top_p < 1:
        within = ordered[: int(top_k)] / ordered[: int(top_k)].sum() if top_k else ordered
        count = int((within.cumsum(0) - within < top_p).sum())
        keep &= probs >= ordered[count - 1]
    keep &= probs >= min_p * ordered[0]
    cumulative = torch.where(keep, probs, 0.0).double().cumsum(0)
    return int((cumulative <= draw * cumulative[-1]).sum())


def test_every_setting(device):
    torch.manual_seed(1)
    settings = [
        (0.0, 0, 1.0, 0.0, 0.3),
        (1.0, 0, 1.0, 0.0, 0.3),
        (0.7, 10, 1.0, 0.0, 0.9),
        (1.0, 0, 0.8, 0.0, 0.5),
        (1.0, 0, 1.0, 0.2, 0.99),
        (1.3, 40, 0.9, 0.05, 0.65),
        (1.0, 1, 1.0, 0.0, 0.999),
    ]
    logits = torch.randn(len(settings), 700, device=device) * 3
    table = torch.tensor(settings, device=device)
    chosen = torch.empty(len(settings), dtype=torch.int32, device=device)
    sample_tokens(logits, table, chosen, greedy=False)
    assert chosen.tolist() == [expected_token(row.cpu(), *s) for row, s in zip(logits, settings, strict=True)]
    sample_tokens(logits, table, chosen, greedy=True)
    assert chosen.tolist() == logits.argmax(-1).tolist()


def test_equal_logits_give_the_first_and_nan_gives_minus_one(device):
    logits = torch.zeros(2, 700, device=device)
    logits[1, 421] = float("nan")
    chosen = torch.empty(2, dtype=torch.int32, device=device)
    sample_tokens(logits, torch.zeros(2, 5, device=device), chosen, greedy=False)
    assert chosen.tolist() == [0, -1]
