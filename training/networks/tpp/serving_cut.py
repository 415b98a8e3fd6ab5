"""TPP's weights as the four graphs that are served.

`TextEncoderGraph` runs once for a set of prompts, `TrunkGraph` once for a batch of frames in any
order, `InitGraph` on a sequence's first frame and `StepGraph` on every later one: all that is
sequential. They compute what `network.Tpp` does on frames without padding, with less work; whose
pixels the memory holds (`MemorySource`) is the caller's choice of the keys and values that it hands
to the step: this frame's, or the previous frame's.

Axes: P prompts, L words, B frames or sequences, S pixels of all levels, 4 levels of the pyramid in
the order of strides 32, 16, 8, 4. H and W may be any from 32 on; h_s = ceil(H / s).
"""

import torch
from torch import Tensor, nn

from training.networks.tpp.decoder import Decoded, Decoder, logit
from training.networks.tpp.feature_grid import feature_grids, word_positions
from training.networks.tpp.folded_masks import folded_masks
from training.networks.tpp.interaction import chosen
from training.networks.tpp.network import Tpp, halve, memory_maps
from training.networks.tpp.profile import LEVELS
from training.networks.tpp.sampled_memory import SampledMemory, convolve_mask, convolve_pixels


class TextEncoderGraph(nn.Module):
    """Everything that depends on prompts alone, each prompt on its own."""

    def __init__(self, network: Tpp) -> None:
        super().__init__()
        self.text_encoder = network.text_encoder
        self.interaction = network.interaction
        self.pyramid = network.pyramid

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Encode prompts.

        Args:
            input_ids: (P, L) int64.
            attention_mask: (P, L) int64, 1 at tokens, 0 at padding.

        Returns:
            sentences (P, C), fusion_keys and fusion_values (P, L, C), pyramid_keys and
            pyramid_values (P, 4, L, C).
        """
        text = self.text_encoder(input_ids, attention_mask)
        positions = word_positions(text.mask, text.words.shape[-1])
        fusion_keys, fusion_values = self.interaction.keys_values(text.words, positions)
        levels = self.pyramid.keys_values(text.words, positions)
        return (
            text.sentences,
            fusion_keys,
            fusion_values,
            torch.stack([keys for keys, _ in levels], dim=1),
            torch.stack([values for _, values in levels], dim=1),
        )


class TrunkGraph(nn.Module):
    """Everything of a frame that needs no earlier frame. Each frame brings its prompts."""

    def __init__(self, network: Tpp) -> None:
        super().__init__()
        self.backbone = network.backbone
        self.input_projection = network.input_projection
        self.interaction = network.interaction
        self.encoder = network.encoder
        self.pyramid = network.pyramid
        self.memory_read = network.memory_read

    def forward(
        self,
        frames: Tensor,
        attention_mask: Tensor,
        sentences: Tensor,
        fusion_keys: Tensor,
        fusion_values: Tensor,
        pyramid_keys: Tensor,
        pyramid_values: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """See frames.

        Args:
            frames: (B, 3, H, W) float, as `Backbone` takes them.
            attention_mask: (B, P, L) int64.
            sentences: (B, P, C); this and the rest from `TextEncoderGraph`.
            fusion_keys: (B, P, L, C).
            fusion_values: (B, P, L, C).
            pyramid_keys: (B, P, 4, L, C).
            pyramid_values: (B, P, 4, L, C).

        Returns:
            memory (B, S, C), memory_keys and memory_values (B, C, h_8, w_8) without the mask's
            part, mask_pyramid (B, C, h_4, w_4), sentence (B, C) of the chosen prompt, and
            prompt_index (B,) int64.
        """
        stages = self.backbone(frames)
        levels = self.input_projection(stages)
        grids = feature_grids([stages[0], *levels], None)
        mask = attention_mask.bool()
        fused = []
        for level in levels:
            pixels, prompt_index = self.interaction.fuse(
                level.flatten(2).transpose(1, 2), fusion_keys, fusion_values, mask
            )
            fused.append(pixels)
        memory = self.encoder(fused, grids[1:])
        maps = memory_maps(memory, grids[1:])
        keys, values = chosen(pyramid_keys, prompt_index), chosen(pyramid_values, prompt_index)
        pyramid = self.pyramid(
            [maps[2], maps[1], maps[0], stages[0]],
            grids[3::-1],
            list(zip(keys.unbind(dim=1), values.unbind(dim=1), strict=True)),
            chosen(mask, prompt_index),
        )
        return (
            memory,
            convolve_pixels(self.memory_read.key, maps[0]),
            convolve_pixels(self.memory_read.value, maps[0]),
            pyramid,
            chosen(sentences, prompt_index),
            prompt_index,
        )


class _Tail(nn.Module):
    """What first and later frames have in common: decoder, last heads, and the next state."""

    def __init__(self, network: Tpp) -> None:
        super().__init__()
        self.query_embed = network.query_embed
        self.decoder: Decoder = network.decoder
        self.class_head = network.class_heads[-1]
        self.controller = network.controller
        self.mask_features = network.mask_features
        self.track_embedding = network.track_embedding

    def outputs(
        self,
        decoded: Decoded,
        frame_size: Tensor,
        mask_pyramid: Tensor,
        track_shape: tuple[int, int],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The best candidate: its mask, box, score, index, and what it hands on."""
        hidden, boxes = decoded.hidden[-1], decoded.boxes[-1]
        class_logits = self.class_head(hidden)[..., 0]
        best = class_logits.argmax(dim=1)
        hidden, box = chosen(hidden, best), chosen(boxes, best)
        masks = folded_masks(
            mask_pyramid, self.mask_features, self.controller(hidden), box[:, :2] * frame_size
        )
        score = chosen(class_logits, best).sigmoid()
        return masks, box, score, best, self.track_embedding(hidden), halve(masks, track_shape)


