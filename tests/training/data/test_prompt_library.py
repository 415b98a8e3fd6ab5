import subprocess
import sys

import pytest

from training.data.prompt_library import prompt_library, prompts_for
from training.data.sequences.abdomen_stack import AbdomenStack
from training.data.sequences.brain_stack import BrainStack
from training.data.sequences.cardiac_mri import CardiacCine
from training.data.sequences.echocardiography import Echocardiogram
from training.data.sequences.endoscopy import Colonoscopy

SCENES = (AbdomenStack, BrainStack, CardiacCine, Echocardiogram, Colonoscopy)


def test_the_library_has_all_structures_of_all_scenes_and_no_other():
    wanted = {(name, scene.modality) for scene in SCENES for name in scene.names}
    assert set(prompt_library()) == wanted


def test_prompts_are_whole_sentences_and_all_differ():
    sentences = [s for entry in prompt_library().values() for s in entry.sentences]
    assert len(set(sentences)) == len(sentences) == 3 * len(prompt_library())
    for sentence in sentences:
        assert sentence[0].isupper()
        assert sentence.endswith(".")
        assert 8 <= len(sentence.split()) <= 25


def test_the_profile_names_the_structure_and_the_color_the_modality():
    for (name, modality), entry in prompt_library().items():
        assert entry.sentences == (entry.profile, entry.shape, entry.color)
        assert name in entry.profile.lower()
        assert modality in entry.color


def test_sides_are_not_mixed_up():
    for name in ("kidney", "adrenal gland"):
        left, right = (" ".join(prompts_for(f"{side} {name}", "CT")) for side in ("left", "right"))
        assert not {"right", "right."} & set(left.lower().split())
        assert not {"left", "left."} & set(right.lower().split())


def test_what_is_unknown_is_refused_with_what_is_known():
    with pytest.raises(LookupError, match="one of left ventricle, myocardium, left atrium"):
        prompts_for("liver", "ultrasound")
    with pytest.raises(LookupError, match="a modality of"):
        prompts_for("liver", "PET")


def test_it_needs_neither_torch_nor_numpy():
    code = (
        "import sys; from training.data.prompt_library import prompts_for; "
        "prompts_for('liver', 'CT'); assert not {'torch', 'numpy', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
