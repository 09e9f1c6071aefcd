"""`RankNursery`: a process that has imported torch and the model code, and forks ranks, which then need not.

Importing takes seconds of a core and hundreds of megabytes, which forked ranks share. For ranks on the CPU only: a GPU
must not have been touched by a process that forks, and nobody can promise that of the imports.
"""

from __future__ import annotations

import gc
import os
import selectors
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from workbench.child_lifetime import die_with_parent, python_command
from workbench.distributed.rank_process import STATUS, ForkedRank, rank_environment
from workbench.errors import BackendUnavailableError
from workbench.models.child_process import log_tail

__all__ = ["RankNursery"]

_PID = struct.Struct("i")
_NUM_FDS = 4
_STOP_LIMIT_S = 10.0


@dataclass
class _Running:
    """The process, the socket that it listens to, and the folder of its log."""

    process: subprocess.Popen[bytes]
    control: socket.socket
    folder: tempfile.TemporaryDirectory[str]

    @property
    def log(self) -> Path:
        return Path(self.folder.name) / "nursery.log"


class RankNursery:
    """Runs while somebody holds it: `hold` and `release` come in pairs. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_holders = 0
        self._running: _Running | None = None

    def hold(self) -> None:
        """Start the process unless it runs. It imports in its own time: the first `fork` waits for that."""
        with self._lock:
            self._num_holders += 1
            self._ensure_running()

    def release(self) -> None:
        """The last holder's release ends the process, and with it the ranks that still live."""
        with self._lock:
            self._num_holders -= 1
            if self._num_holders == 0:
                self._stop()

    def fork(self, connection_fd: int, shared_fd: int, log: Path) -> ForkedRank:
        """A new rank that serves `connection_fd`. Raises BackendUnavailableError with what the process last said."""
        ours, theirs = os.pipe()
        try:
            with self._lock, log.open("wb") as output:
                control = self._ensure_running().control
                socket.send_fds(control, [b"fork"], [connection_fd, shared_fd, output.fileno(), theirs])
                reply = control.recv(_PID.size)
                if not reply:
                    raise ConnectionResetError
        except OSError as error:
            os.close(ours)
            words = "" if self._running is None else log_tail(self._running.log, 3)
            raise BackendUnavailableError(f"the process that starts ranks has ended: {words or error}") from None
        finally:
            os.close(theirs)
        return ForkedRank(_PID.unpack(reply)[0], ours)

    def _ensure_running(self) -> _Running:
        if self._running is not None and self._running.process.poll() is None:
            return self._running
        self._stop()
        folder = tempfile.TemporaryDirectory(prefix="workbench-nursery-")
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, (Path(folder.name) / "nursery.log").open("wb") as output:
            process = subprocess.Popen(
                python_command("workbench.distributed.nursery", str(theirs.fileno())),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=rank_environment(),
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        self._running = _Running(process, control, folder)
        return self._running

    def _stop(self) -> None:
        running, self._running = self._running, None
        if running is None:
            return
        running.control.close()
        try:
            running.process.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            running.process.kill()
            running.process.wait()
        running.folder.cleanup()


def _serve(control: socket.socket) -> None:
    """In the process: fork for each message, and report each child's end, until the other side is gone."""
    _import_all()
    end_fds: dict[int, int] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.data is None:
                    message, fds, _, _ = socket.recv_fds(control, 16, _NUM_FDS)
                    if not message:
                        # Ranks die with this process.
                        return
                    pid = _fork(control, fds, list(end_fds.values()))
                    end_fds[pid] = fds[-1]
                    selector.register(os.pidfd_open(pid), selectors.EVENT_READ, pid)
                    control.send(_PID.pack(pid))
                else:
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    _report_end(key.data, end_fds.pop(key.data))


def _import_all() -> None:
    from workbench.distributed import rank  # noqa: F401
    from workbench.models.model_code import import_model_code

    import_model_code()
    # What is there now is looked at for garbage no more, so that its pages stay shared.
    gc.collect()
    gc.freeze()


def _fork(control: socket.socket, fds: list[int], end_fds: list[int]) -> int:
    connection_fd, shared_fd, log_fd, end_fd = fds
    nursery_pid = os.getpid()
    pid = os.fork()
    if pid:
        for fd in (connection_fd, shared_fd, log_fd):
            os.close(fd)
        return pid
    status = 1
    try:
        die_with_parent(nursery_pid)
        for fd in (1, 2):
            os.dup2(log_fd, fd)
        control.close()
        for fd in (log_fd, end_fd, *end_fds):
            os.close(fd)
        from workbench.distributed.rank import main

        main(Connection(connection_fd), shared_fd)
        status = 0
    finally:
        sys.stderr.flush()
        # The nursery's own cleaning up is not for its children.
        os._exit(status)


def _report_end(pid: int, end_fd: int) -> None:
    _, status = os.waitpid(pid, 0)
    try:
        os.write(end_fd, STATUS.pack(os.waitstatus_to_exitcode(status)))
    except BrokenPipeError:
        # Nobody waits for it any more.
        pass
    finally:
        os.close(end_fd)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
