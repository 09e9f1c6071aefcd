"""What the embedded model gets right, and that a label's score is the probability the model gives it."""

import pytest

from workbench import LlamaGPU
from workbench.examples import DocumentClassifier, LabelScorer, LanguageDetector, QuestionAnswering


@pytest.fixture(scope="module")
def llm(embedded_model_folder, native_library_path):
    with LlamaGPU(embedded_model_folder, context_length=512) as llm:
        yield llm


def test_a_label_s_score_is_that_of_the_prompt_s_own_log_probabilities(llm):
    labels = ["Day", "A most unlikely xylophone"]
    (scores,) = LabelScorer(llm, "{text}\nKind:", labels)._raw_scores(["The sun shines"], None)
    prompt = llm.tokenizer.encode("The sun shines\nKind:")
    for label, score in zip(labels, scores, strict=True):
        ids = llm.tokenizer.encode(f" {label}", add_special_tokens=False)
        done = llm.submit([*prompt, *ids], max_tokens=0, prompt_logprobs=0).result()
        expected = sum(entry.logprob for entry in done.prompt_logprobs[-len(ids) :]) / len(ids)
        assert score == pytest.approx(expected, abs=0.1)


def test_clear_cases_are_told_apart(llm):
    document = "The court ruled that the contract was void and ordered both parties to bear their own costs."
    assert DocumentClassifier(llm).classify_document(document)["category"] == "LEGAL"
    assert LanguageDetector(llm).detect_language("La casa è molto bella.")["language"] == "Italian"


def test_a_fact_is_found_in_its_context(llm):
    example = QuestionAnswering(llm, max_tokens=6)
    result = example.answer_question("The tower was finished in 1889 and stands in Paris.", "When was it finished?")
    assert "1889" in result["answer"]
    assert 0 < result["confidence"] <= 1
