"""`LlamaGPU` with its engine in a process of its own gives what it gives with a thread, and outlives a crash."""

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest

from workbench import LlamaGPU
from workbench.backends import CPUBackend
from workbench.engine import EngineConfig, StructureKind, StructureSpec
from workbench.engine.isolation.choice import choose_isolation
from workbench.errors import ConfigError, EngineStoppedError, ModelFormatError, RequestError
from workbench.session import LoadChoice, Session

CALLS = {
    "greedy": {"max_tokens": 12, "logprobs": True, "top_logprobs": 2, "prompt_logprobs": 1},
    "sampled": {"max_tokens": 12, "temperature": 0.9, "top_p": 0.9, "seed": 4, "n": 2},
    "regex": {"max_tokens": 12, "structure": StructureSpec(StructureKind.REGEX, "(a|b)+c")},
    "stopped": {"max_tokens": 30, "stop": ["e"], "ignore_eos": True},
}


def load(isolation, model="random:tiny", **options):
    engine = EngineConfig(isolation=isolation, context_length=256)
    return LlamaGPU(
        model, prefer_gpu=False, auto_detect_aws=False, **{"quant_type": "fp32", "engine": engine, **options}
    )


@pytest.fixture(scope="module")
def in_process():
    with load("process") as llm:
        yield llm


@pytest.fixture(scope="module")
def in_thread():
    with load("thread") as llm:
        yield llm


@pytest.fixture
def no_process_is_left():
    before = psutil.Process().children()
    yield
    assert psutil.Process().children() == before


@pytest.mark.parametrize("name", CALLS)
def test_both_give_the_same_answers(in_process, in_thread, name):
    def answers(llm):
        results = llm.submit("hello", **CALLS[name]).results()
        return [(a.text, a.token_ids, a.finish_reason, a.logprobs, a.prompt_logprobs) for a in results]

    assert answers(in_process) == answers(in_thread)


def test_both_tell_the_same_facts(in_process, in_thread):
    for fact in ("spec", "limits", "weight_bytes", "runner_reason", "max_context"):
        assert getattr(in_process, fact) == getattr(in_thread, fact)
    assert [(llm.isolation, llm.isolation_reason) for llm in (in_thread, in_process)] == [
        ("thread", "as asked"),
        ("process", "as asked"),
    ]
    assert in_process.get_backend_info()["isolation"] == "process"
    assert in_process.stats().kv_blocks_total == in_thread.stats().kv_blocks_total


def test_a_structure_that_cannot_be_kept_is_refused_at_once(in_process):
    with pytest.raises(RequestError, match="regex"):
        in_process.submit("hello", structure=StructureSpec(StructureKind.REGEX, "("))
    with pytest.raises(RequestError, match="no embeddings"):
        in_process.embed("hello")


@pytest.mark.usefixtures("no_process_is_left")
def test_after_a_crash_the_caller_goes_on_and_restart_serves_again():
    llm = load("process")
    text = llm.infer("hello", max_tokens=8)
    running = llm.submit("hello", max_tokens=None, ignore_eos=True)
    os.kill(llm._client._core.pid, signal.SIGKILL)
    with pytest.raises(EngineStoppedError, match=r"SIGKILL.*llm\.restart_stopped\(\)"):
        running.result()
    with pytest.raises(EngineStoppedError, match="SIGKILL"):
        llm.infer("hello")
    assert not llm.is_loaded
    assert llm.restart_stopped() == [0]
    assert llm.infer("hello", max_tokens=8) == text
    llm.unload()
    llm.restart()
    assert llm.infer("hello", max_tokens=8) == text
    held = psutil.Process(llm._client._core.pid).memory_full_info().uss
    assert llm.unload()["cpu"] > 0.9 * held


def test_embeddings_come_from_the_process(tiny_model_folder, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for file in tiny_model_folder.iterdir():
        (folder / file.name).symlink_to(file)
    pooling = {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
    (folder / "modules.json").write_text(
        json.dumps([{"path": "", "type": "sentence_transformers.models.Transformer"}, pooling])
    )
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_lasttoken": True}))
    with load("process", folder) as process, load("thread", folder) as thread:
        assert process.embed("hello") == thread.embed("hello")
        assert process.embedding_recipe == thread.embedding_recipe


@pytest.mark.usefixtures("no_process_is_left")
def test_a_model_that_cannot_be_loaded_is_the_same_error(tiny_model_folder, tmp_path):
    for file in tiny_model_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ModelFormatError, match="model.safetensors"):
        load("process", tmp_path)


@pytest.mark.usefixtures("no_process_is_left")
def test_ctrl_c_while_it_loads_leaves_no_process():
    def interrupt(progress):
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        load("process", progress=interrupt)


@pytest.mark.usefixtures("no_process_is_left")
def test_a_session_loads_it_on_its_worker_thread_and_unloads_it():
    with Session(lambda choice, progress: load("process", choice.model, progress=progress)) as session:
        session.load(LoadChoice("random:tiny"))
        assert session.wait(120).state.value == "ready"
        assert session.llm.infer("hello", max_tokens=4)
        session.unload()
        assert session.wait(60).freed_bytes["cpu"] > 0


def test_a_handle_that_is_dropped_and_an_interpreter_that_ends_take_it_along():
    code = (
        "from workbench import LlamaGPU; from workbench.engine import EngineConfig; import psutil, gc, sys\n"
        "make = lambda: LlamaGPU('random:tiny', backend='cpu', engine=EngineConfig(isolation='process'))\n"
        "llm = make(); pid = llm._client._core.pid; del llm; gc.collect(); assert not psutil.pid_exists(pid)\n"
        "llm = make(); llm.infer('hello', max_tokens=2); print(llm._client._core.pid)\n"
        # The engine's process has it, this one needs it for nothing.
        "assert 'torch' not in sys.modules or llm.backend.name != 'cpu'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not psutil.pid_exists(int(done.stdout))


def test_a_cpu_takes_a_thread_and_a_gpu_a_process():
    class GPU(CPUBackend):
        device_type = "cuda"

    assert choose_isolation(EngineConfig(), CPUBackend()).mode == "thread"
    # A backend that no other process could make.
    assert choose_isolation(EngineConfig(), GPU()).mode == "thread"
    with pytest.raises(ConfigError, match="isolation"):
        choose_isolation(EngineConfig(isolation="process"), GPU())
    with pytest.raises(ConfigError, match="isolation='fork'"):
        EngineConfig(isolation="fork")


def test_a_gpu_that_another_process_can_open_takes_one(monkeypatch):
    from workbench.backends import get_backend

    choice = choose_isolation(EngineConfig(), get_backend("cuda"))
    assert (choice.mode, "busy" in choice.reason) == ("process", True)
