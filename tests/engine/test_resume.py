"""A request that another engine began goes on behind what was sent, as if nothing had happened."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from workbench import LlamaGPU
from workbench.engine import SamplingParams
from workbench.engine.structure import StructureKind, StructureSpec
from workbench.errors import RequestError

_PROMPT = list(b"Once upon a time")
_SHAPE = StructureSpec(StructureKind.REGEX, "[a-z]{3}-[0-9]{4,9}")


@pytest.fixture(scope="module")
def llm() -> Iterator[LlamaGPU]:
    with LlamaGPU("random:tiny", prefer_gpu=False, auto_detect_aws=False, quant_type="fp32", context_length=256) as llm:
        yield llm


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(max_tokens=24, ignore_eos=True, logprobs=True, top_logprobs=2, prompt_logprobs=1),
        SamplingParams(max_tokens=24, ignore_eos=True, temperature=1.0, top_p=0.9, seed=5),
        SamplingParams(max_tokens=24, temperature=1.0, seed=3, min_tokens=20, repetition_penalty=1.3, stop=("e", "\n")),
        SamplingParams(max_tokens=24, temperature=1.0, seed=3, structure=_SHAPE),
    ],
)
@pytest.mark.parametrize("num_sent", [1, 5])
def test_the_whole_is_the_same(llm: LlamaGPU, params: SamplingParams, num_sent: int) -> None:
    client = llm._client
    whole = client.submit(_PROMPT, params).result(60)
    begun = client.submit(_PROMPT, params)
    pieces = iter(begun)
    for _ in range(num_sent):
        next(pieces)
    pieces.close()
    resumed = client.resume(begun, _PROMPT, params).result(60)
    assert (resumed.text, resumed.token_ids, resumed.finish_reason) == (
        whole.text,
        whole.token_ids,
        whole.finish_reason,
    )
    assert [entry.token_id for entry in resumed.logprobs] == [entry.token_id for entry in whole.logprobs]
    assert resumed.prompt_logprobs == whole.prompt_logprobs
    assert resumed.timings.num_generated_tokens == whole.timings.num_generated_tokens


def test_several_answers_and_plugins_are_refused(llm: LlamaGPU) -> None:
    client = llm._client
    begun = client.submit(_PROMPT, SamplingParams(max_tokens=2))
    begun.result(60)
    with pytest.raises(RequestError, match="of several answers none can be resumed"):
        client.resume(begun, _PROMPT, SamplingParams(n=2))
    with pytest.raises(RequestError, match="plugins"):
        client.resume(begun, _PROMPT, SamplingParams(plugins={"min_p_floor": {}}))
