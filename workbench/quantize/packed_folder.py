"""A quantised model as a folder: safetensors, the model's config, and a manifest that says what each tensor is.

model.safetensors              packed weights and everything that stayed as it was
workbench-quantization.json    settings, source, checksum, and which modules are made of which packed weight
config.json, tokenizer files   as in the original
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from workbench.errors import ModelFormatError
from workbench.quantize.checksum import file_checksum, has_checksum
from workbench.quantize.config import QuantizationConfig
from workbench.quantize.packed_reader import PackedReader
from workbench.shell import build_shell, place, quiet_transformers, restore_buffers

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

    from workbench.quantize.packed_weight import PackedWeight

__all__ = [
    "MANIFEST_NAME",
    "PackedManifest",
    "PackedRecord",
    "is_packed_folder",
    "load_packed",
    "packed_reader",
    "read_manifest",
    "save_packed",
    "verify_packed",
]

MANIFEST_NAME = "workbench-quantization.json"
WEIGHTS_NAME = "model.safetensors"
_FORMAT = 1
# Beside the weights: what a tokenizer and a generation need.
_COPIED = ("*.json", "*.model", "*.txt", "*.jinja", "*.tiktoken")
_NOT_COPIED = ("*.index.json", "workbench-*.json")


@dataclass(frozen=True)
class PackedRecord:
    """One packed weight in the file: its kind, its facts, the modules made of it, and the precision of lookups."""

    name: str
    kind: str
    facts: Mapping[str, int | bool]
    linears: tuple[str, ...]
    embeddings: tuple[str, ...]
    dtype: str


@dataclass(frozen=True)
class PackedManifest:
    """What a folder of quantised weights says of itself.

    `source` holds plain values that tell which model it was made of; `original_bytes` are that model's weights in
    `dtype`, `accuracy_loss` is the measured mean KL in nats, or None.
    """

    config: QuantizationConfig
    dtype: str
    records: tuple[PackedRecord, ...]
    kept_layers: tuple[str, ...] = ()
    source: Mapping[str, Any] = field(default_factory=dict)
    original_bytes: int | None = None
    num_parameters: int | None = None
    tied_embeddings: bool = False
    accuracy_loss: float | None = None
    sha256: str = ""

    def as_json(self) -> dict[str, Any]:
        """As written."""
        plain = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("config", "records")}
        config = {**asdict(self.config), "quantization_type": self.config.quantization_type.value}
        records = [asdict(record) for record in self.records]
        return {"format": _FORMAT, **plain, "source": dict(self.source), "config": config, "records": records}


def is_packed_folder(folder: Path) -> bool:
    """Whether quantised weights lie there."""
    return (folder / MANIFEST_NAME).is_file()


def read_manifest(folder: Path) -> PackedManifest:
    """The checked manifest. Raises ModelFormatError for one that does not parse or that a later version wrote."""
    path = folder / MANIFEST_NAME
    try:
        found = json.loads(path.read_text("utf-8"))
        if found.pop("format") != _FORMAT:
            raise ModelFormatError(f"{path} was written in another format: quantise the model again")
        config = QuantizationConfig(**found.pop("config"))
        records = tuple(_record(one) for one in found.pop("records"))
        return PackedManifest(config=config, records=records, **{**found, "kept_layers": tuple(found["kept_layers"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFormatError(f"{path} is damaged: {type(error).__name__}: {error}") from error


def save_packed(model: nn.Module, manifest: PackedManifest, folder: Path, source_folder: Path | None = None) -> None:
    """Write `model`, whose matrices are packed, into the empty `folder`.

    The manifest's records and checksum are filled in. Tokenizer and config are copied from `source_folder`; without it
    the model's own config is written. Raises OSError where the disk does not take it.
    """
    from safetensors.torch import save_file

    tensors, records = _collect(model)
    save_file(tensors, folder / WEIGHTS_NAME)
    if source_folder is not None:
        _copy_surroundings(source_folder, folder)
    elif not (folder / "config.json").exists():
        config: Any = model.config
        config.save_pretrained(folder)
    facts = {one.name: getattr(manifest, one.name) for one in fields(manifest)}
    facts.update(records=records, sha256=file_checksum(folder / WEIGHTS_NAME))
    text = json.dumps(PackedManifest(**facts).as_json(), indent=1)
    (folder / MANIFEST_NAME).write_text(text, "utf-8")


def verify_packed(folder: Path, manifest: PackedManifest) -> None:
    """Raise ModelFormatError unless the weights are the bytes that were written."""
    path = folder / WEIGHTS_NAME
    try:
        is_whole = has_checksum(path, manifest.sha256)
    except OSError as error:
        raise ModelFormatError(f"{path} cannot be read: {error.strerror or error}") from error
    if not is_whole:
        raise ModelFormatError(f"{path} is damaged: its checksum is not the one that was written")


def packed_reader(folder: Path, manifest: PackedManifest, device: str) -> PackedReader:
    """What reads the folder's weights onto `device`, and begins when it is entered."""
    return PackedReader(folder / WEIGHTS_NAME, manifest.sha256, device)


