"""What torch was built for is known without importing it, and is what torch says itself."""

import subprocess
import sys

import torch

CODE = """
import sys
from workbench.backends.torch_build import read_torch_build
from workbench.backends import select_backend
build = read_torch_build()
print(build.version.cuda, build.version.hip)
if build.version.cuda is None and build.version.hip is None:
    assert select_backend().backend.name == "cpu"
    assert "torch" not in sys.modules
"""


def test_the_build_is_read_without_an_import():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(torch.version.cuda), str(torch.version.hip)]
