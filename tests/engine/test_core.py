"""The engine's loop, in a thread or a process, and its client: nobody waits for ever, an end is told to everybody."""

from __future__ import annotations

import asyncio
import gc
import pickle
import signal
import threading
import weakref
from pathlib import Path

import pytest
from engine.fake_launch import BAD_AT_ONCE, BAD_IN_ITS_SECOND_ANSWER, BAD_LATER, FakeLaunch
from engine.fake_runner import VOCAB_SIZE, make_limits
from engine.gate import Gate

from workbench.engine.client import EngineClient
from workbench.engine.core import EngineCore
from workbench.engine.isolation.process_core import ProcessCore
from workbench.engine.messages import Abort, ReadStats, Request, Stop
from workbench.engine.sampling_params import SamplingParams
from workbench.engine.sequence import FinishReason
from workbench.errors import EngineStoppedError, InferenceError, PromptTooLongError, RequestError
from workbench.progress import no_progress

WAIT_S = 30
TESTS = str(Path(__file__).parents[1])
LONG = SamplingParams(max_tokens=None, ignore_eos=True)


class Rig:
    """A client, its core and the fake model, whose steps wait until the gate is open."""

    def __init__(self, folder, isolation, *, overlaps=False, **limits) -> None:
        self.gate = Gate(folder)
        launch = FakeLaunch(self.gate, overlaps, limits)
        self.cores = []
        connect = self._connect_thread if isolation == "thread" else self._connect_process
        self.client = EngineClient(
            lambda emit: connect(launch, emit),
            max_context=make_limits(**({"max_context": 4000} | limits)).max_context,
            vocab_size=VOCAB_SIZE,
        )

    def _connect_thread(self, launch, emit):
        engine = launch.build(no_progress).engine
        self.engine = weakref.ref(engine)
        self.cores.append(EngineCore(engine, emit))
        self.cores[0].start()
        return self.cores[0]

    def _connect_process(self, launch, emit):
        self.cores.append(ProcessCore(launch))
        self.cores[0].wait_until_launched(no_progress)
        return self.cores[0].connect(emit)

    def submit(self, prompt=(1, 2, 3), params=LONG, **sampling):
        return self.client.submit(list(prompt), SamplingParams(**sampling) if sampling else params)

    def stop(self) -> None:
        self.gate.open()
        self.client.stop()
        self.gate.remove()


