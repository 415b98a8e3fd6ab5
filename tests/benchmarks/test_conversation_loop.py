from collections import Counter

import numpy as np
import pytest

from benchmarks.conversation_loop import answer_talk
from benchmarks.conversation_workload import Talk, TalkRound
from serving.preprocessing import check_image
from training.networks.mediround import Question

REFERENCES = (None, 0, 0, 2)


@pytest.fixture
def talk():
    rng = np.random.default_rng(0)
    truth = np.zeros((60, 48), bool)
    truth[10:30, 5:40] = True
    return Talk(
        rng.integers(1, 256, (60, 48)).astype(np.uint8),
        tuple(
            TalkRound(f"segment structure number {index}", reference, truth)
            for index, reference in enumerate(REFERENCES)
        ),
    )


def test_its_masks_are_those_of_a_conversation_answered_turn_by_turn(mediround, talk):
    network, tokenizer = mediround
    questions = [
        Question(one.prompt, () if one.reference is None else (one.reference,))
        for one in talk.rounds
    ]
    image = check_image(talk.image[..., np.newaxis])
    expected = network.answer_conversation(tokenizer, image, questions)
    answers = answer_talk(network, tokenizer, talk)
    assert len(answers.round_ms) == len(expected) == len(answers.masks)
    assert min(answers.round_ms) > 0
    for mask, turn in zip(answers.masks, expected, strict=True):
        # Not all or nothing: a mask that says something.
        assert 0 < mask.mean() < 1
        assert (mask == turn.mask).mean() > 0.999


def test_every_round_computes_the_whole_conversation_again(mediround, talk):
    network, tokenizer = mediround
    seen = Counter()
    parts = {
        "sam": (network.image_encoder, lambda inputs, output: len(inputs[0])),
        "clip": (network.llava_image_encoder, lambda inputs, output: len(inputs[0])),
        "positions": (network.text_projection, lambda inputs, output: len(output)),
        "logits": (network.lm_head, lambda inputs, output: output.shape[1]),
        "masks": (network.mask_decoder, lambda inputs, output: output.shape[1]),
    }
    hooks = [
        part.register_forward_hook(
            lambda _, inputs, output, name=name, count=count: seen.update(
                {name: count(inputs, output)}
            )
        )
        for name, (part, count) in parts.items()
    ]
    answer_talk(network, tokenizer, talk)
    for hook in hooks:
        hook.remove()
    rounds, crops = len(REFERENCES), 3
    assert seen["sam"] == rounds
    assert seen["clip"] == rounds * (1 + crops)
    assert seen["masks"] == rounds**2
    assert seen["positions"] == seen["logits"]
    assert seen["positions"] > rounds * (network.profile.image_tokens + 2 * crops)
