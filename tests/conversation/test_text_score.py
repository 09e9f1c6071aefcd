"""Scoring on a real engine with a small random model."""

import pytest

from workbench import LlamaGPU
from workbench.conversation import perplexity, score_text
from workbench.errors import RequestError


def test_a_given_text_is_scored_token_by_token():
    with LlamaGPU("random:tiny", prefer_gpu=False) as llm:
        spell = lambda token_id: llm.tokenizer.decode([token_id], skip_special_tokens=False).encode()  # noqa: E731
        text = "Some text."
        tokens = score_text(llm, text, spell, num_alternatives=3)
        assert "".join(token.text for token in tokens).endswith(text)
        assert tokens[0].logprob is None
        assert all(token.logprob < 0 and len(token.alternatives) == 3 for token in tokens[1:])
        assert perplexity(tokens) > 1
        with pytest.raises(RequestError, match="empty"):
            score_text(llm, "", spell)
