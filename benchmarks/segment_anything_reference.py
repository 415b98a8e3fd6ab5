"""The published `segment_anything`, importable here: the oracle of everything about SAM.

It needs two functions of torchvision, which has no build beside this torch. Both are thin calls of
PIL there (`torchvision/transforms/_functional_pil.py`) and are written out here.
"""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image


def _to_pil_image(array: np.ndarray) -> Image.Image:
    return Image.fromarray(array)


def _resize(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    height, width = size
    return picture.resize((width, height), Image.Resampling.BILINEAR)


def _refuse(*arguments: object) -> None:
    raise NotImplementedError("only the automatic mask generator needs this")


def reference(name: str = "segment_anything") -> Any:
    """Import a module of `segment_anything`."""
    if name in sys.modules or importlib.util.find_spec("torchvision") is not None:
        return importlib.import_module(name)
    functional = ModuleType("torchvision.transforms.functional")
    vars(functional).update(to_pil_image=_to_pil_image, resize=_resize)
    boxes = ModuleType("torchvision.ops.boxes")
    vars(boxes).update(batched_nms=_refuse, box_area=_refuse)
    stand_ins = {
        "torchvision": ModuleType("torchvision"),
        "torchvision.transforms": ModuleType("torchvision.transforms"),
        "torchvision.transforms.functional": functional,
        "torchvision.ops": ModuleType("torchvision.ops"),
        "torchvision.ops.boxes": boxes,
    }
    sys.modules.update(stand_ins)
    try:
        return importlib.import_module(name)
    finally:  # transformers would take them for the real ones
        for stand_in in stand_ins:
            del sys.modules[stand_in]
