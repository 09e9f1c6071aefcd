"""The parts of a new plugin that differ by its kind, as text."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PARTS", "TemplatePart"]


@dataclass(frozen=True)
class TemplatePart:
    """`names` are imported from workbench.plugins, `parts` stand before the plugin's class, `hooks` in it; `$name` and
    `$class_name` are filled in in `hooks` and `test`, `$name` in `summary`."""

    point: str
    summary: str
    hooks: str
    parts: str = ""
    names: tuple[str, ...] = ()
    imports: str = ""
    test: str = ""
    test_imports: str = ""


def _register(point: str, value: str, words: str) -> str:
    return f'@hookimpl\ndef register_{point}(self, register) -> None:\n    register("$name", {value}, "{words}")\n'


PARTS = {
    "sampler": TemplatePart(
        "samplers",
        "Makes chosen tokens less likely, by an amount that a request gives.",
        _register("samplers", "Discourage", "options: token_ids, amount"),
        '''
class Discourage(LogitsProcessor):
    """Options of a request: `token_ids` to make less likely, and by what `amount` (default 5)."""

    def __init__(self, options: dict) -> None:
        self.token_ids = options.get("token_ids", [])
        self.amount = options.get("amount", 5.0)
        if not isinstance(self.token_ids, list) or not all(isinstance(i, int) for i in self.token_ids):
            # A ValueError here is told to whoever made the request.
            raise ValueError("token_ids must be a list of numbers")

    def process(self, logits, token_ids, num_prompt_tokens):
        logits[self.token_ids] -= self.amount

''',
        ("LogitsProcessor",),
        test="""
def test_it_makes_tokens_less_likely(manager: PluginManager) -> None:
    make = manager.find("samplers", "$name").value
    logits = torch.zeros(4)
    make({"token_ids": [2], "amount": 3.0}).process(logits, [0, 1], 2)
    assert logits.tolist() == [0.0, 0.0, -3.0, 0.0]
    with pytest.raises(ValueError, match="token_ids"):
        make({"token_ids": "two"})
""",
        test_imports="import torch",
    ),
    "stream-filter": TemplatePart(
        "stream_filters",
        "Shows an answer in capital letters.",
        _register("stream_filters", "Capitals", "no options"),
        '''
class Capitals(StreamFilter):
    """One for each answer. Hold text back in `feed` and give the rest in `finish` where a piece alone is too little."""

    def __init__(self, options: dict) -> None:
        pass

    def feed(self, text: str) -> str:
        return text.upper()

''',
        ("StreamFilter",),
        test="""
def test_it_shows_capitals(manager: PluginManager) -> None:
    part = manager.find("stream_filters", "$name").value({})
    assert part.feed("ab") + part.finish() == "AB"
""",
    ),
    "quantizer": TemplatePart(
        "quantization_methods",
        "Rounds weights to a number of levels; smaller on disk once compressed, of the same size in memory.",
        _register("quantization_methods", "Rounded()", "weights rounded to 256 levels"),
        '''
class Rounded:
    """Has what `workbench.quantize.methods.Method` asks for."""

    def unavailable_reason(self, device_type: str) -> str | None:
        return None

    def apply(self, model, config, samples) -> tuple[str, ...]:
        for parameter in model.parameters():
            if parameter.ndim == 2:
                scale = parameter.data.abs().amax(dim=1, keepdim=True).clamp_min(1e-8) / 127
                parameter.data = (parameter.data / scale).round() * scale
        return ()

''',
        test="""
def test_it_rounds_weights(manager: PluginManager) -> None:
    layer = torch.nn.Linear(8, 4)
    before = layer.weight.detach().clone()
    assert manager.find("quantization_methods", "$name").value.apply(layer, None, ()) == ()
    assert 0 < (layer.weight - before).abs().max() < 0.01
""",
        test_imports="import torch",
    ),
    "balancer": TemplatePart(
        "load_balancers",
        "Sends each request to the worker with the most free cache.",
        _register("load_balancers", "MostRoom", "most free cache first"),
        """
class MostRoom(Balancer):
    name = "$name"
    reads_kv_headroom = True

    def choose(self, loads, prompt=None):
        return max(loads, key=lambda load: (load.kv_headroom or 0.0, -load.num_in_flight)).worker_id

""",
        imports="\nfrom workbench.parallel import Balancer",
        test="""
def test_it_takes_the_emptiest(manager: PluginManager) -> None:
    balancer = manager.find("load_balancers", "$name").value()
    loads = [WorkerLoad(0, kv_headroom=0.1), WorkerLoad(1, kv_headroom=0.9)]
    assert balancer.choose(loads) == 1
""",
        test_imports="\nfrom workbench.parallel import WorkerLoad",
    ),
    "model-source": TemplatePart(
        "model_sources",
        "Finds models in a folder of your own by a short name.",
        _register("model_sources", "find_model", "$name:NAME is ~/models/NAME"),
        '''
def find_model(location: str, progress) -> Path:
    """The folder of a model; `progress` takes `workbench.progress.Progress` values while something is fetched."""
    return Path("~/models").expanduser() / location

''',
        test="""
def test_it_names_a_folder(manager: PluginManager) -> None:
    assert manager.find("model_sources", "$name").value("tiny", print).name == "tiny"
""",
    ),
    "engine": TemplatePart(
        "engines",
        "Starts the workbench's own engine, with smaller steps.",
        _register("engines", "start_small", "the paged engine in small steps"),
        '''
def start_small(loaded, backend, device_index, config, **options):
    """Gives a StartedEngine: something with a `client`, `limits` and a `runner_reason`."""
    from dataclasses import replace

    from workbench.engine.build import start_engine

    return start_engine(loaded, backend, device_index, replace(config, max_num_batched_tokens=64), **options)

''',
        test="""
