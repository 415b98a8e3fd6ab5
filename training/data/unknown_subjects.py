"""Training questions about thousands of things that are none of the organs.

The few dozen subjects of `training.data.false_premises` can be learned by heart, and then whatever
is new passes for an organ. Here names are put together from parts or made up, and asked for in the
very words that ask for organs: what is left to learn is that an unknown name is refused. Only names
are varied so: the organs' facts are met in new words, too, and those must not be refused. Holds
nothing of the test split.
"""

import random

from training.data.organ_questions import ABDOMEN

_WHERE = (
    *("upper", "lower", "middle", "anterior", "posterior", "medial", "lateral", "deep", "left"),
    *("right", "long", "short", "common", "external", "internal", "first", "second", "superficial"),
)

_WHOSE = (
    *(
        "cervical",
        "thoracic",
        "lumbar",
        "sacral",
        "pelvic",
        "facial",
        "nasal",
        "palatine",
        "dental",
    ),
    *("lingual", "ocular", "orbital", "auricular", "occipital", "temporal", "cranial", "spinal"),
    *("carotid", "jugular", "bronchial", "cardiac", "coronary", "pulmonary", "pleural", "mammary"),
    *("intercostal", "brachial", "radial", "ulnar", "carpal", "digital", "femoral", "popliteal"),
    *("tibial", "peroneal", "tarsal", "plantar", "gluteal", "inguinal", "perineal", "uterine"),
    *("ovarian", "prostatic", "rectal", "anal", "colic", "cecal", "jejunal", "ileal", "mesenteric"),
    *("lacrimal", "salivary", "parathyroid", "pineal", "thymic", "dermal", "muscular", "skeletal"),
)

_PART = (
    *("nerve", "artery", "vein", "muscle", "tendon", "ligament", "bone", "joint", "cartilage"),
    *("gland", "duct", "node", "fold", "canal", "fossa", "plexus", "ganglion", "sinus", "cavity"),
    *(
        "membrane",
        "sheath",
        "valve",
        "wall",
        "branch",
        "process",
        "tubercle",
        "disc",
        "sac",
        "tube",
    ),
)

_NAMED = (
    *("colon", "appendix", "jejunum", "ileum", "cecum", "ureter", "urethra", "portal vein", "ribs"),
    *("vertebrae", "sternum", "collar bone", "humerus", "radius", "ulna", "tibia", "fibula", "jaw"),
    *(
        "skull",
        "teeth",
        "lips",
        "nose",
        "nostrils",
        "cornea",
        "retina",
        "iris",
        "eyelid",
        "eardrum",
    ),
    *("scalp", "hair", "skin", "nails", "thumb", "toes", "heel", "elbow", "wrist", "calf", "thigh"),
    *(
        "buttock",
        "groin",
        "vagina",
        "placenta",
        "bone marrow",
        "lymph node",
        "hippocampus",
        "insula",
    ),
    *("thalamus", "putamen", "cerebellum", "frontal lobe", "cerebral cortex", "whole brain"),
    *("chair", "table", "window", "door", "house", "street", "tree", "flower", "bird", "fish"),
    *("horse", "boat", "plane", "phone", "book", "pencil", "lamp", "clock", "shirt", "shoe"),
)

_MADE_UP_TEXT_SHARE = 0.2


def unknown_subject(rng: random.Random) -> str:
    """Draw one training question about something that is not in `training.data.organs`."""
    if rng.random() < _MADE_UP_TEXT_SHARE:
        text = " ".join(_made_up(rng) for _ in range(rng.randint(1, 5)))
    else:
        name = _name(rng)
        text = rng.choice(ABDOMEN.direct["train"]).format(the=f"the {name}", name=name)
    text = text[0].upper() + text[1:]
    return text.lower() if rng.random() < 0.35 else text


def _name(rng: random.Random) -> str:
    """A name without article: "left palatine nerve", "clock", "dorvan gland"."""
    kind = rng.random()
    if kind < 0.35:
        return rng.choice(_NAMED)
    whose = _made_up(rng) if kind > 0.8 else rng.choice(_WHOSE)
    where = f"{rng.choice(_WHERE)} " if rng.random() < 0.4 else ""
    return f"{where}{whose} {rng.choice(_PART)}"


def _made_up(rng: random.Random) -> str:
    """A word of one to three syllables."""
    return "".join(
        rng.choice("bcdfghjklmnprstvwz") + rng.choice("aeiou") + rng.choice(["", "", *"nrsl"])
        for _ in range(rng.randint(1, 3))
    )
