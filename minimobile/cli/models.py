"""Which model a command runs, and loading it."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from minimobile.cli import console
from minimobile.cli.options import FromEnvironment
from minimobile.errors import InputError, UnavailableError


def load_model(source: str | None, num_threads: int | None = None) -> Any:
    """Load a model, or the default model where no source is given (`--model` and $MINIMOBILE_MODEL both absent)."""
    from minimobile.models.auto import DEFAULT_MODEL, load

    try:
        return load(DEFAULT_MODEL if source is None else source, num_threads=num_threads)
    except UnavailableError as error:
        if source is not None:
            raise
        reason = str(error).split(";")[0]
        if find_spec("huggingface_hub") is None:
            way_out = f"python -m pip install 'minimobile[hub]', which fetches {DEFAULT_MODEL}"
        else:
            way_out = f"try again where the default can be fetched ({reason})"
        raise UnavailableError(
            "no model was named: name one with --model PATH or $MINIMOBILE_MODEL, or run `minimobile demo`, or "
            f"{way_out}"
        ) from None


def open_model(source: str | None, task: str | None = None, pictures: int = 1) -> Any:
    """Load a model in order to run it, and say so where that will have to wait for the compiler.

    `task` is what its class must be for, as the end of the class's name says: "ImageClassification",
    "SemanticSegmentation" or "ObjectDetection"; None takes any. Several `pictures` are computed side by side, each by
    one thread.
    """
    from minimobile.models.auto import blaming_the_variable
    from minimobile.quantized.own_head import describe_own_head

    with blaming_the_variable(source if isinstance(source, FromEnvironment) else None):
        model = load_model(source, None if pictures == 1 else 1)
        name = type(model).__name__
        if task is not None and not name.endswith(task):
            own = f" and a head of its own: {describe_own_head(model.own_outputs)}" if model.own_outputs else ""
            command = next((command for end, (_, command) in _TASKS.items() if name.endswith(end)), "features")
            raise InputError(
                f"{source or 'the default model'}: expected a model for {_TASKS[task][0]}, got a {name}{own}"
                f" (for which there is `minimobile {command}`)"
            )
    announce_compilation(model)
    return model


def announce_compilation(model: Any = None) -> None:
    """Before the first run on this machine, say on stderr that the kernels have to be compiled.

    Those that `model` needs are compiled then, on two processors, if there are two.
    """
    from minimobile_kernels import entries

    engine = entries.run_quantized if model is not None and model.is_quantized else entries.run
    if not engine.is_ready():
        console.note("note: compiling the kernels for this processor, which takes about ten seconds")
    if model is not None:
        model.prepare()


def processor_of(model: Any) -> Any:
    """Return the model's own image processor."""
    if model.processor is None:
        raise InputError(
            f"{type(model).__name__}: expected the model to come with its image processor's settings, got none; "
            "add a preprocessor_config.json to its directory"
        )
    return model.processor


_TASKS = {  # what a class is for, as the end of its name says, and the command that runs it
    "ImageClassification": ("image classification", "classify"),
    "SemanticSegmentation": ("semantic segmentation", "segment"),
    "ObjectDetection": ("object detection", "detect"),
}
