"""Random requests for an engine over the fake model, and what each of them must be answered."""

from __future__ import annotations

from collections import defaultdict

from engine.fake_runner import VOCAB_SIZE, hashed_token, make_limits, spell

from workbench.engine.messages import Request
from workbench.engine.sampling_params import SamplingParams
from workbench.engine.sequence import FinishReason

EOS = 7


def make_request(name, prompt, seed=0, **sampling):
    return Request(name, tuple(prompt), SamplingParams(**sampling), seed, 0.0)


def run_until_idle(engine, max_steps=2000):
    """All chunks until nothing is left to do, with the books checked after every step."""
    chunks = []
    for _ in range(max_steps):
        if not engine.has_work:
            return chunks
        chunks += engine.step()
        engine.check_integrity()
    raise AssertionError("the engine does not come to an end")


def answers_of(chunks):
    """Chunks by (request id, index)."""
    answers = defaultdict(list)
    for chunk in chunks:
        answers[chunk.request_id, chunk.index].append(chunk)
    return answers


def token_ids_of(chunks):
    return [i for chunk in chunks for i in chunk.token_ids]


def alone(request, index, max_context, model=hashed_token):
    """What one answer must be, worked out without an engine: (token ids, text, finish reason)."""
    params, token_ids, answer = request.params, list(request.prompt_token_ids), []
    while True:
        answer.append(model(token_ids + answer, request.seed, index))
        stops = set(params.stop_token_ids) | (set() if params.ignore_eos else {EOS})
        if answer[-1] in stops:
            text = spell(answer[:-1])
            return answer, text, FinishReason.STOP
        text = spell(answer)
        found = [text.find(stop) for stop in params.stop if stop in text]
        if found:
            return answer, text[: min(found)], FinishReason.STOP
        if len(answer) == params.max_tokens or len(token_ids) + len(answer) == max_context:
            return answer, text, FinishReason.LENGTH


def random_request(rng, name, max_context):
    # Few beginnings, so that prompts share prefixes of all lengths.
    base = [rng.randrange(3)] * 30
    prompt = base[: rng.randrange(0, 24)] + [rng.randrange(VOCAB_SIZE) for _ in range(rng.randrange(1, 10))]
    return make_request(
        name,
        prompt[: max_context - 1],
        seed=rng.randrange(5),
        max_tokens=rng.choice([1, 2, 5, 12, None]),
        n=rng.choice([1, 1, 1, 2, 3]),
        ignore_eos=rng.random() < 0.5,
        stop_token_ids=rng.choice([(), (3, 4)]),
        stop=rng.choice([(), ("9><1",), (">",), ("<2",)]),
        logprobs=rng.random() < 0.2,
        prompt_logprobs=0 if rng.random() < 0.05 else None,
    )


def run_random_traffic(engine, rng, max_context, num_steps, arrivals_per_step):
    """Requests come and are aborted at random until all is done; (requests by name, aborted answers, chunks)."""
    requests, aborted, chunks = {}, set(), []
    for step in range(num_steps):
        if rng.random() < arrivals_per_step:
            request = random_request(rng, f"r{step}", max_context)
            requests[request.request_id] = request
            engine.add(request)
        if requests and rng.random() < 0.05:
            ended = engine.abort(rng.choice(list(requests)))
            chunks += ended
            aborted |= {(chunk.request_id, chunk.index) for chunk in ended}
            engine.check_integrity()
        chunks += engine.step()
        engine.check_integrity()
    return requests, aborted, chunks + run_until_idle(engine)


LIMITS = {
    "roomy": make_limits(num_blocks=100, max_num_batched_tokens=64, max_prompt_tokens_beside_decodes=32),
    "preempting": make_limits(num_blocks=11),
    "one context": make_limits(num_blocks=10, max_num_batched_tokens=8, max_prompt_tokens_beside_decodes=3),
    "no prefixes": make_limits(num_blocks=12, enable_prefix_caching=False),
    "token by token": make_limits(
        block_size=1, num_blocks=50, max_num_batched_tokens=2, max_prompt_tokens_beside_decodes=1
    ),
    "few at once": make_limits(max_num_seqs=2, num_blocks=20),
}


def check_answers(requests, answers, aborted, max_context, model=hashed_token):
    assert set(answers) == {(name, index) for name, request in requests.items() for index in range(request.params.n)}
    for (name, index), chunks in answers.items():
        token_ids, text, reason = alone(requests[name], index, max_context, model)
        came = token_ids_of(chunks)
        came_text = "".join(chunk.text for chunk in chunks)
        assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
        last = chunks[-1]
        assert last.usage.num_generated_tokens == len(came)
        assert last.usage.num_prompt_tokens == len(requests[name].prompt_token_ids)
        if (name, index) in aborted:
            assert last.finish_reason is FinishReason.ABORT
            assert came == token_ids[: len(came)]
        else:
            assert (came, came_text, last.finish_reason) == (token_ids, text, reason)
        for stop in requests[name].params.stop:
            assert last.finish_reason is FinishReason.ABORT or stop not in came_text
