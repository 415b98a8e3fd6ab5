"""What all sources promise: the same frames from the same seed, and something to segment."""

import numpy as np
import pytest

from training.data.sequences.sampler import HELD_OUT_SEEDS, SOURCES, SceneSampler

NAMES = {
    "brain_stack": 16,
    "abdomen_stack": 14,
    "echocardiogram": 3,
    "colonoscopy": 1,
    "cardiac_cine": 3,
}


@pytest.fixture(scope="module")
def sampler():
    return SceneSampler(held_out=False, size_px=48, length=5)


@pytest.mark.parametrize("source", SOURCES)
def test_a_frame_does_not_depend_on_the_order_of_rendering(sampler, source):
    one, other = (sampler.draw(np.random.default_rng(1), source) for _ in range(2))
    forwards, backwards = one.render(), other.render([4, 3, 2, 1, 0])
    assert np.array_equal(forwards.frames, backwards.frames[::-1])
    assert np.array_equal(forwards.masks, backwards.masks[::-1])


@pytest.mark.parametrize("source", SOURCES)
def test_scenes_differ_and_so_do_their_frames(sampler, source):
    rng = np.random.default_rng(2)
    one, other = (sampler.draw(rng, source).render() for _ in range(2))
    assert (one.frames != other.frames).mean() > 0.05
    assert all((one.frames[0] != frame).any() for frame in one.frames[1:])


@pytest.mark.parametrize("source", SOURCES)
def test_sequences_have_the_shape_they_promise_and_show_something(sampler, source):
    rng = np.random.default_rng(3)
    for _ in range(3):
        scene = sampler.draw(rng, source)
        sequence = scene.render()
        colour = (3,) if source == "colonoscopy" else ()
        assert sequence.frames.shape == (5, 48, 48, *colour)
        assert sequence.masks.shape == (5, NAMES[source], 48, 48)
        assert sequence.names == scene.names
        assert sequence.masks.any()
        assert sequence.frames.std() > 10
        if source in ("brain_stack", "abdomen_stack"):
            assert 2.0 <= sequence.slice_spacing_mm <= 6.0
        else:
            assert sequence.slice_spacing_mm is None


def test_left_and_right_matter_in_the_abdomen_alone(sampler):
    rng = np.random.default_rng(4)
    sided = [source for source in SOURCES if sampler.draw(rng, source).has_sides]
    assert sided == ["abdomen_stack"]


@pytest.mark.parametrize(
    ("source", "name"),
    [("brain_stack", "hippocampus"), ("abdomen_stack", "lesion"), ("abdomen_stack", "spleen")],
)
def test_a_stack_runs_through_what_is_asked_for(source, name):
    sampler = SceneSampler(held_out=False, size_px=96, length=1, sources=(source,))
    rng = np.random.default_rng(5)
    found = 0
    for _ in range(6):
        sequence = sampler.draw(rng, source, through=name).render()
        found += sequence.masks[0, sequence.names.index(name)].any()
    assert found >= 5


MAKERS = ("AbdomenStack", "BrainStack", "CardiacCine", "Colonoscopy", "Echocardiogram")


@pytest.mark.parametrize("source", SOURCES)
def test_seeds_of_the_test_split_are_never_those_of_training(source, monkeypatch):
    module = "training.data.sequences.sampler"
    monkeypatch.setattr(f"{module}.load_template", lambda name: None)
    for maker in MAKERS:
        # The seed is the last argument without a name.
        monkeypatch.setattr(f"{module}.{maker}", lambda *given, **sizes: given[-1])
    training, test = (
        [sampler.draw(np.random.default_rng(k), source) for k in range(20)]
        for sampler in (SceneSampler(held_out=split, sources=(source,)) for split in (False, True))
    )
    assert len(set(training)) == len(set(test)) == 20
    assert max(training) < HELD_OUT_SEEDS <= min(test)


def test_the_brain_of_the_test_split_is_the_other_template(monkeypatch):
    asked = []
    monkeypatch.setattr("training.data.sequences.sampler.load_template", asked.append)
    for held_out in (False, True):
        SceneSampler(held_out=held_out, sources=("brain_stack",))
    assert asked == ["icbm152_2009a", "fsl_mni152"]


def test_wrong_requests_say_what_is_there(sampler):
    rng = np.random.default_rng(6)
    with pytest.raises(ValueError, match="expected some of"):
        SceneSampler(held_out=False, sources=("x-ray",))
    with pytest.raises(LookupError, match="x-ray"):
        sampler.draw(rng, "x-ray")
    with pytest.raises(ValueError, match="through: expected a source of"):
        sampler.draw(rng, "colonoscopy", through="polyp")
    with pytest.raises(ValueError, match="through: expected one of"):
        sampler.draw(rng, "abdomen_stack", through="heart")
    with pytest.raises(IndexError, match=r"within 0\.\.4, got \[7\]"):
        sampler.draw(rng, "cardiac_cine").render([0, 7])
