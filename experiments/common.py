"""What the experiments share: options, and how they begin and end. Each is parse -> library -> save -> plot."""

import argparse
import contextlib
import dataclasses
import functools
import json
import os
import platform
import shlex
import shutil
import signal
import sys
import tempfile
import types
import typing
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn, TypeVar

import flax.linen as nn
import jax
import optax
import tyro

import jaxmnist as jm
from jaxmnist import arguments, sweep_folder
from jaxmnist.files import FORMAT, check_format, read_json, remove_passing_files, write_atomically, write_text
from jaxmnist.optimizers import OPTIMIZERS
from jaxmnist.runs import MAX_RUNS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MODELS: dict[str, Callable[..., nn.Module]] = {"softmax": jm.SoftmaxRegression, "mlp": jm.MLP, "cnn": jm.CNN}
DEFAULT_MOMENTUM = 0.9
CONFIG_NAME = "config.json"
# Options that are about one call, not about what is trained.
OF_THE_CALL = frozenset({"resume", "plot_only", "dry_run", "output_dir"})
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
    model: Literal["softmax", "mlp", "cnn"] = "softmax"
    """Model: softmax regression, one hidden layer of 128 rectified linear units, or the original notebook's CNN."""

    def further_axes(self) -> dict[str, float]:
        """Returns what the optimizer takes beside the learning rate: for --optimizer momentum, the momentum."""
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum is {self.momentum}; it lies in [0, 1)")
        if self.optimizer == "momentum":
            return {"momentum": self.momentum}
        if self.momentum != DEFAULT_MOMENTUM:
            raise ValueError(
                f"momentum is {self.momentum}, but only --optimizer momentum uses it, not {self.optimizer}"
            )
        return {}

    def build(self, dataset: jm.Dataset) -> tuple[nn.Module, Callable[..., optax.GradientTransformation]]:
        """Returns model and optimizer factory."""
        return MODELS[self.model](num_classes=len(dataset.class_names)), OPTIMIZERS[self.optimizer]


def parse(options: Callable[..., Options], description: str | None, pretty: dict | None = None) -> Options:
    """Returns the options of the command line.

    `--pretty` puts other defaults in place, and `--resume DIR` those that were saved there, which `--help` then shows.
    With `--resume`, an option that is given and differs from what was saved ends the program.
    """
    arguments = sys.argv[1:]
    default = options()
    if pretty is not None and "--pretty" in arguments:
        default = options(**pretty)
        arguments = [argument for argument in arguments if argument != "--pretty"]
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--resume", type=Path)
    resumed = first.parse_known_args(arguments)[0].resume if hasattr(default, "resume") else None
    if resumed is not None:
        with usage_errors():
            default = load_config(type(default), resumed)
    config = (tyro.conf.FlagCreatePairsOff,)
    parsed = tyro.cli(type(default), args=arguments, default=default, description=description, config=config)
    if resumed is not None:
        for field in dataclasses.fields(type(default)):  # type: ignore[arg-type]
            given, saved = getattr(parsed, field.name), getattr(default, field.name)
            if given != saved and (field.name not in OF_THE_CALL or field.name == "output_dir"):
                fail(f"{field.name} is {given}, but what is resumed in {resumed} was begun with {saved}")
    return parsed


def save_config(options, dataset: jm.Dataset) -> None:
    """Writes the options into the output folder; from here on, the training can be resumed."""
    config = {name: value for name, value in dataclasses.asdict(options).items() if name not in OF_THE_CALL}
    config = {"format": FORMAT, **config}
    config |= {"dataset": dataset.name, "data_dir": options.data_dir and str(options.data_dir.absolute())}
    write_text(options.output_dir / CONFIG_NAME, json.dumps(config, indent=2) + "\n")


def load_config(options: type[Options], folder: Path) -> Options:
    """Returns the options a training began with, from its folder.

    Raises:
      ValueError: the folder holds none.
    """
    path = folder / CONFIG_NAME
    try:
        config = read_json(path)
        check_format(config.pop("format", FORMAT), path)
        check_config(options, config)
        as_tuples = {name: tuple(value) if isinstance(value, list) else value for name, value in config.items()}
        data_dir = config["data_dir"] and Path(config["data_dir"])
        return options(**as_tuples | {"data_dir": data_dir, "output_dir": folder, "resume": folder})
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"resume: the options in {path} cannot be read: {error}") from None


def check_config(options: type, config: dict) -> None:
    """Raises ValueError where saved options are not of their types, as a stranger's may be, or of one call alone."""
    hints = typing.get_type_hints(options, include_extras=True)
    for name, value in config.items():
        if name not in hints or name in OF_THE_CALL:
            raise ValueError(f"{arguments.shown(name)} is no option that is saved")
        if not fits(value, hints[name]):
            raise ValueError(f"{name} is {arguments.shown(value)}, which is of another type")


