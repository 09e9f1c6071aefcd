"""What doors rely on, of every engine that a client can be connected to: ours, vLLM's interface, and vLLM itself."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from engine.vllm import fake_vllm
from model_folders import copy_folder

from workbench.backends import get_backend
from workbench.engine import EngineConfig, SamplingParams
from workbench.engine.isolation.start import start_running
from workbench.engine.launch import EngineLaunch
from workbench.engine.vllm.start import start_vllm
from workbench.errors import EngineStoppedError, PromptTooLongError, RequestError
from workbench.models import Catalogue
from workbench.plugins import default_plugins
from workbench.progress import no_progress

_PROMPT = list(b"Once upon a time")


def _launch(folder: object, **engine: object) -> EngineLaunch:
    files = Catalogue().resolve(str(folder))
    return EngineLaunch(files, "cpu", 0, "fp32", None, None, None, EngineConfig(context_length=128, **engine))


def _start_ours(folder: object):
    running = start_running(_launch(folder), get_backend("cpu"), default_plugins(), no_progress)
    return running.client, lambda: running.client._core._engine


def _start_fake(folder: object):
    client = start_vllm(_launch(folder), default_plugins(), library=fake_vllm).client
    return client, lambda: client._core.engine


def _start_real(folder: Path):
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vllm is not installed")
    client = start_vllm(_launch(_with_wide_heads(folder)), default_plugins()).client
    return client, lambda: client._core.engine


def _with_wide_heads(folder: Path) -> Path:
    """The model with heads of 64 numbers, random again: vLLM has no attention for 16."""
    from transformers import AutoConfig, AutoModelForCausalLM, set_seed

    config = AutoConfig.from_pretrained(folder, head_dim=64)
    wide = copy_folder(folder, folder.parent / "wide")
    set_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(wide)
    return wide


_STARTS = {"paged": _start_ours, "vllm's interface": _start_fake, "vllm": _start_real}


@pytest.fixture(scope="module", params=_STARTS)
def engine(request: pytest.FixtureRequest, tiny_model_folder) -> Iterator[SimpleNamespace]:
    client, inside = _STARTS[request.param](tiny_model_folder)
    yield SimpleNamespace(client=client, inside=inside, name=request.param)
    client.stop()
    client.stop()
    with pytest.raises(EngineStoppedError):
        client.submit(_PROMPT, SamplingParams())


def _run(engine, **settings):
    return engine.client.submit(_PROMPT, SamplingParams(**{"max_tokens": 12, "ignore_eos": True, **settings}))


def test_pieces_add_up_to_the_answer_and_greedy_repeats(engine) -> None:
    pieces = list(generation := _run(engine))
    answer = generation.result(60)
    assert "".join(piece.text for piece in pieces) == answer.text
    assert [i for piece in pieces for i in piece.token_ids] == list(answer.token_ids)
    assert len(answer.token_ids) == 12 and answer.finish_reason == "length"
    assert answer.num_prompt_tokens == len(_PROMPT)
    assert answer.timings.ttft_s > 0 and answer.timings.num_generated_tokens == 12
    assert _run(engine).result(60).token_ids == answer.token_ids


def test_a_seed_repeats_and_another_differs(engine) -> None:
    first, again, other = (_run(engine, temperature=1.0, seed=s).result(60).token_ids for s in (1, 1, 2))
    assert first == again != other


def test_several_answers_come_by_index(engine) -> None:
    answers = _run(engine, n=3, temperature=1.0, seed=4).results(60)
    assert [answer.index for answer in answers] == [0, 1, 2]
    assert len({answer.token_ids for answer in answers}) == 3


def test_a_stop_string_ends_the_answer_and_is_no_part_of_it(engine) -> None:
    whole = _run(engine).result(60).text
    stop = whole[4:6]
    answer = _run(engine, stop=(stop,)).result(60)
    assert (answer.finish_reason, answer.stop_reason) == ("stop", stop)
    assert answer.text == whole[: whole.index(stop)]


def test_logprobs_of_answer_and_prompt(engine) -> None:
    answer = _run(engine, logprobs=True, top_logprobs=2, prompt_logprobs=1).result(60)
    assert [entry.token_id for entry in answer.logprobs] == list(answer.token_ids)
    assert all(len(entry.top) == 2 and entry.logprob <= 0 for entry in answer.logprobs)
    assert answer.prompt_logprobs[0] is None and len(answer.prompt_logprobs) == len(_PROMPT)
    assert all(math.isfinite(entry.logprob) for entry in answer.prompt_logprobs[1:])


def test_scoring_a_prompt_generates_nothing(engine) -> None:
    answer = _run(engine, max_tokens=0, prompt_logprobs=0, ignore_eos=False).result(60)
    assert (answer.text, answer.token_ids) == ("", ())
    assert len(answer.prompt_logprobs) == len(_PROMPT)


def test_leaving_the_loop_aborts(engine) -> None:
    generation = _run(engine, max_tokens=None)
    for _ in generation:
        break
    answer = generation.result(60)
    assert answer.finish_reason in ("abort", "length")
    assert engine.client.in_flight() == []


def test_what_cannot_be_served_is_refused_by_name(engine) -> None:
    with pytest.raises(RequestError, match="empty"):
        engine.client.submit([], SamplingParams())
    with pytest.raises(PromptTooLongError):
        engine.client.submit([5] * 500, SamplingParams())


def test_figures_count_requests_and_tokens(engine) -> None:
    before = engine.client.stats()
    _run(engine).result(60)
    after = engine.client.stats()
    assert after.requests_total == before.requests_total + 1
    assert after.generated_tokens_total == before.generated_tokens_total + 12
    assert after.requests_finished_total == after.requests_total
    assert after.num_running == 0
