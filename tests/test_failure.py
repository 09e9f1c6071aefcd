import gc
import weakref

import pytest

from workbench import errors
from workbench.failure import Failure


class Big:
    """Stands for a tensor that a failing frame holds."""


def _fail_holding(watch):
    big = Big()
    watch.append(weakref.ref(big))
    raise errors.ModelFormatError("tensor 3 is cut short")


def test_an_error_in_words_keeps_no_frame_alive():
    watch = []
    try:
        _fail_holding(watch)
    except errors.ModelFormatError as error:
        failure = Failure.of(error)
    gc.collect()
    assert watch[0]() is None
    assert failure.cause == "tensor 3 is cut short"
    assert "fetch the model again" in failure.next_step
    assert "_fail_holding" in failure.details


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name not in ("OutOfMemoryError", "LlamaGPUError")])
def test_every_error_of_ours_has_a_cause_and_a_next_step(name):
    kind = getattr(errors, name)
    error = kind(9, 8) if name == "PromptTooLongError" else kind("this went wrong")
    failure = Failure.of(error)
    assert failure.cause
    assert failure.next_step
    assert failure.kind == kind.__name__


def test_out_of_memory_says_what_would_fit():
    error = errors.OutOfMemoryError("needs 3 GB, 1 GB is free", would_fit=("bf16", "context_length=512"))
    assert Failure.of(error).next_step == "What would fit: bf16; context_length=512."


def test_a_foreign_error_is_named_and_its_empty_message_too():
    assert Failure.of(ZeroDivisionError("division by zero")).cause == "ZeroDivisionError: division by zero"
    assert Failure.of(KeyError()).cause == "KeyError: KeyError"
