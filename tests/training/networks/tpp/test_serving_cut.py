"""The four graphs against the network in one piece, over whole sequences."""

from copy import copy

import pytest
import torch

from training.networks.tpp.serving_cut import InitGraph, StepGraph, TextEncoderGraph, TrunkGraph


def serve(network, frames, input_ids, attention_mask, memory_source):
    """Masks, boxes, scores and states of every frame, as a pipeline calls the graphs."""
    items, frame_count = frames.shape[:2]
    encode, see = TextEncoderGraph(network), TrunkGraph(network)
    start, follow = InitGraph(network), StepGraph(network)
    texts = encode(input_ids.flatten(0, 1), attention_mask.flatten(0, 1))
    texts = [text.unflatten(0, input_ids.shape[:2]) for text in texts]
    texts = [text.repeat_interleave(frame_count, dim=0) for text in [attention_mask, *texts]]
    seen = [part.unflatten(0, (items, frame_count)) for part in see(frames.flatten(0, 1), *texts)]
    size = torch.tensor([[float(frames.shape[4]), float(frames.shape[3])]]).expand(items, -1)
    results = []
    for t in range(frame_count):
        memory, keys, values, pyramid, sentence, prompt_index = (part[:, t] for part in seen)
        if t == 0:
            mask, box, score, slot, query, track = start(memory, pyramid, sentence, size)
        else:
            if memory_source == "previous":
                keys, values = seen[1][:, t - 1], seen[2][:, t - 1]
            mask, box, score, query, track = follow(
                memory, keys, values, pyramid, size, slot, box, query, track
            )
        results.append((mask, box, score, slot, query, track, prompt_index))
    return results


@pytest.mark.parametrize("memory_source", ["current", "previous"])
@torch.no_grad()
def test_served_sequences_are_those_of_the_network(network, sequences, memory_source):
    network = copy(network)
    network.memory_source = memory_source
    frames, input_ids, attention_mask = sequences
    text = network.text_encoder(input_ids, attention_mask)
    state = None
    for t, served in enumerate(serve(network, *sequences, memory_source)):
        scene = network.see(frames[:, t], text)
        prediction = network.decode(scene, state)
        state = network.propagate(scene, prediction)
        best = (torch.arange(2), prediction.best)
        expected = (
            prediction.mask_logits[-1][best],
            prediction.boxes[-1][best],
            prediction.class_logits[-1][best].sigmoid(),
            state.slot,
            state.query,
            state.mask_logits,
            scene.prompt_index,
        )
        for found, wanted in zip(served, expected, strict=True):
            torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


@torch.no_grad()
def test_the_sources_differ_from_the_second_frame_on(network, sequences):
    current, previous = (serve(network, *sequences, s) for s in ("current", "previous"))
    differences = [(a[0] - b[0]).abs().max() for a, b in zip(current, previous, strict=True)]
    assert differences[0] == 0
    assert min(differences[1:]) > 5e-4
