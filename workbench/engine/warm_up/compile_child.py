"""The compiling process: takes jobs from its input, shares them out to as many processes as there are cores, and prints
a line for each that is done: empty, or what kept it from being compiled.

python -m workbench.engine.warm_up.compile_child PARENT_PID < JOBS
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import pickle
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed

from workbench.child_lifetime import die_with_parent
from workbench.engine.warm_up.kernel_job import KernelJob, TritonJob, use_target

__all__ = ["main"]

# Whoever computes goes first.
_NICENESS = 10


def main(parent_pid: int) -> None:
    """Compile what the input asks for."""
    die_with_parent(parent_pid)
    os.nice(_NICENESS)
    jobs: list[KernelJob] = pickle.load(sys.stdin.buffer)
    # Imported once: the processes that do the work are forks of this one, which holds no threads and no device yet.
    for module in {job.module for job in jobs if isinstance(job, TritonJob)}:
        importlib.import_module(module)
    num_workers = min(len(jobs), len(os.sched_getaffinity(0)))
    with ProcessPoolExecutor(
        num_workers, multiprocessing.get_context("fork"), die_with_parent, (os.getpid(),)
    ) as workers:
        for done in as_completed([workers.submit(_compile, job) for job in jobs]):
            print(done.result(), flush=True)


def _compile(job: KernelJob) -> str:
    """Nothing, or in one line why it could not be compiled."""
    try:
        if isinstance(job, TritonJob):
            use_target(job.target)
        job.compile()
    except Exception as error:  # top of a process: the others go on
        return " ".join(f"{job.label}: {type(error).__name__}: {error}".split())[:400]
    return ""


if __name__ == "__main__":
    main(int(sys.argv[1]))
