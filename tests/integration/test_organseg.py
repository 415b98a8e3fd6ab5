"""`organseg` over the real server, asked about synthetic bodies that it was not trained on."""

import json
import struct
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import grpc
import numpy as np
import pytest

from serving.model_config import read
from tests.integration.probe import bytes_tensor, picture, question, request, tensor
from training.data.organs import ORGANS
from training.data.phantoms import LABELS, draw_anatomy, render_slice, window

pytestmark = pytest.mark.server

BODIES = range(2**31 + 7_000_000, 2**31 + 7_000_004)
HEIGHT_MM = 10.0
"""Shows liver, kidneys, stomach, both great vessels and more; of most bodies not the spleen."""
LARGE = ("liver", "right kidney", "left kidney", "aorta")
CODES = {
    organ.name: ":".join(filter(None, (organ.snomed.structure, organ.snomed.laterality)))
    for organ in ORGANS
}
NONSENSE = (
    "Where is the cat?",
    "What time is it?",
    "Translate this sentence.",
    "Find the yellow bus.",
)


@cache
def body(seed, missing=(), z_mm=HEIGHT_MM):
    """Picture (H, W, 1) and labels (H, W) of one slice."""
    cut = render_slice(draw_anatomy(seed, missing), z_mm)
    return window(cut.hu)[:, :, None], cut.labels


def new_body():
    """A picture that no test before has asked about."""
    new_body.count += 1
    return body(7_100_000 + new_body.count)[0]


new_body.count = 0


def dice(mask, truth):
    return 2 * (mask & truth).sum() / (mask.sum() + truth.sum())


def same(one, other):
    assert (one.outcome, one.label, one.question) == (other.outcome, other.label, other.question)
    # Batches and prefix-cache hits change the order of float sums.
    assert (one.mask != other.mask).mean() < 1e-3
    np.testing.assert_allclose(one.similarities, other.similarities, atol=1e-3)
    assert one.presence == pytest.approx(other.presence, abs=1e-3)


def test_organs_that_are_there_are_outlined_and_named(client):
    scores = []
    for seed in BODIES:
        image, labels = body(seed)
        for name in LARGE:
            (finding,) = client.find_organs(image, f"Segment the {name}.")
            truth = labels == LABELS[name]
            assert truth.any()
            scores.append(dice(finding.mask, truth) if finding.label == name else 0)
            assert finding.found == finding.mask.any() == (finding.box_xyxy is not None)
            if finding.label == name and finding.found:
                code = filter(None, (finding.snomed_code, finding.laterality_code))
                assert ":".join(code) == CODES[name]
                assert finding.answer == f"{name.capitalize()}: outlined."
                assert 0.5 < finding.score <= 1
    assert np.mean(scores) > 0.7, scores


@pytest.fixture(scope="module")
def without(client):
    """What is said of organs that were removed."""
    asked = [(seed, name) for seed in BODIES for name in ("spleen", "right kidney", "left kidney")]
    return [
        client.find_organs(body(seed, (name,))[0], f"Where is the {name}?")[0]
        for seed, name in asked
    ]


def test_what_is_absent_is_said_so_and_nothing_is_outlined(without):
    absent = [finding for finding in without if finding.outcome == "absent"]
    assert absent
    for finding in absent:
        assert finding.answer == f"No {finding.label} is visible in this slice."
        assert (finding.box_xyxy, finding.score) == (None, 0)
    assert all(finding.found == finding.mask.any() for finding in without)


@pytest.mark.xfail(reason="the demo's weights do not reach their goal; docs/training.md")
def test_an_organ_that_was_removed_is_not_found(without):
    assert sum(finding.found for finding in without) <= 1


def test_nonsense_is_irrelevant(client):
    image, _ = body(BODIES[0])
    findings = [client.find_organs(image, prompt)[0] for prompt in NONSENSE]
    assert sum(finding.outcome == "irrelevant" for finding in findings) >= len(NONSENSE) - 1
    for finding in findings:
        if finding.outcome == "irrelevant":
            assert (finding.label, finding.snomed_code) == (None, None)
            assert finding.similarities.argmax() == len(finding.similarities) - 1
            assert not finding.mask.any()


def test_several_organs_in_one_question_have_a_result_each(client):
    image, labels = body(BODIES[0], ("spleen",))
    findings = client.find_organs(image, "Segment the liver, the spleen and the aorta.")
    assert [finding.label for finding in findings] == ["liver", "spleen", "aorta"]
    assert [finding.outcome for finding in findings] == ["found", "absent", "found"]
    assert dice(findings[0].mask, labels == LABELS["liver"]) > 0.6
    assert not findings[1].mask.any()
    for finding in findings:
        same(finding, client.find_organs(image, finding.question)[0])


def test_a_refusal_costs_no_embedding_and_a_finding_costs_one(client, raw):
    image = new_body()

    def embedded():
        return raw.inferences("medsam_image_encoder"), raw.inferences("organseg_mask_decoder")

    before = embedded()
    (refusal,) = client.find_organs(image, "What time is it?")
    assert refusal.outcome == "irrelevant"
    assert embedded() == before
    (finding,) = client.find_organs(image, "Segment the liver.")
    assert finding.found
    assert embedded() == (before[0] + 1, before[1] + 1)
    encoded = raw.inferences("llava_image_encoder")
    both = client.find_organs(image, "Segment the liver and the aorta.")
    assert len(both) == 2
    assert embedded() == (before[0] + 1, before[1] + 2)  # one decode for both, no new embedding
    assert raw.inferences("llava_image_encoder") == encoded


