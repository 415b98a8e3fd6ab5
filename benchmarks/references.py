"""MediSee's parts as other people's code computes them, with the same weights as the server.

SAM by `segment_anything`, CLIP and Mistral by Hugging Face, LoRA by PEFT, the heads in plain torch
from the formulas of the paper and its released code. Nothing here calls the networks of
`training.networks`; only their weights are read.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
    MistralForCausalLM,
)

from benchmarks.segment_anything_reference import reference
from export.sam_keys import segment_anything_name
from export.sources import Networks
from training.networks.profiles import Profile

modeling = reference("segment_anything.modeling")
transforms = reference("segment_anything.utils.transforms")


class SamReference:
    """`segment_anything`'s Sam at any size, with the weights of our two halves.

    Args:
        profile: Sizes.
        networks: Where the weights come from.
    """

    def __init__(self, profile: Profile, networks: Networks) -> None:
        vision, size, patch = profile.sam_vision, profile.sam_size, profile.sam_patch
        channels, grid = profile.sam_decoder.hidden_size, size // patch
        encoder = modeling.ImageEncoderViT(
            img_size=size,
            patch_size=patch,
            embed_dim=vision.hidden_size,
            depth=vision.num_hidden_layers,
            num_heads=vision.num_attention_heads,
            mlp_ratio=(vision.mlp_dim or 4 * vision.hidden_size) / vision.hidden_size,
            out_chans=channels,
            norm_layer=lambda width: nn.LayerNorm(width, eps=1e-6),
            qkv_bias=True,
            use_rel_pos=True,
            global_attn_indexes=tuple(vision.global_attn_indexes),
            window_size=vision.window_size,
        )
        if profile.convolutional_stem:
            # Our own stem, since the package has none; everything behind it is the package's.
            encoder.patch_embed.proj = networks.image_encoder.vision_encoder.patch_embed.projection
        decoder = modeling.MaskDecoder(
            num_multimask_outputs=3,
            transformer=modeling.TwoWayTransformer(
                depth=2,
                embedding_dim=channels,
                mlp_dim=profile.sam_decoder.mlp_dim,
                num_heads=profile.sam_decoder.num_attention_heads,
            ),
            transformer_dim=channels,
            iou_head_depth=3,
            iou_head_hidden_dim=profile.sam_decoder.iou_head_hidden_dim,
        )
        prompts = modeling.PromptEncoder(channels, (grid, grid), (size, size), 16)
        self.sam = modeling.Sam(encoder, prompts, decoder).eval()
        state = {
            segment_anything_name(name): tensor
            for part in (networks.image_encoder, networks.mask_decoder)
            for name, tensor in part.state_dict().items()
        }
        self.sam.load_state_dict(state)

    def frame(self, image: np.ndarray) -> tuple[Tensor, tuple[int, int]]:
        """(H, W, 3) uint8 -> pixels (3, S, S) and the size inside the frame."""
        size = self.sam.image_encoder.img_size
        resized = transforms.ResizeLongestSide(size).apply_image(image)
        pixels = torch.from_numpy(resized.transpose(2, 0, 1).copy()).float()
        return self.sam.preprocess(pixels), tuple(resized.shape[:2])

    def logits(
        self,
        image_embedding: Tensor,
        text_embedding: Tensor,
        box_cxcywh: Tensor,
        input_size: tuple[int, int],
        original_size: tuple[int, int],
    ) -> Tensor:
        """Logits (P, H, W) from a box (P, 4) in [0, 1] and a text embedding (P, 1, C)."""
        center, size = box_cxcywh[:, :2], box_cxcywh[:, 2:]
        corners = torch.cat([center - size / 2, center + size / 2], dim=1)
        sparse, dense = self.sam.prompt_encoder(
            points=None, boxes=corners * self.sam.image_encoder.img_size, masks=None
        )
        low_res, _ = self.sam.mask_decoder(
            image_embeddings=image_embedding,
            image_pe=self.sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=torch.cat([sparse, text_embedding], dim=1),
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        return self.sam.postprocess_masks(low_res, input_size, original_size)[:, 0]


class LlavaReference:
    """Hugging Face's whole CLIP vision model, read at the hidden state before the last layer.

    Args:
        profile: Sizes.
        networks: Where the weights come from; the last layer, which is not read, stays random.
    """

    def __init__(self, profile: Profile, networks: Networks) -> None:
        config = CLIPVisionConfig.from_dict(profile.clip.to_dict())
        self.model = CLIPVisionModel(config).eval()
        self.select_layer = profile.clip_select_layer
        tower = networks.llava_image_encoder.vision_tower
        if profile.convolutional_stem:
            inner = getattr(self.model, "vision_model", self.model)
            inner.embeddings.patch_embedding = (
                networks.llava_image_encoder.embeddings.patch_embedding
            )
        self.model.load_state_dict(tower.state_dict(), strict=False)
        self.projector = networks.llava_image_encoder.projector.state_dict()
        size = profile.clip_size
        self.processor = CLIPImageProcessorPil(
            size={"shortest_edge": size}, crop_size={"height": size, "width": size}
        )

    def frame(self, image: np.ndarray) -> Tensor:
        """(H, W, 3) uint8 -> pixels (3, S, S)."""
        return self.processor(Image.fromarray(image), return_tensors="pt")["pixel_values"][0]

    def tokens(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, 1 + T, E), CLS first."""
        hidden = self.model(pixels, output_hidden_states=True).hidden_states[self.select_layer]
        inner = F.gelu(F.linear(hidden, self.projector["0.weight"], self.projector["0.bias"]))
        return F.linear(inner, self.projector["2.weight"], self.projector["2.bias"])


