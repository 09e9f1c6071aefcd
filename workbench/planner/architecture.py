"""Which decoder families the installed transformers knows, read from its own table without importing it."""

from __future__ import annotations

import difflib
import functools
import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from workbench.errors import ModelFormatError

__all__ = ["known_architectures", "require_known"]

_TABLE = re.compile(r"MODEL_FOR_CAUSAL_LM_MAPPING_NAMES = OrderedDict\(\n(.*?)\n\)\n", re.DOTALL)
_ROW = re.compile(r"""\(\s*["']([\w-]+)["'],\s*["'](\w+)["']""")
# Kinds of layers that the paged cache computes (see `engine/layer_probe.py`).
_LAYER_TYPES = {"full_attention", "sliding_attention"}


@functools.cache
def known_architectures() -> Mapping[str, str]:
    """Model type -> class that generates text, as transformers' auto classes have it; empty if it cannot be read."""
    found = importlib.util.find_spec("transformers")
    if found is None or not found.submodule_search_locations:
        return MappingProxyType({})
    file = Path(found.submodule_search_locations[0]) / "models" / "auto" / "modeling_auto.py"
    try:
        table = _TABLE.search(file.read_text("utf-8"))
    except OSError:
        table = None
    return MappingProxyType(dict(_ROW.findall(table[1])) if table else {})


def require_known(model_type: str, architecture: str, layer_types: tuple[str, ...] | None = None) -> None:
    """Raise ModelFormatError for a family that could not be loaded here, naming near ones."""
    known = known_architectures()
    unknown = set(layer_types or ()) - _LAYER_TYPES
    if unknown:
        raise ModelFormatError(f"{architecture}: {sorted(unknown)[0]} is not supported by the paged cache")
    if not known or model_type in known or architecture in known.values():
        return
    near = difflib.get_close_matches(model_type, known, n=3)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise ModelFormatError(
        f"model_type {model_type!r} ({architecture}) is not an architecture that the installed transformers can "
        f"generate text with. {hint}It knows {len(known)} of them, such as llama, qwen3, mistral and gemma2"
    )
