"""Plugins in a running engine: samplers by row, filters by answer, hooks around requests; and none when they fail."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from workbench.engine import Chunk, FinishReason, SamplingParams
from workbench.engine.answer_filters import AnswerFilters
from workbench.engine.row_plugins import RowPlugins
from workbench.errors import RequestError
from workbench.llm import LlamaGPU
from workbench.plugins import (
    BasePlugin,
    Filtered,
    LogitsProcessor,
    PluginManager,
    PluginMetadata,
    PluginRefusal,
    PluginStore,
    StreamFilter,
    TokenSampler,
    hookimpl,
)


class OnlyToken(LogitsProcessor):
    """Leaves one token."""

    def __init__(self, options: dict) -> None:
        if "token" not in options:
            raise ValueError("token is missing")
        self.token = options["token"]

    def process(self, logits, token_ids, num_prompt_tokens):
        keep = logits[self.token].clone()
        logits.fill_(float("-inf"))
        logits[self.token] = keep


class ByDraw(TokenSampler):
    """The token whose number the draw says."""

    def __init__(self, options: dict) -> None:
        self.span = options.get("span", 50)

    def choose(self, logits, token_ids, draw):
        return int(draw * self.span)


class Upper(StreamFilter):
    def __init__(self, options: dict) -> None:
        self.stop_after = options.get("stop_after")
        self.num_seen = 0

    def feed(self, text: str) -> Filtered:
        self.num_seen += 1
        return Filtered(text.upper(), stop=self.num_seen == self.stop_after, reason="enough")


def failing(where: str):
    """A part whose every method raises, half-way through its work."""

    class Failing(LogitsProcessor, StreamFilter):
        def __init__(self, options: dict) -> None:
            if where == "factory":
                raise RuntimeError("no")

        def process(self, logits, token_ids, num_prompt_tokens):
            logits.fill_(0.0)
            match where:
                case "shape":
                    return logits[:3]
                case "nan":
                    return logits * float("nan")
                case "nothing left":
                    return logits.fill_(float("-inf"))
                case "kind":
                    return [1.0]
                case "mutate":
                    token_ids[0] = 1
            raise RuntimeError("no")

        def feed(self, text):
            raise RuntimeError("no") if where != "kind" else None

        def finish(self):
            return "held" if where == "held" else ""

    return Failing


class Parts(BasePlugin):
    metadata = PluginMetadata("parts", "1.0", permissions=("samplers", "stream_filters", "requests"))

    def __init__(self) -> None:
        self.changes: object = None
        self.finished: list = []

    def initialize(self, context) -> None:
        self.changes, self.finished = None, []

    @hookimpl
    def register_samplers(self, register):
        register("only-token", OnlyToken)
        register("by-draw", ByDraw)
        register("bad-token", lambda options: type("Bad", (), {"choose": lambda self, *_: options.get("id", -1)})())
        for where in ("factory", "shape", "nan", "nothing left", "kind", "mutate", "raise"):
            register(f"bad-{where.replace(' ', '-')}", failing(where))

    @hookimpl
    def register_stream_filters(self, register):
        register("upper", Upper)
        register("bad-filter", failing("raise"))
        register("held-filter", failing("held"))

    @hookimpl
    def pre_request(self, request):
        if isinstance(self.changes, Exception):
            raise self.changes
        return self.changes

    @hookimpl
    def post_request(self, request):
        self.finished.append(request)


plugin = Parts()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaGPU]:
    """One small model for all tests, with a manager of its own."""
    store = PluginStore(tmp_path_factory.mktemp("plugins"))
    with pytest.MonkeyPatch.context() as patch, PluginManager(store, max_failures=1000, time_limit_s=60) as manager:
        patch.setattr("workbench.plugins.loader.try_import", lambda candidate, limit_s: None)
        patch.setattr("workbench.llm.default_plugins", lambda: manager)
        with LlamaGPU("random:tiny", prefer_gpu=False, auto_detect_aws=False, context_length=128) as llm:
            yield llm


@pytest.fixture
def llm(shared: LlamaGPU, monkeypatch: pytest.MonkeyPatch) -> LlamaGPU:
    """With the plugin as it is at first."""
    manager = shared.plugins
    monkeypatch.setattr("workbench.plugins.loader.try_import", lambda candidate, limit_s: None)
    monkeypatch.setattr("workbench.llm.default_plugins", lambda: manager)
    monkeypatch.setattr(manager._guard, "_max_failures", 1000)
    manager._guard.failures.forget("parts")
    if "parts" not in manager.list_plugins():
        manager.load("parts", f"{__name__}:plugin")
    plugin.changes, plugin.finished = None, []
    return shared


@pytest.fixture
def manager(llm: LlamaGPU) -> PluginManager:
    return llm.plugins


def test_samplers_are_for_the_rows_that_name_them(llm: LlamaGPU) -> None:
    plain = llm.submit([5, 6, 7], max_tokens=6).result().token_ids
    both = [
        llm.submit([5, 6, 7], max_tokens=6, plugins={"only-token": {"token": 9}}),
        llm.submit([5, 6, 7], max_tokens=6),
        llm.submit([5, 6, 7], max_tokens=6, temperature=1.0, seed=3, plugins={"only-token": {"token": 11}}),
    ]
    assert [each.result().token_ids for each in both] == [(9,) * 6, plain, (11,) * 6]


def test_a_sampler_may_choose_by_the_requests_own_draw(llm: LlamaGPU) -> None:
    first = llm.submit([5, 6], max_tokens=8, seed=4, plugins="by-draw").result().token_ids
    again = llm.submit([5, 6], max_tokens=8, seed=4, plugins=["by-draw"]).result().token_ids
    other = llm.submit([5, 6], max_tokens=8, seed=5, plugins=["by-draw"]).result().token_ids
    assert first == again != other and max(first) < 50


def test_samplers_run_in_the_order_of_the_request(llm: LlamaGPU) -> None:
    plugins = {"only-token": {"token": 9}, "by-draw": {}}
    # What the first forbids, the second may not choose: it fails, and the first one's token stands.
    assert llm.submit([5, 6], max_tokens=3, seed=4, plugins=plugins).result().token_ids == (9, 9, 9)
    assert llm.plugins.failure("parts").count == 3


@pytest.mark.parametrize(
    "name",
    ["bad-factory", "bad-shape", "bad-nan", "bad-nothing-left", "bad-kind", "bad-mutate", "bad-raise", "bad-token"],
)
def test_a_sampler_that_fails_changes_nothing(llm: LlamaGPU, name: str) -> None:
    plain = llm.submit([5, 6, 7], max_tokens=4).result()
    plugged = llm.submit([5, 6, 7], max_tokens=4, plugins=name).result()
    assert (plugged.token_ids, plugged.finish_reason) == (plain.token_ids, plain.finish_reason)
    assert llm.plugins.failure("parts").count >= 1


def test_a_plugin_that_fails_too_often_is_out_and_says_so(
    manager: PluginManager, llm: LlamaGPU, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager._guard, "_max_failures", 3)
    assert len(llm.submit([5, 6, 7], max_tokens=8, plugins="bad-raise").result().token_ids) == 8
    assert manager.worker.wait_until_idle(60)
    assert manager.list_plugins() == []
    with pytest.raises(RequestError, match="plugins: 'bad-raise' is not active here"):
        llm.submit([5, 6, 7], max_tokens=4, plugins="bad-raise")
    assert llm.submit([5, 6, 7], max_tokens=4).result().finish_reason is FinishReason.LENGTH


@pytest.mark.parametrize(
    ("plugins", "words"),
    [
        ("nobody", "'nobody' is not active here; active are"),
        ({"only-token": {}}, "only-token: token is missing"),
        ({"upper": 5}, "must be an object"),
        ({"upper": {"x": {1}}}, "not JSON"),
        ({"": {}}, "not a name"),
        ([1], "must be names"),
        (7, "must be names"),
        ({f"p{i}": {} for i in range(17)}, "more than the 16"),
        ({"upper": {"x": "y" * 70_000}}, "longer than"),
    ],
)
def test_what_cannot_be_done_is_refused_where_it_is_asked(llm: LlamaGPU, plugins: object, words: str) -> None:
    for ask in (llm.submit, llm.stream_infer):
        with pytest.raises(RequestError, match=words):
            ask("Hello", max_tokens=2, plugins=plugins)


def test_filters_change_the_text_of_those_who_ask(llm: LlamaGPU) -> None:
    plain = llm.infer("Hello", max_tokens=8)
    assert llm.infer("Hello", max_tokens=8, plugins="upper") == plain.upper()
    assert "".join(llm.stream_infer("Hello", max_tokens=8, plugins="upper")) == plain.upper()
    assert llm.infer("Hello", max_tokens=8) == plain


def test_a_filter_ends_an_answer(llm: LlamaGPU) -> None:
    done = llm.submit("Hello", max_tokens=100, plugins={"upper": {"stop_after": 3}}).result()
    assert done.finish_reason is FinishReason.STOP and done.stop_reason == "enough"
    # The engine is told; some tokens may be on their way by then.
    assert done.timings.num_generated_tokens < 100
    assert llm.stats().num_running == 0


def test_of_several_answers_each_has_its_own_filter(llm: LlamaGPU) -> None:
    generation = llm.submit("Hello", n=2, max_tokens=10, temperature=1.0, seed=1, plugins={"upper": {"stop_after": 2}})
    assert [each.finish_reason for each in generation.results()] == [FinishReason.STOP] * 2


def test_a_filter_that_fails_lets_the_text_by(llm: LlamaGPU) -> None:
    plain = llm.infer("Hello", max_tokens=5)
    assert llm.infer("Hello", max_tokens=5, plugins="bad-filter") == plain
    assert llm.infer("Hello", max_tokens=5, plugins="held-filter") == f"held{plain}"


def test_no_log_probabilities_beside_a_changed_text(llm: LlamaGPU) -> None:
    with pytest.raises(RequestError, match="upper changes the text"):
        llm.submit("Hello", logprobs=True, plugins="upper")


def test_a_plugin_changes_settings_before_a_request(llm: LlamaGPU) -> None:
    plugin.changes = {"max_tokens": 2}
    assert len(llm.submit("Hello", max_tokens=9).result().token_ids) == 2


@pytest.mark.parametrize(
    "changes", [{"n": 3}, {"max_tokens": -1}, {"colour": 1}, 7, RuntimeError("no"), {"plugins": "x"}]
)
def test_changes_that_cannot_be_are_left_out(llm: LlamaGPU, changes: object) -> None:
    plugin.changes = changes
    assert len(llm.submit("Hello", max_tokens=5).result().token_ids) == 5
    assert llm.plugins.failure("parts").count == 1


def test_a_plugin_refuses_a_request(llm: LlamaGPU) -> None:
    plugin.changes = PluginRefusal("not after hours")
    with pytest.raises(RequestError, match="not after hours"):
        llm.infer("Hello")
    assert llm.plugins.failure("parts").count == 0


def test_plugins_hear_of_finished_answers(llm: LlamaGPU) -> None:
    done = llm.submit([5, 6, 7], n=2, max_tokens=4, temperature=1.0, seed=1).results()
    running = llm.submit([5, 6, 7], max_tokens=None, ignore_eos=True)
    next(iter(running))
    assert llm.stats() and llm.plugins.worker.wait_until_idle(60)
    first, second, aborted = plugin.finished
    assert [(each.index, each.text, each.token_ids) for each in (first, second)] == [
        (each.index, each.text, each.token_ids) for each in done
    ]
    assert first.prompt_token_ids == (5, 6, 7) and first.sampling["max_tokens"] == 4
    assert first.ttft_s is not None and 0 <= first.ttft_s <= first.total_s
    assert (first.finish_reason, aborted.finish_reason) == ("length", "abort")


def test_engines_tell_of_their_start_and_end(manager: PluginManager) -> None:
    heard: list = []
    for event in ("engine_start", "engine_stop"):
        manager.events.register_hook(event, lambda event=event, **facts: heard.append((event, facts)))
    with LlamaGPU("random:tiny", prefer_gpu=False, auto_detect_aws=False):
        assert heard == [("engine_start", {"name": "random:tiny", "device": "cpu"})]
    assert heard[1:] == [("engine_stop", {"name": "random:tiny", "device": "cpu"})]


def test_without_plugins_nothing_is_made(manager: PluginManager) -> None:
    params = SamplingParams()
    assert params.plugins == {} and not params.edits_logits
    assert RowPlugins.of(manager, params.plugins) is None and RowPlugins.of(None, {"x": {}}) is None
    assert AnswerFilters.of(manager, params.plugins) is None


def test_a_row_without_numbers_is_left_to_the_engine(manager: PluginManager) -> None:
    row = RowPlugins.of(manager, {"only-token": {"token": 1}})
    logits = torch.full((4,), float("nan"))
    row.edit(logits, [1, 2], 2)
    assert logits.isnan().all()


def test_the_filters_of_a_failed_answer_keep_its_error(manager: PluginManager) -> None:
    filters = AnswerFilters.of(manager, {"upper": {"stop_after": 1}})
    assert filters.apply(Chunk("r", 0, text="a")).text == "A"
    last = filters.apply(Chunk("r", 0, finish_reason=FinishReason.ERROR, error=RequestError("x")))
    assert last.finish_reason is FinishReason.ERROR and last.error is not None


def test_a_plugins_engine_is_taken_by_name(llm: LlamaGPU) -> None:
    from workbench.engine import EngineConfig
    from workbench.errors import ConfigError

    with pytest.raises(ConfigError, match="there is no 'other'; there are paged"):
        LlamaGPU("random:tiny", prefer_gpu=False, auto_detect_aws=False, engine=EngineConfig(engine_name="other"))
