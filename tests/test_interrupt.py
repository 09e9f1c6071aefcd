"""Ctrl-C, as a real signal, while a real model loads or answers: that ends, and the next request is served."""

import gc
import signal
import threading

import pytest

from workbench import LlamaGPU

LONG = {"max_tokens": 4000, "ignore_eos": True, "temperature": 1.0}
CALLS = {
    "infer": lambda llm: llm.infer("hello", **LONG),
    "batch_infer": lambda llm: llm.batch_infer(["hello", "you"], **LONG),
    "stream_infer": lambda llm: list(llm.stream_infer("hello", **LONG)),
}


@pytest.fixture(scope="module")
def llm():
    with LlamaGPU("random:tiny", quant_type="fp32", prefer_gpu=False) as llm:
        yield llm


def press_ctrl_c_when(condition):
    """Interrupt the main thread as soon as `condition()` holds."""
    main = threading.main_thread().ident

    def wait_and_press():
        while not condition():
            pass
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=wait_and_press, daemon=True)
    thread.start()
    return thread


def models_alive():
    gc.collect()
    return sum(type(held).__name__ == "LlamaForCausalLM" for held in gc.get_objects())


@pytest.mark.parametrize("name", CALLS)
def test_an_interrupted_answer_ends_and_the_engine_serves_the_next_one(llm, name):
    expected = llm.infer("hello", max_tokens=5)
    before = llm.stats().generated_tokens_total
    presser = press_ctrl_c_when(lambda: llm.stats().generated_tokens_total > before + 5)
    with pytest.raises(KeyboardInterrupt):
        CALLS[name](llm)
    presser.join(30)
    assert llm.infer("hello", max_tokens=5) == expected
    # The aborts were sent before that request, so they have been served too.
    stats = llm.stats()
    assert (stats.num_running, stats.num_waiting, stats.kv_blocks_used) == (0, 0, 0)


def test_an_interrupted_load_leaves_nothing_and_the_next_one_works(home_with_embedded_model):
    def interrupt_while_weights_come(progress):
        if progress.stage == "load weights" and progress.completed:
            signal.raise_signal(signal.SIGINT)

    threads, models = threading.active_count(), models_alive()
    with pytest.raises(KeyboardInterrupt):
        LlamaGPU(progress=interrupt_while_weights_come, prefer_gpu=False)
    assert threading.active_count() == threads
    assert models_alive() == models
    with LlamaGPU(prefer_gpu=False) as llm:
        assert "Paris" in llm.infer("The capital of France is", max_tokens=8)
