import torch

from training.networks.tpp.memory_read import MemoryRead


def test_every_pixel_is_replaced_by_what_it_finds(build):
    """Equations 10 to 12, pixel by pixel."""
    module = build(MemoryRead)
    pixels, memory = torch.randn(2, 2, 12, 32)
    mask = torch.randn(2, 3, 4)
    found = module(pixels, memory, mask)
    for item in range(2):
        padded = torch.zeros(33, 5, 6)
        padded[0, 1:4, 1:5] = mask[item]
        padded[1:, 1:4, 1:5] = memory[item].T.view(32, 3, 4)

        def convolve(layer, padded=padded):
            return torch.stack(
                [
                    (layer.weight * padded[:, y : y + 3, x : x + 3]).sum((1, 2, 3)) + layer.bias
                    for y in range(3)
                    for x in range(4)
                ]
            )

        keys, values = convolve(module.key), convolve(module.value)
        for pixel in range(12):
            share = (keys @ pixels[item, pixel] / 32**0.5).softmax(dim=0)
            torch.testing.assert_close(found[item, pixel], share @ values, atol=1e-5, rtol=1e-4)


def test_the_side_that_looks_is_not_trained_through(build):
    module = build(MemoryRead)
    pixels, memory, mask = torch.randn(1, 12, 32), torch.randn(1, 12, 32), torch.randn(1, 3, 4)
    for tensor in (pixels, memory, mask):
        tensor.requires_grad_()
    module(pixels, memory, mask).square().sum().backward()
    assert pixels.grad is None
    assert memory.grad.abs().sum() > 0
    assert mask.grad.abs().sum() > 0
