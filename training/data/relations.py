"""What the demo knows about pairs of targets: how one is asked for by way of another.

Each relation is a noun phrase about "it", the mask a question refers to, and leads from every
target it lists to exactly one other. Many share their words between several pairs ("its counterpart
on the other side"), so that the words alone do not decide. The five scenarios are those of
MR-MedSeg (MediRound, section 3 and appendix D.2). Relations that depend on the picture are found
in its masks: neighbours in the image, and which organ holds the lesion.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from training.data.phantoms import LESION_SITES
from training.data.structures import STRUCTURES, Fact
from training.data.views import TARGETS

Scenario = Literal["organ-lesion", "hierarchy", "attribute", "spatial", "inference"]
SCENARIOS: tuple[Scenario, ...] = get_args(Scenario)


@dataclass(frozen=True, eq=False)
class Relation:
    """One way to ask for a target by way of another."""

    scenario: Scenario
    wordings: Fact
    """Noun phrases with "it" or "its", two for training and one held out."""
    targets: Mapping[str, str]
    """Target by reference, both by name; empty where the picture decides."""


@dataclass(frozen=True)
class Link:
    """A relation between two targets of one picture, by their indices into `TARGETS`."""

    reference: int
    target: int
    relation: Relation


def _r(
    scenario: Scenario, first: str, second: str, held_out: str, targets: Mapping[str, str]
) -> Relation:
    return Relation(scenario, Fact((first, second), held_out), targets)


_SIDES = {"right": "left", "left": "right"}
_PAIRED = {
    f"{side} {organ}": f"{other} {organ}"
    for side, other in _SIDES.items()
    for organ in ("kidney", "adrenal gland")
}
_RIGHT = ("liver", "gallbladder")
_LEFT = ("spleen",)

RELATIONS: tuple[Relation, ...] = (
    # Abdomen.
    _r(
        "attribute",
        "its counterpart on the other side of the body",
        "the same organ on the other side",
        "its counterpart, the same organ on the opposite side of the body",
        _PAIRED,
    ),
    _r(
        "attribute",
        "the organ it empties into",
        "what it empties its contents into",
        "the organ that it is emptied into",
        {
            "esophagus": "stomach",
            "stomach": "duodenum",
            "gallbladder": "duodenum",
            "pancreas": "duodenum",
        },
    ),
    _r(
        "attribute",
        "the organ that passes food on to it",
        "the organ from which food reaches it",
        "the organ from which food passes on to it",
        {"stomach": "esophagus", "duodenum": "stomach"},
    ),
    _r(
        "attribute",
        "the sac that stores what it makes",
        "the small sac where its bile is stored",
        "the sac which stores the bile it makes",
        {"liver": "gallbladder"},
    ),
    _r(
        "attribute",
        "the organ that makes what it stores",
        "the organ where its bile is made",
        "the organ that makes the bile in it",
        {"gallbladder": "liver"},
    ),
    _r(
        "attribute",
        "the large vein that carries its blood away",
        "the large vein that its own vein opens into",
        "the large vein that takes its blood away",
        {
            "liver": "inferior vena cava",
            "right kidney": "inferior vena cava",
            "left kidney": "inferior vena cava",
            "right adrenal gland": "inferior vena cava",
        },
    ),
    _r(
        "attribute",
        "the other great vessel",
        "the great vessel that runs beside it",
        "the other one of the great vessels beside it",
        {"aorta": "inferior vena cava", "inferior vena cava": "aorta"},
    ),
    _r(
        "spatial",
        "the gland on top of it",
        "the small gland that sits on its upper pole",
        "the small gland that sits on top of it",
        {f"{side} kidney": f"{side} adrenal gland" for side in _SIDES},
    ),
    _r(
        "spatial",
        "the organ it sits on",
        "the organ whose upper pole it sits on",
        "the organ that it sits on top of",
        {f"{side} adrenal gland": f"{side} kidney" for side in _SIDES},
    ),
    _r(
        "spatial",
        "the kidney on its side of the body",
        "the kidney on the same side",
        "the kidney on the same side of the body",
        dict.fromkeys(_RIGHT, "right kidney") | dict.fromkeys(_LEFT, "left kidney"),
    ),
    _r(
        "spatial",
        "the kidney on the other side of the body",
        "the kidney that is not on its side",
        "the kidney on the other side from it",
        dict.fromkeys(_RIGHT, "left kidney") | dict.fromkeys(_LEFT, "right kidney"),
    ),
    _r(
        "spatial",
        "the adrenal gland on its side of the body",
        "the adrenal gland on the same side",
        "the adrenal gland on the same side of the body",
        dict.fromkeys(_RIGHT, "right adrenal gland") | dict.fromkeys(_LEFT, "left adrenal gland"),
    ),
    _r(
        "spatial",
        "the great vessel on its side of the body",
        "the great vessel on the same side",
        "the great vessel on the same side of the body",
        dict.fromkeys((*_RIGHT, "right kidney", "right adrenal gland"), "inferior vena cava")
        | dict.fromkeys((*_LEFT, "left kidney", "left adrenal gland"), "aorta"),
    ),
    _r(
        "spatial",
        "the large solid organ next to it",
        "the large solid organ that it lies beside",
        "the large solid organ that lies next to it",
        {"right kidney": "liver", "gallbladder": "liver", "left kidney": "spleen"},
    ),
    _r(
        "spatial",
        "the organ at the end of its tail",
        "the organ that its tail reaches",
        "the organ which the end of its tail reaches",
        {"pancreas": "spleen"},
    ),
    _r(
        "spatial",
        "the bowel that winds around its head",
        "the bowel that makes a loop around its head",
        "the bowel which loops around its head",
        {"pancreas": "duodenum"},
    ),
    _r(
        "spatial",
        "the gland whose head lies in its loop",
        "the gland whose head it winds around",
        "the gland with its head in the loop of it",
        {"duodenum": "pancreas"},
    ),
    _r(
        "inference",
        "the organ that takes over its work when it is removed",
        "the organ that must do its work alone after it is taken out",
        "the organ that does its work alone when it is removed",
        _PAIRED,
    ),
    _r(
        "inference",
        "the organ that swells when it is scarred",
        "the organ that is enlarged when scars block its blood",
        "the organ that swells when scars block it",
        {"liver": "spleen"},
    ),
    _r(
        "inference",
        "the organ that is inflamed when one of its stones gets stuck",
        "the gland that suffers when one of its stones blocks the common duct",
        "the gland that is inflamed when one of its stones blocks a duct",
        {"gallbladder": "pancreas"},
    ),
    _r(
        "inference",
        "the organ whose acid can burn it",
        "the organ whose acid makes ulcers in it",
        "the organ whose acid burns ulcers in it",
        {"esophagus": "stomach", "duodenum": "stomach"},
    ),
    # Brain.
    _r(
        "hierarchy",
        "the lobe that it is a part of",
        "the lobe that contains it",
        "the lobe which it is contained in",
        {"hippocampus": "temporal lobe"},
    ),
    _r(
        "hierarchy",
        "the whole organ it is a part of",
        "all of the organ that contains it",
        "the whole organ that contains it",
        dict.fromkeys(
            (
                "cerebellum",
                "brain stem",
                "cerebral cortex",
                "frontal lobe",
                "parietal lobe",
                "temporal lobe",
                "occipital lobe",
            ),
            "whole brain",
        ),
    ),
    _r(
        "hierarchy",
        "the small curved structure deep inside it",
        "the structure for memory deep inside it",
        "the small structure for memory inside it",
        {"temporal lobe": "hippocampus"},
    ),
    _r(
        "attribute",
        "the other nucleus of the basal ganglia",
        "its partner in the basal ganglia",
        "the nucleus that is its partner in the basal ganglia",
        {"caudate nucleus": "putamen", "putamen": "caudate nucleus"},
    ),
    _r(
        "attribute",
        "the other part of the limbic system",
        "its partner in the limbic system",
        "the structure that is its partner in the limbic system",
        {"hippocampus": "cingulate cortex", "cingulate cortex": "hippocampus"},
    ),
    _r(
        "attribute",
        "the other kind of tissue of the cerebrum",
        "the tissue on the other side of its border",
        "the other tissue at its border",
        {
            "cerebral cortex": "cerebral white matter",
            "cerebral white matter": "cerebral cortex",
        },
    ),
    _r(
        "attribute",
        "the lobe that receives its visual signals",
        "the lobe where its signals from the eyes arrive",
        "the lobe that receives its signals from the eyes",
        {"thalamus": "occipital lobe"},
    ),
    _r(
        "attribute",
        "the relay that passes signals on to it",
        "the relay station where its signals come from",
        "the relay station that passes its signals on",
        {
            "occipital lobe": "thalamus",
            "parietal lobe": "thalamus",
            "cerebral cortex": "thalamus",
        },
    ),
    _r(
        "spatial",
        "the other structure of the posterior fossa",
        "its neighbour in the posterior fossa",
        "the structure that is its neighbour in the posterior fossa",
        {"cerebellum": "brain stem", "brain stem": "cerebellum"},
    ),
    _r(
        "spatial",
        "the lobe behind it",
        "the lobe that follows it towards the back",
        "the lobe that follows behind it",
        {
            "frontal lobe": "parietal lobe",
            "parietal lobe": "occipital lobe",
            "temporal lobe": "occipital lobe",
        },
    ),
    _r(
        "spatial",
        "the lobe at the opposite end of the brain",
        "the lobe that is farthest from it",
        "the farthest lobe, at the opposite end",
        {"frontal lobe": "occipital lobe", "occipital lobe": "frontal lobe"},
    ),
    _r(
        "spatial",
        "the structure just above it",
        "the structure that rests on top of it",
        "the structure just on top of it",
        {"brain stem": "thalamus", "cerebellum": "occipital lobe"},
    ),
    _r(
        "spatial",
        "the structure just below it",
        "the structure that lies directly under it",
        "the structure that lies just below it",
        {"thalamus": "brain stem", "occipital lobe": "cerebellum"},
    ),
    _r(
        "spatial",
        "the nucleus lateral to it, across the internal capsule",
        "the nucleus on the outer side of the internal capsule next to it",
        "the nucleus across the internal capsule, lateral to it",
        {"thalamus": "putamen", "caudate nucleus": "putamen"},
    ),
    _r(
        "spatial",
        "the hidden cortex lateral to it",
        "the hidden island of cortex on its outer side",
        "the hidden cortex on the outer side of it",
        {"putamen": "insula"},
    ),
    _r(
        "spatial",
        "the nucleus medial to it",
        "the nucleus that lies on its inner side",
        "the nucleus on the inner, medial side of it",
        {"insula": "putamen"},
    ),
    _r(
        "spatial",
        "the nucleus in its wall",
        "the nucleus that bulges into it",
        "the nucleus bulging in its wall",
        {"lateral ventricles": "caudate nucleus"},
    ),
    _r(
        "inference",
        "the space that widens when it shrinks",
        "the fluid space that grows when it is lost",
        "the fluid space that widens when it is lost",
        {
            "caudate nucleus": "lateral ventricles",
            "hippocampus": "lateral ventricles",
            "cerebral white matter": "lateral ventricles",
        },
    ),
    _r(
        "inference",
        "the structure that is pressed when it swells",
        "the structure in danger of being pressed when it swells",
        "the structure in danger when it swells and presses",
        {"cerebellum": "brain stem", "temporal lobe": "brain stem"},
    ),
    _r(
        "inference",
        "the structure that degenerates with it in movement disorders",
        "the nucleus that suffers with it in movement disorders",
        "the nucleus that degenerates with it in disorders of movement",
        {"putamen": "caudate nucleus"},
    ),
    # The whole brain and its parts; which part is meant, the structures' own facts tell.
    *(
        _r(
            "hierarchy",
            f"the part of it that {fact.train[0]}",
            f"the part of it that {fact.train[1]}",
            f"the part of it that {fact.held_out}",
            {"whole brain": structure.name},
        )
        for structure in STRUCTURES
        if structure.name != "whole brain"
        for fact in (*structure.attributes, *structure.locations)
    ),
)
"""Relations that hold in every body."""

LESION_INSIDE = _r(
    "organ-lesion",
    "the lesion inside it",
    "the abnormal spot inside it",
    "the abnormal lesion in it",
    {},
)
LESION_HOST = _r(
    "organ-lesion",
    "the organ it lies in",
    "the organ that contains it",
    "the organ that it is contained in",
    {},
)

Direction = Literal["left", "right", "above", "below"]
NEIGHBOURS: dict[Direction, Relation] = {
    "left": _r(
        "spatial",
        "its neighbour on the left in the image",
        "what lies directly to the left of it in the image",
        "the neighbour directly on the left of it in the image",
        {},
    ),
    "right": _r(
        "spatial",
        "its neighbour on the right in the image",
        "what lies directly to the right of it in the image",
        "the neighbour directly on the right of it in the image",
        {},
    ),
    "above": _r(
        "spatial",
        "its neighbour above it in the image",
        "what lies directly above it in the image",
        "the neighbour directly above it in the image",
        {},
    ),
    "below": _r(
        "spatial",
        "its neighbour below it in the image",
        "what lies directly below it in the image",
        "the neighbour directly below it in the image",
        {},
    ),
}

_SURROUNDING = ("whole brain", "cerebral white matter", "cerebral cortex", "lesion")
"""No neighbours: they surround the others, or lie inside one."""
_ON_BOTH_SIDES = (
    "thalamus",
    "caudate nucleus",
    "putamen",
    "lateral ventricles",
    "hippocampus",
    "insula",
    "parietal lobe",
    "temporal lobe",
)
"""Parts of one mask lie apart, so that it has no left or right of its own."""
_REACH = 0.2
"""Largest gap between neighbours, relative to the picture's longer side."""
_CLEAR = 0.05
"""How much farther than the neighbour everything else is, likewise."""
_SHARED = 0.5
"""Share of the shorter of two extents that neighbours have in common across the direction."""
_PERHAPS_SHARED = 0.15
"""The same for what could be meant instead, and leaves doubt."""


