import math

import pytest
from answering_llm import WeighingLlama

from workbench.errors import RequestError
from workbench.examples import DocumentClassifier, LabelScorer, LanguageDetector


def _prefers(label):
    """`label` is likelier by e after a text with "clue" in it."""
    return lambda words, word: -1.0 if word == label and "clue" in words else -2.0


@pytest.mark.parametrize("num_likeliest", [0, 1, 100])
def test_shares_are_a_softmax_over_what_the_text_adds(num_likeliest):
    llm = WeighingLlama(_prefers("red"), num_likeliest)
    scorer = LabelScorer(llm, "{text} colour:", ["blue", "red"])
    best, other = scorer.score("clue")
    assert (best.label, other.label) == ("red", "blue")
    assert best.probability == pytest.approx(math.e / (1 + math.e), abs=1e-4)


def test_what_a_model_prefers_anyway_is_no_evidence():
    llm = WeighingLlama(lambda words, word: -0.1 if word == "blue" else -5.0)
    scores = LabelScorer(llm, "{text} colour:", ["blue", "red"]).score("anything")
    assert {score.probability for score in scores} == {0.5}


def test_a_label_of_several_tokens_counts_by_the_mean_of_them():
    llm = WeighingLlama(lambda words, word: -1.0 if word == "green" and words[-1] == "dark" else -2.0)
    scorer = LabelScorer(llm, "{text} colour:", ["dark green", "red"])
    assert scorer._raw_scores(["x"], None) == [[-1.5, -2.0]]


def test_several_texts_keep_their_order():
    scorer = LabelScorer(WeighingLlama(_prefers("red")), "{text} colour:", ["blue", "red"])
    first, second = scorer.score_all(["nothing", "clue"], batch_size=1)
    assert first[0].probability == 0.5
    assert second[0].label == "red"


@pytest.mark.parametrize("labels", [[], ["one"], ["same", "same"]])
def test_labels_must_be_a_choice(labels):
    with pytest.raises(RequestError, match="two or more"):
        LabelScorer(WeighingLlama(_prefers("x")), "{text}", labels)


def test_a_document_gets_its_category_with_all_scores():
    example = DocumentClassifier(WeighingLlama(_prefers("Legal")))
    found = example.classify_documents_batch(["a clue", "nothing"])
    assert found[0]["category"] == "LEGAL"
    assert found[0]["confidence"] == max(found[0]["scores"].values()) > found[1]["confidence"] == 0.1
    assert set(found[0]) == {"document", "category", "confidence", "scores", "processing_time"}
    assert sum(found[0]["scores"].values()) == pytest.approx(1, abs=1e-3)
    statistics = example.get_classification_statistics(found)
    assert statistics["total_documents"] == 2
    assert statistics["by_category"]["LEGAL"] == 1


def test_a_language_gets_its_code_and_family():
    example = LanguageDetector(WeighingLlama(_prefers("Finnish")))
    found = example.detect_language("a clue")
    assert (found["language"], found["iso_code"], found["family"]) == ("Finnish", "fi", "Uralic")
    assert 0.05 < found["confidence"] < 1
    assert example.get_detection_statistics([found])["by_family"] == {"Uralic": 1}


@pytest.mark.parametrize("example", [DocumentClassifier, LanguageDetector])
def test_an_empty_text_is_refused(example):
    made = example(WeighingLlama(_prefers("x")))
    classify = getattr(made, "classify_document", None) or made.detect_language
    with pytest.raises(RequestError, match="empty"):
        classify("  ")
