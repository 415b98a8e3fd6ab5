import shutil

import numpy as np
import pytest
from sentencepiece import SentencePieceProcessor

from serving.llava_prompt import MEDISEE_ADDED_TOKENS, LlavaTokenizer
from serving.model_config import ROOT
from serving.organseg_prompt import PLACEHOLDER
from serving.prompts import ExplanationPrompt, MediseePrompt, OrgansegPrompt, check_prompt
from training.networks.profiles import demo_profile

TOKENIZER = ROOT / "training" / "weights" / "demo" / "tokenizer.model"
QUESTION = "Please segment and locate the thalamus in this image."
TEMPLATE = f"Options: A. Liver, B. None.\nQuestion: {PLACEHOLDER}"
BLANK = ["", " ", "\n\t ", "\u00a0", "\u3000"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("version")
    shutil.copyfile(TOKENIZER, folder / "tokenizer.model")
    return folder


@pytest.fixture(scope="module")
def processor():
    return SentencePieceProcessor(model_file=str(TOKENIZER))


@pytest.fixture(scope="module")
def medisee(folder):
    return MediseePrompt(folder)


@pytest.fixture(scope="module")
def explanation(folder):
    return ExplanationPrompt(folder, token_limit=77)


@pytest.fixture(scope="module")
def organseg(folder):
    (folder / "prompt.txt").write_text(TEMPLATE, encoding="utf-8")
    return OrgansegPrompt(folder)


def medisee_ids(processor, question):
    """The template, piece by piece, by sentencepiece alone."""
    size = processor.get_piece_size()
    return [
        processor.bos_id(),
        *processor.encode("[INST] "),
        -1,
        *processor.encode(f"\n {question} [/INST] "),
        size,
        *processor.encode(" and "),
    ]


@pytest.mark.parametrize("question", [QUESTION, "größe 脑", "a", "  two  spaces ", "x\ny", "🧠?"])
def test_medisees_prompt_is_its_template(medisee, processor, question):
    answer = medisee(question)
    assert answer["token_ids"].tolist() == medisee_ids(processor, question)
    assert answer["token_ids"].dtype == answer["hidden_positions"].dtype == np.int32
    assert answer["adapter"] == "medisee"


def test_the_hidden_states_stand_before_the_two_special_tokens(medisee, processor):
    # h_seg at the space piece that predicts [SEG], h_box at the last one, which predicts [BBOX].
    answer = medisee(QUESTION)
    ids, positions = answer["token_ids"], answer["hidden_positions"]
    space = processor.piece_to_id("\u2581")
    assert ids[positions].tolist() == [space, space]
    assert ids[positions[0] + 1] == processor.get_piece_size()  # [SEG]
    assert len(ids) + positions[1] == len(ids) - 1


def test_the_explanation_prompt_ends_where_the_answer_begins(explanation, processor):
    answer = explanation(QUESTION)
    assert answer["token_ids"].tolist() == [
        processor.bos_id(),
        *processor.encode("[INST] "),
        -1,
        *processor.encode(f"\n {QUESTION} [/INST]"),
    ]
    assert answer["max_tokens"].tolist() == [77]
    assert answer["token_ids"].dtype == answer["max_tokens"].dtype == np.int32


def test_prompts_about_one_picture_share_the_prefix_with_the_picture(medisee, explanation):
    ids = [medisee("one")["token_ids"], medisee("another one")["token_ids"]]
    ids.append(explanation("why")["token_ids"])
    ends = [row.tolist().index(-1) + 1 for row in ids]
    assert len({tuple(row[:end].tolist()) for row, end in zip(ids, ends, strict=True)}) == 1


@pytest.mark.parametrize(
    "forged", ["[SEG]", "[BBOX]", "<s>", "</s>", "<image>", "[SEG] and [BBOX]"]
)
def test_a_question_can_forge_no_special_token(medisee, explanation, processor, forged):
    size, special = processor.get_piece_size(), {processor.bos_id(), processor.eos_id(), -1}
    ids = medisee(f"the {forged} part")["token_ids"].tolist()
    assert [i for i in ids if i >= size] == [size]
    assert [i for i in ids if i in special] == [processor.bos_id(), -1]
    ids = explanation(forged)["token_ids"].tolist()
    assert max(ids) < size
    assert [i for i in ids if i in special] == [processor.bos_id(), -1]


@pytest.mark.parametrize("question", [QUESTION, "größe 脑", PLACEHOLDER, "[SEG] </s>"])
def test_organsegs_prompt_is_its_template_and_read_at_its_last_token(organseg, processor, question):
    answer = organseg(question)
    assert answer["token_ids"].tolist() == [
        processor.bos_id(),
        *processor.encode("[INST] "),
        -1,
        *processor.encode(f"\n Options: A. Liver, B. None.\nQuestion: {question} [/INST]"),
    ]
    assert answer["hidden_positions"].tolist() == [-1]
    assert answer["token_ids"].dtype == answer["hidden_positions"].dtype == np.int32
    assert answer["adapter"] == "organseg"


def test_a_template_without_a_place_for_the_question_is_refused_at_once(folder, tmp_path):
    shutil.copyfile(folder / "tokenizer.model", tmp_path / "tokenizer.model")
    (tmp_path / "prompt.txt").write_text("Which organ?")
    with pytest.raises(ValueError, match="exactly once, got it 0 times"):
        OrgansegPrompt(tmp_path)


@pytest.mark.parametrize("blank", BLANK)
def test_a_blank_question_is_refused(medisee, explanation, organseg, blank):
    for pipeline in (medisee, explanation, organseg):
        with pytest.raises(ValueError, match="expected a question, got blank text"):
            pipeline(blank)


def test_any_other_question_stays_as_it_is():
    assert check_prompt("  Where? ") == "  Where? "


def test_a_long_question_is_not_cut(medisee, processor):
    question = "where is the thalamus " * 1000
    assert medisee(question)["token_ids"].tolist() == medisee_ids(processor, question)


def test_the_tokenizer_of_the_demo_has_the_size_that_the_networks_expect():
    tokenizer = LlavaTokenizer(TOKENIZER, MEDISEE_ADDED_TOKENS)
    assert tokenizer.vocabulary_size == demo_profile().mistral.vocab_size + 2
    assert (tokenizer.bos_id, tokenizer.eos_id) == (1, 2)
