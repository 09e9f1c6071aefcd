"""The compiled kernels, for tests that need them."""

from __future__ import annotations

import pytest

from workbench.backends.processor import Processor
from workbench.engine.native.library import load_library, native_obstacle


@pytest.fixture(scope="session")
def library(native_library_path):
    if native_library_path is None:
        pytest.skip(f"no native kernels here: {native_obstacle(Processor())}")
    return load_library(native_library_path)
