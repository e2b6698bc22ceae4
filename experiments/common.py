"""What the experiments share: options, and how they begin and end. Each is parse -> library -> save -> plot."""

import argparse
import contextlib
import dataclasses
import functools
import json
import os
import platform
import shlex
import signal
import sys
import tempfile
import types
import typing
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn, TypeVar

import flax.linen as nn
import jax
import optax
import tyro

import jaxmnist as jm
from jaxmnist import checks
from jaxmnist.core.optimizers import OPTIMIZERS
from jaxmnist.host.files import (
    FORMAT,
    MARK,
    check_format,
    is_ours,
    read_json,
    remove_temporary_files,
    write_atomically,
    write_text,
)
from jaxmnist.sweeps.folder import SweepFolder, is_unfinished
from jaxmnist.sweeps.runs import MAX_RUNS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MODELS: dict[str, Callable[..., nn.Module]] = {"softmax": jm.SoftmaxRegression, "mlp": jm.MLP, "cnn": jm.CNN}
DEFAULT_MOMENTUM = 0.9
CONFIG_NAME = "config.json"
RESULTS = ("results.nc", "results.csv")
# Options that are about one call, not about what is trained.
OF_THE_CALL = frozenset({"resume", "plot_only", "dry_run", "output_dir", "overwrite"})
# What tells our figures from a person's. Without its date, the same picture is the same file.
METADATA = {".png": {"comment": MARK}, ".svg": {"Description": MARK, "Date": None}}
OTHER_FOLDER = "give --overwrite to replace it, or another --output-dir"
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
    config = dataclasses.asdict(resolved(options, dataset))
    config = {"format": FORMAT, **{name: value for name, value in config.items() if name not in OF_THE_CALL}}
    config["data_dir"] = config["data_dir"] and str(config["data_dir"])
    write_text(options.output_dir / CONFIG_NAME, json.dumps(config, indent=2) + "\n")


def resolved(options, dataset: jm.Dataset):
    """Returns the options with the data set that they stand for, the same in any folder."""
    data_dir = options.data_dir and options.data_dir.absolute()
    return dataclasses.replace(options, dataset=dataset.name, data_dir=data_dir)


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
        raise ValueError(f"the options in {path} cannot be read: {error}") from None


def check_config(options: type, config: dict) -> None:
    """Raises ValueError where saved options are not of their types, as a stranger's may be, or of one call alone."""
    hints = typing.get_type_hints(options, include_extras=True)
    for name, value in config.items():
        if name not in hints or name in OF_THE_CALL:
            raise ValueError(f"{checks.shown(name)} is no option that is saved")
        if not fits(value, hints[name]):
            raise ValueError(f"{name} is {checks.shown(value)}, which is of another type")


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
    checks.whole("num_seeds", num_seeds, 1, MAX_RUNS)
    return range(num_seeds)


def begin_sweeps(options, dataset: jm.Dataset, places: Sequence[Path], figures: Iterable[Path]) -> None:
    """As `begin_folder`, of a script that sweeps.

    Args:
      options: those of the script.
      dataset: what they stand for.
      places: the folders of the script's sweeps, the output folder among them.
      figures: the further files that it writes.

    Raises:
      ValueError: as `begin_folder`, or a name that a sweep needs belongs to what this package did not write.
    """

    def clear():
        for place in places:
            SweepFolder(place).clear()

    files = [*files_in(places, RESULTS), *figures]
    begin_folder(options, dataset, files, any(map(is_unfinished, places)), clear)
    for place in places:
        SweepFolder(place).check()


def begin_folder(
    options, dataset: jm.Dataset, files: Sequence[Path], is_interrupted: bool, clear: Callable[[], None]
) -> None:
    """Saves the options into the output folder, unless that holds anything else; from here on, it can be resumed.

    A folder with what was begun with the same options stays as it is, for the script to go on there. With --overwrite,
    what the script has written is removed.

    Args:
      options: those of the script.
      dataset: what they stand for.
      files: all that the script writes beside its options and states.
      is_interrupted: whether there are states of a training that has not ended.
      clear: removes states.

    Raises:
      ValueError: something else is there, or a training that was interrupted.
    """
    folder = options.output_dir
    config = folder / CONFIG_NAME
    claim_files(files, options.overwrite)
    if options.resume is not None:
        return
    claim_files([config], options.overwrite)
    if options.overwrite:
        # First the file that says there is something to resume.
        config.unlink(missing_ok=True)
        clear()
        for path in files:
            path.unlink(missing_ok=True)
    elif is_interrupted or any(map(os.path.lexists, files)):
        check_begun(options, dataset, is_interrupted)
    save_config(options, dataset)


def check_begun(options, dataset: jm.Dataset, is_interrupted: bool) -> None:
    """Raises ValueError where what is in the output folder was begun with other options, or was interrupted."""
    folder = options.output_dir
    try:
        saved = load_config(type(options), folder)
    except ValueError as error:
        raise ValueError(f"output_dir {folder} holds something else, since {error}; {OTHER_FOLDER}") from None
    if is_interrupted:
        raise ValueError(
            f"output_dir {folder} holds an interrupted training: go on with it by --resume {shlex.quote(str(folder))}; "
            f"or {OTHER_FOLDER}"
        )
    given = resolved(options, dataset)
    for field in dataclasses.fields(options):
        found, value = getattr(saved, field.name), getattr(given, field.name)
        if field.name not in OF_THE_CALL and found != value:
            raise ValueError(
                f"output_dir {folder} holds what was begun with {field.name} {found}, not {value}; {OTHER_FOLDER}"
            )


def claim_files(files: Sequence[Path], overwrite: bool, way_on: str = OTHER_FOLDER) -> None:
    """Makes sure that files may be written, and removes what a kill has left half written beside them.

    Args:
      files: what is to be written.
      overwrite: whether to replace what is there, whoever wrote it.
      way_on: what else to do, for the message.

    Raises:
      ValueError: a folder has such a name, or a file that this package did not write.
    """
    for path in files:
        if path.is_dir():
            raise ValueError(f"{path} cannot be written: it is a folder")
        if os.path.lexists(path) and not overwrite and not is_ours(path):
            raise ValueError(f"{path} is not known to be written by jaxmnist; {way_on}")
    for place in {path.parent for path in files}:
        remove_temporary_files(place)


def files_in(places: Iterable[Path], names: Iterable[str]) -> list[Path]:
    """Returns the paths of files of these names in each of these folders."""
    names = list(names)
    return [place / name for place in places for name in names]


def figure_names(*names: str) -> tuple[str, ...]:
    """Returns the names of the files that `save_figure` writes."""
    return tuple(f"{name}{kind}" for name in names for kind in METADATA)


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


def save_figure(figure: "Figure", path: Path) -> None:
    """Writes a figure to a path and as SVG beside it, each atomically."""
    write_atomically(path, functools.partial(figure.savefig, dpi=150, metadata=METADATA.get(path.suffix)))
    write_atomically(path.with_suffix(".svg"), functools.partial(figure.savefig, metadata=METADATA[".svg"]))


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
    # A notebook's `!python` hands on its own backend, which need not be installed here.
    os.environ["MPLBACKEND"] = "agg"
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
