"""Fits a pipeline class to a model's configuration: arguments in, tensors out.

Reads signatures only; runs nothing and knows nothing of Triton.
"""

import inspect
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from serving import model_config

_OURS = frozenset({"max_in_flight", "calls", "artifacts"})
"""Parameters of the configuration that this module and the launcher read."""

_BY_NAME = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def constructor_arguments(
    pipeline: type, config: model_config.ModelConfig, offered: dict[str, Any]
) -> dict[str, Any]:
    """Keyword arguments for a pipeline's `__init__`: those of the offered ones it declares.

    Args:
        pipeline: The pipeline's class.
        config: Its model; a parameter of the configuration fills the argument of that name.
        offered: Values every pipeline may ask for.

    Raises:
        ValueError: A parameter that nobody reads, or an argument that nothing fills.
    """
    if pipeline.__init__ is object.__init__:  # type: ignore[misc]
        declared: dict[str, inspect.Parameter] = {}
    else:
        declared = dict(inspect.signature(pipeline).parameters)
    hints = _annotations(pipeline.__init__)  # type: ignore[misc]
    named = {name: p for name, p in declared.items() if p.kind in _BY_NAME}
    unread = set(config.parameters) - set(named) - _OURS
    if unread:
        raise ValueError(
            f"{pipeline.__name__} reads no parameter {', '.join(sorted(unread))}; it declares "
            f"{', '.join(named) or 'none'}"
        )
    arguments = {name: value for name, value in offered.items() if name in named}
    for key, text in config.parameters.items():
        if key in named:
            arguments[key] = _converted(key, text, hints.get(key))
    unfilled = [n for n, p in named.items() if p.default is p.empty and n not in arguments]
    if unfilled:
        raise ValueError(
            f"{pipeline.__name__}.__init__ wants {', '.join(unfilled)}: neither a parameter of "
            f"the configuration nor one of {', '.join(offered)}"
        )
    return arguments


def check_signature(pipeline: type, config: model_config.ModelConfig) -> None:
    """Check that a pipeline's `__call__` takes the configuration's inputs.

    Raises:
        ValueError: Names differ, an optional input has no default, or generator and decoupled,
            or sequence and sequence batching, disagree.
    """
    declared = dict(inspect.signature(pipeline.__call__).parameters)
    for name in ("self", "is_cancelled", "sequence"):
        declared.pop(name, None)
    if set(declared) != set(config.input_names):
        raise ValueError(
            f"{pipeline.__name__}.__call__ takes {', '.join(declared) or 'nothing'}; the inputs of "
            f"model {config.name!r} are {', '.join(config.input_names) or 'none'}"
        )
    for spec in config.inputs:
        if spec.optional and declared[spec.name].default is inspect.Parameter.empty:
            raise ValueError(
                f"input {spec.name!r} is optional, its parameter of {pipeline.__name__} needs a "
                "default"
            )
    if inspect.isgeneratorfunction(pipeline.__call__) and not config.decoupled:
        raise ValueError(
            f"{pipeline.__name__}.__call__ is a generator: model {config.name!r} needs "
            "model_transaction_policy { decoupled: true }"
        )
    if asks_sequence(pipeline) != config.has_sequences:
        raise ValueError(
            f"{pipeline.__name__}.__call__ takes a sequence: {asks_sequence(pipeline)}; model "
            f"{config.name!r} has sequence_batching: {config.has_sequences}; expected both or none"
        )


def asks_cancellation(pipeline: type) -> bool:
    """True when `__call__` declares a parameter `is_cancelled`."""
    return "is_cancelled" in inspect.signature(pipeline.__call__).parameters


def asks_sequence(pipeline: type) -> bool:
    """True when `__call__` declares a parameter `sequence`."""
    return "sequence" in inspect.signature(pipeline.__call__).parameters


def text_parameters(pipeline: type) -> frozenset[str]:
    """Names of the parameters of `__call__` annotated `str`, alone or with None."""
    hints = _annotations(pipeline.__call__)
    hints.pop("return", None)
    return frozenset(name for name, hint in hints.items() if str in _alternatives(hint))


def _annotations(function: Callable) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except NameError:  # a name imported for type checkers only
        return dict(getattr(function, "__annotations__", {}))


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    if isinstance(annotation, str):  # left unresolved by `_annotations`
        names = {"str": str, "int": int, "float": float, "bool": bool, "Path": Path}
        return tuple(names.get(part.strip()) for part in annotation.split("|"))
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _converted(key: str, text: str, annotation: Any) -> Any:
    kinds = _alternatives(annotation)
    if bool in kinds:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"parameter {key} is {text!r}, expected true or false")
        return text.lower() == "true"
    for kind in (int, float):
        if kind in kinds:
            try:
                return kind(text)
            except ValueError:
                raise ValueError(f"parameter {key} is {text!r}, expected {kind.__name__}") from None
    return Path(text) if Path in kinds else text
