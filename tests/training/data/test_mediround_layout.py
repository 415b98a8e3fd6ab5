import json

import numpy as np
import pytest
from PIL import Image

from training.data.mediround_layout import read_dialogues
from training.data.medisee_layouts import read_pair


def line(speaker, value, **more):
    return {"from": speaker, "value": value, **more}


def mask(number):
    return f"masks/sample_0001_round_{number:02}.png"


def sample():
    """Three rounds as in the published sample: a chain, and a jump back."""
    references = {1: 0, 2: 0}
    lines = [
        line("human", "[IMAGE256:images/sample_0001.png] Segment the target region."),
        line("gpt", f"[MASK-DECODE:{mask(0)}]."),
    ]
    for number, reference in references.items():
        shown = mask(reference)
        lines += [
            line(
                "human",
                f"[MASK-ENCODE:{shown}][BOX-ENCODE:{shown}] Segment what is next to it.",
                ind=reference,
            ),
            line("gpt", f"It is [REF-DECODE:{shown}][MASK-DECODE:{mask(number)}]."),
        ]
    return {"task": "segmentation", "base": "[null]", "conversations": lines}


def read(tmp_path, content):
    path = tmp_path / "train.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_dialogues(path, tmp_path)


@pytest.mark.parametrize("content", [sample(), [sample()], [sample(), sample()]])
def test_a_dialogue_is_read_with_its_rounds_counted_from_one(tmp_path, content):
    dialogues = read(tmp_path, content)
    assert len(dialogues) == (len(content) if isinstance(content, list) else 1)
    for dialogue in dialogues:
        assert dialogue.image == tmp_path / "images/sample_0001.png"
        assert [turn.prompt for turn in dialogue.turns] == [
            "Segment the target region.",
            *["Segment what is next to it."] * 2,
        ]
        assert [turn.reference for turn in dialogue.turns] == [None, 1, 1]
        assert [turn.reference_mask for turn in dialogue.turns] == [None, *[tmp_path / mask(0)] * 2]
        assert [turn.mask for turn in dialogue.turns] == [tmp_path / mask(n) for n in range(3)]
        assert [turn.lead_in for turn in dialogue.turns] == ["", "It is", "It is"]


def test_its_files_are_opened_by_the_readers_of_the_other_layouts(tmp_path):
    (dialogue,) = read(tmp_path, sample())
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    pixels = np.arange(60, dtype=np.uint8).reshape(6, 10)
    Image.fromarray(pixels).save(dialogue.image)
    Image.fromarray(np.where(pixels > 40, 255, 0).astype(np.uint8)).save(dialogue.turns[2].mask)
    image, foreground = read_pair(dialogue.image, dialogue.turns[2].mask)
    np.testing.assert_array_equal(image[..., 1], pixels)
    np.testing.assert_array_equal(foreground, pixels > 40)


def changed(number, **fields):
    """The sample with one line changed; a field of None is left out."""
    content = sample()
    edited = content["conversations"][number] | fields
    content["conversations"][number] = {k: v for k, v in edited.items() if v is not None}
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "expected JSON"),
        ([], "at least one dialogue"),
        ({"task": "vqa"}, '"task": "segmentation"'),
        (7, '"task": "segmentation"'),
        ({"task": "segmentation", "conversations": sample()["conversations"][:3]}, "in pairs"),
        (changed(0, **{"from": "gpt"}), '"from": "human"'),
        (changed(0, value=5), "with a text"),
        (changed(0, value="Where?"), r"round 1: expected one \[IMAGE256:...\], got 0"),
        (changed(0, value="[IMAGE256:/a.png] Where?"), "without '..'"),
        (changed(1, value="Nothing."), r"expected one \[MASK-DECODE:...\], got 0"),
        (changed(2, ind=None), 'round 2: shows a reference, expected its round as "ind"'),
        (changed(2, ind=1), "of an earlier round, from 0, got 1"),
        (changed(2, ind=True), "of an earlier round"),
        (changed(2, value="Next to it?"), r"expected one \[MASK-ENCODE:...\], got 0"),
        (
            changed(2, value="[MASK-ENCODE:a.png][BOX-ENCODE:b.png] Where?"),
            "one mask for the crop and the box",
        ),
        (
            changed(2, value="Next to [MASK-ENCODE:a.png][BOX-ENCODE:a.png] what?"),
            "brackets first, then a question",
        ),
        (changed(2, value="[IMAGE256:a.png] Where?", ind=None), "in the first round only"),
    ],
)
def test_what_is_not_of_the_layout_is_refused_with_its_place(tmp_path, content, message):
    with pytest.raises(ValueError, match=message) as error:
        read(tmp_path, content)
    assert str(tmp_path / "train.json") in str(error.value)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_dialogues(tmp_path / "train.json", tmp_path)
