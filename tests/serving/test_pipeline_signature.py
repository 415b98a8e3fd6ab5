"""Fitting a pipeline class to a configuration."""

from pathlib import Path

import pytest

from serving.model_config import ModelConfig, parse
from serving.pipeline_signature import (
    asks_cancellation,
    asks_sequence,
    check_signature,
    constructor_arguments,
    text_parameters,
)


def config(inputs: str = "", decoupled: bool = False, **parameters: str) -> ModelConfig:
    specs = [
        f'input {{ name: "{name.strip("?")}" data_type: TYPE_FP32 dims: [ 1 ] '
        f"optional: {str(name.endswith('?')).lower()} }}"
        for name in inputs.split()
    ]
    given = [
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'
        for key, value in parameters.items()
    ]
    policy = f"model_transaction_policy {{ decoupled: {str(decoupled).lower()} }}"
    return parse("\n".join(['name: "a"', *specs, *given, policy]))


class Declares:
    def __init__(
        self, version_folder: Path, *, size: int = 1, rate: float | None = None, on: bool = False
    ): ...

    def __call__(self, image, prompt: str, note: "str | None" = None): ...


OFFERED = {"version_folder": Path("/models/a/1"), "call": print}


def test_declared_arguments_are_filled_and_converted_and_others_left_out():
    found = constructor_arguments(Declares, config(size="7", rate="0.5", on="true"), OFFERED)
    assert found == {"version_folder": Path("/models/a/1"), "size": 7, "rate": 0.5, "on": True}


def test_parameters_of_the_base_class_need_not_be_declared():
    assert constructor_arguments(Declares, config(calls="b", max_in_flight="3"), OFFERED) == {
        "version_folder": Path("/models/a/1")
    }


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"sizes": "7"}, "reads no parameter sizes; it declares version_folder, size"),
        ({"size": "big"}, "parameter size is 'big', expected int"),
        ({"on": "1"}, "parameter on is '1', expected true or false"),
    ],
)
def test_a_parameter_that_does_not_fit_is_refused(parameters, reason):
    with pytest.raises(ValueError, match=reason):
        constructor_arguments(Declares, config(**parameters), OFFERED)


def test_an_argument_that_nothing_fills_is_named():
    class Wants:
        def __init__(self, weights): ...

    with pytest.raises(ValueError, match=r"Wants.__init__ wants weights"):
        constructor_arguments(Wants, config(), OFFERED)


def test_a_pipeline_without_init_gets_nothing():
    class Plain: ...

    assert constructor_arguments(Plain, config(), OFFERED) == {}


def test_text_parameters_are_those_annotated_so():
    assert text_parameters(Declares) == {"prompt", "note"}


def test_inputs_must_be_the_parameters():
    check_signature(Declares, config("image prompt note?"))
    with pytest.raises(ValueError, match=r"takes image, prompt, note; the inputs .* are image$"):
        check_signature(Declares, config("image"))


def test_an_optional_input_needs_a_default():
    with pytest.raises(ValueError, match="input 'prompt' is optional"):
        check_signature(Declares, config("image prompt? note?"))


def test_a_generator_needs_a_decoupled_model():
    class Streams:
        def __call__(self, image, is_cancelled):
            yield {}

    check_signature(Streams, config("image", decoupled=True))
    assert asks_cancellation(Streams)
    with pytest.raises(ValueError, match="decoupled: true"):
        check_signature(Streams, config("image"))


def test_a_sequence_goes_with_sequence_batching():
    class Continues:
        def __call__(self, sequence, image): ...

    plain, batched = config("image"), config("image")
    batched.proto.sequence_batching.max_sequence_idle_microseconds = 2_500_000
    assert asks_sequence(Continues)
    assert batched.sequence_idle_s == 2.5
    check_signature(Continues, batched)
    with pytest.raises(ValueError, match="sequence_batching: False; expected both or none"):
        check_signature(Continues, plain)
    with pytest.raises(ValueError, match="takes a sequence: False"):
        check_signature(Declares, _with_sequences(config("image prompt note?")))


def _with_sequences(given: ModelConfig) -> ModelConfig:
    given.proto.sequence_batching.oldest.max_candidate_sequences = 1
    return given