def fits(value: object, hint) -> bool:
    """Returns whether a value from a JSON file is of an option's type."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return fits(value, inner[0])
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, each) for each in inner)
    if origin is Literal:
        return isinstance(value, str) and value in inner
    if origin is tuple:
        each = inner[:1] * len(value) if inner[-1] is Ellipsis and isinstance(value, list) else inner
        return isinstance(value, list) and len(value) == len(each) and all(map(fits, value, each))
    if hint is Path:
        return isinstance(value, str)
    if hint in (int, float):
        return isinstance(value, int | hint) and not isinstance(value, bool)
    return isinstance(value, hint)


def seeds(num_seeds: int) -> range:
    """Returns the seeds 0, 1, ...

    Raises:
      ValueError: there is none.
    """
    arguments.whole("num_seeds", num_seeds, 1, MAX_RUNS)
    return range(num_seeds)


def begin_folder(options, dataset: jm.Dataset, places: Sequence[Path], files: Sequence[str]) -> None:
    """Puts away what earlier sweeps left, and saves the options; from here on, the sweep can be resumed.

    Args:
      options: those of the script.
      dataset: what they stand for.
      places: the folders of the script's sweeps, the output folder among them.
      files: what they write there.

    Raises:
      ValueError: a folder holds a sweep that could be resumed.
    """
    folder = options.output_dir
    if any(sweep_folder.is_unfinished(place) for place in places):
        raise ValueError(
            f"output_dir {folder} holds an interrupted sweep: go on with it by --resume {folder}, or remove the folder"
        )
    for place in places:
        for name in files:
            (place / name).unlink(missing_ok=True)
        shutil.rmtree(place / sweep_folder.FOLDER, ignore_errors=True)
    save_config(options, dataset)


def make_output_dir(folder: Path, files: Sequence[str] = ()) -> None:
    """Makes the output folder, and tries to write there before hours of training rely on it.

    Args:
      folder: to be made where it is not there.
      files: what will be written there, and may be there from an earlier time.

    Raises:
      ValueError: it cannot be made, or not be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"output_dir {folder} cannot be written: {error.strerror}") from None
    remove_passing_files(folder, (CONFIG_NAME, *files))
    for name in files:
        if (folder / name).is_dir():
            raise ValueError(f"output_dir {folder} cannot be written: {name} in it is a folder")


def save_figure(figure: "Figure", path: Path) -> None:
    """Writes a figure as PNG and as SVG, each whole or not at all."""
    write_atomically(path, functools.partial(figure.savefig, dpi=150))
    # Without the date, the same picture is the same file.
    write_atomically(path.with_suffix(".svg"), functools.partial(figure.savefig, metadata={"Date": None}))


@contextlib.contextmanager
def resumable(folder: Path) -> Iterator[None]:
    """Says how to go on, where Ctrl-C or the file system ends what saves itself in a folder."""
    try:
        yield
    except (KeyboardInterrupt, OSError):
        command = shlex.join(["python", sys.argv[0], "--resume", str(folder)])
        print(f"to go on: {command}", file=sys.stderr)
        raise


@contextlib.contextmanager
def usage_errors(kinds: tuple[type[Exception], ...] = (ValueError, OSError)) -> Iterator[None]:
    """Turns what is wrong with the options, the data or the files into one sentence and exit status 2."""
    try:
        yield
    except kinds as error:
        fail(str(error))


def fail(problem: str) -> NoReturn:
    """Ends the program with one sentence and exit status 2."""
    print(f"error: {problem}", file=sys.stderr)
    sys.exit(2)


def keep_compiled_programs() -> None:
    """Keeps compiled programs for the next start, in JAX_COMPILATION_CACHE_DIR or else the user's folder of caches."""
    named = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    # Machines that share a home do not share instruction sets.
    folder = Path(named) if named else caches / "jaxmnist" / f"{zlib.crc32(_instruction_set()):08x}"
    try:
        folder = folder.expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, RuntimeError):  # no home, or none that can be written: compiled programs last for this start
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _instruction_set() -> bytes:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor()).encode()


def main(experiment: Callable[[], None]) -> None:
    """Runs an experiment as a program; Ctrl-C and a full disk end it with one line and the usual status."""
    keep_compiled_programs()
    # A test or a notebook that runs the script in its own process has its devices.
    with contextlib.suppress(RuntimeError):
        jm.use_cores()
    try:
        experiment()
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        # The usual end would wait for the segment that is still being computed, minutes in a large sweep.
        os._exit(128 + signal.SIGINT)
