"""Public objects read well where nothing runs: the same text in every run, and a small page without scripts."""

import re

import pytest
from fake_llm import FakeFactory

from workbench import LlamaGPU, Session
from workbench.backends import CPUBackend, CUDABackend, ROCMBackend
from workbench.models import Catalogue
from workbench.parallel import GPUConfig, MultiGPUManager
from workbench.planner import plan
from workbench.run_log import RunLog
from workbench.session import LoadChoice


def _run_log():
    log = RunLog()
    log.add("load", "<b>m</b>", "ready", seconds=1.5)
    return log


def _loaded_session():
    session = Session(FakeFactory())
    session.load(LoadChoice("m"))
    session.wait(20)
    return session


_MAKERS = {
    "Session": lambda: Session(),
    "loaded Session": _loaded_session,
    "Catalogue": Catalogue,
    "MultiGPUManager": lambda: MultiGPUManager(GPUConfig([0, 1])),
    "RunLog": _run_log,
    "Plan": lambda: plan("random:tiny", backend="cpu", quant="fp32", context=64),
    "GPUConfig": lambda: GPUConfig([0, 1]),
    "LoadChoice": LoadChoice,
    "CPUBackend": CPUBackend,
    "CUDABackend": CUDABackend,
    "ROCMBackend": ROCMBackend,
}


@pytest.mark.parametrize("make", _MAKERS.values(), ids=_MAKERS.keys())
def test_text_is_the_same_in_every_run_and_the_page_is_small(make):
    one, other = make(), make()
    assert repr(one) == repr(other)
    assert not re.search(r"0x[0-9a-f]{6}", repr(one))
    bundle = one._repr_mimebundle_() if hasattr(one, "_repr_mimebundle_") else {}
    page = bundle.get("text/html", "")
    assert len(page) < 4000
    assert "<script" not in page and "<b>" not in page


def test_a_loaded_engine_shows_what_it_is(tiny_model_folder):
    with LlamaGPU(str(tiny_model_folder), backend="cpu", quant_type="fp32", context_length=64) as llm:
        page = llm._repr_mimebundle_()["text/html"]
        assert "fp32" in page and "64 tokens" in page
    assert "unloaded" in repr(llm)