class LanguageReference:
    """Hugging Face's Mistral with PEFT's adapter, read from the folder the engine reads.

    Args:
        folder: Version folder of the model `mllm`.
        adapter: Name of the adapter.
    """

    def __init__(self, folder: Path, adapter: str) -> None:
        base = MistralForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
        self.model = PeftModel.from_pretrained(base, folder / "adapters" / adapter).eval()
        self.table = load_file(folder / "embeddings" / f"{adapter}.safetensors")[
            "embed_tokens.weight"
        ].float()

    def hidden_states(self, token_ids: list[int], rows: Tensor, positions: list[int]) -> Tensor:
        """Rows (P, E) after the final norm; the one -1 in the ids stands for all of `rows`."""
        image = token_ids.index(-1)
        before, after = self.table[token_ids[:image]], self.table[token_ids[image + 1 :]]
        prompt = torch.cat([before, rows, after])[None]
        output = self.model(inputs_embeds=prompt, output_hidden_states=True)
        return output.hidden_states[-1][0, positions]


def fused(state: dict[str, Tensor], router: str, h_seg: Tensor, h_box: Tensor) -> Tensor:
    """Democratic fusion (Eq. 2): z = W2 GELU(W1 [h_box ; h_seg]), w = sigmoid(z) / sum."""
    gate = {name: state[f"{router}.gate.{name}"] for name in _MLP}
    both = torch.cat([h_box, h_seg], dim=-1)
    z = F.linear(F.gelu(F.linear(both, gate["0.weight"], gate["0.bias"])), *_last(gate))
    weights = z.sigmoid() / z.sigmoid().sum(dim=-1, keepdim=True)
    return weights[..., 0:1] * h_box + weights[..., 1:2] * h_seg


def projected_text(state: dict[str, Tensor], fused_seg: Tensor) -> Tensor:
    """Linear, ReLU, Linear into the mask decoder's width."""
    text = {name: state[f"text_projection.{name}"] for name in _MLP}
    return F.linear(F.relu(F.linear(fused_seg, text["0.weight"], text["0.bias"])), *_last(text))


def box_of(state: dict[str, Tensor], hidden: Tensor) -> Tensor:
    """Three-layer MLP with ReLU, then sigmoid: (..., 4) in [0, 1]."""
    for layer in (0, 2):
        weight, bias = state[f"layers.{layer}.weight"], state[f"layers.{layer}.bias"]
        hidden = F.relu(F.linear(hidden, weight, bias))
    return F.linear(hidden, state["layers.4.weight"], state["layers.4.bias"]).sigmoid()


_MLP = ("0.weight", "0.bias", "2.weight", "2.bias")


def _last(mlp: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    return mlp["2.weight"], mlp["2.bias"]