def links(present: Tensor, masks: Tensor) -> list[Link]:
    """All links between the targets of one view.

    Args:
        present: (30,) bool, in the order of `TARGETS`.
        masks: (30, H, W) bool.

    Returns:
        Known relations of which both ends are present, the lesion and the organ that holds it, and
        neighbours in the image.
    """
    shown = {TARGETS[i].name: i for i in present.nonzero()[:, 0].tolist()}
    found = [
        Link(shown[reference], shown[target], relation)
        for relation in RELATIONS
        for reference, target in relation.targets.items()
        if reference in shown and target in shown
    ]
    if "lesion" in shown:
        lesion = shown["lesion"]
        host = _host(masks, lesion, [shown[site] for site in LESION_SITES if site in shown])
        if host is not None:
            found.append(Link(host, lesion, LESION_INSIDE))
            found.append(Link(lesion, host, LESION_HOST))
    blocks = [i for name, i in shown.items() if name not in _SURROUNDING]
    single = [TARGETS[i].name not in _ON_BOTH_SIDES for i in blocks]
    for direction, relation in NEIGHBOURS.items():
        for place, target in enumerate(neighbours(masks[blocks], direction)):
            if target is not None and single[place] and single[target]:
                found.append(Link(blocks[place], blocks[target], relation))
    return found


