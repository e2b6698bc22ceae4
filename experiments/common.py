"""What the experiments share: options, and how they begin and end. Each is parse -> library -> save -> plot."""

import contextlib
import dataclasses
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Literal, NoReturn, TypeVar

import flax.linen as nn
import optax
import tyro

import jaxmnist as jm

OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "sgd": optax.sgd,
    "momentum": optax.sgd,
    "adam": optax.adam,
    "adamw": optax.adamw,
}
MODELS: dict[str, Callable[..., nn.Module]] = {"softmax": jm.SoftmaxRegression, "mlp": jm.MLP}
DEFAULT_MOMENTUM = 0.9
Options = TypeVar("Options")


@dataclasses.dataclass(frozen=True)
class DataOptions:
    dataset: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """mnist, fashion_mnist, kmnist, digits or a TFDS name. Without it: mnist, or digits where that cannot be had."""
    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """TFDS folder. Without it: the variable TFDS_DATA_DIR, or else ~/tensorflow_datasets."""

    def load(self) -> jm.Dataset:
        """Returns the data set, and says so where another one stands in for MNIST."""
        dataset, notice = jm.load_or_digits(self.dataset, self.data_dir)
        if notice:
            print(f"note: {notice}", file=sys.stderr)
        return dataset


@dataclasses.dataclass(frozen=True)
class TrainingOptions(DataOptions):
    optimizer: Literal["sgd", "momentum", "adam", "adamw"] = "sgd"
    """Optimizer, from optax; momentum is SGD with momentum."""
    momentum: float = DEFAULT_MOMENTUM
    """Momentum, a fraction in [0, 1); for --optimizer momentum alone."""
    model: Literal["softmax", "mlp"] = "softmax"
    """Model: softmax regression, or one hidden layer of 128 rectified linear units."""

    def grid(self, **axes) -> dict:
        """Returns the grid of these axes and, for --optimizer momentum, the momentum as one more."""
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum is {self.momentum}; it lies in [0, 1)")
        if self.optimizer == "momentum":
            return jm.grid(**axes, momentum=self.momentum)
        if self.momentum != DEFAULT_MOMENTUM:
            raise ValueError(
                f"momentum is {self.momentum}, but only --optimizer momentum uses it, not {self.optimizer}"
            )
        return jm.grid(**axes)

    def build(self, dataset: jm.Dataset) -> tuple[nn.Module, Callable[..., optax.GradientTransformation]]:
        """Returns model and optimizer factory."""
        return MODELS[self.model](num_classes=len(dataset.class_names)), OPTIMIZERS[self.optimizer]


def parse(options: Callable[..., Options], description: str | None, pretty: dict) -> Options:
    """Returns the options of the command line; `--pretty` puts other defaults in place, which `--help` then shows."""
    default = options(**pretty) if "--pretty" in sys.argv[1:] else options()
    arguments = [argument for argument in sys.argv[1:] if argument != "--pretty"]
    config = (tyro.conf.FlagCreatePairsOff,)
    return tyro.cli(type(default), args=arguments, default=default, description=description, config=config)


def seeds(num_seeds: int) -> range:
    """Returns the seeds 0, 1, ...

    Raises:
      ValueError: there is none.
    """
    if num_seeds < 1:
        raise ValueError(f"num_seeds is {num_seeds}; at least 1 seed is needed")
    return range(num_seeds)


def make_output_dir(folder: Path) -> None:
    """Makes the output folder, and tries to write there before hours of training rely on it.

    Raises:
      ValueError: it cannot be made, or not be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"output_dir {folder} cannot be written: {error.strerror}") from None


@contextlib.contextmanager
def usage_errors() -> Iterator[None]:
    """Turns what is wrong with the options or the data into one sentence and exit status 2."""
    try:
        yield
    except ValueError as error:
        fail(str(error))


def fail(problem: str) -> NoReturn:
    """Ends the program with one sentence and exit status 2."""
    print(f"error: {problem}", file=sys.stderr)
    sys.exit(2)


def main(experiment: Callable[[], None]) -> None:
    """Runs an experiment as a program; Ctrl-C ends it with one line and the usual status."""
    try:
        experiment()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
