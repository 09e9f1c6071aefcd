"""What one device needs, part by part, in bytes: weights, cache, activations, workspace, graphs, and what the process
takes whatever the model. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from workbench.backends import dtype_bytes
from workbench.planner.layout import DeviceShare
from workbench.planner.model_shape import ModelShape
from workbench.planner.weight_bytes import total_bytes
from workbench.planner.weight_shape import WeightRole
from workbench.quantize import QuantizationType, QuantType

__all__ = [
    "BLOCK_TOKENS",
    "CONTEXT_BYTES",
    "CPU_PROCESS_BYTES",
    "MemoryParts",
    "Workload",
    "device_memory",
    "host_load_peak",
    "kv_bytes_per_token",
    "with_draft",
]

_MIB = 1024**2
# The engine's own defaults (`engine/config.py`, `engine/build.py`), held against them by a test.
BLOCK_TOKENS = 16
_CPU_STEP_TOKENS, _GPU_STEP_TOKENS = 512, 8192
_CPU_MAX_SEQS, _GPU_MAX_SEQS = 32, 256
_SAMPLER_COPIES = 3
_NUM_GRAPHS = 43
# A captured graph holds its launches: about this much each, by the driver's figure before and after capture.
_GRAPH_NODE_BYTES = 4096
_NODES_PER_LAYER = 8
# What the matrix library keeps on a GPU, and what an allocator keeps of blocks that do not fit exactly.
_GPU_LIBRARY_BYTES = 96 * _MIB
_SLACK_SHARE = 0.1
_CPU_LIBRARY_BYTES = 24 * _MIB
# Python with torch and transformers, engine running, as resident size; a CUDA context with its kernels on the device,
# and the driver's part in the host's memory.
CPU_PROCESS_BYTES = 450 * 10**6
CONTEXT_BYTES = 520 * _MIB
_CUDA_HOST_BYTES = 2200 * 10**6
_READ_CHUNK_BYTES = 16 * _MIB

_KV_BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "fp8": 1.0}


@dataclass(frozen=True)
class MemoryParts:
    """Bytes on one device."""

    weights: int
    kv: int
    activations: int
    workspace: int
    graphs: int
    overhead: int

    @property
    def total(self) -> int:
        """All parts together."""
        return sum(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True)
class Workload:
    """What is asked of the model: `batch` requests at once, each of at most `context` tokens (prompt and answer)."""

    context: int
    batch: int
    quant: QuantType
    dtype: str
    kv_dtype: str


def kv_bytes_per_token(
    shape: ModelShape, kv_dtype: str, kv_heads: int | None = None, num_layers: int | None = None
) -> int:
    """Cache of one token, over all layers or over `num_layers` of them with `kv_heads` each."""
    heads = shape.spec.num_kv_heads if kv_heads is None else kv_heads
    layers = shape.spec.num_layers if num_layers is None else num_layers
    return int(layers * heads * (shape.key_dim + shape.value_dim) * _KV_BYTES[kv_dtype])


def device_memory(shape: ModelShape, share: DeviceShare, work: Workload, *, on_gpu: bool) -> MemoryParts:
    """The parts on a device that holds `share`."""
    weights = total_bytes(shape, work.quant, work.dtype, share.whole, on_gpu=on_gpu)
    weights += total_bytes(shape, work.quant, work.dtype, share.split, on_gpu=on_gpu) // share.tensor
    # Of what stays in the host's memory one matrix at a time is here.
    copies = (total_bytes(shape, work.quant, work.dtype, (replace(one, count=1),)) for one in share.on_host)
    weights += max(copies, default=0)
    blocks = share.batch * -(-work.context // BLOCK_TOKENS) + 1
    kv = blocks * BLOCK_TOKENS * kv_bytes_per_token(shape, work.kv_dtype, share.kv_heads, len(share.layers))
    activations = _activations(shape, share, work, on_gpu)
    graphs = _graph_bytes(len(share.layers)) if on_gpu else 0
    workspace = _workspace(share, work, activations, on_gpu)
    return MemoryParts(weights, kv, activations, workspace, graphs, CONTEXT_BYTES if on_gpu else CPU_PROCESS_BYTES)


def with_draft(parts: MemoryParts, shape: ModelShape, quant: QuantType, work: Workload, *, on_gpu: bool) -> MemoryParts:
    """A device's parts when it holds a draft model too, whose cache has as many tokens; its steps are smaller."""
    tokens = (work.batch * -(-work.context // BLOCK_TOKENS) + 1) * BLOCK_TOKENS
    return replace(
        parts,
        weights=parts.weights + total_bytes(shape, quant, work.dtype),
        kv=parts.kv + tokens * kv_bytes_per_token(shape, work.dtype),
        graphs=parts.graphs + (_graph_bytes(shape.spec.num_layers) if on_gpu else 0),
    )


def _graph_bytes(num_layers: int) -> int:
    return _NUM_GRAPHS * _NODES_PER_LAYER * num_layers * _GRAPH_NODE_BYTES


def host_load_peak(shape: ModelShape, work: Workload, share: DeviceShare, *, on_gpu: bool) -> int:
    """Most of the host's memory while the model is loaded: on a CPU the model itself, on a GPU what passes through and
    what stays of the device's `share`."""
    if on_gpu:
        return _CUDA_HOST_BYTES + _READ_CHUNK_BYTES + total_bytes(shape, work.quant, work.dtype, share.on_host)
    plain = total_bytes(shape, _unquantized(work.quant), work.dtype)
    if work.quant.config is None:
        return CPU_PROCESS_BYTES + plain + _READ_CHUNK_BYTES
    if work.quant.config.quantization_type is QuantizationType.GGUF:
        return CPU_PROCESS_BYTES + total_bytes(shape, work.quant, work.dtype) + _READ_CHUNK_BYTES
    # A matrix that is packed is there three times: as it was, its magnitudes, and as it becomes.
    largest = max(weight.num_elements for weight in shape.weights)
    return CPU_PROCESS_BYTES + plain + largest * (dtype_bytes(work.dtype) + 1)


def _unquantized(quant: QuantType) -> QuantType:
    return QuantType(quant.name, quant.dtype, None)


def _activations(shape: ModelShape, share: DeviceShare, work: Workload, on_gpu: bool) -> int:
    """The largest step: as many prompt tokens as the engine computes at once, through the widest layer."""
    spec, size = shape.spec, dtype_bytes(work.dtype)
    tokens = min(_GPU_STEP_TOKENS if on_gpu else _CPU_STEP_TOKENS, work.context * max(1, share.batch))
    inner = shape.inner_size // share.tensor
    heads = -(-spec.num_heads // share.tensor)
    # The residual stream, its normed copy, and the norm's own float32 pair.
    stream = tokens * spec.hidden_size * (2 * size + 2 * 4)
    mlp = tokens * inner * 3 * size
    query = tokens * heads * shape.key_dim * 3 * size
    # Keys and values of one sequence, once a query head, where torch's own kernels attend.
    gathered = 0 if on_gpu else work.context * heads * (shape.key_dim + shape.value_dim) * size
    rows = min(max(1, share.batch), _GPU_MAX_SEQS if on_gpu else _CPU_MAX_SEQS)
    logits = rows * spec.vocab_size * (size + _SAMPLER_COPIES * 4) if share.has_head else 0
    return stream + max(mlp, query + gathered) + logits


def _workspace(share: DeviceShare, work: Workload, activations: int, on_gpu: bool) -> int:
    if on_gpu:
        return _GPU_LIBRARY_BYTES + int(_SLACK_SHARE * activations)
    widened = 0
    if work.quant.config is not None:
        # For many rows at once the kernels of low bits widen one matrix at a time.
        matrices = [w.num_elements for w in share.weights if w.role in (WeightRole.MATRIX, WeightRole.HEAD)]
        widened = max(matrices, default=0) * dtype_bytes(work.dtype)
    return _CPU_LIBRARY_BYTES + widened
