import pytest
import torch

from training.networks.cotexnet.prompts import Attributes, PromptTokenizer, real_text
from training.networks.cotexnet.reading import PAPER, RELEASED

WORDS = ["segmentation", "area", "of", "1", "oval", "large", "red", "polyp"]


def pieces(text):
    return [WORDS.index(word) for word in text.split()]


def test_the_sentence_is_the_papers_example():
    attributes = Attributes(
        number="1", shape="oval", size="large", color="red", location="top left"
    )
    expected = "1 oval large red polyp area, located in the top left of the image."
    assert real_text(attributes, "polyp") == expected


def test_a_real_text_stands_between_start_and_end(profile):
    prompts = PromptTokenizer(pieces, profile, RELEASED)(
        ["1 oval large red polyp", "1 large area of red polyp"], classes=1
    )
    assert prompts.token_ids.tolist() == [
        [58, 3, 4, 5, 6, 7] + [59] * 10,
        [58, 3, 5, 1, 2, 6, 7] + [59] * 9,
    ]
    assert prompts.token_ids.dtype == torch.int64
    assert prompts.roi_start == 5


def test_in_the_papers_reading_template_and_regions_stand_in_front(profile):
    prompts = PromptTokenizer(pieces, profile, PAPER)(["oval polyp"], classes=3)
    row = prompts.token_ids[0].tolist()
    assert row[:4] == [58, 0, 1, 2]
    assert prompts.roi_start == 4
    assert 59 not in row[4:7]  # the first end must be the prompt's
    assert row[7:] == [4, 7] + [59] * 7


def test_a_long_text_is_cut_and_still_ends(profile):
    prompts = PromptTokenizer(pieces, profile, RELEASED)(["polyp " * 40], classes=1)
    assert prompts.token_ids[0].tolist() == [58] + [7] * 14 + [59]


@pytest.mark.parametrize(("words", "classes"), [(4, 1), (6, 3)])
def test_a_text_too_short_for_its_regions_is_refused(profile, words, classes):
    tokenizer = PromptTokenizer(pieces, profile, RELEASED)
    with pytest.raises(ValueError, match=f"{words} pieces, expected at least {words + 1}"):
        tokenizer([" ".join(["red"] * words)], classes)
    assert tokenizer([" ".join(["red"] * (words + 1))], classes).roi_start == 5


def test_a_foreign_vocabulary_and_too_many_classes_are_refused(profile):
    with pytest.raises(ValueError, match="expected pieces from 0 to 57, got 58 to 58"):
        PromptTokenizer(lambda text: [58], profile, RELEASED)(["x"], classes=1)
    with pytest.raises(ValueError, match="no room for 12"):
        PromptTokenizer(pieces, profile, PAPER)(["oval"], classes=12)
