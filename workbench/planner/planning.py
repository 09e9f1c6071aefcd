"""`plan`: what a model would take and how fast it would be here, from its config and headers alone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from workbench.backends import Backend
from workbench.engine import EngineConfig
from workbench.engine.config import OVER_SEVERAL_DEVICES
from workbench.errors import ConfigError
from workbench.models.vocabulary import check_vocabulary_sizes
from workbench.parallel import GPUConfig
from workbench.parallel.config import ParallelShape
from workbench.planner.advice import advise
from workbench.planner.calibration import Calibration
from workbench.planner.estimate import RatesOf, build_plan
from workbench.planner.inputs import PlanInputs, checked_count, resolve_kv_dtype, resolve_quant
from workbench.planner.layout import parse_parallel
from workbench.planner.model_shape import ModelShape, read_model_shape
from workbench.planner.result import Plan
from workbench.planner.roofline import known_rates
from workbench.planner.target import Target, find_targets, host_target, instance_targets, spare_targets
from workbench.quantize import QuantizationType, QuantType, parse_quant_type
from workbench.stand_in import find_stand_in

__all__ = ["plan"]


def plan(
    model: str | os.PathLike[str] | ModelShape = "default",
    *,
    backend: str | Backend | None = None,
    gpus: int | Sequence[int | str] | None = None,
    quant: str | None = None,
    context: int | None = None,
    batch: int = 1,
    kv_dtype: str | None = None,
    cpu_offload_layers: int | None = None,
    draft_model: str | os.PathLike[str] | ModelShape | None = None,
    parallel: str | GPUConfig | ParallelShape | Mapping[str, int] | None = None,
    prompt_tokens: int = 512,
    instance: str | None = None,
    memory_fraction: float | None = None,
    reclaim_bytes: int = 0,
    rates_of: RatesOf = known_rates,
    calibration: Calibration | None = None,
) -> Plan:
    """What loading `model` this way would take, whether it fits now, how fast it would be, and what would help.

    Args:
        model: anything that `LlamaGPU` takes, or a shape that was read before. Of a hub model only its config and the
            headers of its files are read. Where `WORKBENCH_MODEL` names another, that is planned as it would be loaded.
        backend: "cpu", "cuda" or "rocm"; None for the one that would be chosen.
        gpus: how many, or a list of indexes or UUIDs; None for the first one.
        quant: precision or quantisation of the weights, as `LlamaGPU(quant_type=...)`.
        context: most tokens of one request, prompt and answer; None for as many as the model allows and fit.
        batch: requests at the same time, each of the full context.
        kv_dtype: precision of keys and values; None for that of the weights' computation.
        cpu_offload_layers: the weights of so many layers stay in the host's memory, as with `EngineConfig`.
        draft_model: a model that guesses ahead, as with `EngineConfig`: what its weights and its cache take is counted,
            what it gains is not known before it runs.
        parallel: over several GPUs, or with the backend "cpu" over processes that share its cores and memory: a
            strategy's name, sizes such as {"tensor": 2, "data": 2}, or a GPUConfig. None splits every layer over all of
            `gpus`.
        prompt_tokens: length of the prompt that the time to the first token is for.
        instance: an EC2 instance type to plan for, in place of this machine.
        memory_fraction: share of a GPU that the engine may take; None for the engine's default.
        reclaim_bytes: bytes on each device that will be given back before the load, such as a loaded model's.
        rates_of: gives a device's rates; by default those measured here before, else a data sheet's.
        calibration: corrections by earlier runs; None for what this machine remembers, `Calibration()` for none.

    Raises ConfigError, ModelNotFoundError, DownloadError, ModelFormatError (also for an architecture that cannot be
    loaded), BackendUnavailableError and GPUUnavailableError for devices that are not there.
    """
    stand_in = (
        None
        if isinstance(model, ModelShape)
        else find_stand_in(os.fspath(model), backend=backend, quant_type=quant, context_length=context)
    )
    if stand_in is not None:
        model, context = stand_in.model, stand_in.context_length
        if instance is None:
            # What was given as a word stays one.
            assert stand_in.quant_type is None or isinstance(stand_in.quant_type, str)
            # As in a load: what this machine lacks, and what was sized for the other model, is chosen anew.
            backend, quant, gpus, parallel, kv_dtype = stand_in.backend, stand_in.quant_type, None, None, None
            cpu_offload_layers = draft_model = None
    checked_count("batch", batch)
    checked_count("prompt_tokens", prompt_tokens)
    if context is not None:
        checked_count("context", context)
    if cpu_offload_layers is not None:
        checked_count("cpu_offload_layers", cpu_offload_layers)
    gpu_ids, sizes = parse_parallel(parallel, gpus)
    targets = _targets(backend, gpus, gpu_ids, instance, sizes)
    resolved, dtype = resolve_quant(quant, targets[0])
    if cpu_offload_layers is not None and not targets[0].is_gpu:
        raise ConfigError(f"cpu_offload_layers={cpu_offload_layers}: on a CPU every layer is in the host's memory")
    if cpu_offload_layers is not None and resolved.config is not None:
        raise ConfigError(f"cpu_offload_layers={cpu_offload_layers}: goes with fp32, bf16 and fp16, not with {quant}")
    is_packed = resolved.config is not None and resolved.config.quantization_type is QuantizationType.GGUF
    shape = model if isinstance(model, ModelShape) else read_model_shape(model, packed=is_packed)
    if is_packed and not shape.is_gguf:
        raise ConfigError(f"quant={quant!r}: {shape.name} has no .gguf file whose weights could be used as they are")
    if context is not None and context > shape.spec.max_context:
        raise ConfigError(f"context={context}: the model was trained for at most {shape.spec.max_context} tokens")
    draft = None if draft_model is None else _draft(draft_model, shape, targets, dtype)
    inputs = PlanInputs(
        shape=shape,
        targets=targets,
        host=targets[0] if len(targets) == 1 and not targets[0].is_gpu else _host(instance),
        sizes=sizes,
        quant=resolved,
        dtype=dtype,
        kv_dtype=resolve_kv_dtype(kv_dtype, dtype, targets[0].backend_name),
        context=context,
        batch=batch,
        prompt_tokens=prompt_tokens,
        memory_fraction=EngineConfig().memory_fraction if memory_fraction is None else memory_fraction,
        reclaim_bytes=reclaim_bytes,
        arguments=_arguments(
            shape.name, targets, gpu_ids, resolved.name, batch, kv_dtype, cpu_offload_layers, draft, sizes, instance
        ),
        host_layers=cpu_offload_layers or 0,
        draft=draft,
    )
    learnt = Calibration.read() if calibration is None else calibration

    def build(inputs: PlanInputs) -> Plan:
        return build_plan(inputs, rates_of, learnt)

    made = build(inputs)
    return replace(made, advice=advise(inputs, made, build, spare_targets(targets, backend, instance)))


def _draft(
    model: str | os.PathLike[str] | ModelShape, target: ModelShape, devices: tuple[Target, ...], dtype: str
) -> tuple[ModelShape, QuantType]:
    """The shape of a draft model and how its weights are kept. Raises ConfigError where it cannot guess."""
    is_packed = not devices[0].is_gpu
    shape = model if isinstance(model, ModelShape) else read_model_shape(model, packed=is_packed)
    if len(devices) > 1:
        raise ConfigError(f"draft_model={shape.name!r}: {OVER_SEVERAL_DEVICES}; leave it out")
    check_vocabulary_sizes(target.name, target.spec.vocab_size, shape.name, shape.spec.vocab_size)
    return shape, parse_quant_type("gguf" if shape.is_gguf and is_packed else dtype)


def _targets(
    backend: str | Backend | None,
    gpus: int | Sequence[int | str] | None,
    gpu_ids: list[int | str] | None,
    instance: str | None,
    sizes: ParallelShape,
) -> tuple[Target, ...]:
    name = backend.name if isinstance(backend, Backend) else backend
    if name == "cpu" and gpus is None:
        # As in a load: what a config calls ids then only counts processes.
        host = _host(instance)
        count = sizes.tensor * sizes.pipeline * sizes.data
        return (host,) if count == 1 else tuple(replace(host, label=f"cpu:{index}") for index in range(count))
    if instance is not None:
        return instance_targets(instance, backend, None if gpu_ids is None else len(gpu_ids))
    return find_targets(backend, gpu_ids)


def _host(instance: str | None) -> Target:
    return host_target() if instance is None else instance_targets(instance, "cpu", None)[0]


def _arguments(
    model: str,
    targets: tuple[Target, ...],
    gpu_ids: list[int | str] | None,
    quant: str,
    batch: int,
    kv_dtype: str | None,
    cpu_offload_layers: int | None,
    draft: tuple[ModelShape, QuantType] | None,
    sizes: ParallelShape,
    instance: str | None,
) -> Mapping[str, Any]:
    split = {"tensor": sizes.tensor, "pipeline": sizes.pipeline, "data": sizes.data}
    arguments = {
        "model": model,
        "backend": targets[0].backend_name,
        "gpus": gpu_ids if targets[0].is_gpu else None,
        "quant": quant,
        "batch": batch,
        "kv_dtype": kv_dtype,
        "cpu_offload_layers": cpu_offload_layers,
        "draft_model": None if draft is None else draft[0].source.text,
        "parallel": split if len(targets) > 1 else None,
    }
    return MappingProxyType(arguments if instance is None else {**arguments, "instance": instance})
