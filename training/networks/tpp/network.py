"""TPP in one piece, frame by frame: for training, and the reference of what the server computes.

The server runs the same weights as the graphs of `serving_cut`, with everything that needs no
earlier frame batched over frames; here nothing is saved and nothing reordered.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.tpp.backbone import Backbone
from training.networks.tpp.decoder import Decoder, logit
from training.networks.tpp.deformable_layer import DeformableAttention
from training.networks.tpp.encoder import Encoder, memory_mask
from training.networks.tpp.feature_grid import FeatureGrid, feature_grids, word_positions
from training.networks.tpp.feature_pyramid import FeaturePyramid
from training.networks.tpp.input_projection import InputProjection
from training.networks.tpp.interaction import ReferringInteraction, chosen
from training.networks.tpp.mask_head import Controller, dynamic_masks
from training.networks.tpp.memory_read import MemoryRead
from training.networks.tpp.profile import LEVELS, TppProfile
from training.networks.tpp.text_encoder import Text, TextEncoder

MemorySource = Literal["current", "previous"]
"""Whose pixels the memory holds beside the previous mask: the released code's reading is the
current frame's, the paper's (Eq. 10) the previous frame's."""

Propagated = Literal["box", "mask", "query"]
PROPAGATED: tuple[Propagated, ...] = ("box", "mask", "query")

SMALLEST_SIDE = 32
"""Pixels; below this a level of the pyramid has nothing to attend to."""


@dataclass(frozen=True)
class Scene:
    """What one frame is without regard to earlier ones. S = pixels of all levels."""

    memory: Tensor
    """(B, S, C) from the encoder, the levels one after the other."""
    grids: list[FeatureGrid]
    """Of the levels of `memory`: strides 8, 16, 32 and 64."""
    mask_features: Tensor
    """(B, C, h, w) at stride 4."""
    prompt_index: Tensor
    """(B,) int64: the prompt that weighs most."""
    sentence: Tensor
    """(B, C) of that prompt."""
    picture_size: Tensor
    """(B, 2) float: width and height of the frame before padding, in pixels."""

    @property
    def finest(self) -> Tensor:
        """(B, S_8, C): the memory's stride-8 level."""
        height, width = self.grids[0].shape
        return self.memory[:, : height * width]


@dataclass(frozen=True)
class TrackState:
    """What a frame hands on. None: that is not propagated."""

    slot: Tensor
    """(B,) int64: which of the first frame's queries is followed."""
    box_logits: Tensor | None
    """(B, 4) of the best box, cxcywh."""
    query: Tensor | None
    """(B, C)."""
    mask_logits: Tensor | None
    """(B, h, w) of the best mask, at stride 8."""
    memory: Tensor | None
    """(B, S_8, C) of the encoder; None with memory source `current`, which does not need it."""


@dataclass(frozen=True)
class Prediction:
    """One frame's candidates, of every decoder layer, last layer last. N = queries."""

    mask_logits: list[Tensor]
    """(B, N, h, w) at stride 4; > 0 is foreground."""
    boxes: list[Tensor]
    """(B, N, 4) cxcywh in [0, 1], relative to the picture."""
    class_logits: list[Tensor]
    """(B, N): whether the query is what the prompts refer to."""
    hidden: Tensor
    """(B, N, C) of the last layer."""
    slots: Tensor
    """(B, N) int64: the learned query behind each candidate."""

    @property
    def best(self) -> Tensor:
        """(B,) int64: the candidate of the highest class score (paper, Eq. 16)."""
        return self.class_logits[-1].argmax(dim=1)


