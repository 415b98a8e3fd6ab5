import json

import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy.spatial.distance import cdist

from serving.context_cache import MATRIX_FILE, METADATA_FILE, ContextCache

RNG = np.random.default_rng(0)
ORGANS = [
    {"name": "liver", "snomed": "10200004"},
    {"name": "right kidney", "snomed": "64033007:24028007"},
    {"name": "Lüge", "snomed": "1"},
]


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def written(folder, context, organs=ORGANS):
    save_file({"context": context}, folder / MATRIX_FILE)
    metadata = {"organs": organs, "hash": "c0ffee"}
    (folder / METADATA_FILE).write_text(json.dumps(metadata), encoding="utf-8")
    return ContextCache(folder)


@pytest.mark.parametrize("irrelevant", [1, 5])
def test_similarities_are_cosines_and_of_the_irrelevant_rows_the_nearest_counts(
    tmp_path, irrelevant
):
    context = unit(RNG.standard_normal((3 + irrelevant, 16)))
    interest = unit(RNG.standard_normal((7, 16)))
    answer = written(tmp_path, context)(interest)
    cosines = 1 - cdist(interest, context, "cosine")
    expected = np.column_stack([cosines[:, :3], cosines[:, 3:].max(axis=1)])
    np.testing.assert_allclose(answer["similarities"], expected, atol=1e-6)
    assert (answer["similarities"].dtype, answer["similarities"].shape) == (np.float32, (7, 4))


def test_names_codes_and_version_are_those_of_the_file(tmp_path):
    answer = written(tmp_path, unit(RNG.standard_normal((4, 8))))(unit(np.ones((1, 8))))
    assert [text.decode() for text in answer["labels"]] == ["liver", "right kidney", "Lüge"]
    assert answer["snomed_codes"].tolist() == [b"10200004", b"64033007:24028007", b"1"]
    assert answer["cache_version"] == "c0ffee"


def test_an_organ_is_added_by_the_next_version_alone(tmp_path):
    context = unit(RNG.standard_normal((5, 8)))
    caches = []
    for version, organs in (
        ("1", ORGANS),
        ("2", [*ORGANS, {"name": "colon", "snomed": "71854001"}]),
    ):
        (tmp_path / version).mkdir()
        caches.append(written(tmp_path / version, context, organs))
    old, new = (cache(context[3:4]) for cache in caches)
    assert old["similarities"].shape == (1, 4)
    assert new["labels"][new["similarities"].argmax()] == b"colon"


@pytest.mark.parametrize(
    ("context", "text"),
    [
        (
            unit(RNG.standard_normal((3, 8))),
            r"shape \(3, 8\) for 3 organs; expected a row for each",
        ),
        (unit(RNG.standard_normal((4, 8))) * 2, "lengths 2 to 2, expected 1"),
        (np.full((4, 8), np.nan, np.float32), "expected 1"),
    ],
)
def test_files_that_do_not_fit_together_are_refused_at_once(tmp_path, context, text):
    with pytest.raises(ValueError, match=text):
        written(tmp_path, context)


@pytest.mark.parametrize("interest", [np.ones((1, 9), np.float32), np.full((1, 8), np.nan)])
def test_extractors_of_another_cache_are_a_fault_of_the_server(tmp_path, interest):
    cache = written(tmp_path, unit(RNG.standard_normal((4, 8))))
    with pytest.raises(RuntimeError, match="expected 8 finite numbers"):
        cache(interest)