def test_it_is_found_by_name(manager: PluginManager) -> None:
    assert callable(manager.find("engines", "$name").value)
""",
    ),
    "backend": TemplatePart(
        "backends",
        "A CPU that is never chosen by itself, to begin a backend of your own with.",
        _register("backends", "OwnBackend", "a CPU by another name"),
        """
class OwnBackend(CPUBackend):
    name = "$name"

""",
        imports="\nfrom workbench.backends import CPUBackend",
        test="""
def test_it_is_available(manager: PluginManager) -> None:
    assert manager.find("backends", "$name").value().unavailable_reason() is None
""",
    ),
    "request-hook": TemplatePart(
        "pre_request",
        "Bounds the length of answers, and counts those that have ended.",
        """
num_finished = 0

@hookimpl
def pre_request(self, request):
    if request.sampling["max_tokens"] is None:
        return {"max_tokens": 1024}
    return None

@hookimpl
def post_request(self, request) -> None:
    self.num_finished += 1
""",
        test="""
def test_it_bounds_answers_without_a_bound(manager: PluginManager) -> None:
    plugin = manager.object_of("$name")
    assert plugin.pre_request(RequestInfo((1, 2), {"max_tokens": None})) == {"max_tokens": 1024}
    assert plugin.pre_request(RequestInfo((1, 2), {"max_tokens": 5})) is None
""",
        test_imports="\nfrom workbench.plugins import RequestInfo",
    ),
    "route": TemplatePart(
        "routes",
        "Answers GET /plugins/$name/hello.",
        _register("routes", "make_router()", "GET hello"),
        """
def make_router():
    from fastapi import APIRouter

    router = APIRouter()

    @router.get("/hello")
    def hello() -> dict[str, str]:
        return {"hello": "world"}

    return router

""",
        test="""
def test_it_has_the_route(manager: PluginManager) -> None:
    assert [route.path for route in manager.find("routes", "$name").value.routes] == ["/hello"]
""",
    ),
    "cli-command": TemplatePart(
        "cli_commands",
        "Adds the command `workbench $name`.",
        _register("cli_commands", "say_hello", "Say hello to somebody."),
        """
def say_hello(name: str = "world") -> None:
    print(f"Hello, {name}.")

""",
        test="""
def test_it_says_hello(manager: PluginManager, capsys: pytest.CaptureFixture) -> None:
    manager.find("cli_commands", "$name").value("you")
    assert capsys.readouterr().out == "Hello, you.\\n"
""",
    ),
    "widget": TemplatePart(
        "widgets",
        "Shows which model is loaded.",
        _register("widgets", "make_widget", "the loaded model's name"),
        '''
def make_widget(session):
    """`session` is the workbench's: `session.status`, `session.observe(callback)`, `session.submit(...)`."""
    import ipywidgets

    return ipywidgets.Label(f"The session is {session.status.state.value}.")

''',
        test="""
def test_it_makes_a_widget(manager: PluginManager) -> None:
    from workbench.session import Session

    assert manager.find("widgets", "$name").value(Session()).value == "The session is empty."
""",
    ),
    "dashboard-tab": TemplatePart(
        "dashboard_tabs",
        "Adds a tab with a text box and a button to the app.",
        _register("dashboard_tabs", "build_tab", "asks the model for one sentence"),
        '''
def ask(session, topic: str) -> str:
    """`session.llm` is the model that is loaded now."""
    return session.llm.chat(f"Say one sentence about {topic}.", max_tokens=48)


def build_tab(session) -> None:
    """Lays the tab out, once, when the app starts."""
    import gradio

    topic = gradio.Textbox("the sea", label="Topic")
    button = gradio.Button("Say something", variant="primary")
    answer = gradio.Textbox(label="The model says", interactive=False)
    button.click(lambda topic: ask(session, topic), topic, answer)

''',
        test="""
def test_it_asks_the_model(manager: PluginManager) -> None:
    from $module import ask

    class Model:
        def chat(self, prompt: str, max_tokens: int) -> str:
            return prompt.upper()

    assert ask(SimpleNamespace(llm=Model()), "tea") == "SAY ONE SENTENCE ABOUT TEA."
    assert callable(manager.find("dashboard_tabs", "$name").value)
""",
        test_imports="\nfrom types import SimpleNamespace\n",
    ),
    "telemetry-sink": TemplatePart(
        "telemetry_sinks",
        "Remembers the newest numbers.",
        """
def __init__(self) -> None:
    self.newest: dict[str, float] = {}

@hookimpl
def register_telemetry_sinks(self, register) -> None:
    register("$name", self.take, "keeps the newest numbers")

def take(self, time_s: float, values: dict[str, float]) -> None:
    self.newest = dict(values)
""",
        test="""
def test_it_takes_numbers(manager: PluginManager) -> None:
    manager.find("telemetry_sinks", "$name").value(1.0, {"x": 2.0})
    assert manager.object_of("$name").newest == {"x": 2.0}
""",
    ),
    "events": TemplatePart(
        "engine_start",
        "Logs when engines start and end.",
        """
@hookimpl
def engine_start(self, name: str, device: str) -> None:
    self.log.info("%s runs on %s", name, device)

@hookimpl
def engine_stop(self, name: str) -> None:
    self.log.info("%s has ended", name)
""",
        test="""
def test_it_hears_of_engines(manager: PluginManager, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    manager.events.dispatch("engine_start", name="m", device="cpu")
    assert "m runs on cpu" in caplog.text
""",
    ),
}
