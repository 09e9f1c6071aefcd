"""The documented methods of a backend, on a real small model."""

import pytest

from workbench.backends import CPUBackend, CUDABackend
from workbench.errors import BackendUnavailableError, EngineStoppedError, ModelNotFoundError


def test_without_a_model_it_says_so():
    backend = CPUBackend()
    assert (backend.model, backend.tokenizer) == (None, None)
    for call in (backend.infer, backend.stream_infer):
        with pytest.raises(EngineStoppedError, match="call load_model first"):
            call("hi")
    with pytest.raises(EngineStoppedError):
        backend.batch_infer(["hi"])
    assert backend.unload_model() == {}


def test_the_documented_calls():
    backend = CPUBackend()
    assert backend.load_model("random:tiny", quant_type="fp32") is None
    assert backend.tokenizer is backend.model.tokenizer
    assert backend.model.backend is backend
    text = backend.infer("hello", max_tokens=5)
    assert backend.batch_infer(["hello", "hello"], batch_size=1, max_tokens=5) == [text, text]
    assert "".join(backend.stream_infer("hello", max_tokens=5)) == text
    first = backend.model
    backend.load_model("random:tiny")
    assert (first.is_loaded, backend.model.is_loaded) == (False, True)
    with pytest.raises(ModelNotFoundError):
        backend.load_model("no/such/model/anywhere")
    assert backend.model is None
    assert set(backend.get_memory_usage()) == {"total_mb", "used_mb", "available_mb"}


def test_a_backend_that_is_not_there_gives_its_reason():
    backend = CUDABackend()
    if backend.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(BackendUnavailableError, match="cuda"):
        backend.load_model("random:tiny")
