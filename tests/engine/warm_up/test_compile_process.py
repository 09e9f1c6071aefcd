"""Kernels are compiled by a process of its own, for a GPU that need not be here."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from workbench.engine.kernels.cuda_image import CudaSource
from workbench.engine.warm_up.compile_process import CompileProcess
from workbench.engine.warm_up.kernel_job import CudaJob

pytest.importorskip("triton", reason="Triton is not installed, so nothing can be compiled here")

BROKEN = CudaJob(CudaSource("broken", "int main( {", ("--std=c++17",)))

# Triton compiles for what it believes is the device, unless the interpreter was asked for when it was imported.
SCRIPT = """
import threading
import torch
from workbench.engine.warm_up.kernel_job import use_target
use_target(("cuda", 90, 32))
from workbench.engine.warm_up.compile_process import CompileProcess
from workbench.engine.warm_up.noted_kernels import NotedKernels
from workbench.engine.kernels.silu_mul import silu_mul

rows, untouched = torch.randn(3, 64), torch.full((3, 32), 7.0)
noted = NotedKernels()
for _ in range(2):
    with noted.noting():
        silu_mul(rows, untouched)
assert (untouched == 7).all(), "a noted kernel ran"
(job,) = noted.triton
assert job.label == "_silu_mul" and not job.is_compiled()
compiling = CompileProcess([job])
pause = threading.Event()
while not compiling.poll():
    pause.wait(0.05)
assert (compiling.num_done, compiling.failures, compiling.end_reason) == (1, [], None), vars(compiling)
compiling.close()
assert job.is_compiled()

from triton import knobs
def refuse(**wanted):
    raise AssertionError("compiled again")
import triton.compiler.compiler as compiler
compiler.ir.context = refuse
assert job.load().asm["cubin"]
print("well")
"""


def wait_for_its_end(compiling: CompileProcess) -> None:
    pause = threading.Event()
    for _ in range(1200):
        if compiling.poll():
            return
        pause.wait(0.05)
    raise AssertionError("the compiling process did not end in 60 s")


def test_what_steps_want_is_noted_compiled_beside_and_found(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.stdout == "well\n", done.stderr


def test_what_cannot_be_compiled_is_told_and_the_others_go_on() -> None:
    compiling = CompileProcess([BROKEN, BROKEN])
    wait_for_its_end(compiling)
    compiling.close()
    assert compiling.num_done == 2 and compiling.end_reason is None
    assert all(failure.startswith("broken: ") for failure in compiling.failures) and len(compiling.failures) == 2


def test_a_process_that_is_lost_says_how_it_ended() -> None:
    compiling = CompileProcess([BROKEN])
    os.kill(compiling.pid, 9)
    wait_for_its_end(compiling)
    compiling.close()
    assert compiling.num_done == 0 and "SIGKILL" in (compiling.end_reason or "")


def test_closing_ends_it_at_once() -> None:
    compiling = CompileProcess([BROKEN])
    compiling.close()
    compiling.close()
    with pytest.raises(ProcessLookupError):
        os.kill(compiling.pid, 0)
