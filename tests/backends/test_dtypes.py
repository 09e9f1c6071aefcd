import pytest
import torch

from workbench.backends import DTYPE_NAMES, dtype_bytes, parse_dtype, torch_dtype
from workbench.errors import ConfigError


@pytest.mark.parametrize(
    ("spelling", "name"),
    [("float32", "fp32"), ("BF16", "bf16"), ("bfloat16", "bf16"), ("half", "fp16"), (torch.float16, "fp16")],
)
def test_spellings(spelling, name):
    assert parse_dtype(spelling) == name


@pytest.mark.parametrize("name", DTYPE_NAMES)
def test_torch_agrees(name):
    assert torch_dtype(name).itemsize == dtype_bytes(name)


@pytest.mark.parametrize("name", ["fp8", "", None, "int8"])
def test_unknown_names_list_the_known(name):
    with pytest.raises(ConfigError, match=r"use one of: fp32, .*bfloat16"):
        parse_dtype(name)
