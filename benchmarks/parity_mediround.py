"""Parity of MediRound: its components, and whole conversations round by round.

The server answers one round after another and keeps what earlier rounds computed; the reference
reads the whole conversation in one pass, shown the server's own masks.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from saymask import mask_codec
from torch import Tensor

from benchmarks.differences import differing, outlines, relative
from benchmarks.parity_encoders import hidden_states, language_difference
from benchmarks.references.mediround import MediRoundReference, Turn
from benchmarks.served_models import InSequence, ServedModels
from training.data.phantoms import draw_anatomy, render_slice, window
from training.networks.profiles import Profile

Judge = Literal["every", "referenced"]
Outputs = dict[str, np.ndarray]

LEAST_INFLUENCE = 1e-2
"""Relative difference of text embeddings that other masks have to make, far above parity's."""

DRAWN = 0
"""Stands among the references for a mask that the round brings."""


@dataclass(frozen=True)
class Round:
    """One round of a conversation, and what is to be understood by it."""

    prompt: str
    texts: tuple[str, ...] = ()
    """The objects asked for; () is one, the prompt itself."""
    references: tuple[int, ...] = ()
    """Instances that it refers to, in this order."""
    reference_rounds: tuple[int, ...] = ()
    """Named in the request; otherwise the words have to be understood."""
    reference_instances: tuple[int, ...] = ()
    corrects: int | None = None
    """Instance in whose place the user puts a mask."""
    beta: float = 0.6
    """1 corrects every embedding that is judged, 0 none."""

    @property
    def turns(self) -> tuple[str, ...]:
        """The questions that it is in the prompt."""
        return self.texts or (self.prompt,)

    @property
    def brings_mask(self) -> bool:
        """Whether the user drew or corrected a mask."""
        return DRAWN in self.references or self.corrects is not None


CONVERSATION = (
    Round("segment the liver"),
    Round("segment its largest vessel", references=(1,)),
    Round(
        "segment the stomach and the spleen",
        texts=("segment the stomach", "segment the spleen"),
        references=(1,),
        reference_instances=(1,),
    ),
    Round("segment what lies between them", references=(3, 4), reference_rounds=(3,), beta=1),
    Round("segment the organ behind this", references=(DRAWN,), beta=0),
    Round("segment what lies below it", references=(2,), corrects=2),
    Round("based on the output of round 4, segment the vessel", references=(5,), beta=1),
)
"""Every way of referring to a mask, a round with two objects, and both outcomes of the judge."""

BEGUN_WITH_A_MASK = (
    Round("segment the organ at this place", references=(DRAWN,)),
    *CONVERSATION[1:],
)

_ANY = np.zeros((1, 1), bool)

TURNS = (
    Turn("segment the liver", [_ANY]),
    Turn("segment its largest vessel", [_ANY, _ANY]),
    Turn("where is the spleen?"),
)
"""For components to which only the number of masks counts."""


@dataclass(frozen=True)
class Answered:
    """One round of the server's."""

    outputs: Outputs
    """Of the round."""
    standing: Outputs
    """Of `recall` after it: all instances as they were then."""


@dataclass(frozen=True)
class Stage:
    """What is expected of one round, and of all instances after it."""

    new: list[int]
    """Numbers of the round's own instances."""
    corrected: list[bool]
    """Whether they were decoded from a corrected embedding."""
    revised: list[int]
    """Earlier instances that are corrected because the round refers to them."""
    standing: Tensor
    """(N, H, W), probabilities of all instances."""
    by_user: frozenset[int]
    """Instances in whose place the user put a mask."""


