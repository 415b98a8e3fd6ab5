import random
from string import Formatter

from training.data.medisee_templates import (
    CLASS_ANSWERS,
    CLASS_QUESTIONS,
    INFERENCE_ANSWER,
    REASONING_ANSWERS,
    REASONING_QUESTIONS,
    class_turn,
    reasoning_turn,
)


def fields(template):
    return [name for _, name, _, _ in Formatter().parse(template) if name is not None]


def test_there_are_as_many_templates_as_in_the_released_training_script():
    counts = [len(set(t)) for t in (CLASS_QUESTIONS, REASONING_QUESTIONS)]
    assert counts == [4, 6]
    assert len(set(CLASS_ANSWERS)) == len(set(REASONING_ANSWERS)) == 5


def test_the_strings_of_inference_are_among_them():
    assert "Please segment and locate the {class_text} in this image." in CLASS_QUESTIONS
    assert (
        "{query} Please output segmentation mask and location bounding box, and explain why."
        in REASONING_QUESTIONS
    )
    assert INFERENCE_ANSWER == "[SEG] and [BBOX]."
    assert INFERENCE_ANSWER in CLASS_ANSWERS


def test_each_template_has_exactly_its_field():
    assert all(fields(t) == ["class_text"] for t in CLASS_QUESTIONS)
    assert all(fields(t) == ["query"] for t in REASONING_QUESTIONS)
    assert all(fields(t) == [] for t in CLASS_ANSWERS)
    assert all(fields(t) == ["explanation"] for t in REASONING_ANSWERS)


def test_each_answer_holds_both_tokens_once_in_the_order_of_inference():
    for answer in CLASS_ANSWERS + REASONING_ANSWERS:
        assert answer.count(INFERENCE_ANSWER) == 1
        assert answer.count("[SEG]") == answer.count("[BBOX]") == 1


def test_class_and_query_are_lower_cased_and_the_explanation_is_not():
    rng = random.Random(0)
    question, _ = class_turn("Left Lung", rng)
    assert "left lung" in question
    question, answer = reasoning_turn("Which Organ breathes?", "The Lung does.", rng)
    assert question.startswith("which organ breathes? ")
    assert answer.endswith(". The Lung does.")
