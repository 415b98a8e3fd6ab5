import torch
import torch.nn.functional as F

from training.networks.tpp.mask_head import Controller, dynamic_masks
from training.networks.tpp.profile import full_profile


def test_masks_are_three_convolutions_cut_from_one_vector(build):
    """The order of the vector: all weights, then all biases."""
    controller = build(Controller)
    hidden, features = torch.randn(2, 3, 32), torch.randn(2, 32, 5, 7)
    centers = torch.rand(2, 3, 2) * 30
    found = dynamic_masks(features, controller(hidden), centers)
    vectors = controller.layers(hidden)
    assert vectors.shape[-1] == 34 * 4 + 4 * 4 + 4 + 4 + 4 + 1
    for item in range(2):
        for query in range(3):
            w0, w1, w2, b0, b1, b2 = vectors[item, query].split([136, 16, 4, 4, 4, 1])
            x = torch.tensor([[4 * j + 2 for j in range(7)] for _ in range(5)])
            y = torch.tensor([[4 * i + 2 for _ in range(7)] for i in range(5)])
            relative = torch.stack([centers[item, query, 0] - x, centers[item, query, 1] - y])
            maps = torch.cat([features[item], relative])[None]
            maps = F.conv2d(maps, w0.view(4, 34, 1, 1), b0).relu()
            maps = F.conv2d(maps, w1.view(4, 4, 1, 1), b1).relu()
            maps = F.conv2d(maps, w2.view(1, 4, 1, 1), b2)
            torch.testing.assert_close(found[item, query], maps[0, 0], atol=1e-4, rtol=1e-4)


def test_the_published_size_has_2153_parameters_a_query():
    with torch.device("meta"):
        assert Controller(full_profile()).layers[-1].out_features == 2153
