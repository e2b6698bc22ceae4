"""Options that several experiments have, and the command line."""

import argparse
import dataclasses
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import flax.linen as nn
import optax
import tyro

import jaxmnist as jm
from jaxmnist.studies.command_line import chosen

from .config import OPTIONS_OF_ONE_CALL, load_config
from .program import fail, usage_errors

DEFAULT_MOMENTUM = 0.9
MODELS: dict[str, type[nn.Module]] = {"softmax": jm.SoftmaxRegression, "mlp": jm.MLP, "cnn": jm.CNN}
OPTIMIZERS = ("sgd", "momentum", "adam", "adamw")
# What may be MODULE:NAME, a person's own code.
CODE = ("model", "optimizer", "loss")
Options = TypeVar("Options")


@dataclasses.dataclass(frozen=True)
class DataOptions:
    dataset: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """mnist, fashion_mnist, kmnist, digits or a TFDS name. By default mnist, or digits if mnist is not
    available."""
    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder of TFDS. By default the environment variable TFDS_DATA_DIR, or else ~/tensorflow_datasets."""

    def load(self) -> jm.Dataset:
        """Returns the data set, and prints a note if another one stands in for MNIST."""
        dataset, notice = jm.load_or_digits(self.dataset, self.data_dir)
        if notice:
            print(f"note: {notice}", file=sys.stderr)
        return dataset


@dataclasses.dataclass(frozen=True)
class FolderOptions:
    overwrite: bool = False
    """Replace the files in the output folder that have the names this script uses. Without it, a training that was
    begun with the same options is continued, a sweep grows, and anything else is an error."""
    resume: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Continue the interrupted training in this output folder, with the options saved there."""
    wait: bool = False
    """Wait while another program uses the output folder. Without it, that is an error."""

    def grows_from(self, begun: Any) -> set[str]:
        """Returns the options in which a training differs from the one that was begun, and only adds to it."""
        return set()

    def code(self) -> list[str]:
        """Returns the arguments that name a person's own code, which have to be typed again to resume."""
        given = {name: getattr(self, name, "") for name in CODE}
        return [word for name, text in given.items() if ":" in text for word in (f"--{name}", text)]


@dataclasses.dataclass(frozen=True)
class RunOptions(FolderOptions, DataOptions):
    plot_only: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Draw the figures of this output folder again from the files in it, without training."""


@dataclasses.dataclass(frozen=True)
class TrainingOptions(RunOptions):
    optimizer: Annotated[str, tyro.conf.arg(metavar="NAME")] = "sgd"
    """Optimizer: sgd, momentum (SGD with momentum), adam or adamw from optax, or MODULE:NAME, a function in a module of
    the current folder that returns an optax gradient transformation; optax:lion is one of optax."""
    momentum: float = DEFAULT_MOMENTUM
    """Momentum, in [0, 1); used by --optimizer momentum only."""
    model: Annotated[str, tyro.conf.arg(metavar="NAME")] = "softmax"
    """Model: softmax (regression), mlp (a network with one hidden layer of 128 rectified linear units), cnn (that of
    the original notebook), or MODULE:NAME, a model of any library in a module of the current folder."""

    def further_axes(self) -> dict[str, float]:
        """Returns the optimizer's hyperparameters besides the learning rate: for --optimizer momentum, the momentum."""
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum is {self.momentum}; a number in [0, 1) is needed")
        if self.optimizer == "momentum":
            return {"momentum": self.momentum}
        if self.momentum != DEFAULT_MOMENTUM:
            raise ValueError(
                f"momentum is {self.momentum}, but only --optimizer momentum uses it, not {self.optimizer}"
            )
        return {}

    def build(self, dataset: jm.Dataset) -> tuple[Any, Callable[..., optax.GradientTransformation]]:
        """Returns the model and the optimizer factory."""
        models = {name: model(num_classes=len(dataset.class_names)) for name, model in MODELS.items()}
        optimizers = {name: jm.optimizers.OPTIMIZERS[name] for name in OPTIMIZERS}
        return chosen("model", self.model, models), chosen("optimizer", self.optimizer, optimizers)


def parse(options: Callable[..., Options], description: str | None, pretty: dict | None = None) -> Options:
    """Returns the options of the command line.

    `--pretty` selects other defaults, and `--resume DIR` those saved in that folder; `--help` shows them. With
    `--resume`, giving an option another value than the saved one is an error.

    Args:
      options: the dataclass of the options, or a function that returns one.
      description: the text above the options in `--help`.
      pretty: the defaults of `--pretty`; None if there is no such option.
    """
    arguments = sys.argv[1:]
    default = options()
    if pretty is not None and "--pretty" in arguments:
        default = options(**pretty)
        arguments = [argument for argument in arguments if argument != "--pretty"]
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--resume", type=Path)
    for name in CODE:
        first.add_argument(f"--{name}", nargs="?")
    typed = first.parse_known_args(arguments)[0]
    resumed = typed.resume if hasattr(default, "resume") else None
    if resumed is not None:
        with usage_errors():
            default = load_config(type(default), resumed)
        check_typed(default, typed, resumed)
    config = (tyro.conf.FlagCreatePairsOff,)
    parsed = tyro.cli(type(default), args=arguments, default=default, description=description, config=config)
    if resumed is not None:
        for field in dataclasses.fields(type(default)):  # type: ignore[arg-type]
            given, saved = getattr(parsed, field.name), getattr(default, field.name)
            if given != saved and (field.name not in OPTIONS_OF_ONE_CALL or field.name == "output_dir"):
                fail(f"{field.name} is {given}, but the training in {resumed} was begun with {saved}")
    return parsed


def check_typed(saved: Any, typed: argparse.Namespace, folder: Path) -> None:
    """Ends the script with a sentence if it would run code that a file names and that nobody has typed."""
    for name in CODE:
        if f"--{name}" in saved.code() and getattr(typed, name) is None:
            fail(
                f"the training in {folder} was begun with {name} {getattr(saved, name)}, whose code runs only if it is "
                f"named: give {' '.join(saved.code())} again"
            )


def check_whole(name: str, value: int, low: int, high: int | None = None) -> None:
    """Raises ValueError, naming the option, its value and what is allowed, unless the value is from `low` to `high`."""
    if value < low or (high is not None and value > high):
        end = "on" if high is None else f"to {high}"
        raise ValueError(f"{name} is {value}; a whole number from {low} {end} is needed")


def seeds(num_seeds: int) -> range:
    """Returns the seeds 0, 1, ...

    Raises:
      ValueError: the number of seeds is below 1 or too large.
    """
    check_whole("num_seeds", num_seeds, 1, jm.limits.MAX_RUNS)
    return range(num_seeds)


def memory_bytes(memory: float | None) -> float | None:
    """Returns GiB in bytes; None stays None.

    Raises:
      ValueError: the memory is not a finite number above 0.
    """
    if memory is not None and not 0 < memory < math.inf:
        raise ValueError(f"memory is {memory}; a number of GiB above 0 is needed")
    return None if memory is None else memory * 2**30
