import random
import re

import pytest

from training.data.corpus import corpus
from training.data.questions import KINDS, REASONING_REQUEST, generate
from training.data.structures import NAMES, STRUCTURES, structure

STOP_WORDS = set(
    """a an and are as at be by for from has have in into is it its just like made makes most of
    off on one or our s that the their there this to under up us we what when where which while
    with without who whole if so both very person everything found""".split()  # noqa: SIM905
)


def content_words(text):
    """Words that carry meaning, plural and verb endings cut off."""
    words = re.findall(r"[a-z0-9]+", text.lower())
    return {re.sub(r"(ies|es|s|ed|ing|e)$", "", w) for w in words if w not in STOP_WORDS}


def facts(s):
    return s.attributes + s.locations


def phrases(s):
    return [p for f in facts(s) for p in (*f.train, f.held_out)]


def normalised(text):
    return re.sub(r"[^a-z0-9 ]", "", text.lower())


def test_the_sixteen_structures_have_their_ids_in_order():
    assert [s.id for s in STRUCTURES] == list(range(1, 17))
    assert NAMES[:2] == ("cerebellum", "brain stem")
    assert NAMES[-1] == "whole brain"
    assert structure("Putamen") is structure(5)


@pytest.mark.parametrize("s", STRUCTURES, ids=NAMES)
def test_each_structure_has_six_to_eight_attributes_and_four_or_five_locations(s):
    assert 6 <= len(s.attributes) <= 8
    assert 4 <= len(s.locations) <= 5
    assert s.synonyms[0] == f"the {s.name}"
    assert all(name.startswith("the ") for name in s.synonyms)


def test_each_phrase_occurs_once_in_the_whole_list():
    all_phrases = [p for s in STRUCTURES for p in phrases(s)]
    assert len(all_phrases) == len(set(all_phrases))


def test_no_phrase_is_made_of_the_words_of_one_phrase_of_another_structure():
    for s in STRUCTURES:
        for phrase in phrases(s):
            for other in STRUCTURES:
                for theirs in phrases(other) if other is not s else ():
                    assert not content_words(phrase) <= content_words(theirs), (phrase, theirs)


def test_a_held_out_wording_shares_its_decisive_words_with_training():
    for s in STRUCTURES:
        for fact in facts(s):
            shared = content_words(fact.held_out) & content_words(" ".join(fact.train))
            assert shared, fact
            for other in STRUCTURES:
                for theirs in facts(other) if other is not s else ():
                    assert not shared <= content_words(" ".join(theirs.train)), (fact, theirs)


def test_most_content_words_of_a_held_out_wording_are_known_from_training():
    train = set().union(*(content_words(line) for line in corpus(20_000, seed=1)))
    for s in STRUCTURES:
        for fact in facts(s):
            words = content_words(fact.held_out)
            assert 2 * len(words - train) < len(words) or len(words) < 3, fact


def test_no_test_text_occurs_in_twenty_thousand_training_draws():
    rng = random.Random(3)
    train = {
        normalised(generate(rng.choice(STRUCTURES), rng=rng, split="train").text)
        for _ in range(20_000)
    }
    test = {
        normalised(generate(rng.choice(STRUCTURES), rng=rng, split="test").text)
        for _ in range(5_000)
    }
    assert not train & test


def test_held_out_wordings_never_occur_in_training_questions_or_explanations():
    lines = " | ".join(line.lower() for line in corpus(20_000, seed=2))
    for s in STRUCTURES:
        for fact in facts(s):
            assert f" {fact.held_out.lower()}" not in lines, fact


def test_equal_seeds_give_equal_questions_and_other_seeds_others():
    def draw(seed):
        rng = random.Random(seed)
        return [generate(i % 16 + 1, rng=rng, split="train") for i in range(200)]

    assert draw(7) == draw(7)
    assert draw(7) != draw(8)


@pytest.mark.parametrize("split", ["train", "test"])
def test_all_kinds_and_lengths_appear_and_can_be_asked_for(split):
    rng = random.Random(0)
    drawn = [generate("insula", rng=rng, split=split) for _ in range(300)]
    assert {(q.kind, q.length) for q in drawn} == {(k, n) for k in KINDS for n in ("short", "long")}
    for kind in KINDS:
        for length in ("short", "long"):
            q = generate("insula", rng=rng, split=split, kind=kind, length=length)
            assert (q.kind, q.length, q.structure.name) == (kind, length, "insula")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("which structure consolidates memories?", "hippocampus"),
        ("Which part of the brain controls balance?", "cerebellum"),
        ("Please segment and locate the hippocampus in this image.", "hippocampus"),
        ("The hippocampus", "hippocampus"),
    ],
)
def test_wordings_of_the_documentation_are_drawn_in_training(text, name):
    rng = random.Random(0)
    texts = {generate(name, rng=rng, split="train", length="short").text for _ in range(25_000)}
    assert text in texts


def test_reasoning_questions_do_not_name_their_structure():
    rng = random.Random(5)
    for s in STRUCTURES:
        if s.name == "whole brain":
            continue
        for _ in range(200):
            for kind in ("attribute", "location"):
                text = generate(s, rng=rng, split="train", kind=kind).text.lower()
                assert s.name not in text


def test_the_explanation_names_the_structure_first_and_quotes_training_wordings():
    rng = random.Random(6)
    for s in STRUCTURES:
        for split in ("train", "test"):
            explanation = generate(s, rng=rng, split=split).explanation
            assert explanation.startswith(f"The {s.name}. {s.pronoun} ")
            assert explanation.endswith(".")
            assert any(f.train[0] in explanation for f in s.attributes)
            assert any(f.train[0] in explanation for f in s.locations)


def test_some_reasoning_questions_end_with_the_request_medisee_appends():
    rng = random.Random(0)
    texts = [generate(1, rng=rng, split="test", kind="location").text for _ in range(200)]
    assert any(t.endswith(REASONING_REQUEST) for t in texts)


def test_wrong_arguments_are_named():
    rng = random.Random(0)
    with pytest.raises(KeyError, match="got 'kidney'"):
        generate("kidney", rng=rng, split="train")
    with pytest.raises(ValueError, match="split: expected 'train' or 'test', got 'val'"):
        generate(1, rng=rng, split="val")
    with pytest.raises(ValueError, match="kind"):
        generate(1, rng=rng, split="test", kind="why")
    with pytest.raises(ValueError, match="length"):
        generate(1, rng=rng, split="test", length="medium")
