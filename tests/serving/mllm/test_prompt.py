import numpy as np
import pytest
import torch

from serving.mllm.messages import GenerateRequest
from serving.mllm.model_folder import EngineSettings, ModelFolder
from serving.mllm.prompt import assemble_prompt

WIDTH = 4
TABLE = torch.arange(10 * WIDTH).float().view(10, WIDTH)
OWN = -torch.arange(12 * WIDTH).float().view(12, WIDTH)


@pytest.fixture
def folder(tmp_path):
    return ModelFolder(
        base=tmp_path,
        adapted_modules=(),
        adapters={"own": tmp_path, "shared": tmp_path},
        tables={"": TABLE, "own": OWN},
        norm_weight=torch.ones(WIDTH),
        norm_eps=1e-5,
        num_layers=1,
        eos_token_ids=(2,),
        settings=EngineSettings(),
    )


def assemble(folder, dtype=torch.float32, max_length=32, **fields):
    arrays = {
        name: np.asarray(value, np.float32 if name == "embeddings" else np.int32)
        for name, value in fields.items()
        if name in ("token_ids", "embeddings", "embedding_lengths", "hidden_positions")
    }
    return assemble_prompt(GenerateRequest(**{**fields, **arrays}), folder, dtype, max_length)


def rows(*values):
    return np.array([[value] * WIDTH for value in values], np.float32)


def test_segments_take_the_place_of_their_marks(folder):
    prompt = assemble(
        folder,
        token_ids=[1, -1, 3, -1],
        embeddings=rows(0.1, 0.2, 0.3),
        embedding_lengths=[2, 1],
    )
    expected = torch.cat(
        [TABLE[1:2], torch.from_numpy(rows(0.1, 0.2)), TABLE[3:4], torch.from_numpy(rows(0.3))]
    )
    torch.testing.assert_close(prompt.embeddings, expected)


def test_one_segment_needs_no_lengths(folder):
    prompt = assemble(folder, token_ids=[-1, 5], embeddings=rows(1, 2, 3))
    assert prompt.embeddings[:, 0].tolist() == [1, 2, 3, 20]


def test_no_rows_and_no_marks_is_a_prompt_of_ids_alone(folder):
    prompt = assemble(folder, token_ids=[5], embeddings=np.zeros((0, WIDTH)))
    assert prompt.embeddings.shape == (1, WIDTH)


def test_an_adapter_without_a_table_uses_that_of_the_base(folder):
    assert assemble(folder, token_ids=[3], adapter="shared").embeddings[0, 0] == 12
    assert assemble(folder, token_ids=[11], adapter="own").embeddings[0, 0] == -44


def test_embeddings_are_cast_to_the_dtype_of_the_engine(folder):
    value = 1.00390625  # halfway between two bfloat16
    prompt = assemble(folder, torch.bfloat16, token_ids=[3, -1], embeddings=rows(value))
    assert prompt.embeddings.dtype == torch.bfloat16
    assert prompt.embeddings[1, 0].item() == 1.0


def test_positions_count_from_either_end_of_the_expanded_prompt(folder):
    prompt = assemble(
        folder, token_ids=[1, -1], embeddings=rows(1, 2, 3), hidden_positions=[-1, 0, -4, 2]
    )
    assert prompt.hidden_positions == [3, 0, 0, 2]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"token_ids": []}, "the prompt is empty"),
        ({"token_ids": [1, 10]}, r"token_ids\[1\]: got 10, expected \[0, 10\)"),
        ({"token_ids": [12], "adapter": "own"}, r"got 12, expected \[0, 12\)"),
        ({"token_ids": [-2]}, r"token_ids\[0\]: got -2"),
        ({"token_ids": [1], "adapter": "lung"}, "unknown name 'lung'; known: own, shared"),
        ({"token_ids": [1], "max_tokens": -1}, "max_tokens: got -1"),
        ({"token_ids": [1], "max_tokens": 2, "adapter": "own"}, "its own embedding table"),
        ({"token_ids": [1], "temperature": float("nan")}, "temperature: got nan"),
        ({"token_ids": [1], "temperature": -0.5}, "temperature: got -0.5"),
        ({"token_ids": [1, -1]}, "embeddings: missing, but token_ids has 1 segments"),
        ({"token_ids": [1], "embedding_lengths": [1]}, "embeddings: missing"),
        (
            {"token_ids": [-1], "embeddings": np.zeros((2, WIDTH + 1))},
            r"expected \(R, 4\), got \(2, 5\)",
        ),
        ({"token_ids": [-1], "embeddings": np.zeros(WIDTH)}, r"expected \(R, 4\), got \(4,\)"),
        ({"token_ids": [-1, -1], "embeddings": rows(1, 2)}, "embedding_lengths: missing"),
        ({"token_ids": [1], "embeddings": rows(1, 2)}, "token_ids has 0 segments"),
        (
            {"token_ids": [-1], "embeddings": rows(1, 2), "embedding_lengths": [1, 1]},
            r"got \[1, 1\], expected one length for each of the 1 segments",
        ),
        (
            {"token_ids": [-1, -1], "embeddings": rows(1, 2), "embedding_lengths": [2, 0]},
            r"got \[2, 0\], expected 1 or more each",
        ),
        (
            {"token_ids": [-1, -1], "embeddings": rows(1, 2), "embedding_lengths": [1, 2]},
            r"got 2 rows, but embedding_lengths \[1, 2\] sum to 3",
        ),
        (
            {"token_ids": [-1], "embeddings": rows(1, float("nan"))},
            r"embeddings\[1, 0\]: got nan.*\(4 of 8 are not\)",
        ),
        ({"token_ids": [-1], "embeddings": rows(float("-inf"))}, r"got -inf, expected finite"),
        ({"token_ids": [1], "hidden_positions": [1]}, r"got 1, expected \[-1, 1\)"),
        ({"token_ids": [1, 1], "hidden_positions": [0, -3]}, r"hidden_positions\[1\]: got -3"),
        ({"token_ids": [1] * 32}, "32 positions and 1 more.*together 33; expected at most 32"),
        ({"token_ids": [1] * 20, "max_tokens": 13}, "together 33"),
    ],
)
def test_a_prompt_that_cannot_be_served_is_refused_with_the_numbers(folder, fields, text):
    with pytest.raises(ValueError, match=text):
        assemble(folder, **fields)


def test_values_beyond_the_range_of_the_engine_are_refused(folder):
    assemble(folder, torch.float32, token_ids=[-1], embeddings=rows(1e5))
    with pytest.raises(ValueError, match=r"got 100000.0, expected finite values up to 65504"):
        assemble(folder, torch.float16, token_ids=[-1], embeddings=rows(1e5))


def test_one_token_may_be_generated_with_an_own_table(folder):
    assert len(assemble(folder, token_ids=[1], adapter="own", max_tokens=1).embeddings) == 1