@pytest.fixture
def make_rig(isolation, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", TESTS)
    rigs = []

    def make(**options):
        rigs.append(Rig(tmp_path_factory.mktemp("gate"), isolation, **options))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.stop()


@pytest.fixture(scope="module")
def process_rig(tmp_path_factory):
    """One process for all tests that leave it as it was: starting one takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", TESTS)
        rig = Rig(tmp_path_factory.mktemp("gate"), "process")
    yield rig
    rig.stop()


@pytest.fixture(params=["thread", "process"])
def isolation(request):
    return request.param


@pytest.fixture
def rig(isolation, request):
    if isolation == "thread":
        yield request.getfixturevalue("make_rig")()
        return
    rig = request.getfixturevalue("process_rig")
    yield rig
    rig.gate.open()
    assert (rig.client.stats().num_running, rig.client.stats().num_waiting) == (0, 0)


in_a_thread = pytest.mark.parametrize("isolation", ["thread"])


def test_pieces_and_result_are_the_same_answer(rig):
    chunks = list(rig.submit(max_tokens=9, seed=3))
    whole = rig.submit(max_tokens=9, seed=3).result(WAIT_S)
    assert "".join(chunk.text for chunk in chunks) == whole.text
    assert tuple(i for chunk in chunks for i in chunk.token_ids) == whole.token_ids
    assert (whole.finish_reason, whole.num_prompt_tokens, whole.seed) == (FinishReason.LENGTH, 3, 3)
    assert chunks[-1].finish_reason is FinishReason.LENGTH


def test_timings_are_of_this_request(rig):
    generation = rig.submit(max_tokens=5)
    assert generation.timings is None
    timings = generation.result(WAIT_S).timings
    assert (timings.num_prompt_tokens, timings.num_generated_tokens) == (3, 5)
    assert 0 < timings.ttft_s <= timings.total_s
    assert timings.decode_tokens_per_s > 0
    assert generation.timings == timings


def test_a_single_token_has_no_rate(rig):
    assert rig.submit(max_tokens=1).result(WAIT_S).timings.decode_tokens_per_s is None


def test_a_seed_is_drawn_and_told_where_none_is_given(rig):
    first, second = (rig.submit(max_tokens=9, temperature=1.0).result(WAIT_S) for _ in range(2))
    assert first.seed != second.seed
    again = rig.submit(max_tokens=9, temperature=1.0, seed=first.seed).result(WAIT_S)
    assert again.token_ids == first.token_ids


def test_all_answers_of_a_request(rig):
    answers = rig.submit(max_tokens=9, n=3, seed=1).results(WAIT_S)
    assert [answer.index for answer in answers] == [0, 1, 2]
    assert len({answer.token_ids for answer in answers}) == 3


def test_leaving_the_loop_stops_the_request(rig):
    generation = rig.submit()
    for _ in generation:
        if len(generation.text) > 20:
            break
    assert generation.result(WAIT_S).finish_reason is FinishReason.ABORT
    assert rig.client.stats().num_running == 0


def test_an_error_inside_the_loop_stops_the_request(rig):
    generation = rig.submit()
    with pytest.raises(ZeroDivisionError):
        for _ in generation:
            raise ZeroDivisionError
    assert generation.result(WAIT_S).finish_reason is FinishReason.ABORT


def test_abort_keeps_the_text_so_far(rig):
    generation = rig.submit()
    chunks = iter(generation)
    first = next(chunks)
    generation.abort()
    rest = list(chunks)
    assert rest[-1].finish_reason is FinishReason.ABORT
    assert generation.text == "".join(chunk.text for chunk in (first, *rest))
    assert generation.result().text == generation.text
    # Once more is harmless.
    generation.abort()


def test_abort_of_a_request_that_still_waits(make_rig):
    rig = make_rig(max_num_seqs=1)
    first = rig.submit()
    rig.gate.close()
    second = rig.submit()
    second.abort()
    rig.gate.open()
    answer = second.result(WAIT_S)
    assert (answer.finish_reason, answer.token_ids) == (FinishReason.ABORT, ())
    first.abort()


def test_a_wait_that_is_too_long_leaves_the_request_running(rig):
    generation = rig.submit(max_tokens=300)
    rig.gate.close()
    with pytest.raises(TimeoutError):
        while True:
            generation.result(0.01)
    rig.gate.open()
    assert len(generation.result(WAIT_S).token_ids) == 300


def test_ctrl_c_while_waiting_stops_the_request_and_leaves_the_engine_usable(rig, monkeypatch):
    generation = rig.submit()
    rig.gate.close()
    wait, main_thread = generation._mailbox.get, threading.main_thread().ident

    def press_and_wait(timeout_s=None):
        threading.Thread(target=signal.pthread_kill, args=(main_thread, signal.SIGINT)).start()
        while True:
            wait(timeout_s)

    with monkeypatch.context() as patch:
        patch.setattr(generation._mailbox, "get", press_and_wait)
        with pytest.raises(KeyboardInterrupt):
            generation.result()
    rig.gate.open()
    assert generation.result(WAIT_S).finish_reason is FinishReason.ABORT
    assert rig.submit(max_tokens=3).result(WAIT_S).finish_reason is FinishReason.LENGTH


async def test_async_pieces_are_the_sync_ones(rig):
    pieces = [chunk.text async for chunk in rig.submit(max_tokens=30, seed=2)]
    assert "".join(pieces) == rig.submit(max_tokens=30, seed=2).result(WAIT_S).text
    assert (await rig.submit(max_tokens=30, seed=2).aresult()).text == "".join(pieces)


async def test_many_async_requests_share_the_loop(rig):
    answers = await asyncio.gather(*(rig.submit([i], max_tokens=20, seed=i).aresult() for i in range(30)))
    for i, answer in enumerate(answers):
        assert answer.token_ids == rig.submit([i], max_tokens=20, seed=i).result(WAIT_S).token_ids


async def test_cancelling_the_task_stops_the_request(rig):
    generation = rig.submit()
    task = asyncio.create_task(generation.aresult())
    while not generation.text:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await asyncio.to_thread(generation.result, WAIT_S)).finish_reason is FinishReason.ABORT


async def test_leaving_an_async_loop_stops_the_request(rig):
    generation = rig.submit()
    async for _ in generation:
        break
    assert (await generation.aresult()).finish_reason is FinishReason.ABORT


def test_a_waiter_whose_event_loop_is_gone_does_not_disturb_the_engine(rig):
    generation = rig.submit()

    async def one_piece():
        await anext(aiter(generation))

    asyncio.run(one_piece())
    assert rig.submit(max_tokens=50).result(WAIT_S).finish_reason is FinishReason.LENGTH
    generation.abort()
    assert generation.result(WAIT_S).finish_reason is FinishReason.ABORT


def test_many_threads_get_what_they_get_alone(make_rig):
    rig = make_rig(num_blocks=1010, overlaps=True)
    got, errors = {}, []

    def ask(number):
        try:
            for turn in range(5):
                sampling = {"max_tokens": 5 + number, "seed": number, "n": 1 + turn % 2}
                generation = rig.submit([number, turn], **sampling)
                if turn == 3:
                    next(iter(generation))
                    generation.abort()
                got[number, turn] = generation.result(WAIT_S)
                rig.client.stats()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert errors == [] and len(got) == 60
    for (number, turn), answer in got.items():
        alone = rig.submit([number, turn], max_tokens=5 + number, seed=number).result(WAIT_S)
        assert answer.token_ids == alone.token_ids[: len(answer.token_ids)]
        assert turn == 3 or len(answer.token_ids) == 5 + number
    stats = rig.client.stats()
    assert (stats.num_running, stats.num_waiting, stats.kv_blocks_used) == (0, 0, 0)


@pytest.mark.parametrize(
    "prompt, params, told",
    [
        ([], LONG, "empty"),
        ([VOCAB_SIZE], LONG, f"{VOCAB_SIZE} is outside the vocabulary"),
        ([-1], LONG, "-1 is outside the vocabulary"),
        ([1.0], LONG, "1.0 is not a token id"),
        ([True], LONG, "True is not a token id"),
        ("ab", LONG, "'a' is not a token id"),
        ([1], SamplingParams(stop_token_ids=[VOCAB_SIZE]), "stop_token_ids"),
        ([1], SamplingParams(logit_bias={VOCAB_SIZE: 1}), "logit_bias"),
    ],
)
def test_a_wrong_request_is_refused_at_once(rig, prompt, params, told):
    before = rig.client.stats().requests_total
    with pytest.raises(RequestError, match=told):
        rig.client.submit(prompt, params)
    assert rig.client.stats().requests_total == before


def test_a_prompt_that_is_too_long_is_refused_with_both_numbers(make_rig):
    rig = make_rig(max_context=40, num_blocks=20)
    for length in (40, 41, 4000):
        with pytest.raises(PromptTooLongError, match=f"{length} tokens.*holds 40") as caught:
            rig.submit([1] * length)
        assert (caught.value.num_prompt_tokens, caught.value.max_context) == (length, 40)
    assert len(rig.submit([1] * 39).result(WAIT_S).token_ids) == 1
    # A prompt that is only scored needs no room for an answer.
    assert rig.submit([1] * 40, max_tokens=0, prompt_logprobs=0).result(WAIT_S).token_ids == ()


def test_a_request_that_fails_does_not_reach_the_others(rig):
    good = rig.submit([1], max_tokens=200, seed=1)
    bad = rig.submit(BAD_LATER, max_tokens=200, seed=1)
    for _ in range(2):
        with pytest.raises(InferenceError, match="no such text"):
            bad.result(WAIT_S)
    assert len(good.result(WAIT_S).token_ids) == 200


def test_a_request_that_fails_before_it_starts_does_not_reach_the_others(rig):
    with pytest.raises(InferenceError, match="no such text"):
        rig.submit(BAD_AT_ONCE, max_tokens=5, n=2).result(WAIT_S)
    assert len(rig.submit([1], max_tokens=5, seed=1).result(WAIT_S).token_ids) == 5


def test_when_one_of_several_answers_fails_the_others_are_stopped(rig):
    before = rig.client.stats().finished_by_reason
    with pytest.raises(InferenceError, match="no such text"):
        rig.submit(BAD_IN_ITS_SECOND_ANSWER, max_tokens=None, n=2, seed=1).results(WAIT_S)
    while rig.client.stats().num_running:
        pass
    after = rig.client.stats().finished_by_reason
    assert [after[reason] - before.get(reason, 0) for reason in ("error", "abort")] == [1, 1]


def test_a_step_that_fails_ends_its_requests_and_the_engine_goes_on(rig):
    generations = [rig.submit() for _ in range(3)]
    # A step takes only those along that have arrived. The iterators are kept: dropping one would stop its request.
    pieces = [iter(generation) for generation in generations]
    for each in pieces:
        next(each)
    rig.gate.close()
    rig.gate.fail_next_step("the device fell off")
    rig.gate.open()
    for generation in generations:
        with pytest.raises(InferenceError, match="the device fell off"):
            generation.result(WAIT_S)
    assert rig.submit(max_tokens=4).result(WAIT_S).finish_reason is FinishReason.LENGTH


@in_a_thread
def test_when_the_loop_dies_everybody_is_told_why(make_rig):
    rig = make_rig()
    generations = [rig.submit() for _ in range(2)]
    rig.gate.close()
    rig.engine().stats = None
    rig.cores[0].send(ReadStats("fatal"))
    rig.gate.open()
    for generation in generations:
        with pytest.raises(EngineStoppedError, match="loop died.*not callable"):
            generation.result(WAIT_S)
    with pytest.raises(EngineStoppedError):
        rig.submit()
    with pytest.raises(EngineStoppedError):
        rig.client.stats()
    assert not rig.client.is_alive


def test_stop_ends_what_runs_and_what_waits_and_what_comes_later(make_rig):
    rig = make_rig(max_num_seqs=1)
    running, waiting = rig.submit(), rig.submit()
    rig.gate.close()
    unread = rig.submit()
    rig.gate.open()
    rig.client.stop()
    for generation in (running, waiting, unread):
        with pytest.raises(EngineStoppedError):
            generation.result(WAIT_S)
        generation.abort()
    for act in (rig.submit, rig.client.stats):
        with pytest.raises(EngineStoppedError, match="unloaded"):
            act()
    rig.client.stop()


def test_stop_reaches_those_who_wait_in_other_threads(make_rig):
    rig = make_rig()
    generation, told = rig.submit(), []

    def wait():
        try:
            generation.result()
        except EngineStoppedError as error:
            told.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    rig.client.stop()
    waiter.join(WAIT_S)
    assert len(told) == 1


@in_a_thread
def test_questions_that_a_stop_finds_unanswered_are_answered(rig):
    replies = []
    rig.submit()
    rig.gate.close()
    core = rig.cores[0]
    core._emit, route = (lambda message: (replies.append(message), route(message))), core._emit
    core.send(Stop())
    core.send(ReadStats("late"))
    rig.gate.open()
    core.stop()
    assert [reply.num_running for reply in replies if getattr(reply, "reply_id", None) == "late"] == [1]


@in_a_thread
def test_an_abort_that_comes_too_late_is_no_error(rig):
    generation = rig.submit()
    core = rig.cores[0]

    class StoppingCore:
        """Stops between being asked whether it lives and being told to abort."""

        is_alive = True
        stop = core.stop

        def send(self, message):
            core.stop()
            core.send(message)

    rig.client._core = StoppingCore()
    generation.abort()


@in_a_thread
def test_a_stopped_core_holds_no_engine(rig):
    generation = rig.submit()
    rig.client.stop()
    with pytest.raises(EngineStoppedError) as caught:
        generation.result(WAIT_S)
    gc.collect()
    # Neither the handle nor its error keeps the engine, and with it the weights, alive.
    assert rig.engine() is None and caught.value is not None


@in_a_thread
def test_no_thread_is_left_behind(make_rig):
    rig = make_rig()
    (core,) = rig.cores
    assert core.is_alive
    rig.client.stop()
    assert not core.is_alive
    assert not [thread for thread in threading.enumerate() if thread is core._thread]


def test_messages_can_cross_a_process_boundary(rig):
    request = Request("r", (1, 2), SamplingParams(logit_bias={1: 2}, stop="x"), 5, 0.0)
    for message in (request, Abort("r"), ReadStats("s"), Stop(), rig.client.stats(), *rig.submit(max_tokens=2)):
        assert pickle.loads(pickle.dumps(message)) == message


@pytest.mark.parametrize("error", [RequestError("x"), EngineStoppedError("x"), PromptTooLongError(5, 3)])
def test_errors_can_cross_a_process_boundary(error):
    copied = pickle.loads(pickle.dumps(error))
    assert (type(copied), str(copied), vars(copied)) == (type(error), str(error), vars(error))


def test_what_is_in_flight_is_listed_until_it_ends(rig):
    first = rig.submit([1, 2, 3], params=LONG)
    rig.gate.close()
    second = rig.submit([4, 5], max_tokens=1)
    listed = rig.client.in_flight()
    assert [(r.request_id, r.num_prompt_tokens, r.max_tokens) for r in listed] == [
        (first.request_id, 3, None),
        (second.request_id, 2, 1),
    ]
    rig.gate.open()
    second.result(WAIT_S)
    first.abort()
    first.result(WAIT_S)
    assert rig.client.in_flight() == []
