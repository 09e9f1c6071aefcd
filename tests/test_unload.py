"""After `unload()` nothing that the caller can still hold keeps the model alive."""

import gc

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