class InitGraph(_Tail):
    """A sequence's first frame: the learned queries look for what the prompts describe."""

    def __init__(self, network: Tpp) -> None:
        super().__init__(network)
        self.reference = network.reference

    def forward(
        self, memory: Tensor, mask_pyramid: Tensor, sentence: Tensor, frame_size: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Find the structure.

        Args:
            memory: (B, S, C); this and the next two from `TrunkGraph`.
            mask_pyramid: (B, C, h_4, w_4).
            sentence: (B, C).
            frame_size: (B, 2) float: W and H of the frames the trunk saw, in pixels.

        Returns:
            mask_logits (B, h_4, w_4), box (B, 4) cxcywh in [0, 1], score (B,) in [0, 1], and what
            the next step takes beside the box: slot (B,) int64, track_query (B, C), track_mask
            (B, h_8, w_8).
        """
        shapes = level_shapes(mask_pyramid)
        places = self.query_embed.weight.expand(memory.shape[0], -1, -1)
        targets = sentence[:, None].expand_as(places)
        references = self.reference(places).sigmoid()
        decoded = self.decoder(targets, places, references, SampledMemory(memory, shapes))
        return self.outputs(decoded, frame_size, mask_pyramid, shapes[0])


class StepGraph(_Tail):
    """A later frame: the one query that is followed. Batched over sequences of one size."""

    def __init__(self, network: Tpp) -> None:
        super().__init__(network)
        self.memory_read = network.memory_read

    def forward(
        self,
        memory: Tensor,
        memory_keys: Tensor,
        memory_values: Tensor,
        mask_pyramid: Tensor,
        frame_size: Tensor,
        slot: Tensor,
        previous_box: Tensor,
        previous_track_query: Tensor,
        previous_track_mask: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Follow the structure by one frame.

        Args:
            memory: (B, S, C) of this frame, from `TrunkGraph`.
            memory_keys: (B, C, h_8, w_8) of this frame, or of the previous one.
            memory_values: (B, C, h_8, w_8), likewise.
            mask_pyramid: (B, C, h_4, w_4) of this frame.
            frame_size: (B, 2) float: W and H of the frames the trunk saw, in pixels.
            slot: (B,) int64, from `InitGraph`; the same on every frame.
            previous_box: (B, 4) cxcywh, the previous frame's `box`.
            previous_track_query: (B, C), the previous frame's `track_query`.
            previous_track_mask: (B, h_8, w_8), the previous frame's `track_mask`.

        Returns:
            mask_logits (B, h_4, w_4), box (B, 4), score (B,), track_query (B, C), track_mask
            (B, h_8, w_8), as `InitGraph`.
        """
        shapes = level_shapes(mask_pyramid)
        read = SampledMemory(
            memory,
            shapes,
            memory_keys + convolve_mask(self.memory_read.key, previous_track_mask),
            memory_values + convolve_mask(self.memory_read.value, previous_track_mask),
        )
        references = logit(previous_box).sigmoid()[:, None]
        decoded = self.decoder(
            previous_track_query[:, None], self.query_embed(slot)[:, None], references, read
        )
        masks, box, score, _, query, mask = self.outputs(
            decoded, frame_size, mask_pyramid, shapes[0]
        )
        return masks, box, score, query, mask


def level_shapes(mask_pyramid: Tensor) -> list[tuple[int, int]]:
    """(h, w) of the transformer's levels, each half of the one before, rounded up."""
    height, width = mask_pyramid.shape[2], mask_pyramid.shape[3]
    shapes = []
    for _ in range(LEVELS):
        height, width = (height + 1) // 2, (width + 1) // 2
        shapes.append((height, width))
    return shapes
