import numpy as np
import pytest
import torch

from benchmarks.organ_loop import organ_mask
from serving.preprocessing import check_image, medsam_frame, square_clip_frame
from training.context_cache import Context
from training.networks.organseg import OrganSeg
from training.networks.profiles import demo_profile

TOKEN_IDS = [1, 5, -1, 9, 10, 11]


@pytest.mark.parametrize(
    ("organ_first", "presence_logit", "outlined"),
    [(True, 50.0, True), (True, -50.0, False), (False, 50.0, False)],
)
@torch.no_grad()
def test_an_outline_is_given_only_where_the_organ_is_found(organ_first, presence_logit, outlined):
    torch.manual_seed(2)
    network = OrganSeg(demo_profile()).eval()
    network.extractors.presence_head.bias.fill_(presence_logit)
    picture = np.random.default_rng(0).integers(0, 256, (60, 48)).astype(np.uint8)
    image = check_image(picture[..., np.newaxis])
    frames = (medsam_frame(image, 160), square_clip_frame(image, 160))
    anything = Context(torch.eye(384)[:2], ("liver",), "test")
    output = network.answer(
        *(torch.from_numpy(frame) for frame in frames), TOKEN_IDS, (60, 48), anything
    )
    interest = network.extractors(output.hidden_state)[2]
    rows = [interest, -interest] if organ_first else [-interest, interest]
    context = Context(torch.stack(rows), ("liver",), "test")

    mask = organ_mask(network, TOKEN_IDS, picture, context, torch.device("cpu"))
    expected = (output.mask_probabilities > 0.5).numpy()
    assert 0 < expected.mean() < 1
    assert (mask == (expected if outlined else np.zeros_like(expected))).all()
