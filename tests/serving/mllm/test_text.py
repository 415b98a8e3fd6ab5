import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor

from serving.mllm.text import INCOMPLETE, TextDecoder
from tests.serving.mllm.tiny_mllm import train_tokenizer


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    train_tokenizer(path)
    return SentencePieceProcessor(str(path))


def increments(processor, token_ids):
    decoder = TextDecoder(processor)
    return [*(decoder.push([token_id]) for token_id in token_ids), decoder.flush()]


@given(data=st.data())
def test_increments_concatenate_to_the_text_of_all_ids(processor, data):
    ids = st.integers(3, processor.get_piece_size() - 1)
    token_ids = data.draw(st.lists(ids, max_size=30))
    assert "".join(increments(processor, token_ids)) == processor.decode(token_ids)


@given(text=st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20))
def test_no_character_is_ever_cut(processor, text):
    pieces = increments(processor, processor.encode(text))
    assert "".join(pieces) == processor.decode(processor.encode(text))
    if INCOMPLETE not in text:
        assert not any(INCOMPLETE in piece for piece in pieces)


def test_spaces_between_words_survive(processor):
    text = "The liver lies in the right upper abdomen"
    assert "".join(increments(processor, processor.encode(text))) == text


def test_bytes_that_never_become_a_character_are_flushed(processor):
    token_ids = [processor.piece_to_id("<0xE2>"), processor.piece_to_id("<0x82>")]
    assert increments(processor, token_ids)[:-1] == ["", ""]
    assert increments(processor, token_ids)[-1] == processor.decode(token_ids)


def test_ids_beyond_the_tokenizer_are_skipped(processor):
    decoder = TextDecoder(processor)
    assert decoder.push([processor.get_piece_size() + 5]) == ""
