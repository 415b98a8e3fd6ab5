import pytest
import torch
from transformers import MistralConfig, MistralModel

from training.data.packing import pack

WIDTH, IMAGE_TOKENS = 32, 7
BEFORE = [1, 5, 9]
QUESTIONS = [
    [[11, 12, 13], [14], [15, 16, 17, 18, 19]],
    [[21, 22], [23, 24, 25, 26], [27, 28]],
]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=64,
        hidden_size=WIDTH,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        sliding_window=None,
    )
    return MistralModel(config).eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, IMAGE_TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def alone(model, image, ids):
    """Hidden states of one question's own tokens, in a sequence of its own."""
    table = model.get_input_embeddings()
    parts = [table(torch.tensor(BEFORE)), image, table(torch.tensor(ids))]
    hidden = model(inputs_embeds=torch.cat(parts)[None], use_cache=False).last_hidden_state
    return hidden[0, -len(ids) :]


@torch.no_grad()
def together(model, images, packed):
    embeddings = model.get_input_embeddings()(packed.token_ids)
    embeddings[:, packed.image_start : packed.prefix] = images
    return model(
        inputs_embeds=embeddings,
        attention_mask=packed.attention_mask,
        position_ids=packed.position_ids,
        use_cache=False,
    ).last_hidden_state


def test_packed_questions_get_the_hidden_states_they_get_alone(model, images):
    packed = pack(BEFORE, IMAGE_TOKENS, QUESTIONS)
    hidden = together(model, images, packed)
    for row, questions in enumerate(QUESTIONS):
        for start, ids in zip(packed.starts[row], questions, strict=True):
            expected = alone(model, images[row], ids)
            torch.testing.assert_close(
                hidden[row, start : start + len(ids)], expected, rtol=1e-4, atol=1e-5
            )


def test_a_question_does_not_change_its_neighbours(model, images):
    changed = [[[11, 12, 13], [40, 41, 42], [15, 16, 17, 18, 19]], QUESTIONS[1]]
    one, other = (
        together(model, images, pack(BEFORE, IMAGE_TOKENS, questions))
        for questions in (QUESTIONS, changed)
    )
    torch.testing.assert_close(one[0, :13], other[0, :13], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(one[0, 14:19], other[0, 16:21], rtol=1e-4, atol=1e-5)
    assert torch.isfinite(one).all()


def test_the_layout_is_prefix_then_questions_then_padding():
    packed = pack(BEFORE, IMAGE_TOKENS, QUESTIONS)
    assert (packed.image_start, packed.prefix) == (3, 10)
    assert packed.starts == [[10, 13, 14], [10, 12, 16]]
    assert packed.token_ids.tolist() == [
        [*BEFORE, *[0] * IMAGE_TOKENS, 11, 12, 13, 14, 15, 16, 17, 18, 19],
        [*BEFORE, *[0] * IMAGE_TOKENS, 21, 22, 23, 24, 25, 26, 27, 28, 0],
    ]
    assert packed.position_ids[0].tolist() == [*range(10), 10, 11, 12, 10, 10, 11, 12, 13, 14]
    assert packed.attention_mask.shape == (2, 1, 19, 19)
    assert not packed.attention_mask.triu(1).any()
    # Every row sees at least the prefix: a row that sees nothing would give NaN.
    assert packed.attention_mask[..., 10:, :10].all()
