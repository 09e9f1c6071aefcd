"""How a model lies on several devices: which share of its weights, cache and requests each one gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from workbench.errors import ConfigError
from workbench.parallel import GPUConfig
from workbench.parallel.config import ParallelShape
from workbench.parallel.head_shares import tensor_sizes
from workbench.planner.model_shape import ModelShape
from workbench.planner.weight_shape import WeightRole, WeightShape, merge_alike

__all__ = ["DeviceShare", "lay_out", "parse_parallel"]

_SIZES = ("tensor", "pipeline", "data")


@dataclass(frozen=True)
class DeviceShare:
    """What one device holds. `whole` are weights that it has all of, `split` those of which it has one part in
    `tensor`, `on_host` those that stay in the host's memory and are copied for each step; `layers` are those it
    computes, `kv_heads` the cache's heads of each, `batch` the requests it serves."""

    whole: tuple[WeightShape, ...]
    split: tuple[WeightShape, ...]
    layers: range
    kv_heads: int
    batch: int
    tensor: int
    has_head: bool
    on_host: tuple[WeightShape, ...] = ()

    @property
    def weights(self) -> tuple[WeightShape, ...]:
        """Everything that it computes with, in whole or in part."""
        return self.whole + self.split + self.on_host


def parse_parallel(
    parallel: object, gpus: int | Sequence[int | str] | None
) -> tuple[list[int | str] | None, ParallelShape]:
    """The GPUs and the sizes that `plan` was given. `parallel` is None, a strategy's name, a GPUConfig, a ParallelShape
    or a mapping such as {"tensor": 2, "data": 2}.

    Raises ConfigError that names the field, the value and what is allowed.
    """
    if isinstance(parallel, GPUConfig):
        if gpus is not None and _ids(gpus) != parallel.gpu_ids:
            raise ConfigError(f"gpus={gpus!r}: parallel names {parallel.gpu_ids} already; give one of the two")
        return list(parallel.gpu_ids), parallel.shape
    ids = _ids(gpus)
    if isinstance(parallel, str):
        config = GPUConfig(ids if ids is not None else [0, 1], parallel)
        return list(config.gpu_ids), config.shape
    if parallel is None:
        return ids, ParallelShape(tensor=1 if ids is None else len(ids))
    shape = parallel if isinstance(parallel, ParallelShape) else _shape(parallel)
    count = shape.tensor * shape.pipeline * shape.data
    if ids is not None and len(ids) != count:
        raise ConfigError(f"parallel={parallel!r}: its sizes multiply to {count}, and gpus names {len(ids)}")
    return (list(range(count)) if ids is None and count > 1 else ids), shape


def lay_out(shape: ModelShape, sizes: ParallelShape, batch: int, host_layers: int = 0) -> list[DeviceShare]:
    """One share a device, in the order replica, stage, rank; the last `host_layers` stay in the host's memory.

    Raises ConfigError where heads or layers cannot be dealt out that way, with the sizes that can.
    """
    spec = shape.spec
    fitting = tensor_sizes(spec.num_heads, spec.num_kv_heads)
    if sizes.tensor not in fitting:
        raise ConfigError(
            f"parallel: tensor={sizes.tensor} does not deal out the model's {spec.num_heads} heads and "
            f"{spec.num_kv_heads} KV heads; allowed: {', '.join(map(str, fitting))}"
        )
    if sizes.pipeline > spec.num_layers:
        raise ConfigError(f"parallel: pipeline={sizes.pipeline} is more than the model's {spec.num_layers} layers")
    if host_layers > spec.num_layers:
        raise ConfigError(f"cpu_offload_layers={host_layers}: the model has {spec.num_layers} layers")
    if host_layers and sizes.tensor * sizes.pipeline * sizes.data > 1:
        raise ConfigError(f"cpu_offload_layers={host_layers}: goes with one GPU; leave out parallel")
    stages = _stages(spec.num_layers, sizes.pipeline)
    shares = []
    for replica in range(sizes.data):
        requests = batch // sizes.data + (replica < batch % sizes.data)
        for stage in stages:
            shares += [_share(shape, sizes, stage, requests, spec.num_layers - host_layers)] * sizes.tensor
    return shares


def _share(shape: ModelShape, sizes: ParallelShape, layers: range, batch: int, first_on_host: int) -> DeviceShare:
    is_first, is_last = layers.start == 0, layers.stop == shape.spec.num_layers
    whole: list[WeightShape] = []
    split: list[WeightShape] = []
    on_host: list[WeightShape] = []
    for weight in shape.weights:
        if not _belongs(weight, layers, is_first, is_last, shape.has_own_head):
            continue
        if weight.layer is not None and weight.layer >= first_on_host:
            on_host.append(weight)
            continue
        # Norms and biases are small and every rank has them; so is the input table where it is only looked up.
        stays = weight.role is WeightRole.SMALL or (weight.role is WeightRole.TABLE and shape.has_own_head)
        (whole if stays or sizes.tensor == 1 else split).append(weight)
    return DeviceShare(
        merge_alike(whole),
        merge_alike(split),
        layers,
        -(-shape.spec.num_kv_heads // sizes.tensor),
        batch,
        sizes.tensor,
        is_last,
        merge_alike(on_host),
    )


def _belongs(weight: WeightShape, layers: range, is_first: bool, is_last: bool, has_own_head: bool) -> bool:
    if weight.layer is not None:
        return weight.layer in layers
    if weight.role is WeightRole.TABLE:
        return is_first if has_own_head else is_last
    return is_last


def _stages(num_layers: int, num_stages: int) -> list[range]:
    bounds = [round(num_layers * stage / num_stages) for stage in range(num_stages + 1)]
    return [range(start, stop) for start, stop in zip(bounds, bounds[1:], strict=False)]


def _ids(gpus: int | Sequence[int | str] | None) -> list[int | str] | None:
    if gpus is None:
        return None
    if isinstance(gpus, bool) or (isinstance(gpus, int) and gpus < 1):
        raise ConfigError(f"gpus={gpus!r}: must be how many, from 1 on, or a list of indexes or UUIDs")
    if isinstance(gpus, int):
        return list(range(gpus))
    try:
        return list(GPUConfig(gpus, "data").gpu_ids)
    except ConfigError as error:
        raise ConfigError(str(error).replace("gpu_ids", "gpus", 1)) from None


def _shape(parallel: object) -> ParallelShape:
    if not isinstance(parallel, Mapping) or set(parallel) - set(_SIZES):
        raise ConfigError(
            f"parallel={parallel!r}: must be a strategy's name (tensor, pipeline, data, hybrid), a GPUConfig, or sizes "
            "such as {'tensor': 2, 'pipeline': 1, 'data': 1}"
        )
    for name, size in parallel.items():
        if type(size) is not int or size < 1:
            raise ConfigError(f"parallel: {name}={size!r}: must be an integer of at least 1")
    return ParallelShape(**parallel)
