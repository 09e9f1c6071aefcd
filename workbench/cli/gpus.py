"""`workbench gpus`: the GPUs of this machine, who is on them, and how they are linked. Changes nothing."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.byte_size import byte_size
from workbench.telemetry.gpu_inventory import GPUInventory, ListedGPU, read_gpu_inventory

if TYPE_CHECKING:
    from rich.console import Console

    from workbench.telemetry.gpu_topology import GPUProcess

__all__ = ["command", "inventory_facts", "print_inventory"]


def command(
    ctx: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    inventory = read_gpu_inventory()
    if as_json:
        print(json.dumps(inventory_facts(inventory), indent=2))
    else:
        from rich.console import Console

        print_inventory(inventory, Console(highlight=False, markup=False, soft_wrap=True))


def inventory_facts(inventory: GPUInventory) -> dict[str, Any]:
    """Everything as plain values; bytes are bytes, links are between the driver's indexes."""
    return asdict(inventory)


def print_inventory(inventory: GPUInventory, console: Console) -> None:
    """The same for people."""
    if not inventory.gpus:
        console.print("This machine has no GPU that can be seen; models run on the CPU.")
    for gpu in inventory.gpus:
        console.print(f"{gpu.label}  {gpu.model}  {gpu.uuid or 'no UUID'}")
        console.print(f"  memory {byte_size(gpu.free_bytes)} free of {byte_size(gpu.total_bytes)}")
        for line in _process_lines(gpu):
            console.print(f"  {line}")
    if inventory.links:
        console.print()
        _print_links(inventory, console)
    for reason in inventory.reasons:
        console.print(reason)


def _process_lines(gpu: ListedGPU) -> list[str]:
    if gpu.processes is None:
        return ["who is on it is not known"]
    return [_in_words(process) for process in gpu.processes] or ["no process is on it"]


def _in_words(process: GPUProcess) -> str:
    mine = " (this process)" if process.is_this_process else ""
    used = "memory not told" if process.used_bytes is None else byte_size(process.used_bytes)
    return f"process {process.process_id} {process.name or '(name not told)'}{mine}: {used}"


def _print_links(inventory: GPUInventory, console: Console) -> None:
    from rich.table import Table

    linked = [gpu for gpu in inventory.gpus if gpu.driver_index is not None]
    table = Table("", *(gpu.label for gpu in linked), box=None, pad_edge=False)
    for row in linked:
        table.add_row(row.label, *(_short(inventory, row, column) for column in linked))
    console.print(table)
    for short, words in sorted({(link.short, link.words) for link in inventory.links}):
        console.print(f"{short}: {words}")


def _short(inventory: GPUInventory, row: ListedGPU, column: ListedGPU) -> str:
    if row is column:
        return "-"
    link = inventory.link(row, column)
    return "?" if link is None else link.short
