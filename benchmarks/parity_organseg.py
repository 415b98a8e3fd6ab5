"""Parity of Organ-Seg: its components, and the pipeline from pixels and words to decisions."""

from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.differences import differing, outlines, relative
from benchmarks.parity_encoders import language_difference
from benchmarks.references.organseg import OrganSegAnswer, OrganSegReference
from benchmarks.references.sam import corners_of, unstretched
from benchmarks.served_models import ServedModels
from training.data.phantoms import draw_anatomy, render_slice, window
from training.networks.profiles import Profile

OUTCOMES = {"found", "absent", "irrelevant", "uncertain"}
FIRST_BODY = 2**31 + 7_000_000
"""Seed of a synthetic body; the training has none of this range."""


@dataclass(frozen=True)
class Case:
    """One request to the pipeline."""

    body: int
    prompt: str
    questions: tuple[str, ...] = ()
    """One for each organ asked for; () is one, the prompt itself."""
    missing: tuple[str, ...] = ()
    """Organs that the body lacks."""
    least_margin: float = 0
    cut: bool = False
    """Whether the picture is RGB and not square; else it is grey, as rendered."""

    @property
    def image(self) -> np.ndarray:
        """(H, W, C) uint8."""
        grey = window(render_slice(draw_anatomy(self.body, self.missing), 10.0).hu)[:, :, None]
        return np.repeat(grey[24:], 3, axis=2) if self.cut else grey


CASES = (
    *(Case(FIRST_BODY, f"Segment the {organ}.") for organ in ("liver", "right kidney", "aorta")),
    *(
        Case(FIRST_BODY + number, f"Where is the {organ}?", missing=(organ,))
        for number, organ in enumerate(("spleen", "gallbladder", "left kidney", "right kidney"))
    ),
    Case(FIRST_BODY, "Where is the cat?"),
    Case(FIRST_BODY, "Translate this sentence."),
    Case(FIRST_BODY, "What time is it?", cut=True),
    Case(FIRST_BODY, "Segment the liver.", least_margin=2),
    Case(FIRST_BODY + 1, "Outline the left kidney.", cut=True),
    Case(
        FIRST_BODY,
        "Segment the liver, the spleen and the aorta.",
        questions=("Segment the liver.", "Segment the spleen.", "Segment the aorta."),
        missing=("spleen",),
    ),
)


