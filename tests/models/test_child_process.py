import sys
from pathlib import Path

import psutil
import pytest

from workbench.errors import LoadCancelled
from workbench.models.child_process import log_tail, run_child

_FOREVER = [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(600)"]


def test_it_gives_the_exit_status_and_keeps_the_output(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-c", "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"]

    assert run_child(command, log=log) == 3
    assert set(log_tail(log).splitlines()) == {"out", "err"}


@pytest.mark.parametrize("error", [LoadCancelled, KeyboardInterrupt])
def test_whatever_the_poll_raises_ends_the_child(tmp_path: Path, error: type[BaseException]) -> None:
    log = tmp_path / "log"

    def stop_once_it_runs() -> None:
        if log.read_text().endswith("\n"):
            raise error

    with pytest.raises(error):
        run_child(_FOREVER, log=log, on_poll=stop_once_it_runs)

    assert not psutil.pid_exists(int(log.read_text()))


def test_a_child_that_ignores_the_polite_signal_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.models.child_process._STOP_TIMEOUT_S", 0.2)
    log = tmp_path / "log"
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "

    def stop_once_it_runs() -> None:
        if log.read_text().endswith("\n"):
            raise LoadCancelled

    with pytest.raises(LoadCancelled):
        run_child([*_FOREVER[:2], ignore + _FOREVER[2]], log=log, on_poll=stop_once_it_runs)

    assert not psutil.pid_exists(int(log.read_text()))


def test_a_progress_bar_in_the_log_counts_as_its_last_state(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a 1%\ra 50%\ra 100%\n\nValueError: no\n")

    assert log_tail(tmp_path / "log") == "a 100%\nValueError: no"
    assert log_tail(tmp_path / "gone") == ""
