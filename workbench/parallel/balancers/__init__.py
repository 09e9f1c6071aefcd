"""Ways to choose who takes the next request, one a file. Pure code without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from workbench.errors import ConfigError
from workbench.parallel.balancers.adaptive import Adaptive
from workbench.parallel.balancers.base import Balancer, WorkerLoad
from workbench.parallel.balancers.least_loaded import LeastLoaded
from workbench.parallel.balancers.prefix_affinity import PrefixAffinity
from workbench.parallel.balancers.round_robin import RoundRobin
from workbench.plugins import Contribution, default_plugins, hookimpl

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

_KINDS = (RoundRobin, LeastLoaded, Adaptive, PrefixAffinity)
BALANCER_NAMES = tuple(kind.name for kind in _KINDS)


class _BuiltIn:
    @hookimpl
    def register_load_balancers(self, register: Callable[..., None]) -> None:
        for kind in _KINDS:
            register(kind.name, kind)


_BUILT_IN = _BuiltIn()


def _balancers() -> Mapping[str, Contribution]:
    """Our own and those of plugins, by name."""
    return default_plugins().at("load_balancers", _BUILT_IN)


def _lookup(name: str) -> Contribution | None:
    return default_plugins().lookup("load_balancers", name, _BUILT_IN)


def parse_balancer(name: object, field: str = "load_balancing") -> str:
    """The balancer's name; "round-robin" and enum members count too. Raises ConfigError listing the names."""
    text = str(getattr(name, "value", name)).strip().lower().replace("-", "_")
    # A plugin's name may have dashes, which ours have not.
    for each in (text, text.replace("_", "-")):
        if _lookup(each) is not None:
            return each
    raise ConfigError(f"{field}={name!r}: must be one of {', '.join(_balancers())}")


def make_balancer(name: object) -> Balancer:
    """A new balancer of that name, or the given one. Raises ConfigError listing the names."""
    return name if isinstance(name, Balancer) else _balancers()[parse_balancer(name)].value()
