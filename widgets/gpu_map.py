"""Every GPU of this machine as a card: memory, use, who is on it, why it can't be used, and how the GPUs are linked.

Click to choose. Loads nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import anywidget
import traitlets

from widgets.front_end import module_text, style_text
from widgets.live_plot import gpu_probes
from widgets.part import Part
from widgets.sight import Sight
from workbench.backends import BackendStatus, detect
from workbench.errors import ConfigError
from workbench.telemetry import ProcessorUse, Sampler
from workbench.telemetry.gpu_inventory import GPUInventory, read_gpu_inventory
from workbench.telemetry.gpu_topology import GPUProcess
from workbench.twin import Twin

__all__ = ["GPUMap"]

_BEAT_S = 2.0


class GPUMap(Part, anywidget.AnyWidget):
    """The GPUs of this machine, live while they can be seen; `chosen` are those that the user picked.

    `on_choose(backend, indexes)` is called after each pick. `statuses` are the backends (None: looked up), `sampler`
    reads the devices (None: one of its own, every two seconds), and `read_inventory` who is on them and how they are
    linked (None: NVIDIA's driver is asked). At most `most_chosen` are chosen: one more takes the
    place of the first.
    """

    _esm = module_text("gpu_map")
    _css = style_text()

    devices = traitlets.List().tag(sync=True)
    refusals = traitlets.List().tag(sync=True)
    # name -> {used_bytes, process_bytes, busy_percent}, those that are known.
    levels = traitlets.Dict().tag(sync=True)
    # name -> processes in words, where somebody says who is on a GPU.
    owners = traitlets.Dict().tag(sync=True)
    # {first, second, short, words}, the first two being names.
    links = traitlets.List().tag(sync=True)
    chosen = traitlets.List(traitlets.Unicode()).tag(sync=True)

    _forget: Callable[[], object] = staticmethod(lambda: None)
    _owns_sampler = False

    def __init__(
        self,
        on_choose: Callable[[str, tuple[int, ...]], None] | None = None,
        *,
        statuses: Sequence[BackendStatus] | None = None,
        sampler: Sampler | None = None,
        read_inventory: Callable[[], GPUInventory] | None = None,
        most_chosen: int | None = None,
    ) -> None:
        if on_choose is not None and not callable(on_choose):
            raise ConfigError(
                f"on_choose={on_choose!r}: must be a function of a backend and indexes; `choose` takes GPUs"
            )
        statuses = detect() if statuses is None else statuses
        self._on_choose = on_choose or (lambda backend, indexes: None)
        self._sight = Sight()
        self._most_chosen = most_chosen
        gpus = [status for status in statuses if status.backend.device_type != "cpu"]
        super().__init__(
            devices=[
                {
                    "name": f"{status.name}:{device.index}",
                    "label": device.name,
                    "architecture": device.architecture or "",
                    "total_bytes": device.total_bytes,
                    "used_bytes": device.total_bytes - device.free_bytes,
                    "dtypes": ", ".join(device.dtypes),
                    "uuid": device.uuid or "",
                }
                for status in gpus
                if status.available
                for device in status.devices
            ],
            refusals=[f"{status.name}: {status.reason}" for status in gpus if not status.available],
        )
        self._read_inventory = read_inventory or (lambda: read_gpu_inventory(statuses))
        self._owns_sampler = sampler is None
        self._sampler = sampler or Sampler(
            [*gpu_probes(statuses), ProcessorUse(statuses)], _BEAT_S, capacity=2, name="workbench-gpu-map"
        )
        if self.devices:
            inventory = self._read_inventory()
            self.links, self.owners = _links(inventory), _owners(inventory)
            self._forget = self._sampler.observe(self._on_beat)
            self._sampler.start()
        self.on_msg(self._receive)

    def choose(self, *names: str) -> None:
        """Choose GPUs by name ("cuda:0"), in place of those that were. Raises ConfigError for one that is not there."""
        known = [device["name"] for device in self.devices]
        wrong = [name for name in names if name not in known]
        if wrong:
            raise ConfigError(f"{wrong[0]!r} is not there; there are: {', '.join(known) or 'no GPUs'}")
        backends = {name.partition(":")[0] for name in names}
        if len(backends) > 1:
            raise ConfigError(f"GPUs of {' and '.join(sorted(backends))} can't be used together")
        self.chosen = [name for name in known if name in names]
        if names:
            self._on_choose(backends.pop(), tuple(int(name.partition(":")[2]) for name in self.chosen))

    def close(self) -> None:
        """Stop reading, and take the widget away."""
        self._forget()
        if self._owns_sampler:
            self._sampler.stop()
        super().close()

    def _on_beat(self, time_s: float) -> None:
        """Called by the sampler's thread."""
        if not self._sight.is_seen:
            return
        series = self._sampler.series
        self.levels = {
            device["name"]: {
                kind: series[f"{device['name']}_{kind}"].last
                for kind in ("used_bytes", "process_bytes", "busy_percent")
                if f"{device['name']}_{kind}" in series
            }
            for device in self.devices
        }
        self.owners = _owners(self._read_inventory())

    def _receive(self, _widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        if content.get("type") == "visible":
            self._sight.note(str(content.get("view")), bool(content.get("visible")))
        elif content.get("type") == "choose":
            name = str(content.get("name"))
            names = [n for n in self.chosen if n != name] if name in self.chosen else [*self.chosen, name]
            names = names[-self._most_chosen :] if self._most_chosen else names
            try:
                self.choose(*names)
            except ConfigError:
                self.send_state(["chosen"])

    def twin(self) -> Twin:
        """The GPUs by name and size, without what changes from minute to minute."""
        rows = tuple((d["name"], f"{d['label']}, {d['total_bytes'] / 1e9:.0f} GB") for d in self.devices)
        return Twin("GPUMap", rows or (("GPUs", "none can be used"),))


def _links(inventory: GPUInventory) -> list[dict[str, str]]:
    names = {gpu.driver_index: gpu.name for gpu in inventory.gpus if gpu.name is not None}
    return [
        {"first": names[link.first], "second": names[link.second], "short": link.short, "words": link.words}
        for link in inventory.links
        if link.first in names and link.second in names
    ]


def _owners(inventory: GPUInventory) -> dict[str, list[str]]:
    return {
        gpu.name: [_in_words(process) for process in gpu.processes]
        for gpu in inventory.gpus
        if gpu.name is not None and gpu.processes is not None
    }


def _in_words(process: GPUProcess) -> str:
    name = "this process" if process.is_this_process else process.name or "name not told"
    used = "memory not told" if process.used_bytes is None else f"{process.used_bytes / 1e9:.1f} GB"
    return f"{name} ({process.process_id}): {used}"
