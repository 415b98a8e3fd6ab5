"""MediRound's released loop (train_ds.py:673-805) in plain PyTorch, nothing kept between rounds.

For each of the T rounds of a conversation it computes, as the released code does,

- SAM's image encoder and CLIP of the picture,
- CLIP of the crops of all references, of rounds to come too, which show the true masks until their
  own round was answered,
- one forward pass over the whole conversation of T rounds, with the logits of all positions,
- the text projection of all positions,
- T masks, decoded and brought to the picture's size; the one of this round is kept.

Like the released data loader it cuts crops and resizes pictures once. Two differences, both in its
favour or of no weight: the crops go through CLIP in one batch, and every round is judged by the
JCM, as the server does by default, not only rounds referred to later.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.conversation_workload import Talk
from benchmarks.loop_process import LoopProcess
from benchmarks.plain_network import plain_network
from export.sources import Source
from serving.llava_prompt import LlavaTokenizer
from serving.mediround_prompt import MEDIROUND_ADDED_TOKENS, Turn, conversation_prompt
from serving.preprocessing import check_image, clip_frame, sam_frame
from serving.reference_region import reference_region
from training.networks.mediround import BETA, MediRound
from training.networks.medisee import resize_logits
from training.networks.profiles import ProfileName


@dataclass(frozen=True)
class TalkAnswers:
    """What the loop says in one conversation."""

    round_ms: list[float]
    """Time of each round; reading the picture counts to the first."""
    masks: list[np.ndarray]
    """(H, W) bool, one per round."""


class ConversationLoop(LoopProcess):
    """The loop, in a process of its own.

    Args:
        profile: As in `benchmarks.plain_network.source_of`.
        weights: Likewise.
    """

    def __init__(self, profile: ProfileName, weights: Path) -> None:
        super().__init__(_start, profile, weights)

    def answer(self, talk: Talk) -> TalkAnswers:
        """Answer a conversation round by round."""
        answers: TalkAnswers = self.work(talk)
        return answers


def _start(source: Source, device: torch.device) -> Callable[[Talk], TalkAnswers]:
    assert source.language_model.tokenizer is not None
    tokenizer = LlavaTokenizer(source.language_model.tokenizer, MEDIROUND_ADDED_TOKENS)
    network = plain_network(source, MediRound).to(device)
    return lambda talk: answer_talk(network, tokenizer, talk)


def answer_talk(network: MediRound, tokenizer: LlavaTokenizer, talk: Talk) -> TalkAnswers:
    """Answer a conversation round by round.

    Args:
        network: In evaluation mode.
        tokenizer: With `serving.mediround_prompt.MEDIROUND_ADDED_TOKENS`.
        talk: In which some round refers to an earlier one: the released code knows no others.
    """
    round_ms, masks = [], []
    started = time.perf_counter()
    conversation = _WholeConversation(network, tokenizer, talk)
    for number in range(len(talk.rounds)):
        mask = conversation.answer(number)
        conversation.show(number, mask)
        masks.append(mask)
        now = time.perf_counter()
        round_ms.append(1e3 * (now - started))
        started = now
    return TalkAnswers(round_ms, masks)


class _WholeConversation:
    """All rounds of a conversation as one sequence, with what is shown of each reference."""

    def __init__(self, network: MediRound, tokenizer: LlavaTokenizer, talk: Talk) -> None:
        self._network = network
        self._device = network.embed_tokens.weight.device
        self._image = check_image(talk.image[..., np.newaxis])
        pixels, self._input_size = sam_frame(self._image, network.profile.sam_size)
        self._sam_pixels = self._tensor(pixels)[None]
        self._clip_pixels = self._clip_frame(self._image)[None]
        self._token_ids, self._positions = conversation_prompt(
            tokenizer, [Turn(each.prompt, int(each.reference is not None)) for each in talk.rounds]
        )
        self._references = [each.reference for each in talk.rounds if each.reference is not None]
        self._crops: list[Tensor] = []
        self._boxes: list[Tensor] = []
        for reference in self._references:
            crop, box = self._region(talk.rounds[reference].truth)
            self._crops.append(crop)
            self._boxes.append(box)

    def show(self, number: int, mask: np.ndarray) -> None:
        """From now on show this mask wherever that round is referred to."""
        for slot, reference in enumerate(self._references):
            if reference == number:
                self._crops[slot], self._boxes[slot] = self._region(mask)

    @torch.no_grad()
    def answer(self, number: int) -> np.ndarray:
        """Mask (H, W) bool of one round; all others are computed with it."""
        network = self._network
        image_embedding = network.image_encoder(self._sam_pixels)
        patch_tokens, _ = network.llava_image_encoder(self._clip_pixels)
        references = network.reference_tokens(torch.stack(self._crops), torch.stack(self._boxes))
        prompt = network.embed_prompt(
            self._token_ids, [patch_tokens[0], *references.flatten(0, 1).split(1)]
        )
        hidden = network.mllm.model.model(inputs_embeds=prompt, use_cache=False).last_hidden_state
        network.lm_head(hidden)
        text_embeddings = network.text_projection(hidden[0])[self._positions]
        quality, correction = network.jcm(text_embeddings[number : number + 1])
        if quality.item() <= BETA:
            text_embeddings[number] = correction[0]
        low_res = network.mask_decoder(image_embedding, text_embeddings[None, :, None], None)
        logits = resize_logits(
            low_res, network.profile.sam_size, self._input_size, self._image.shape[:2]
        )
        mask: np.ndarray = (logits[0, number] > 0).cpu().numpy()
        return mask

    def _region(self, mask: np.ndarray) -> tuple[Tensor, Tensor]:
        crop, box_xyxy = reference_region(self._image, mask)
        return self._clip_frame(crop), self._tensor(box_xyxy)

    def _clip_frame(self, image: np.ndarray) -> Tensor:
        return self._tensor(clip_frame(image, self._network.profile.clip_size))

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self._device)
