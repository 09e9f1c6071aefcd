"""Both sources of replies keep the same protocol: the engine of this process, and that engine behind its endpoint."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import httpx
import pytest
from live_endpoint import USE_KEY, start_endpoint, wait_until_idle

from dashboards.running_reply import RunningReply
from dashboards.sources import ChatAsk, EndpointSource, SessionSource
from dashboards.toolbox import BUILT_IN_TOOLS, Toolbox
from workbench.conversation import Conversation, Message, MessageStatus, ReplyFigures
from workbench.engine import SamplingParams, StructureKind, StructureSpec
from workbench.errors import ConfigError, EngineStoppedError, InferenceError, RequestError
from workbench.server.settings import ServerSettings
from workbench.session import Session

HELLO = ({"role": "user", "content": "Say hello."},)
SHORT = SamplingParams(max_tokens=8)


@pytest.fixture(scope="module")
def endpoint(session):
    with start_endpoint(session.llm, ServerSettings()) as endpoint:
        yield endpoint


@pytest.fixture(params=["session", "endpoint"])
async def source(request, session, endpoint):
    made = SessionSource(session) if request.param == "session" else EndpointSource(endpoint.url, USE_KEY)
    await made.refresh()
    yield made
    await made.close()


async def _text(source, ask) -> str:
    async with aclosing(source.stream(ask)) as pieces:
        return "".join([piece.text async for piece in pieces])


async def _last(source) -> ReplyFigures:
    """The figures of a reply that was not stopped, to the same question."""
    ask = ChatAsk(({"role": "user", "content": "Tell me a story."},), params=SamplingParams(max_tokens=1))
    async with aclosing(source.stream(ask)) as pieces:
        return [piece.figures async for piece in pieces if piece.figures][0]


async def _asked_for_the_time(source, max_tokens) -> Message:
    """The reply to a question for which the clock must be called."""
    toolbox = Toolbox(BUILT_IN_TOOLS)
    conversation = Conversation()
    conversation.add("user", "How late is it?")
    conversation.reply()
    params = SamplingParams(max_tokens=max_tokens)
    ask = ChatAsk(params=params, functions=toolbox.functions(["clock"]), must_call=True)
    return await RunningReply.of(source, conversation, ask, toolbox).ended()


async def test_the_state_names_the_model_and_its_context(source):
    state = source.state()
    assert state.is_ready and state.max_context == 2048 and state.model
    assert state.model in await source.models()


async def test_the_same_question_gets_the_engines_answer(source, session):
    expected = session.llm.chat("Say hello.", max_tokens=8)
    assert await _text(source, ChatAsk(HELLO, params=SHORT)) == expected


async def test_a_prompt_is_completed(source, session):
    expected = session.llm.infer("The capital of France is", max_tokens=4)
    ask = ChatAsk(prompt="The capital of France is", params=SamplingParams(max_tokens=4))
    assert await _text(source, ask) == expected


async def test_the_last_piece_has_the_figures(source):
    pieces = [piece async for piece in source.stream(ChatAsk(HELLO, params=SHORT))]
    figures = pieces[-1].figures
    assert figures.num_generated_tokens == 8 and figures.finish_reason == "length"
    assert figures.num_prompt_tokens > 5 and figures.ttft_s > 0 and figures.tokens_per_s > 0


async def test_tokens_come_with_likelihoods_when_asked_for(source):
    params = SamplingParams(max_tokens=4, logprobs=True, top_logprobs=3)
    pieces = [piece async for piece in source.stream(ChatAsk(HELLO, params=params))]
    tokens = [token for piece in pieces for token in piece.tokens]
    assert len(tokens) == 4
    assert "".join(token.text for token in tokens) == "".join(piece.text for piece in pieces)
    assert tokens[0].alternatives[0].logprob == pytest.approx(tokens[0].logprob, abs=1e-3)


async def test_a_reply_is_continued(source):
    messages = (*HELLO, {"role": "assistant", "content": "Hello and"})
    text = await _text(source, ChatAsk(messages, params=SHORT, continues=True))
    assert text and not text.startswith("Hello")


async def test_an_answer_keeps_to_a_schema(source):
    schema = '{"type": "object", "properties": {"a": {"enum": [1]}}, "required": ["a"], "additionalProperties": false}'
    params = SamplingParams(max_tokens=40, structure=StructureSpec(StructureKind.JSON_SCHEMA, schema))
    assert (await _text(source, ChatAsk(HELLO, params=params))).replace(" ", "").replace("\n", "") == '{"a":1}'


async def test_a_tool_is_called_and_its_result_goes_back(source):
    message = await _asked_for_the_time(source, max_tokens=24)
    assert message.status is MessageStatus.DONE, message.failure
    assert message.steps[0].name == "clock" and ":" in message.steps[0].result


async def test_a_call_that_the_length_limit_cuts_is_a_step_that_was_not_made(source):
    message = await _asked_for_the_time(source, max_tokens=3)
    (step,) = message.steps
    assert step.is_cut and step.name == "clock" and message.text == "" and message.figures.finish_reason == "length"


async def test_leaving_frees_the_engine(source, session):
    ask = ChatAsk(HELLO, params=SamplingParams(max_tokens=1800, ignore_eos=True))
    async with aclosing(source.stream(ask)) as pieces:
        await anext(pieces)
    await asyncio.to_thread(wait_until_idle, session.llm)


async def test_a_stopped_reply_keeps_what_has_come(source, session):
    conversation = Conversation()
    conversation.add("user", "Tell me a story.")
    conversation.reply()
    ask = ChatAsk(params=SamplingParams(max_tokens=1800, ignore_eos=True))
    reply = RunningReply.of(source, conversation, ask)
    async for message in reply.updates(0.01):
        if len(message.text) > 10 and reply.live.num_prompt_tokens is not None:
            reply.stop()
    assert reply.message.status is MessageStatus.STOPPED and len(reply.message.text) > 10
    assert reply.message.figures.num_generated_tokens > 1
    assert "context" in reply.message.note
    assert reply.message.figures.num_prompt_tokens == (await _last(source)).num_prompt_tokens
    await asyncio.to_thread(wait_until_idle, session.llm)
    before = reply.message.figures
    conversation.resume()
    reply = RunningReply.of(source, conversation, ChatAsk(params=SamplingParams(max_tokens=3, ignore_eos=True)))
    message = await reply.ended()
    assert message.figures.num_generated_tokens == before.num_generated_tokens + 3
    assert message.figures.ttft_s == before.ttft_s


async def test_a_text_is_scored_alone_and_as_a_reply(source):
    tokens = await source.score("The capital of France is Paris.", num_alternatives=3)
    assert "".join(token.text for token in tokens) == "The capital of France is Paris."
    assert tokens[0].logprob is None and tokens[-1].logprob < 0
    # What the app asks for is more than OpenAI's completions give.
    assert len((await source.score("The capital of France", num_alternatives=8))[2].alternatives) >= 5
    in_chat = await source.score("Hello!", HELLO, num_alternatives=3)
    assert "".join(token.text for token in in_chat) == "Hello!" and in_chat[0].logprob < 0
    with pytest.raises(RequestError):
        await source.score("")


async def test_the_context_is_counted(source):
    use = await source.context_use([{"role": "system", "content": "Be brief."}, *HELLO], "And now?")
    assert use.max_context == 2048 and min(use.system_tokens, use.history_tokens, use.draft_tokens) > 0
    (piece,) = [p async for p in source.stream(ChatAsk(HELLO, params=SamplingParams(max_tokens=1))) if p.figures]
    assert (await source.context_use([], "Say hello.")).used_tokens == piece.figures.num_prompt_tokens
    functions = Toolbox(BUILT_IN_TOOLS).functions(["clock"])
    assert (await source.context_use([], "Say hello.", functions)).system_tokens > 50
    alone = await source.context_use([], "")
    assert (alone.history_tokens, alone.draft_tokens) == (0, 0) and alone.system_tokens > 0


async def test_a_wrong_request_is_the_askers_error(source):
    too_long = ({"role": "user", "content": "word " * 3000},)
    with pytest.raises(RequestError):
        await _text(source, ChatAsk(too_long, params=SHORT))


async def test_nothing_loaded_is_no_crash():
    with Session() as session:
        source = SessionSource(session)
        assert not source.state().is_ready and not source.state().has_crashed
        assert await source.context_use([], "x") is None
        with pytest.raises(EngineStoppedError):
            await _text(source, ChatAsk(HELLO))


async def _answering(status: int, content: bytes) -> EndpointSource:
    transport = httpx.MockTransport(lambda request: httpx.Response(status, content=content))
    source = EndpointSource("http://elsewhere:1", transport=transport)
    await source.refresh()
    return source


async def test_what_an_endpoint_refuses_is_said():
    source = await _answering(401, b'{"error": {"message": "no key"}}')
    assert "no key" in source.state().words and not source.state().is_ready
    for status, kind in ((401, ConfigError), (404, RequestError), (503, InferenceError)):
        source = await _answering(status, b'{"error": {"message": "so it is"}}')
        with pytest.raises(kind, match="so it is"):
            await _text(source, ChatAsk(HELLO))


async def test_what_is_no_endpoint_is_said():
    for content in (b"<html>", b"[]", b'{"data": [{}]}'):
        assert not (await _answering(200, content)).state().is_ready
    nobody = EndpointSource("http://127.0.0.1:9")
    await nobody.refresh()
    assert "cannot be reached" in nobody.state().words
    await nobody.close()


async def test_reasoning_in_a_field_of_its_own_is_put_between_tags():
    lines = [
        '{"choices": [{"delta": {"reasoning_content": "hm"}}]}',
        '{"choices": [{"delta": {"reasoning_content": "m"}}]}',
        '{"choices": [{"delta": {"content": "yes"}, "finish_reason": "stop"}]}',
        '{"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3}}',
        "[DONE]",
    ]
    source = await _answering(200, _events(lines))
    pieces = [piece async for piece in source.stream(ChatAsk(HELLO))]
    assert "".join(piece.text for piece in pieces) == "<think>hmm</think>yes"
    assert pieces[-1].figures.num_generated_tokens == 3


@pytest.mark.parametrize(
    ("delta", "said", "name", "arguments"),
    [
        ('{"content": "Well. <tool_call>{\\"name\\": \\"clock\\", \\"arguments\\": {"}', "Well.", "clock", "{"),
        ('{"tool_calls": [{"index": 0, "function": {"name": "sum", "arguments": "{\\"a"}}]}', "", "sum", '{"a'),
    ],
)
async def test_a_call_that_another_endpoint_cuts_is_not_made(delta, said, name, arguments):
    source = await _answering(200, _events([f'{{"choices": [{{"delta": {delta}, "finish_reason": "length"}}]}}']))
    message = await _asked_for_the_time(source, max_tokens=3)
    (step,) = message.steps
    assert (message.text, step.name, step.arguments, step.is_cut) == (said, name, arguments, True)


def _events(lines) -> bytes:
    return "".join(f"data: {line}\n\n" for line in lines).encode()


@pytest.mark.parametrize("url", ["", "ftp://x", "http://", "//"])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ConfigError, match="url="):
        EndpointSource(url)
