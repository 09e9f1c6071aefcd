"""The examples that read: entities and answers."""

import json

import pytest
from answering_llm import AnsweringLlama

from workbench.errors import RequestError
from workbench.examples import NERProcessor, QuestionAnswering


def _named(*pairs):
    return json.dumps([{"text": text, "type": kind} for text, kind in pairs])


def test_entities_stand_where_the_text_has_them_and_inventions_are_left_out():
    text = "Ann met Bob. Ann left."
    llm = AnsweringLlama(
        _named(("Bob", "PERSON"), ("Ann", "PERSON"), ("Ann", "PERSON"), ("Zoe", "PERSON"), ("", "DATE"))
    )
    found = NERProcessor(llm).extract_entities(text)
    assert [(entity["text"], entity["start"]) for entity in found] == [("Ann", 0), ("Bob", 8), ("Ann", 13)]
    assert all(text[entity["start"] : entity["end"]] == entity["text"] for entity in found)


def test_no_entity_stands_in_another():
    llm = AnsweringLlama(_named(("Ann Lee", "PERSON"), ("Lee", "LOCATION")))
    assert [entity["text"] for entity in NERProcessor(llm).extract_entities("Ann Lee")] == ["Ann Lee"]


@pytest.mark.parametrize(("cut", "count"), [(len(_named(("Ann", "PERSON"))) + 9, 1), (9, 0)])
def test_an_answer_that_was_cut_counts_as_far_as_it_is_whole(cut, count):
    answer = _named(("Ann", "PERSON"), ("Bob", "PERSON"))[:cut]
    assert len(NERProcessor(AnsweringLlama(answer)).extract_entities("Ann, Bob")) == count


def test_a_cut_within_a_name_that_holds_a_brace_leaves_what_came_before():
    answer = _named(("Ann", "PERSON"))[:-1] + ', {"text": "f(){}'
    (found,) = NERProcessor(AnsweringLlama(answer)).extract_entities("Ann wrote f(){}.")
    assert found["text"] == "Ann"


def test_the_sampler_is_held_to_the_types_asked_for():
    llm = AnsweringLlama("[]")
    NERProcessor(llm, ["DATE", "TIME"]).extract_entities("Today")
    schema = json.loads(llm.requests[0]["structure"].text)
    assert schema["items"]["properties"]["type"] == {"enum": ["DATE", "TIME"]}


def test_statistics_of_entities():
    example = NERProcessor(AnsweringLlama())
    entities = [
        {"text": "Ann", "type": "PERSON"},
        {"text": "Ann", "type": "PERSON"},
        {"text": "Rome", "type": "LOCATION"},
    ]
    statistics = example.get_entity_statistics(entities)
    assert statistics["total_entities"] == 3
    assert statistics["by_type"] == {"PERSON": 2, "LOCATION": 1}
    assert statistics["most_common"][0] == ("Ann", 2)


def test_an_answer_has_a_measured_confidence():
    result = QuestionAnswering(AnsweringLlama(" 1889 ", logprobs=(-0.2, -0.4))).answer_question("Built 1889.", "When?")
    assert result == {"context": "Built 1889.", "question": "When?", "answer": "1889", "confidence": 0.7408}


def test_a_context_that_holds_the_words_of_the_prompt_s_places_stays_as_it_is():
    llm = AnsweringLlama("A template.")
    QuestionAnswering(llm).answer_question("Write {question} there.", "What is {context}?")
    prompt = llm.requests[0]["prompt"]
    assert "Context: Write {question} there.\nQuestion: What is {context}?\n" in prompt


def test_an_empty_answer_has_none():
    example = QuestionAnswering(AnsweringLlama(""))
    (result,) = example.answer_questions_batch([("Built 1889.", "When?")])
    assert result["confidence"] is None
    assert example.get_qa_statistics([result]) == {
        "total_questions": 1, "answered": 0, "found_in_context": 0, "mean_confidence": None,
    }  # fmt: skip


def test_an_answer_is_checked_against_the_context():
    check = QuestionAnswering(AnsweringLlama()).validate_answer
    assert check("In  paris.", "It stands in Paris now")
    assert not check("London", "It stands in Paris")
    assert not check("", "anything")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda llm: NERProcessor(llm, ["COLOUR"]),
        lambda llm: NERProcessor(llm, []),
        lambda llm: NERProcessor(llm).extract_entities(" "),
        lambda llm: QuestionAnswering(llm).answer_question(" ", "When?"),
        lambda llm: QuestionAnswering(llm).answer_question("It is.", ""),
    ],
)
def test_wrong_choices_are_refused(wrong):
    with pytest.raises(RequestError):
        wrong(AnsweringLlama("x"))
