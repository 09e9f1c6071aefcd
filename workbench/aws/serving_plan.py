"""What a user wants to serve, in plain numbers. Knows neither models nor instances."""

from __future__ import annotations

from dataclasses import dataclass, fields

from workbench.errors import ConfigError

__all__ = ["ServingPlan"]


@dataclass(frozen=True)
class ServingPlan:
    """A model and a load.

    Attributes:
        weight_bytes: all weights as they lie in GPU memory; every decode step reads them once.
        kv_bytes_per_token: keys and values of one token over all layers.
        context_tokens: prompt and answer of one request.
        batch_size: requests served at the same time by the whole instance.
        tokens_per_second: generated tokens wanted from all requests together; None takes any speed.
        budget_usd_per_hour: most to pay for the instance; None for no limit.
        region: like "eu-west-1"; None is us-east-1, the region of the shipped prices.
        spot: price by spot instances, which EC2 may take back with two minutes' notice.
        num_parameters: for the limit by arithmetic; None leaves that limit out.
        num_layers, hidden_size: for the cost of splitting over GPUs; None leaves that cost out, and over PCIe splits no
            more than needed.
        num_kv_heads: a split over more GPUs than this keeps copies of the cache; None splits it evenly.
    """

    weight_bytes: int
    kv_bytes_per_token: int
    context_tokens: int
    batch_size: int = 1
    tokens_per_second: float | None = None
    budget_usd_per_hour: float | None = None
    region: str | None = None
    spot: bool = False
    num_parameters: int | None = None
    num_layers: int | None = None
    hidden_size: int | None = None
    num_kv_heads: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in ("region", "spot") or (value is None and field.default is None):
                continue
            kinds = (int, float) if field.name in ("tokens_per_second", "budget_usd_per_hour") else int
            if isinstance(value, bool) or not isinstance(value, kinds) or not value > 0:
                kind = "a number" if isinstance(kinds, tuple) else "an integer"
                raise ConfigError(f"{field.name}={value!r}: must be {kind} above 0")

    @property
    def kv_bytes_per_request(self) -> int:
        """Cache of one request at its full context."""
        return self.kv_bytes_per_token * self.context_tokens
