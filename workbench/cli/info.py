"""`workbench info`: the machine as this installation sees it. Measures nothing, changes nothing."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

from workbench import __version__
from workbench.backends import Backend, BackendStatus, detect, select_backend
from workbench.byte_size import byte_size
from workbench.engine.engines import known_engines
from workbench.paths import home
from workbench.plugins import default_plugins
from workbench.quantize import parse_quant_type, probe_capabilities
from workbench.quantize.capabilities import known_capabilities, remember_capabilities
from workbench.quantize.quant_type import QUANTIZED_NAMES

__all__ = ["command", "machine_facts"]

_NOT_TRIED = "not tried yet here (workbench info --probe)"
_PACKAGES = (
    "torch",
    "transformers",
    "triton",
    "torchao",
    "bitsandbytes",
    "accelerate",
    "safetensors",
    "tokenizers",
    "huggingface_hub",
    "jupyterlab",
    "ipywidgets",
    "anywidget",
    "plotly",
    "gradio",
    "fastapi",
)


def command(
    ctx: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    probe: Annotated[
        bool, typer.Option("--probe", help="Try every quantisation on a small matrix first, and remember the results.")
    ] = False,
) -> None:
    statuses = detect()
    if probe:
        _probe(statuses)
    facts = machine_facts(statuses)
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        _print_facts(facts)


def machine_facts(statuses: list[BackendStatus]) -> dict[str, Any]:
    """Everything `info` shows as plain values; bytes are bytes, an absent package's version is None."""
    choice = select_backend(backends=[status.backend for status in statuses])
    return {
        "workbench": __version__,
        "system": platform.platform(),
        "python": platform.python_version(),
        "home": str(home()),
        "selected": {"backend": choice.backend.name, "reason": choice.reason},
        "backends": [_backend_facts(status) for status in statuses],
        # None for one that can be used.
        "engines": known_engines(default_plugins()),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _backend_facts(status: BackendStatus) -> dict[str, Any]:
    devices = [
        {
            **asdict(device),
            "default_dtype": asdict(status.backend.default_dtype(device.index)),
            "quantization": _quantization_facts(status.backend, device.index),
        }
        for device in status.devices
    ]
    return {"name": status.name, "available": status.available, "reason": status.reason, "devices": devices}


def _quantization_facts(backend: Backend, device_index: int) -> dict[str, str]:
    """By type what is known of it on a device, in words."""
    found = known_capabilities(backend.torch_device(device_index))
    facts = {}
    for name in QUANTIZED_NAMES:
        reason = parse_quant_type(name).unavailable_reason(backend.name)
        facts[name] = f"not: {reason}" if reason else found[name].in_words if name in found else _NOT_TRIED
    return facts


def _probe(statuses: list[BackendStatus]) -> None:
    for status in statuses:
        for device in status.devices:
            name = status.backend.torch_device(device.index)
            remember_capabilities(probe_capabilities(name, status.backend.default_dtype(device.index).dtype))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _print_facts(facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(f"workbench {facts['workbench']}, Python {facts['python']}, {facts['system']}")
    console.print(f"caches and settings in {facts['home']}")
    console.print(f"{facts['selected']['backend']} is used: {facts['selected']['reason']}\n")
    for backend in facts["backends"]:
        console.print(f"{backend['name']}: {'available' if backend['available'] else backend['reason']}")
        for device in backend["devices"]:
            _print_device(console, device)
    for name, obstacle in facts["engines"].items():
        console.print(f"engine {name}: {obstacle or 'available'}")
    table = Table("package", "version", box=None, pad_edge=False)
    for package, found in facts["packages"].items():
        table.add_row(package, found or "not installed")
    console.print()
    console.print(table)


def _print_device(console: Any, device: dict[str, Any]) -> None:
    console.print(f"  {device['index']}  {device['name']}, {device['num_cores']} cores, {device['architecture']}")
    free, total = byte_size(device["free_bytes"]), byte_size(device["total_bytes"])
    console.print(f"     memory {free} free of {total}; computes in {', '.join(device['dtypes'])}")
    choice = device["default_dtype"]
    console.print(f"     {choice['dtype']} by default: {choice['reason']}")
    known = {name: words for name, words in device["quantization"].items() if words != _NOT_TRIED}
    for name, words in known.items():
        console.print(f"     {name}: {words}")
    untried = [name for name in device["quantization"] if name not in known]
    if untried:
        console.print(f"     {', '.join(untried)}: {_NOT_TRIED}")