def load_packed(
    folder: Path,
    manifest: PackedManifest,
    reader: PackedReader,
    *,
    device: str,
    attn_implementation: str | None = None,
    trust_remote_code: bool = False,
    on_bytes: Callable[[int], None] = lambda num_bytes: None,
    more_kinds: Mapping[str, type[PackedWeight]] = MappingProxyType({}),
) -> PreTrainedModel:
    """The model again on `device`, of what `reader` is reading; `more_kinds` of weights are those of its own method.

    Raises ModelFormatError for weights that are damaged, and where file and config contradict.
    """
    from transformers import AutoConfig

    from workbench.backends import torch_dtype

    with quiet_transformers():
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=trust_remote_code)
        shell = build_shell(config, torch_dtype(manifest.dtype), attn_implementation, trust_remote_code)
        tensors = reader.tensors(on_bytes)
        try:
            _fill(shell, tensors, manifest, device, more_kinds)
        except (KeyError, AttributeError) as error:
            raise ModelFormatError(f"{folder} does not fit its config.json: {error}") from error
    missing = [name for name, parameter in shell.named_parameters() if parameter.is_meta]
    if missing:
        raise ModelFormatError(f"{folder} lacks {len(missing)} of the model's tensors, first {missing[0]!r}")
    shell.eval().requires_grad_(False)
    return shell


def _fill(
    shell: PreTrainedModel,
    tensors: dict[str, torch.Tensor],
    manifest: PackedManifest,
    device: str,
    more_kinds: Mapping[str, type[PackedWeight]],
) -> None:
    """Takes the tensors out of the dict: a method may make others of them."""
    from workbench.backends import torch_dtype
    from workbench.quantize.layers import WeightUsers, put_packed
    from workbench.quantize.methods import weight_from_file

    of_record: dict[str, dict[str, torch.Tensor]] = {record.name: {} for record in manifest.records}
    for name in list(tensors):
        owner, _, leaf = name.rpartition(".")
        if owner in of_record and leaf != "bias":
            of_record[owner][leaf] = tensors.pop(name)
        else:
            place(shell, name, tensors.pop(name))
    restore_buffers(shell, device)
    for record in manifest.records:
        packed = weight_from_file(record.kind, of_record.pop(record.name), record.facts, device, more_kinds)
        put_packed(shell, WeightUsers(record.linears, record.embeddings), packed, torch_dtype(record.dtype))


def _collect(model: nn.Module) -> tuple[dict[str, torch.Tensor], tuple[PackedRecord, ...]]:
    """Tensors by name, and a record for each packed weight; a weight that two modules share appears once."""
    from workbench.backends import parse_dtype
    from workbench.quantize.packed_weight import PackedModule

    tensors: dict[str, torch.Tensor] = {}
    users: dict[int, dict[str, PackedModule]] = {}
    for name, module in model.named_modules():
        if isinstance(module, PackedModule):
            users.setdefault(module.key, {})[name] = module
            bias = getattr(module, "bias", None)
            if bias is not None:
                tensors[f"{name}.bias"] = bias
    records = []
    for modules in users.values():
        names = list(modules)
        tables = tuple(name for name, module in modules.items() if hasattr(module, "num_embeddings"))
        first = modules[names[0]].packed_weight
        # A linear layer says more than a table: how its activations are rounded.
        linears = tuple(name for name in names if name not in tables)
        weight = modules[linears[0]].packed_weight if linears else first
        tensors.update({f"{names[0]}.{leaf}": tensor.contiguous() for leaf, tensor in weight.tensors().items()})
        dtype = str(modules[tables[0]].dtype).removeprefix("torch.") if tables else "float32"
        records.append(PackedRecord(names[0], weight.kind, weight.facts(), linears, tables, parse_dtype(dtype)))
    seen: dict[int, str] = {}
    for name, tensor in _plain_tensors(model):
        # Tied weights once.
        if seen.setdefault(tensor.data_ptr(), name) == name:
            tensors[name] = tensor.detach().contiguous()
    return tensors, tuple(records)


def _plain_tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    from workbench.quantize.packed_weight import PackedModule

    for prefix, module in model.named_modules():
        if isinstance(module, PackedModule):
            continue
        own = [*module.named_parameters(recurse=False)]
        own += module.named_buffers(recurse=False)
        for leaf, tensor in own:
            if leaf in module._non_persistent_buffers_set:
                continue
            yield (f"{prefix}.{leaf}" if prefix else leaf), tensor


def _record(found: dict[str, Any]) -> PackedRecord:
    return PackedRecord(
        **{**found, "linears": tuple(found["linears"]), "embeddings": tuple(found["embeddings"])},
    )


def _copy_surroundings(source: Path, folder: Path) -> None:
    for pattern in _COPIED:
        for path in source.glob(pattern):
            if not any(path.match(other) for other in _NOT_COPIED) and not (folder / path.name).exists():
                shutil.copyfile(path, folder / path.name)
