"""Pictures of CoTexNet's tasks as batches of its stage."""

import numpy as np
import torch

from training.data.cotexnet_tasks.tasks import TaskSampler
from training.stages.cotexnet import CoTexNetBatch

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class TaskBatches:
    """Draws batches; a `CoTexNetSource`.

    Args:
        sampler: Its pictures have the side S that the network reads.
    """

    def __init__(self, sampler: TaskSampler) -> None:
        self._sampler = sampler

    def batch(self, task: str, count: int, rng: np.random.Generator) -> CoTexNetBatch:
        """Draw `count` pictures of a task.

        Raises:
            LookupError: if the task is unknown.
        """
        samples = [self._sampler.draw(task, rng) for _ in range(count)]
        images = np.stack([sample.image for sample in samples])
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
        return CoTexNetBatch(
            task,
            (pixels - mean) / std,
            torch.from_numpy(np.stack([sample.masks for sample in samples])),
            [sample.text for sample in samples],
        )
