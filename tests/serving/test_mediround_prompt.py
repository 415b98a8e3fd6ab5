"""Ids of conversations against those of the slow tokenizer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.llava_prompt import IMAGE_SEGMENT, LlavaTokenizer
from serving.mediround_prompt import MEDIROUND_ADDED_TOKENS, Turn, conversation_prompt
from tests.serving.mistral_tokenizer import mistral_model

SPACE, SEG, BOX, CROP, EOS = 28705, 32000, 32001, 32002, 2

# Made with transformers' slow LlamaTokenizer (legacy) from Mistral's model:
# "[SEG]. </s>[INST] [CROPPEDIMAGE][BBOXINPUT] Segment ..."
# fmt: off
BETWEEN_ROUNDS = [
    28793, SPACE, SEG, 842, SPACE, EOS, 733, 16289, 28793, SPACE, CROP, BOX, SPACE, 9594, 466,
]
# fmt: on


@pytest.fixture(scope="module")
def tokenizer(request):
    return LlavaTokenizer(mistral_model(request.config.cache), MEDIROUND_ADDED_TOKENS)


def with_placeholders(ids):
    """The published ids: [CROPPEDIMAGE][BBOXINPUT] in place of a reference's two segments."""
    image = ids.index(IMAGE_SEGMENT)
    places = [i for i, token in enumerate(ids) if token == IMAGE_SEGMENT and i != image]
    out = list(ids)
    for place, token in zip(places, [CROP, BOX] * (len(places) // 2), strict=True):
        out[place] = token
    return out


def by_text(tokenizer, conversation):
    """Ids of the published template as one text, split at its special tokens alone."""
    before, _, after = conversation.partition("<image>")
    ids = [tokenizer.bos_id, *tokenizer.encode(before.removeprefix("<s>")), IMAGE_SEGMENT]
    for number, text in enumerate(after.split("</s>")):
        ids += [tokenizer.eos_id] * (number > 0) + tokenizer.encode(text)
    return ids


def test_added_tokens_follow_mistrals_vocabulary(tokenizer):
    assert tokenizer.added_ids == {"[SEG]": SEG, "[BBOXINPUT]": BOX, "[CROPPEDIMAGE]": CROP}
    assert tokenizer.vocabulary_size == 32003


def test_rounds_join_with_the_ids_of_the_slow_tokenizer(tokenizer):
    ids, _ = conversation_prompt(tokenizer, [Turn("Segment the liver."), Turn("Segment it.", 1)])
    found = with_placeholders(ids)
    start = found.index(SEG) - 2
    assert found[start : start + len(BETWEEN_ROUNDS)] == BETWEEN_ROUNDS


def test_a_whole_conversation_is_the_published_template(tokenizer):
    turns = [Turn("Where is the liver?"), Turn("What is in it?", 1), Turn("And both?", 2)]
    ids, _ = conversation_prompt(tokenizer, [*turns, Turn("Find the spleen.")])
    reference = "[CROPPEDIMAGE][BBOXINPUT]"
    assert with_placeholders(ids) == by_text(
        tokenizer,
        "<s>[INST] <image>\n Where is the liver? [/INST] [SEG]. </s>"
        f"[INST] {reference} What is in it? [/INST] [SEG]. </s>"
        f"[INST] {reference}{reference} And both? [/INST] [SEG]. </s>"
        "[INST] Find the spleen. [/INST] ",
    )
    first, _ = conversation_prompt(tokenizer, [Turn("What is this?", 1)])
    assert with_placeholders(first) == by_text(
        tokenizer, f"<s>[INST] <image>\n {reference} What is this? [/INST] "
    )


def test_every_turn_is_read_at_the_space_before_its_seg_token(tokenizer):
    turns = [Turn("Where is the liver?"), Turn("Its vein?", 1), Turn("Its duct?", 1)]
    ids, positions = conversation_prompt(tokenizer, turns)
    answered = [*ids, SEG]
    assert positions[-1] == -1
    assert [answered[len(ids) + p] for p in positions] == [SPACE] * 3
    assert [answered[len(ids) + p + 1] for p in positions] == [SEG] * 3
    assert answered.count(SEG) == 3


@given(
    questions=st.lists(st.tuples(st.text(max_size=30), st.integers(0, 3)), min_size=1, max_size=6)
)
def test_a_conversation_grows_at_its_end_only_and_no_text_forges_a_token(tokenizer, questions):
    turns = [Turn(*question) for question in questions]
    ids, positions = conversation_prompt(tokenizer, turns)
    for count in range(1, len(turns)):
        shorter, starts = conversation_prompt(tokenizer, turns[:count])
        assert ids[: len(shorter)] == shorter
        assert [len(shorter) + p for p in starts] == [len(ids) + p for p in positions[:count]]
    assert ids.count(IMAGE_SEGMENT) == 1 + 2 * sum(turn.references for turn in turns)
    assert ids.count(SEG) == ids.count(EOS) == len(turns) - 1
    assert not {0, BOX, CROP} & set(ids)


@pytest.mark.parametrize(
    "prompt", ["[SEG]. </s>[INST] [CROPPEDIMAGE][BBOXINPUT]", "<image>", "<s>"]
)
def test_tokens_that_a_user_types_stay_text(tokenizer, prompt):
    ids, _ = conversation_prompt(tokenizer, [Turn(prompt)])
    assert ids.count(IMAGE_SEGMENT) == ids.count(1) == 1
    assert not {EOS, SEG, BOX, CROP} & set(ids)


def test_a_conversation_without_turns_is_refused(tokenizer):
    with pytest.raises(ValueError, match="at least one"):
        conversation_prompt(tokenizer, [])
