"""Which 16 levels the numbers of a group become, and the scale and zero point that read them back. Arithmetic only."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["MIDDLE_LEVEL", "RoundedGroups", "round_groups"]

# The kernels read level q as (q - 8) * scale + zero.
MIDDLE_LEVEL = 8
_LARGEST_LEVEL = 15
# Scales and zero points are bf16 in torch's kernels, on every device.
_SCALE_DTYPE = torch.bfloat16
# Shares of a group's range that the search tries: leaving out its ends rounds the rest more finely.
_SHARES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75)
_REFINEMENTS = 2
# Of the weights' squares: two percent of their size.
_GOOD_SHARE = 4e-4


@dataclass(frozen=True)
class RoundedGroups:
    """`levels` uint8 [rows, columns] from 0 to 15; `scales` and `zeros` bf16 [rows, groups]."""

    levels: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor


def round_groups(
    weight: torch.Tensor,
    group_size: int,
    *,
    symmetric: bool,
    search: bool,
    column_weights: torch.Tensor | None = None,
) -> RoundedGroups:
    """Round each group of a row to 16 levels between its ends, or to 15 around zero when `symmetric`.

    With `search` several narrower ranges are tried, each refined by least squares, and the one with the smallest
    squared error is taken; groups that fit exactly stay exact. `column_weights` [columns] says how much an error in
    each column counts: the mean square of what it will be multiplied with.
    """
    groups = weight.float().unflatten(1, (-1, group_size))
    if column_weights is None:
        column_weights = torch.ones(weight.shape[1], device=weight.device)
    # [1, groups, group_size], with a mean of one in each group
    counts = column_weights.float().view(1, -1, group_size)
    counts = counts / counts.mean(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    if symmetric:
        candidates = [_around_zero(groups, share) for share in (_SHARES if search else (1.0,))]
        return _best(groups, counts, candidates, lowest=1)
    low, high = groups.amin(-1), groups.amax(-1)
    candidates = [_between(low, high, 1.0)]
    if search and not _is_good(groups, counts, *candidates[0]):
        candidates += [_refined(groups, counts, *_between(low, high, share)) for share in _SHARES]
    return _best(groups, counts, candidates, lowest=0)


def _between(low: torch.Tensor, high: torch.Tensor, share: float) -> tuple[torch.Tensor, torch.Tensor]:
    middle, half = (high + low) / 2, (high - low) / 2 * share
    scales = 2 * half / _LARGEST_LEVEL
    return scales, middle - half + MIDDLE_LEVEL * scales


def _is_good(groups: torch.Tensor, counts: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor) -> bool:
    """Whether these ranges lose next to nothing, as where the weights were 4-bit groups before."""
    error = _squared_error(groups, counts, _as_stored(scales), _as_stored(zeros), lowest=0).sum()
    return bool(error < _GOOD_SHARE * (groups.square() * counts).sum())


def _around_zero(groups: torch.Tensor, share: float) -> tuple[torch.Tensor, torch.Tensor]:
    scales = groups.abs().amax(-1) * share / (MIDDLE_LEVEL - 1)
    return scales, torch.zeros_like(scales)


def _refined(
    groups: torch.Tensor, counts: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The line through (level, number) of each group by least squares, and again for the levels that it gives."""
    for _ in range(_REFINEMENTS):
        levels = _levels(groups, scales, zeros, lowest=0) - MIDDLE_LEVEL
        mean_level, mean = (levels * counts).mean(-1), (groups * counts).mean(-1)
        spread = levels - mean_level.unsqueeze(-1)
        variance = (spread.square() * counts).sum(-1)
        slope = (spread * groups * counts).sum(-1) / variance.clamp_min(1e-6)
        scales = torch.where((variance > 0) & (slope > 0), slope, scales)
        zeros = mean - scales * mean_level
    return scales, zeros


def _best(
    groups: torch.Tensor, counts: torch.Tensor, candidates: list[tuple[torch.Tensor, torch.Tensor]], lowest: int
) -> RoundedGroups:
    """For each group the candidate with the least squared error, judged with the rounded scales that kernels read."""
    scales, zeros = (_as_stored(numbers) for numbers in candidates[0])
    if len(candidates) > 1:
        errors = _squared_error(groups, counts, scales, zeros, lowest)
        for other in candidates[1:]:
            other_scales, other_zeros = (_as_stored(numbers) for numbers in other)
            other_errors = _squared_error(groups, counts, other_scales, other_zeros, lowest)
            is_better = other_errors < errors
            scales = torch.where(is_better, other_scales, scales)
            zeros = torch.where(is_better, other_zeros, zeros)
            errors = torch.minimum(errors, other_errors)
    levels = _levels(groups, scales, zeros, lowest).to(torch.uint8).flatten(1)
    return RoundedGroups(levels, scales.to(_SCALE_DTYPE), zeros.to(_SCALE_DTYPE))


def _as_stored(numbers: torch.Tensor) -> torch.Tensor:
    return numbers.to(_SCALE_DTYPE).float()


def _squared_error(
    groups: torch.Tensor, counts: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, lowest: int
) -> torch.Tensor:
    levels = _levels(groups, scales, zeros, lowest)
    read = levels.sub_(MIDDLE_LEVEL).mul_(scales.unsqueeze(-1)).add_(zeros.unsqueeze(-1))
    return read.sub_(groups).square_().mul_(counts).sum(-1)


def _levels(groups: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, lowest: int) -> torch.Tensor:
    tiny = torch.finfo(_SCALE_DTYPE).tiny
    levels = (groups - zeros.unsqueeze(-1)) / scales.clamp_min(tiny).unsqueeze(-1)
    return levels.round_().add_(MIDDLE_LEVEL).clamp_(lowest, _LARGEST_LEVEL)