class TrackEmbedding(nn.Module):
    """Turns a frame's best query into the next frame's: (..., C) -> (..., C)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.norm = nn.LayerNorm(width)

    def forward(self, query: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return self.norm(query + self.layers(query))


class Tpp(nn.Module):
    """All networks of TPP.

    Args:
        profile: Sizes.
        memory_source: Whose pixels the memory holds.
        propagated: What a frame hands on to the next; less than everything for the paper's
            ablation (Table 5).
    """

    def __init__(
        self,
        profile: TppProfile,
        memory_source: MemorySource = "current",
        propagated: Collection[Propagated] = PROPAGATED,
    ) -> None:
        super().__init__()
        if memory_source not in ("current", "previous"):
            raise ValueError(
                f"memory_source: expected 'current' or 'previous', got {memory_source!r}"
            )
        if not set(propagated) <= set(PROPAGATED):
            raise ValueError(f"propagated: expected some of {PROPAGATED}, got {propagated}")
        self.profile, self.memory_source = profile, memory_source
        self.propagated = frozenset(propagated)
        width = profile.width
        self.text_encoder = TextEncoder(profile)
        self.backbone = Backbone(profile)
        self.input_projection = InputProjection(profile)
        self.interaction = ReferringInteraction(profile)
        self.encoder = Encoder(profile)
        self.memory_read = MemoryRead(profile)
        self.query_embed = nn.Embedding(profile.queries, width)
        self.reference = nn.Linear(width, 2)
        self.decoder = Decoder(profile)
        self.class_heads = nn.ModuleList(nn.Linear(width, 1) for _ in self.decoder.layers)
        self.pyramid = FeaturePyramid(profile)
        self.mask_features = nn.Conv2d(width, width, 3, padding=1)
        self.controller = Controller(profile)
        self.track_embedding = TrackEmbedding(width)
        nn.init.xavier_uniform_(self.reference.weight)
        nn.init.zeros_(self.reference.bias)
        for head in self.class_heads:
            assert isinstance(head, nn.Linear)
            # focal loss starts from a probability of 0.01 (RetinaNet, section 4.1)
            nn.init.constant_(head.bias, -math.log(99))

    def forward(
        self,
        frames: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        frame_sizes: Tensor | None = None,
    ) -> list[Prediction]:
        """Follow what the prompts describe through sequences, each frame after the one before.

        Args:
            frames: (B, T, 3, H, W) float, as `Backbone` takes them; sides of 32 pixels or more.
            input_ids: (B, P, L) int64, as `TextEncoder` takes them.
            attention_mask: (B, P, L).
            frame_sizes: (B, 2) int64, (height, width) in pixels of each sequence's frames before
                they were padded on the right and below. None: nothing is padded.

        Returns:
            One per frame: (5 candidates on the first, 1 on the others).

        Raises:
            ValueError: if the frames are smaller, or there are none.
        """
        if frames.ndim != 5 or frames.shape[1] == 0:
            raise ValueError(
                f"frames: expected (B, T, 3, H, W) with T >= 1, got {tuple(frames.shape)}"
            )
        text = self.text_encoder(input_ids, attention_mask)
        predictions: list[Prediction] = []
        state = None
        for frame in frames.unbind(dim=1):
            scene = self.see(frame, text, frame_sizes)
            predictions.append(self.decode(scene, state))
            state = self.propagate(scene, predictions[-1])
        return predictions

    def see(self, frames: Tensor, text: Text, frame_sizes: Tensor | None = None) -> Scene:
        """Compute what needs no earlier frame.

        Args:
            frames: (B, 3, H, W), one of each sequence.
            text: Of (B, P) prompts.
            frame_sizes: As in `forward`.
        """
        height, width = frames.shape[2:]
        if min(height, width) < SMALLEST_SIDE:
            raise ValueError(
                f"frames: expected sides of {SMALLEST_SIDE} pixels or more, got {height} x "
                f"{width}; enlarge them first"
            )
        stages = self.backbone(frames)
        levels = self.input_projection(stages)
        grids = feature_grids([stages[0], *levels], frame_sizes)
        positions = word_positions(text.mask, self.profile.width)
        fused = []
        for level in levels:
            pixels, prompt_index = self.interaction(
                level.flatten(2).transpose(1, 2), text.words, positions, text.mask
            )
            fused.append(pixels)
        # the index of the last level, stride 64, is the one that counts
        memory = self.encoder(fused, grids[1:])
        maps = memory_maps(memory, grids[1:])
        words, places, mask = (
            chosen(tensor, prompt_index) for tensor in (text.words, positions, text.mask)
        )
        pyramid = self.pyramid(
            [maps[2], maps[1], maps[0], stages[0]],
            grids[3::-1],
            self.pyramid.keys_values(words, places),
            mask,
        )
        if frame_sizes is None:
            frame_sizes = torch.tensor([[height, width]], device=frames.device)
        return Scene(
            memory,
            grids[1:],
            self.mask_features(pyramid),
            prompt_index,
            chosen(text.sentences, prompt_index),
            frame_sizes.flip(1).to(frames.dtype),
        )

    def decode(self, scene: Scene, state: TrackState | None) -> Prediction:
        """Find the candidates: the learned queries' on a first frame, else the one followed.

        Args:
            scene: This frame.
            state: From the frame before; None on a first frame.
        """
        items = scene.memory.shape[0]
        if state is None:
            slots = torch.arange(self.profile.queries, device=scene.memory.device)
            slots = slots.expand(items, -1)
        else:
            slots = state.slot[:, None]
        places = self.query_embed(slots)
        targets = scene.sentence[:, None].expand_as(places)
        references = self.reference(places).sigmoid()
        memory = scene.memory
        if state is not None:
            if state.query is not None:
                targets = state.query[:, None]
            if state.box_logits is not None:
                references = state.box_logits[:, None].sigmoid()
            if state.mask_logits is not None:
                remembered = scene.finest if state.memory is None else state.memory
                found = self.memory_read(scene.finest, remembered, state.mask_logits)
                memory = torch.cat([found, memory[:, found.shape[1] :]], dim=1)
        ratios = torch.stack([grid.valid_ratio for grid in scene.grids], dim=1)[:, None]
        shapes = [grid.shape for grid in scene.grids]
        mask = memory_mask(scene.grids)

        def read(attention: DeformableAttention, queries: Tensor, references: Tensor) -> Tensor:
            scale = ratios.repeat(1, 1, 1, references.shape[-1] // 2)
            return attention(queries, references[:, :, None] * scale, memory, shapes, mask)

        decoded = self.decoder(targets, places, references, read)
        return Prediction(
            [
                dynamic_masks(
                    scene.mask_features,
                    self.controller(hidden),
                    boxes[..., :2].detach() * scene.picture_size[:, None],
                )
                for hidden, boxes in zip(decoded.hidden, decoded.boxes, strict=True)
            ],
            decoded.boxes,
            [
                head(hidden)[..., 0]
                for head, hidden in zip(self.class_heads, decoded.hidden, strict=True)
            ],
            decoded.hidden[-1],
            slots,
        )

    def propagate(self, scene: Scene, prediction: Prediction) -> TrackState:
        """What the best candidate hands on to the next frame (paper, section 3.3)."""
        best = prediction.best
        height, width = scene.grids[0].shape
        masks = chosen(prediction.mask_logits[-1], best)
        return TrackState(
            slot=chosen(prediction.slots, best),
            box_logits=logit(chosen(prediction.boxes[-1], best).detach())
            if "box" in self.propagated
            else None,
            query=self.track_embedding(chosen(prediction.hidden, best))
            if "query" in self.propagated
            else None,
            mask_logits=halve(masks, (height, width)) if "mask" in self.propagated else None,
            memory=scene.finest if self.memory_source == "previous" else None,
        )


def memory_maps(memory: Tensor, grids: list[FeatureGrid]) -> list[Tensor]:
    """The memory (B, S, C) as one map (B, C, h, w) a level."""
    shapes = [grid.shape for grid in grids]
    assert len(shapes) == LEVELS
    parts = memory.transpose(1, 2).split([height * width for height, width in shapes], dim=2)
    return [part.unflatten(2, shape) for part, shape in zip(parts, shapes, strict=True)]


def halve(masks: Tensor, shape: tuple[int, int]) -> Tensor:
    """Mask logits (B, h_4, w_4) brought to stride 8, (B, h, w) of that shape."""
    return F.interpolate(masks[:, None], shape, mode="bilinear", align_corners=False)[:, 0]
