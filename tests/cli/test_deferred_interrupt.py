import signal
import threading

import pytest

from workbench.cli.deferred_interrupt import DeferredInterrupt


def ctrl_c():
    signal.raise_signal(signal.SIGINT)


def test_the_first_waits_for_a_check():
    reached = []
    with pytest.raises(KeyboardInterrupt), DeferredInterrupt() as interrupt:
        ctrl_c()
        reached.append("on")
        interrupt.check()
        reached.append("past the check")
    assert reached == ["on"]


def test_or_for_the_end():
    with pytest.raises(KeyboardInterrupt), DeferredInterrupt():
        ctrl_c()


def test_the_second_acts_at_once():
    with DeferredInterrupt() as interrupt:
        ctrl_c()
        with pytest.raises(KeyboardInterrupt):
            ctrl_c()
        interrupt._is_pending = False


def test_it_replaces_the_error_that_it_caused():
    with pytest.raises(KeyboardInterrupt), DeferredInterrupt():
        ctrl_c()
        raise RuntimeError("a child process died")


def test_errors_pass_when_there_was_no_interrupt():
    with pytest.raises(RuntimeError), DeferredInterrupt():
        raise RuntimeError("broken")


def test_the_handler_is_put_back():
    before = signal.getsignal(signal.SIGINT)
    with DeferredInterrupt():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) is before


def test_another_thread_is_left_alone():
    before, inside = signal.getsignal(signal.SIGINT), []

    def work():
        with DeferredInterrupt():
            inside.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [before]
