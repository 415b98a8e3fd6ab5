import numpy as np
import torch

from training.data.cotexnet_tasks.batches import TaskBatches
from training.data.cotexnet_tasks.tasks import TaskSampler


def test_a_batch_holds_the_samplers_pictures_normalised():
    sampler = TaskSampler(held_out=True, size_px=64)
    batch = TaskBatches(sampler).batch("cardiac_mri", 3, np.random.default_rng(4))
    rng = np.random.default_rng(4)
    samples = [sampler.draw("cardiac_mri", rng) for _ in range(3)]
    images = np.stack([sample.image for sample in samples]) / 255
    for channel, mean, std in ((0, 0.485, 0.229), (1, 0.456, 0.224), (2, 0.406, 0.225)):
        restored = batch.pixels[:, channel].numpy() * std + mean
        assert np.abs(restored - images[..., channel]).max() < 1e-6
    assert batch.pixels.dtype == torch.float32
    assert batch.masks.shape == (3, 3, 64, 64)
    assert batch.masks.dtype == torch.bool
    assert batch.texts == [sample.text for sample in samples]
    assert batch.task == "cardiac_mri"