class OrganSegParity:
    """Compares the served models of Organ-Seg with its reference."""

    def __init__(
        self, served: ServedModels, reference: OrganSegReference, profile: Profile
    ) -> None:
        self.served, self.reference, self.profile = served, reference, profile

    def differences(self) -> dict[str, float]:
        """Worst relative difference by name."""
        picture = np.random.default_rng(5).integers(0, 256, (97, 151, 3), dtype=np.uint8)
        return {
            "mllm.organseg": self._language(),
            "organseg_image_embedding": self._image_embedding(picture),
            "organseg_image_tokens": self._image_tokens(picture),
            "organseg_prompt": self._prompt(),
            "organseg_extractors": self._extractors(),
            "organseg_context_cache": self._context_cache(),
            "organseg_mask_decoder": self._mask_decoder(),
            "organseg": self._pipeline(),
        }

    def _language(self) -> float:
        rows = torch.randn(self.profile.image_tokens, self.profile.mistral.hidden_size)
        ids = self.reference.token_ids("Where is the spleen?")
        return language_difference(
            self.served, self.reference.language, ids, [rows], [len(ids) - 1]
        )

    def _image_embedding(self, picture: np.ndarray) -> float:
        embedded = self.served.ask("organseg_image_embedding", image=picture)
        sam = self.reference.sam
        return max(
            relative(embedded["image_embedding"], sam.embedding(sam.stretched_frame(picture))),
            differing(embedded["original_size"][0].tolist(), picture.shape[:2]),
        )

    def _image_tokens(self, picture: np.ndarray) -> float:
        encoded = self.served.ask("organseg_image_tokens", image=picture)
        return relative(encoded["patch_tokens"], self.reference.patch_tokens(picture))

    def _prompt(self) -> float:
        question = "Which organ makes bile?"
        prompt = self.served.ask("organseg_prompt", prompt=question)
        return differing(prompt["token_ids"].tolist(), self.reference.token_ids(question))

    def _extractors(self) -> float:
        states = torch.randn(3, 1, self.profile.mistral.hidden_size)
        read = self.served.ask("organseg_extractors", hidden_states=states)
        expected = vars(self.reference.read(states[:, 0]))
        return max(relative(read[name], value) for name, value in expected.items())

    def _context_cache(self) -> float:
        interest = torch.nn.functional.normalize(torch.randn(6, self.reference.context.shape[1]))
        compared = self.served.ask("organseg_context_cache", interest=interest)
        names, codes = (
            [organ[key] for organ in self.reference.organs] for key in ("name", "snomed")
        )
        return max(
            relative(compared["similarities"], self.reference.similarities(interest.numpy())),
            differing(texts(compared["labels"]), names),
            differing(texts(compared["snomed_codes"]), codes),
        )

    def _mask_decoder(self) -> float:
        channels, grid = (
            self.profile.sam_decoder.hidden_size,
            self.profile.sam_size // self.profile.sam_patch,
        )
        embedding, token = torch.randn(1, channels, grid, grid), torch.randn(3, 1, channels)
        boxes, outer = torch.rand(3, 4) * 0.4 + 0.2, (151, 203)
        decoded = self.served.ask(
            "organseg_mask_decoder",
            image_embedding=embedding,
            seg_embedding=token,
            boxes_cxcywh=boxes,
            original_size=np.array([outer], np.int64),
        )
        low_res = self.reference.sam.low_res_logits(embedding, token, boxes)
        scale = torch.tensor([outer[1], outer[0], outer[1], outer[0]])
        return max(
            outlines(decoded["masks"], decoded["scores"], unstretched(low_res, outer)),
            relative(decoded["boxes_xyxy"], corners_of(boxes) * scale),
        )

    def _pipeline(self) -> float:
        differences, outcomes = [], set()
        for case in CASES:
            image, questions = case.image, case.questions or (case.prompt,)
            answer = self.served.ask(
                "organseg",
                image=image,
                prompt=case.prompt,
                least_margin=np.array([case.least_margin], np.float32),
            )
            rgb = np.broadcast_to(image, (*image.shape[:2], 3)).copy()
            expected = [
                self.reference.answer(rgb, question, case.least_margin) for question in questions
            ]
            differences += [differing(texts(answer["questions"]), questions)]
            differences += [_compared(answer, expected)]
            outcomes |= {each.outcome for each in expected}
        if outcomes != OUTCOMES:
            raise RuntimeError(
                f"organseg: no case ends as {', '.join(sorted(OUTCOMES - outcomes))}; such cases "
                "show too little, ask about other bodies"
            )
        return max(differences)


def _compared(answer: dict[str, np.ndarray], expected: list[OrganSegAnswer]) -> float:
    """All results of one request."""
    probabilities = torch.stack([each.probabilities for each in expected])
    # A margin is the difference of two cosines, and as exact as they are.
    cosines = np.stack([[*each.similarities, each.margin] for each in expected])
    return max(
        outlines(answer["masks"], answer["scores"], probabilities),
        relative(answer["boxes_xyxy"], torch.stack([each.box_xyxy for each in expected])),
        relative(np.c_[answer["similarities"], answer["margins"]], cosines),
        relative(answer["presences"], np.array([each.presence for each in expected])),
        differing(texts(answer["outcomes"]), [each.outcome for each in expected]),
        differing(texts(answer["labels"]), [each.label for each in expected]),
        differing(texts(answer["snomed_codes"]), [each.snomed_code for each in expected]),
    )


def texts(values: np.ndarray) -> list[str]:
    """Strings of a BYTES tensor."""
    return [value.decode() for value in values]