def neighbours(masks: Tensor, direction: Direction) -> list[int | None]:
    """For each mask, which other one lies next to it in the image, where that is beyond doubt.

    Masks count by their tight boxes. A neighbour's box lies beyond the other's edge and near it,
    and across the direction the two have in common half of the shorter one; nothing else that
    could be meant lies nearly as near.

    Args:
        masks: (N, H, W) bool, none empty.
        direction: As seen in the image.

    Returns:
        N indices, or None where there is no neighbour or more than one.
    """
    rows, columns = _extents(masks.any(dim=2)), _extents(masks.any(dim=1))
    along, across = (columns, rows) if direction in ("left", "right") else (rows, columns)
    if direction in ("left", "above"):
        along = -along[:, ::-1]
    # Now the direction is that of growing coordinates; rows are references, columns candidates.
    middle = along.mean(axis=1)
    gap = (along[None, :, 0] - along[:, None, 1]) / max(masks.shape[1:])
    common = np.minimum(across[:, None, 1], across[None, :, 1]) - np.maximum(
        across[:, None, 0], across[None, :, 0]
    )
    length = across[:, 1] - across[:, 0]
    shared = common / np.minimum(length[:, None], length[None, :])
    candidate = (middle[None] > along[:, None, 1]) & (shared >= _SHARED)
    candidate &= (gap > -_CLEAR) & (gap <= _REACH)
    doubtful = (middle[None] > middle[:, None]) & (shared >= _PERHAPS_SHARED)

    found: list[int | None] = []
    for reference in range(len(gap)):
        nearest = int(np.where(candidate[reference], gap[reference], np.inf).argmin())
        others = doubtful[reference] & (gap[reference] < gap[reference, nearest] + _CLEAR)
        others[nearest] = False
        found.append(nearest if candidate[reference, nearest] and not others.any() else None)
    return found


def _extents(occupied: Tensor) -> NDArray[np.int64]:
    """(N, L) bool -> (N, 2): the first, and one behind the last."""
    flags = occupied.numpy()
    return np.stack([flags.argmax(axis=1), flags.shape[1] - flags[:, ::-1].argmax(axis=1)], axis=1)


def _host(masks: Tensor, lesion: int, organs: list[int]) -> int | None:
    """The organ that holds most of the lesion."""
    shares = [(masks[organ] & masks[lesion]).sum().item() for organ in organs]
    if not shares or max(shares) < masks[lesion].sum().item() / 2:
        return None
    return organs[shares.index(max(shares))]
