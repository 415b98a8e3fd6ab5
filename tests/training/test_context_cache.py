"""The context cache: what its rows are, and that versions never touch each other."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from serving.context_cache import ContextCache
from training.context_cache import (
    CACHES,
    CONTEXT_WIDTH,
    TEXTS,
    SentenceEncoder,
    build_context,
    load_context,
    main,
    read_texts,
)

WORDS = [
    *("the", "liver", "makes", "bile", "spleen", "breaks", "old", "cells"),
    *("train", "leaves", "at", "nine", "dog", "sleeps"),
]

CONTENT = {
    "organs": [
        {"name": "liver", "snomed": "10200004", "texts": ["the liver makes bile", "liver"]},
        {"name": "left spleen", "snomed": "78961009:7771000", "texts": ["spleen breaks old cells"]},
    ],
    "irrelevant": ["the train leaves at nine", "the dog sleeps"],
}


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory):
    """A BERT of one layer and a dozen words, with the width of the real one."""
    folder = tmp_path_factory.mktemp("encoder") / "small-bert"
    folder.mkdir()
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]) + "\n")
    BertTokenizerFast(str(vocabulary)).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=5 + len(WORDS),
        hidden_size=CONTEXT_WIDTH,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=32,
        initializer_range=0.3,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def source(tmp_path):
    def write(content, name="texts.json", **layout):
        file = tmp_path / name
        file.write_text(json.dumps(content, **layout))
        return file

    return write


def build(file, folder, encoder_folder, capsys):
    arguments = ["--texts", str(file), "-o", str(folder), "--encoder", str(encoder_folder)]
    assert main(arguments) == 0
    return Path(json.loads(capsys.readouterr().out.splitlines()[-1])["folder"])


@torch.no_grad()
def test_a_text_is_the_mean_of_its_tokens_whatever_stands_beside_it(encoder_folder):
    texts = ("liver", "the spleen breaks old cells")
    encoded = SentenceEncoder(encoder_folder).encode(texts)
    bert = BertModel.from_pretrained(encoder_folder).eval()
    for text, got in zip(texts, encoded, strict=True):
        ids = [2, *(5 + WORDS.index(word) for word in text.split()), 3]
        mean = bert(torch.tensor([ids])).last_hidden_state[0].mean(dim=0)
        torch.testing.assert_close(got, mean / mean.norm(), rtol=1e-4, atol=1e-5)


def test_an_organs_row_is_the_mean_of_its_texts_and_irrelevant_texts_have_their_own(
    encoder_folder, source
):
    encoder = SentenceEncoder(encoder_folder)
    context = build_context(read_texts(source(CONTENT)), encoder)
    single = {
        text: encoder.encode((text,))[0].numpy()
        for text in (*CONTENT["organs"][0]["texts"], *CONTENT["irrelevant"])
    }
    liver = single["the liver makes bile"] + single["liver"]
    np.testing.assert_allclose(context.matrix[0], liver / np.linalg.norm(liver), atol=1e-5)
    for row, text in zip(context.matrix[2:], CONTENT["irrelevant"], strict=True):
        np.testing.assert_allclose(row, single[text], atol=1e-5)
    assert context.organs == ("liver", "left spleen")


def test_the_server_reads_what_was_written_and_gives_the_same_similarities(
    encoder_folder, source, tmp_path, capsys
):
    folder = build(source(CONTENT), tmp_path / "caches", encoder_folder, capsys)
    context = load_context(folder)
    assert folder.name == context.version
    interest = np.random.default_rng(0).standard_normal((4, CONTEXT_WIDTH)).astype(np.float32)
    interest /= np.linalg.norm(interest, axis=1, keepdims=True)
    served = ContextCache(folder)(interest=interest)
    assert [label.decode() for label in served["labels"]] == ["liver", "left spleen"]
    assert [code.decode() for code in served["snomed_codes"]] == ["10200004", "78961009:7771000"]
    assert served["cache_version"] == context.version
    cosines = interest @ context.matrix.numpy().T
    expected = np.column_stack([cosines[:, 0], cosines[:, 1], np.max(cosines[:, 2:], axis=1)])
    np.testing.assert_allclose(served["similarities"], expected, atol=1e-6)
    got = context.similarities(torch.from_numpy(interest)[:, None])
    np.testing.assert_allclose(got[:, 0], expected, atol=1e-6)


def test_adding_an_organ_makes_a_version_beside_the_old_one(
    encoder_folder, source, tmp_path, capsys
):
    caches = tmp_path / "caches"
    old = build(source(CONTENT), caches, encoder_folder, capsys)
    before = {file.name: file.read_bytes() for file in old.iterdir()}
    dog = {"name": "dog", "snomed": "448771007", "texts": ["the dog"]}
    added = {**CONTENT, "organs": [*CONTENT["organs"], dog]}
    new = build(source(added), caches, encoder_folder, capsys)
    assert {folder.name for folder in caches.iterdir()} == {old.name, new.name}
    assert old.name != new.name
    assert {file.name: file.read_bytes() for file in old.iterdir()} == before
    old_rows, new_rows = load_context(old).matrix, load_context(new).matrix
    torch.testing.assert_close(new_rows[:2], old_rows[:2])
    assert load_context(new).organs == ("liver", "left spleen", "dog")


def test_the_version_hangs_on_texts_and_encoder_but_not_on_the_files_layout(
    encoder_folder, source, tmp_path, capsys
):
    caches = tmp_path / "caches"
    first = build(source(CONTENT), caches, encoder_folder, capsys)
    written = (first / "context.safetensors").stat().st_mtime_ns
    reversed_keys = dict(reversed(CONTENT.items()))
    again = build(source(reversed_keys, "b.json", indent=4), caches, encoder_folder, capsys)
    assert again == first
    assert (first / "context.safetensors").stat().st_mtime_ns == written

    other = tmp_path / "other-bert"
    other.mkdir()
    for file in encoder_folder.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    model = BertModel.from_pretrained(other)
    model.embeddings.word_embeddings.weight.data.add_(0.5)
    model.save_pretrained(other)
    assert build(source(CONTENT), caches, other, capsys) != first


ORGAN = CONTENT["organs"][0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "expected an object with `organs` and `irrelevant`"),
        ({"organs": [ORGAN]}, "expected an object with `organs` and `irrelevant`"),
        ({**CONTENT, "organs": []}, "no organ; expected at least one"),
        ({**CONTENT, "organs": ["liver"]}, "an organ is an object with `name`, `snomed`"),
        ({**CONTENT, "organs": [{**ORGAN, "name": " "}]}, "`name` is a text, got ' '"),
        ({**CONTENT, "organs": [{**ORGAN, "snomed": "liver"}]}, "snomed of 'liver' is 'liver'"),
        ({**CONTENT, "organs": [{**ORGAN, "texts": []}]}, "texts of 'liver': expected a list"),
        ({**CONTENT, "organs": [{**ORGAN, "texts": [""]}]}, "none of them blank"),
        ({**CONTENT, "organs": [ORGAN, ORGAN]}, "name 'liver' stands there twice"),
        (
            {**CONTENT, "organs": [ORGAN, {**ORGAN, "name": "hepar"}]},
            "snomed '10200004' stands there twice",
        ),
        ({**CONTENT, "irrelevant": "dog"}, "`irrelevant`: expected a list of at least one text"),
    ],
)
def test_a_file_of_texts_that_is_wrong_says_where(source, content, message):
    with pytest.raises(ValueError, match=message):
        read_texts(source(content))


def test_a_text_too_long_for_the_encoder_is_refused_not_cut(encoder_folder):
    with pytest.raises(ValueError, match=r"text 'liver liver.*: 302 tokens, expected at most 256"):
        SentenceEncoder(encoder_folder).encode(("dog", "liver " * 300))


def test_a_missing_cache_names_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"python -m training\.context_cache"):
        load_context(tmp_path)


def test_a_committed_cache_was_built_from_the_committed_texts():
    texts = read_texts(TEXTS)
    digests = {
        json.loads((folder / "context.json").read_text())["texts_sha256"]
        for folder in CACHES.iterdir()
    }
    assert texts.sha256 in digests
