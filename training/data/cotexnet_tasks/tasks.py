"""CoTexNet's tasks of the demo, and pictures for them: single frames of the scenes.

A task stands for a dataset of the paper (Tab. 1): it has a head of its own, and its classes are
all in every picture.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.cotexnet_tasks.mask_attributes import attributes_of
from training.data.sequences.sampler import STACKS, SceneSampler, Source
from training.networks.cotexnet.prompts import Attributes, real_text


@dataclass(frozen=True)
class Task:
    """One dataset to segment."""

    source: Source
    classes: tuple[str, ...]
    """Structures without background, in the order of the masks; they do not overlap."""
    keywords: tuple[str, ...]
    """What the text calls each class."""


TASKS: dict[str, Task] = {
    "polyp": Task("colonoscopy", ("polyp",), ("polyp",)),
    "echo_left_ventricle": Task("echocardiogram", ("left ventricle",), ("left ventricle",)),
    "liver": Task("abdomen_stack", ("liver",), ("liver",)),
    "abdominal_lesion": Task("abdomen_stack", ("lesion",), ("lesion",)),
    "brain_ventricles": Task("brain_stack", ("lateral ventricles",), ("ventricle",)),
    "cardiac_mri": Task(
        "cardiac_cine",
        ("right ventricle", "myocardium", "left ventricle"),
        ("right ventricle", "myocardium", "left ventricle"),
    ),
}
"""Tasks by name; the last has three classes, as ACDC."""

MIN_AREA_SHARE = 0.002
"""A class is in the picture if it covers this share."""


@dataclass(frozen=True)
class TaskSample:
    """One picture of one task."""

    task: str
    image: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    masks: NDArray[np.bool_]
    """(n, H, W), one per class, none empty."""
    attributes: tuple[Attributes, ...]
    """Of each class."""

    @property
    def text(self) -> str:
        """Real-text prompt; of several classes one sentence after the other."""
        keywords = TASKS[self.task].keywords
        sentences = map(real_text, self.attributes, keywords)
        return " ".join(sentences)


class TaskSampler:
    """Draws pictures of every task.

    Args:
        held_out: Draw scenes of the test split.
        size_px: Side of the square pictures.
    """

    def __init__(self, *, held_out: bool, size_px: int = 128) -> None:
        self._scenes = SceneSampler(held_out=held_out, size_px=size_px, length=1)

    def draw(self, task: str, rng: np.random.Generator) -> TaskSample:
        """Draw a picture that shows all classes of a task.

        Raises:
            LookupError: if the task is unknown.
        """
        if task not in TASKS:
            raise LookupError(f"task: expected one of {list(TASKS)}, got {task!r}")
        kind = TASKS[task]
        while True:
            through = kind.classes[0] if kind.source in STACKS else None
            scene = self._scenes.draw(rng, kind.source, through)
            frame = scene.frame(0)
            masks = frame.masks[[scene.names.index(name) for name in kind.classes]]
            if masks.mean(axis=(1, 2)).min() < MIN_AREA_SHARE:
                continue
            image = frame.image
            if image.ndim == 2:
                image = np.repeat(image[..., None], 3, axis=-1)
            attributes = tuple(attributes_of(image, mask) for mask in masks)
            return TaskSample(task, image, masks, attributes)
