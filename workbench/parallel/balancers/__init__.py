"""Ways to choose who takes the next request, one a file. Pure code without torch."""

from __future__ import annotations

from workbench.errors import ConfigError
from workbench.parallel.balancers.adaptive import Adaptive
from workbench.parallel.balancers.base import Balancer, WorkerLoad
from workbench.parallel.balancers.least_loaded import LeastLoaded
from workbench.parallel.balancers.prefix_affinity import PrefixAffinity
from workbench.parallel.balancers.round_robin import RoundRobin

__all__ = [
    "BALANCER_NAMES",
    "Adaptive",
    "Balancer",
    "LeastLoaded",
    "PrefixAffinity",
    "RoundRobin",
    "WorkerLoad",
    "make_balancer",
    "parse_balancer",
]

_BALANCERS: dict[str, type[Balancer]] = {
    kind.name: kind for kind in (RoundRobin, LeastLoaded, Adaptive, PrefixAffinity)
}
BALANCER_NAMES = tuple(_BALANCERS)


def parse_balancer(name: object, field: str = "load_balancing") -> str:
    """The balancer's name; "round-robin" and enum members count too. Raises ConfigError listing the names."""
    text = str(getattr(name, "value", name)).strip().lower().replace("-", "_")
    if text not in _BALANCERS:
        raise ConfigError(f"{field}={name!r}: must be one of {', '.join(BALANCER_NAMES)}")
    return text


def make_balancer(name: object) -> Balancer:
    """A new balancer of that name, or the given one. Raises ConfigError listing the names."""
    return name if isinstance(name, Balancer) else _BALANCERS[parse_balancer(name)]()
