"""The fusion against the paper's equations, pixel by pixel and prompt by prompt."""

import torch

from training.networks.tpp.interaction import ReferringInteraction

ITEMS, PIXELS, WORDS, WIDTH, HEADS = 2, 6, 5, 32, 4


def attend(attention, pixel, words, positions):
    """One pixel (C,) over words (L, C), head by head."""
    query = attention.query(pixel).view(HEADS, -1)
    keys = attention.key(words + positions).view(len(words), HEADS, -1)
    values = attention.value(words).view(len(words), HEADS, -1)
    heads = []
    for head in range(HEADS):
        scores = keys[:, head] @ query[head] / (WIDTH / HEADS) ** 0.5
        heads.append(scores.softmax(dim=0) @ values[:, head])
    return attention.output(torch.cat(heads))


def by_loop(module, pixels, prompts):
    """Eq. 4 to 7 for pixels (S, C) and prompts [(words, positions)], none of them padded."""
    fused, totals = torch.zeros_like(pixels), torch.zeros(len(prompts))
    for s, pixel in enumerate(pixels):
        proposals = [attend(module.attention, pixel, *prompt) for prompt in prompts]
        weights = torch.cat([module.score(a) for a in proposals]).softmax(dim=0)
        for a, w in zip(proposals, weights, strict=True):
            fused[s] += pixel * a * w / 3
        totals += weights
    return fused, totals.argmax()


def example(prompts):
    torch.manual_seed(2)
    lengths = torch.randint(1, WORDS + 1, (ITEMS, prompts))
    mask = torch.arange(WORDS) < lengths[..., None]
    words, positions = torch.randn(2, ITEMS, prompts, WORDS, WIDTH)
    return torch.randn(ITEMS, PIXELS, WIDTH), words, positions, mask


@torch.no_grad()
def test_all_prompts_at_once_are_one_after_the_other(build):
    module = build(ReferringInteraction)
    for prompts in (1, 3, 4):
        pixels, words, positions, mask = example(prompts)
        keys, values = module.keys_values(words, positions)
        fused, index = module.fuse(pixels, keys, values, mask)
        for item in range(ITEMS):
            listed = [(words[item, p, m], positions[item, p, m]) for p, m in enumerate(mask[item])]
            expected, best = by_loop(module, pixels[item], listed)
            torch.testing.assert_close(fused[item], expected, atol=1e-4, rtol=0)
            assert index[item] == best


@torch.no_grad()
def test_three_times_the_same_prompt_is_that_prompt(build):
    module = build(ReferringInteraction)
    pixels, words, positions, mask = example(1)
    once, _ = module(pixels, words, positions, mask)
    thrice, _ = module(pixels, *(x.repeat_interleave(3, dim=1) for x in (words, positions, mask)))
    torch.testing.assert_close(once, thrice)
