"""`LlamaGPU` under its documented names and call forms, on a real small model."""

import asyncio
import subprocess
import sys
import time

import numpy as np
import pytest

from workbench import LlamaGPU
from workbench.backends import Backend
from workbench.errors import ConfigError, RequestError


@pytest.fixture(scope="module")
def llm(tiny_model_folder):
    with LlamaGPU(str(tiny_model_folder), prefer_gpu=True, auto_detect_aws=True) as llm:
        yield llm


def test_the_documented_snippet_gives_one_text_in_three_ways(llm):
    text = llm.infer("hello", max_tokens=6)
    assert llm.batch_infer(["hello", "bye"], max_tokens=6)[0] == text
    assert "".join(llm.stream_infer("hello", max_tokens=6)) == text
    assert not text.startswith("hello")


def test_the_call_forms_of_the_documented_examples(llm):
    seeded = {"temperature": 0.7, "seed": 3}
    text = llm.infer("hello", max_tokens=6, **seeded)
    assert "".join(llm.stream_infer("hello", 6, **seeded)) == text
    assert "".join(llm.stream_infer("hello", max_tokens=6, **seeded)) == text
    assert llm.batch_infer(["hello"] * 3, batch_size=2, max_tokens=6, **seeded) == [text] * 3
    assert llm.batch_infer(["hello"] * 3, 2, max_tokens=6, **seeded) == [text] * 3
    assert llm.batch_infer([]) == []
    assert llm.batch_infer((prompt for prompt in ["hello"] * 2), max_tokens=6, **seeded) == [text] * 2


async def test_on_an_event_loop_the_texts_are_the_same(llm):
    messages = [{"role": "user", "content": "hello"}]
    assert await llm.ainfer("hello", max_tokens=6) == llm.infer("hello", max_tokens=6)
    reply = llm.chat("hello", max_tokens=6)
    assert await llm.achat(messages, max_tokens=6) == reply
    assert "".join([piece async for piece in llm.astream(messages=messages, max_tokens=6)]) == reply


async def test_who_leaves_on_an_event_loop_stops_the_model(llm):
    async def nothing_runs():
        while llm.stats().num_running or llm.stats().num_waiting:
            await asyncio.sleep(0)

    endless = {"max_tokens": 500, "ignore_eos": True}
    task = asyncio.create_task(llm.ainfer("hello", **endless))
    while not llm.stats().num_running:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(nothing_runs(), 60)
    before = llm.stats().generated_tokens_total
    pieces = llm.astream("hello", **endless)
    await anext(pieces)
    await pieces.aclose()
    await asyncio.wait_for(nothing_runs(), 60)
    assert llm.stats().generated_tokens_total - before < 500


def test_half_of_a_surrogate_pair_is_no_text(llm):
    for ask in (llm.infer, llm.chat):
        with pytest.raises(RequestError, match="half of a surrogate pair at position"):
            ask("a\ud800b", max_tokens=2)


def test_a_context_that_the_model_has_not_is_refused_before_it_is_read(tiny_model_folder):
    steps = []
    with pytest.raises(ConfigError, match="the model was trained for at most"):
        LlamaGPU(str(tiny_model_folder), context_length=10**9, progress=steps.append, check_plan=False)
    assert steps == []


def test_no_bound_means_until_the_model_stops_or_the_context_is_full(tiny_model_folder):
    with LlamaGPU(tiny_model_folder, context_length=40, quant_type="float32") as llm:
        pieces = llm.stream_infer([5] * 10, None, ignore_eos=True)
        assert len(list(pieces)) > 0
        assert len(llm.submit([5] * 10, max_tokens=None, ignore_eos=True).result().token_ids) == 30


def test_a_delay_holds_back_every_piece_but_the_first(llm):
    begun = time.monotonic()
    pieces = list(llm.stream_infer("hello", max_tokens=6, delay=0.02))
    assert time.monotonic() - begun >= 0.02 * (len(pieces) - 1)
    assert "".join(pieces) == llm.infer("hello", max_tokens=6)
    for delay in (-1, float("nan"), "soon"):
        with pytest.raises(RequestError, match="delay"):
            llm.stream_infer("hello", delay=delay)


def test_the_documented_attributes_and_facts(llm, tiny_model_folder):
    assert (llm.model_path, llm.prefer_gpu, llm.auto_detect_aws, llm.quant_type) == (
        str(tiny_model_folder),
        True,
        True,
        None,
    )
    info = llm.get_backend_info()
    assert info["backend_type"] == type(llm.backend).__name__
    assert (info["model_path"], info["prefer_gpu"], info["auto_detect_aws"]) == (str(tiny_model_folder), True, True)
    assert info["aws_instance"] in (True, False)
    assert isinstance(llm.select_backend(prefer_gpu=False), Backend)
    assert llm.get_memory_usage()["weights_mb"] > 0


@pytest.mark.parametrize("prompt", [5, 2.5, b"hello", {"a": 1}, {5, 6}, object()])
def test_what_is_no_prompt_is_a_request_error(llm, prompt):
    with pytest.raises(RequestError, match="text or a sequence of token ids"):
        llm.infer(prompt)
    with pytest.raises(RequestError, match="text or a sequence of token ids"):
        llm.batch_infer([prompt])


def test_token_ids_come_as_a_list_a_tuple_or_an_array(llm):
    text = llm.infer([5, 6, 7], max_tokens=4)
    assert llm.infer((5, 6, 7), max_tokens=4) == text
    assert llm.infer(np.array([5, 6, 7]), max_tokens=4) == text


@pytest.mark.usefixtures("home_with_embedded_model")
def test_no_model_path_is_the_embedded_model_and_the_documented_command_completes_a_prompt():
    command = [sys.executable, "-m", "llama_gpu", "--input", "The capital of France is"]
    with LlamaGPU(None, quant_type="bf16") as llm:
        assert llm.model_path == "default"
        assert "Paris" in llm.infer("The capital of France is", max_tokens=8)
    wrong = subprocess.run([*command, "--model_path", "nonsense"], capture_output=True, text=True)
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert "no model is called 'nonsense'" in wrong.stderr