def test_a_margin_asked_for_turns_close_calls_uncertain(client):
    image, _ = body(BODIES[0])
    (sure,) = client.find_organs(image, "Segment the liver.")
    lowest, highest = max(0.0, sure.margin - 0.01), sure.margin + 0.01
    assert client.find_organs(image, "Segment the liver.", least_margin=lowest)[0].found
    (unsure,) = client.find_organs(image, "Segment the liver.", least_margin=highest)
    assert (unsure.outcome, unsure.label) == ("uncertain", "liver")
    assert unsure.answer.startswith("Unsure")
    assert not unsure.mask.any()


def test_the_answer_names_the_cache_that_gave_it(client):
    folder = read("organseg_context_cache").version_folder
    metadata = json.loads((folder / "context.json").read_text())
    (finding,) = client.find_organs(body(BODIES[0])[0], "the liver")
    assert finding.cache_version == metadata["hash"]
    assert len(finding.similarities) == len(metadata["organs"]) + 1
    models = {model.name: model.version for model in client.models()}
    assert models["organseg_context_cache"] == folder.name


@pytest.mark.parametrize("size", [(40, 40, 1), (120, 90, 1), (31, 77, 3), (5, 400, 1), (1, 1, 3)])
def test_any_picture_gets_an_answer_on_its_own_grid(client, size):
    (finding,) = client.find_organs(picture(*size), "Segment the liver.")
    assert finding.mask.shape == size[:2]
    assert finding.found == finding.mask.any()
    assert 0 <= finding.presence <= 1


def strings(content):
    found, start = [], 0
    while start < len(content):
        (length,) = struct.unpack_from("<I", content, start)
        found.append(content[start + 4 : start + 4 + length].decode())
        start += 4 + length
    return found


def test_the_tensors_are_those_of_the_protocol(raw):
    image = body(BODIES[0])[0]
    message = request("organseg", question(image, "Segment the liver and the cat."))
    response = raw.stub.ModelInfer(message, timeout=60)
    shapes = {output.name: tuple(output.shape) for output in response.outputs}
    height, width = image.shape[:2]
    assert shapes.pop("masks") == (2, height, -(-width // 8))
    assert shapes.pop("boxes_xyxy") == (2, 4)
    assert shapes.pop("similarities") == (2, len(ORGANS) + 1)
    assert shapes.pop("cache_version") == (1,)
    assert set(shapes.values()) == {(2,)}
    contents = {
        output.name: content
        for output, content in zip(response.outputs, response.raw_output_contents, strict=True)
    }
    assert set(strings(contents["outcomes"])) <= {"found", "absent", "irrelevant", "uncertain"}
    assert all(strings(contents["answers"]))


def margin(*values):
    return [*question(), tensor("least_margin", np.float32(values))]


BAD = {
    "two channels": (question(picture(24, 30, 2)), "expected 1 .grey. or 3 .RGB. channels, got 2"),
    "no pixel": (question(picture(24, 30)[:0]), "expected at least one pixel"),
    "float picture": (question(tensor("image", np.zeros((4, 5, 1), np.float32))), "UINT8|FP32"),
    "blank": (question(prompt="  \n"), "expected a question, got blank text"),
    "NUL": (question(prompt="the liver\0"), "prompt has a NUL character at 9"),
    "not UTF-8": (question(prompt=tensor("prompt", bytes_tensor(b"caf\xe9"))), "not UTF-8"),
    "20,000 characters": (question(prompt="wo ist das? " * 1667), "mllm: .*positions|at most"),
    "nine organs": (
        question(prompt="Segment " + " and ".join(f"the {organ.name}" for organ in ORGANS[:9])),
        "expected at most 8 objects, got 9",
    ),
    "a negative margin": (margin(-0.5), "least_margin: expected one number from 0"),
    "no number": (margin(np.nan), "got .nan."),
    "two margins": (margin(0.1, 0.2), "least_margin|shape"),
    "no picture": (question()[1:], "image"),
    "no prompt": (question()[:1], "prompt"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_is_an_invalid_argument_and_the_next_is_served(client, raw, name):
    tensors, text = BAD[name]
    with pytest.raises(grpc.RpcError, match=text) as caught:
        raw.infer(request("organseg", tensors))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert client.find_organs(picture(24, 30), "the liver")


def test_16_at_once_get_the_answers_they_get_alone(client):
    names = list(LABELS)
    cases = [
        (
            body(BODIES[index % 4])[0],
            f"Segment the {names[index % 13]} and the {names[-1 - index % 7]}.",
        )
        for index in range(12)
    ]
    cases += [(picture(61, 127, 3, seed=index), "What stores bile?") for index in range(2)]
    cases += [(body(BODIES[0])[0], prompt) for prompt in NONSENSE[:2]]
    with ThreadPoolExecutor(16) as threads:
        together = list(threads.map(lambda case: client.find_organs(*case), cases))
    for case, findings in zip(cases, together, strict=True):
        alone = client.find_organs(*case)
        assert len(alone) == len(findings)
        for one, other in zip(alone, findings, strict=True):
            same(one, other)


def test_organs_and_other_systems_at_once_do_not_mix(client):
    image = body(BODIES[0])[0]
    (liver,) = client.find_organs(image, "Segment the liver.")
    thalamus = client.segment(image, "where is the thalamus")
    with ThreadPoolExecutor(8) as threads:
        organs = [threads.submit(client.find_organs, image, "Segment the liver.") for _ in range(8)]
        masks = [threads.submit(client.segment, image, "where is the thalamus") for _ in range(8)]
        for answer in organs:
            same(answer.result()[0], liver)
        for answer in masks:
            assert (answer.result().mask != thalamus.mask).mean() < 1e-3