class MediRoundParity:
    """Compares the served models of MediRound with its reference."""

    def __init__(
        self, served: ServedModels, reference: MediRoundReference, profile: Profile
    ) -> None:
        self.served, self.reference, self.profile = served, reference, profile

    def differences(self) -> dict[str, float]:
        """Worst relative difference by name."""
        slice_ = render_slice(draw_anatomy(2**31 + 7_000_000), 10.0)
        grey = window(slice_.hu)[:, :, None]
        cut = np.repeat(grey[20:], 3, axis=2)
        return {
            "mllm.mediround": self._language(),
            "mediround_prompt": self._prompt(),
            "mediround_box_encoder": self._box_encoder(),
            "mediround_text_projection": self._text_projection(),
            "mediround_jcm": self._jcm(),
            "mediround_mask_decoder": self._mask_decoder(),
            "mediround_round_by_round": self._round_by_round(cut),
            "mediround": max(
                self._conversation(grey, CONVERSATION, "every"),
                self._conversation(cut, BEGUN_WITH_A_MASK, "referenced"),
            ),
        }

    def _language(self) -> float:
        width = self.profile.mistral.hidden_size
        ids, positions = self.reference.prompt(TURNS)
        segments = [torch.randn(self.profile.image_tokens, width)]
        segments += [torch.randn(1, width) for _ in range(ids.count(-1) - 1)]
        return language_difference(self.served, self.reference.language, ids, segments, positions)

    def _prompt(self) -> float:
        ids, positions = self.reference.prompt(TURNS)
        prompt = self.served.ask(
            "mediround_prompt",
            prompts=np.array([turn.question.encode() for turn in TURNS], np.object_),
            references=np.array([len(turn.masks) for turn in TURNS], np.int32),
        )
        # What follows the last position cannot change it, and is left out by the server.
        end = positions[-1] + 1
        return max(
            differing(prompt["token_ids"].tolist(), ids[:end]),
            differing((prompt["hidden_positions"] + end).tolist(), positions),
        )

    def _box_encoder(self) -> float:
        boxes = torch.rand(5, 4)
        encoded = self.served.ask("mediround_box_encoder", boxes_xyxy=boxes)
        return relative(encoded["box_token"], self.reference.box_token(boxes))

    def _text_projection(self) -> float:
        states = torch.randn(2, 3, self.profile.mistral.hidden_size)
        projected = self.served.ask("mediround_text_projection", hidden_states=states)
        return relative(projected["text_embedding"], self.reference.projected(states))

    def _jcm(self) -> float:
        text = torch.randn(4, 1, self.profile.sam_decoder.hidden_size)
        judged = self.served.ask("mediround_jcm", text_embedding=text)
        quality, correction = self.reference.judged(text)
        return max(
            relative(judged["quality"], quality[:, 0]),
            relative(judged["corrected_embedding"], correction),
        )

    def _mask_decoder(self) -> float:
        channels, size = self.profile.sam_decoder.hidden_size, self.profile.sam_size
        grid = size // self.profile.sam_patch
        embedding, text = torch.randn(1, channels, grid, grid), torch.randn(3, 1, channels)
        inner, outer = (size, size * 3 // 4), (203, 149)
        decoded = self.served.ask(
            "mediround_mask_decoder",
            image_embedding=embedding,
            text_embedding=text,
            input_size=np.array([inner], np.int64),
            original_size=np.array([outer], np.int64),
        )
        sam = self.reference.sam
        low_res = sam.low_res_logits(embedding, text, boxes_cxcywh=None)
        return outlines(decoded["masks"], decoded["scores"], sam.unpadded(low_res, inner, outer))

    def _round_by_round(self, rgb: np.ndarray) -> float:
        """Hidden states and text embeddings of a conversation that grows, against one pass."""
        mask = ellipse(*rgb.shape[:2])
        turns = [
            Turn(text, [mask] * len(each.references))
            for each in CONVERSATION
            for text in each.turns
        ]
        ids, positions = self.reference.prompt(turns)
        segments = self.reference.segments(rgb, turns)
        expected = self.reference.language.hidden_states(ids, segments, positions)
        differences = []
        for number, position in enumerate(positions):
            so_far = ids[: position + 1]
            grown = hidden_states(
                self.served, "mediround", so_far, segments[: so_far.count(-1)], [position]
            )
            if number and grown["cached_tokens"][0] == 0:
                raise RuntimeError(f"mllm: turn {number + 1} found nothing in the prefix cache")
            projected = self.served.ask(
                "mediround_text_projection", hidden_states=grown["hidden_states"]
            )
            alone = expected[None, number : number + 1]
            differences += [
                relative(grown["hidden_states"], alone),
                relative(projected["text_embedding"], self.reference.projected(alone)),
            ]
        return max(differences)

    def _conversation(self, image: np.ndarray, rounds: tuple[Round, ...], judge: Judge) -> float:
        """Masks, scores, qualities and references of a conversation, against one pass."""
        height, width = image.shape[:2]
        drawn = ellipse(height, width)
        answered = self._converse(image, rounds, judge, drawn)
        rgb = np.broadcast_to(image, (height, width, 3)).copy()
        turns = []
        for each, answer in zip(rounds, answered, strict=True):
            # As recalled after the round: corrections that a reference causes come before it.
            seen = mask_codec.decode(answer.standing["masks"], width)
            shown = [drawn if number == DRAWN else seen[number - 1] for number in each.references]
            turns += [Turn(text, shown) for text in each.turns]
        text_embedding = self.reference.projected(self.reference.hidden_states(rgb, turns))
        quality, correction = self.reference.judged(text_embedding)
        mirrored = [Turn(turn.question, [mask[:, ::-1] for mask in turn.masks]) for turn in turns]
        other = self.reference.projected(self.reference.hidden_states(rgb, mirrored))
        if relative(other.numpy(), text_embedding) < LEAST_INFLUENCE:
            raise RuntimeError(
                "mediround: mirrored masks as references give the same text embeddings; such a "
                "conversation shows nothing"
            )
        expected = followed(
            rounds,
            judge,
            quality,
            self.reference.probabilities(rgb, text_embedding),
            self.reference.probabilities(rgb, correction),
            drawn,
        )
        _check_telling(answered, expected)
        return max(
            _compared(answer, stage, each, quality)
            for each, answer, stage in zip(rounds, answered, expected, strict=True)
        )

    def _converse(
        self, image: np.ndarray, rounds: tuple[Round, ...], judge: Judge, drawn: np.ndarray
    ) -> list[Answered]:
        name = str(uuid.uuid4())
        answered = []
        for number, each in enumerate(rounds):
            inputs: dict[str, np.ndarray | Tensor | str] = {
                "prompt": each.prompt,
                "kind": "mask",
                "judge": judge,
                "beta": np.array([each.beta], np.float32),
            }
            if number == 0:
                inputs["image"] = image
            for key in ("reference_rounds", "reference_instances"):
                if getattr(each, key):
                    inputs[key] = np.array(getattr(each, key), np.int32)
            if each.brings_mask:
                inputs["mask"] = mask_codec.encode(drawn[None])
            if each.corrects is not None:
                inputs["mask_instance"] = np.array([each.corrects], np.int32)
            place = InSequence(name, start=number == 0, end=False)
            outputs = self.served.ask("mediround", place, **inputs)
            recalled = self.served.ask(
                "mediround", InSequence(name, start=False, end=False), action="recall"
            )
            answered.append(Answered(outputs, recalled))
        self.served.ask("mediround", InSequence(name, start=False, end=True), action="erase")
        return answered


def ellipse(height: int, width: int) -> np.ndarray:
    """(H, W) bool: a mask as a user draws it, left of the middle."""
    y, x = np.mgrid[:height, :width]
    return ((y / height - 0.45) / 0.2) ** 2 + ((x / width - 0.35) / 0.15) ** 2 < 1


def followed(
    rounds: Sequence[Round],
    judge: Judge,
    quality: Tensor,
    plain: Tensor,
    corrected: Tensor,
    drawn: np.ndarray,
) -> list[Stage]:
    """Follow Algorithm 1, or the released code, through the rounds of a conversation.

    Args:
        rounds: T turns together, which are as many instances.
        judge: "every" judges embeddings at once, "referenced" when a later round refers to them.
        quality: (T,), the judge's scores.
        plain: (T, H, W), probabilities decoded from the embeddings as they are.
        corrected: (T, H, W), from the corrector's.
        drawn: (H, W) bool, what the user draws.

    Returns:
        One stage for each round.
    """
    standing: list[Tensor] = []
    waiting: set[int] = set()
    by_user: set[int] = set()
    stages = []
    for each in rounds:
        if each.corrects is not None:
            standing[each.corrects - 1] = torch.from_numpy(drawn).float()
            by_user.add(each.corrects)
        low = {n for n in range(1, len(quality) + 1) if quality[n - 1] <= each.beta}
        revised = [n for n in each.references if n in (waiting - by_user) & low]
        waiting -= set(each.references)
        for number in revised:
            standing[number - 1] = corrected[number - 1]
        new = range(len(standing) + 1, len(standing) + 1 + len(each.turns))
        at_once = [judge == "every" and number in low for number in new]
        for number, better in zip(new, at_once, strict=True):
            standing.append((corrected if better else plain)[number - 1])
        if judge == "referenced":
            waiting |= set(new)
        stages.append(Stage(list(new), at_once, revised, torch.stack(standing), frozenset(by_user)))
    return stages


def _check_telling(answered: Sequence[Answered], expected: Sequence[Stage]) -> None:
    """Refuse a conversation that would be right whatever the server computed.

    Raises:
        RuntimeError: if masks are all empty or full, or a round was not a continuation.
    """
    shares = [float((mask > 0.5).float().mean()) for mask in expected[-1].standing]
    cached = [int(each.outputs["cached_tokens"][0]) for each in answered]
    if sum(0 < share < 1 for share in shares) < 2 or 0 in cached[1:]:
        raise RuntimeError(
            f"mediround: masks cover {[f'{share:.0%}' for share in shares]} of the picture, rounds "
            f"found {cached} tokens in the prefix cache; such a conversation shows nothing"
        )


def _compared(answer: Answered, stage: Stage, asked: Round, quality: Tensor) -> float:
    """One round, and all instances after it; those of the user have neither score nor quality."""
    recalled, width = answer.standing, stage.standing.shape[2]
    differences = [
        differing(answer.outputs["instances"].tolist(), stage.new),
        differing(answer.outputs["corrected"].tolist(), stage.corrected),
        differing(sorted(answer.outputs["revised"].tolist()), sorted(stage.revised)),
        differing(answer.outputs["references"][:, 1].tolist(), asked.references),
    ]
    ours = [n - 1 for n in recalled["instances"].tolist() if n not in stage.by_user]
    differences.append(
        outlines(recalled["masks"][ours], recalled["scores"][ours], stage.standing[ours])
    )
    judged = [row for row in ours if not np.isnan(recalled["qualities"][row])]
    if judged:
        differences.append(relative(recalled["qualities"][judged], quality[judged]))
    for number in stage.by_user:
        mask = mask_codec.decode(recalled["masks"][[number - 1]], width)[0]
        differences.append(float((mask != (stage.standing[number - 1] > 0.5).numpy()).mean()))
    return max(differences)
