"""After `unload()` nothing that the caller can still hold keeps the model alive."""

import gc
import subprocess
import sys

import pytest
from transformers import PreTrainedModel

from workbench import LlamaGPU
from workbench.errors import EngineStoppedError


def _models_alive() -> int:
    gc.collect()
    # By class: asking deprecated objects among them for their type would warn.
    return sum(issubclass(type(held), PreTrainedModel) for held in gc.get_objects())


def test_unload_lets_go_of_the_model_while_the_handle_and_a_request_are_kept():
    before = _models_alive()
    llm = LlamaGPU("random:tiny", quant_type="fp32")
    request = llm.submit([5, 6, 7], max_tokens=3)
    request.result()
    assert _models_alive() > before
    assert set(llm.unload()) == {"cpu"}
    assert _models_alive() == before
    assert llm.unload() == {}
    with pytest.raises(EngineStoppedError):
        llm.infer([5, 6, 7])


# In a process of its own, which has imported what stays in any process that has: the code of the libraries.
LOAD_USE_UNLOAD = """
import sys
import psutil, torch
from transformers import PreTrainedTokenizerFast
from workbench import LlamaGPU

held = lambda: psutil.Process().memory_info().rss
before = held()
llm = LlamaGPU("default", auto_detect_aws=False, check_plan=False)
for running in [llm.submit("A story. " * 40 + str(i), max_tokens=16, ignore_eos=True) for i in range(8)]:
    running.result()
took = held() - before
needs_torch_only = llm.runner_reason == "native decoder"
assert needs_torch_only == ("transformers.modeling_utils" not in sys.modules), llm.runner_reason
freed = llm.unload()["cpu"]
assert llm.tokenizer.decode(llm.tokenizer.encode("hello")) == "hello"
print(needs_torch_only, freed / took)
"""


@pytest.mark.usefixtures("home_with_embedded_model")
def test_nine_tenths_of_what_a_load_took_come_back():
    done = subprocess.run([sys.executable, "-c", LOAD_USE_UNLOAD], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    needs_torch_only, share = done.stdout.split()
    # Where there is no compiler, transformers' model classes are imported too, and their code stays.
    assert float(share) > 0.9 or needs_torch_only == "False"
