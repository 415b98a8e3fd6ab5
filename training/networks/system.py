"""What MediSee, MediRound and Organ-Seg have in common: the shared encoders, and one adapter."""

from collections.abc import Sequence

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import MistralForCausalLM

from serving.llava_prompt import IMAGE_SEGMENT
from training.networks.llava import LlavaImageEncoder
from training.networks.profiles import Profile
from training.networks.sam import PromptedMaskDecoder, SamImageEncoder


class System(nn.Module):
    """The two image encoders and the base language model, which carries one LoRA adapter.

    A system that adds tokens has a fully trained token embedding and head of its own beside the
    base's; the others use the base's.

    Args:
        profile: Sizes.
        adapter: Name of the adapter and of the system.
        added_tokens: How many tokens follow the base vocabulary.
    """

    embed_tokens: nn.Embedding
    mask_decoder: PromptedMaskDecoder
    """What every system has of its own; made by its class."""

    def __init__(self, profile: Profile, adapter: str, added_tokens: int = 0) -> None:
        super().__init__()
        self.profile, self.adapter, self.added_tokens = profile, adapter, added_tokens
        self.image_encoder = SamImageEncoder(profile)
        self.llava_image_encoder = LlavaImageEncoder(profile)
        self.mllm = get_peft_model(
            MistralForCausalLM(profile.mistral),
            LoraConfig(
                r=profile.lora_rank,
                lora_alpha=profile.lora_alpha,
                lora_dropout=0.05,
                target_modules=["q_proj", "v_proj"],
            ),
            adapter_name=adapter,
        )
        if added_tokens:
            width, vocabulary = (
                profile.mistral.hidden_size,
                profile.mistral.vocab_size + added_tokens,
            )
            self.embed_tokens = nn.Embedding(vocabulary, width)
            self.lm_head = nn.Linear(width, vocabulary, bias=False)

    @property
    def base(self) -> MistralForCausalLM:
        """The language model inside PEFT's wrapper."""
        base = self.mllm.get_base_model()
        assert isinstance(base, MistralForCausalLM)
        return base

    def adopt_base_vocabulary(self) -> None:
        """Start the own embedding and head from the base's; added tokens from their mean."""
        with torch.no_grad():
            for own, of_base in (
                (self.embed_tokens.weight, self.base.model.embed_tokens.weight),
                (self.lm_head.weight, self.base.lm_head.weight),
            ):
                own[: len(of_base)] = of_base
                own[len(of_base) :] = of_base.mean(dim=0)

    def embed_prompt(self, token_ids: Sequence[int], segments: Sequence[Tensor]) -> Tensor:
        """Prompt embeddings (1, L, E) of ids in which the k-th -1 stands for the k-th segment.

        Args:
            token_ids: As the system's prompt gives them.
            segments: (R, E) each: the image's patch tokens, then what else the prompt shows.
        """
        table = self.embed_tokens if self.added_tokens else self.base.model.embed_tokens
        ids = torch.tensor([max(i, 0) for i in token_ids], device=table.weight.device)
        rows = list(table(ids).split(1))
        places = [place for place, token in enumerate(token_ids) if token == IMAGE_SEGMENT]
        for place, segment in zip(places, segments, strict=True):
            rows[place] = segment
        return torch.cat(rows)[None]
