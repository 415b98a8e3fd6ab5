import pytest
import torch
from transformers.models.deformable_detr.modeling_deformable_detr import (
    MultiScaleDeformableAttention,
)

from training.networks import deformable_attention as networks
from training.networks.deformable_attention import by_definition, computed_by, deformable_attention

SHAPES = [(6, 9), (3, 5), (1, 2)]


def example(items=2, queries=7, heads=3, channels=4, points=4, dtype=torch.float64):
    """Random tensors, with locations up to 0.3 outside the maps."""
    torch.manual_seed(0)
    tokens = sum(height * width for height, width in SHAPES)
    value = torch.randn(items, tokens, heads, channels, dtype=dtype)
    layout = (items, queries, heads, len(SHAPES), points)
    locations = torch.rand(*layout, 2, dtype=dtype) * 1.6 - 0.3
    weights = torch.rand(layout, dtype=dtype).flatten(3).softmax(-1).view(layout)
    return value, SHAPES, locations, weights


def hugging_face(value, shapes, locations, weights):
    return MultiScaleDeformableAttention()(
        value, torch.tensor(shapes), shapes, None, locations, weights, 64
    )


@pytest.mark.parametrize("statement", [by_definition, networks.by_grid_sample])
def test_every_statement_is_deformable_detrs(statement):
    torch.testing.assert_close(statement(*example()), hugging_face(*example()))


def test_the_definition_reads_pixel_centers_halves_and_zeros_outside():
    value = torch.arange(1.0, 7).view(1, 6, 1, 1)  # one map: 1 2 3 over 4 5 6

    def read(x, y):
        locations = torch.tensor([x / 3, y / 2]).view(1, 1, 1, 1, 1, 2)
        return by_definition(value, [(2, 3)], locations, torch.ones(1, 1, 1, 1, 1)).item()

    assert read(0.5, 0.5) == pytest.approx(1)
    assert read(2.5, 1.5) == pytest.approx(6)
    assert read(1.0, 0.5) == pytest.approx(1.5)
    assert read(1.0, 1.0) == pytest.approx(3)
    assert read(0.0, 0.5) == pytest.approx(0.5)  # half of it lies outside
    assert read(-0.5, 0.5) == read(0.5, 2.5) == 0


def test_gradients_are_those_of_the_definition():
    value, shapes, locations, weights = example()
    leaves = [tensor.requires_grad_() for tensor in (value, locations, weights)]

    def gradients(statement):
        output = statement(value, shapes, locations, weights)
        return torch.autograd.grad(output.square().sum(), leaves)

    torch.testing.assert_close(gradients(deformable_attention), gradients(by_definition))


def test_another_statement_holds_inside_its_context_only():
    def zeros(value, shapes, locations, weights):
        return torch.zeros(())

    with computed_by(zeros):
        assert deformable_attention(*example()).shape == ()
    assert deformable_attention(*example()).shape == (2, 7, 12)


def test_shapes_that_do_not_belong_together_are_refused():
    value, shapes, locations, weights = example()
    with pytest.raises(ValueError, match="have 71 pixels together, got 70"):
        deformable_attention(value[:, 1:], shapes, locations, weights)
    with pytest.raises(ValueError, match=r"N, M, L = 2, 3, 3, got \(2, 7, 3, 2, 4, 2\)"):
        deformable_attention(value, shapes, locations[:, :, :, :2], weights)
    with pytest.raises(ValueError, match=r"got .* and \(1, 7, 3, 3, 4\)"):
        deformable_attention(value, shapes, locations, weights[:1])
