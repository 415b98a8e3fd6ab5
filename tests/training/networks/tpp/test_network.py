"""Training's network: what depends on the previous frame and what does not."""

from copy import copy
from dataclasses import replace

import pytest
import torch

from training.networks.tpp.feature_grid import padded_grid
from training.networks.tpp.network import Scene, Tpp


def step(network, sequences, disturb):
    """Second frame's prediction after `disturb` has changed the state of the first."""
    frames, input_ids, attention_mask = sequences
    text = network.text_encoder(input_ids, attention_mask)
    first, second = (network.see(frames[:, t], text) for t in (0, 1))
    state = network.propagate(first, network.decode(first, None))
    return network.decode(second, disturb(state))


def sourced(network, source):
    other = copy(network)
    other.memory_source = source
    return other


@torch.no_grad()
def test_what_is_seen_of_frames_does_not_depend_on_what_was_followed_before(network, sequences):
    """Only decoder and memory read are sequential, so frames can be seen all at once."""
    frames, input_ids, attention_mask = (tensor[:1] for tensor in sequences)
    text = network.text_encoder(input_ids, attention_mask)
    repeated = network.text_encoder(input_ids.repeat(4, 1, 1), attention_mask.repeat(4, 1, 1))
    together = network.see(frames[0], repeated)
    state = None
    for t in range(4):
        scene = network.see(frames[:, t], text)
        for field in ("memory", "mask_features", "prompt_index", "sentence"):
            found, expected = getattr(scene, field)[0], getattr(together, field)[t]
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
        state = network.propagate(scene, network.decode(scene, state))


@torch.no_grad()
def test_the_released_reading_does_not_use_the_previous_memory(network, sequences):
    """It is not even kept; noise in place of the previous mask does change the prediction."""

    def noise(name):
        return lambda state: replace(state, **{name: torch.randn_like(getattr(state, name)) * 100})

    def same(state):
        return state

    def difference(network, name):
        plain, noisy = (step(network, sequences, d) for d in (same, noise(name)))
        return (plain.hidden - noisy.hidden).abs().max()

    current, previous = sourced(network, "current"), sourced(network, "previous")
    state = current.propagate(*_first(current, sequences))
    assert state.memory is None
    assert difference(current, "mask_logits") > 1e-4
    assert difference(previous, "memory") > 1e-4


def _first(network, sequences):
    frames, input_ids, attention_mask = sequences
    scene = network.see(frames[:, 0], network.text_encoder(input_ids, attention_mask))
    return scene, network.decode(scene, None)


@pytest.mark.parametrize("left_out", ["box", "mask", "query"])
@torch.no_grad()
def test_each_of_the_three_can_be_left_out(network, sequences, left_out):
    without = copy(network)
    without.propagated = network.propagated - {left_out}
    state = without.propagate(*_first(without, sequences))
    names = {"box": "box_logits", "mask": "mask_logits", "query": "query"}
    assert [part for part, name in names.items() if getattr(state, name) is None] == [left_out]
    whole, less = (step(n, sequences, lambda s: s).hidden for n in (network, without))
    assert (whole - less).abs().max() > 1e-4


@torch.no_grad()
def test_the_best_candidate_is_handed_on(network, sequences):
    scene, prediction = _first(network, sequences)
    state = network.propagate(scene, prediction)
    for item in range(2):
        n = int(prediction.class_logits[-1][item].argmax())
        assert state.slot[item] == n
        torch.testing.assert_close(
            state.box_logits[item].sigmoid(), prediction.boxes[-1][item, n], atol=2e-5, rtol=0
        )
        query = prediction.hidden[item, n]
        expected = network.track_embedding.norm(query + network.track_embedding.layers(query))
        torch.testing.assert_close(state.query[item], expected)
        mask = prediction.mask_logits[-1][item, n]  # 18 x 26, so each pixel is a mean of four
        expected = mask.unflatten(0, (9, 2)).unflatten(2, (13, 2)).mean(dim=(1, 3))
        torch.testing.assert_close(state.mask_logits[item], expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_batch_of_sequences_is_one_after_the_other(network, sequences):
    together = network(*sequences)
    assert [p.boxes[-1].shape[1] for p in together] == [3, 1, 1, 1]
    assert [m.shape for m in together[1].mask_logits] == [(2, 1, 18, 26)] * 2
    for item in range(2):
        alone = network(*(tensor[item : item + 1] for tensor in sequences))
        for both, one in zip(together, alone, strict=True):
            for name in ("mask_logits", "boxes", "class_logits"):
                for a, b in zip(getattr(both, name), getattr(one, name), strict=True):
                    torch.testing.assert_close(a[item : item + 1], b, atol=1e-4, rtol=0)


@torch.no_grad()
def test_candidates_of_a_padded_frame_are_those_of_the_frame(network):
    torch.manual_seed(5)
    sizes = torch.tensor([[70, 96]])
    shapes = [(12, 16), (6, 8), (3, 4), (2, 2)]
    filled = [(9, 12), (5, 6), (3, 3), (2, 2)]
    features, sentence = torch.randn(1, 32, 24, 32), torch.randn(1, 32)
    maps = [torch.randn(1, *shape, 32) for shape in shapes]

    def candidates(shapes, features):
        grids = [padded_grid(s, 8 << level, sizes) for level, s in enumerate(shapes)]
        memory = [m[:, :h, :w].flatten(1, 2) for m, (h, w) in zip(maps, shapes, strict=True)]
        size = sizes.flip(1).float()
        scene = Scene(torch.cat(memory, 1), grids, features, torch.zeros(1), sentence, size)
        return network.decode(scene, None)

    padded = candidates(shapes, features)
    alone = candidates(filled, features[:, :, :18, :24])
    torch.testing.assert_close(padded.boxes[-1], alone.boxes[-1], atol=1e-5, rtol=0)
    cropped = padded.mask_logits[-1][..., :18, :24]
    torch.testing.assert_close(cropped, alone.mask_logits[-1], atol=1e-4, rtol=0)


def test_everything_is_trained_and_the_text_may_be_padded(network, sequences):
    frames, input_ids, attention_mask = sequences
    network.zero_grad()
    for prediction in network(frames[:, :2], input_ids, attention_mask, torch.tensor([[64, 90]])):
        parts = (prediction.mask_logits, prediction.boxes, prediction.class_logits)
        sum(x.square().mean() for part in parts for x in part).backward(retain_graph=True)
    untrained = [name for name, p in network.named_parameters() if p.grad is None]
    network.zero_grad()
    assert untrained == []


def test_frames_that_cannot_be_seen_are_refused(network, sequences):
    _, input_ids, attention_mask = sequences
    with pytest.raises(ValueError, match="sides of 32 pixels or more, got 31 x 40"):
        network(torch.zeros(2, 1, 3, 31, 40), input_ids, attention_mask)
    with pytest.raises(ValueError, match="T >= 1"):
        network(torch.zeros(2, 0, 3, 40, 40), input_ids, attention_mask)


def test_unknown_readings_are_refused(profile):
    with pytest.raises(ValueError, match="memory_source: expected"):
        Tpp(profile, memory_source="next")
    with pytest.raises(ValueError, match="propagated: expected"):
        Tpp(profile, propagated=["boxes"])
