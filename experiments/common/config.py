"""Options in a file of the output folder, so that a training can be resumed."""

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import jaxmnist as jm
from jaxmnist import checks
from jaxmnist.host.files import FORMAT, check_format, read_json, write_text
from jaxmnist.values import with_tuples

CONFIG_NAME = "config.json"
# Options that concern one call, and not what is trained.
OPTIONS_OF_ONE_CALL = frozenset({"resume", "plot_only", "dry_run", "output_dir", "overwrite"})
Options = TypeVar("Options")


def save_config(options, dataset: jm.Dataset) -> None:
    """Writes the options into the output folder; from then on, the training can be resumed."""
    config = dataclasses.asdict(resolved(options, dataset))
    config = {"format": FORMAT, **{name: value for name, value in config.items() if name not in OPTIONS_OF_ONE_CALL}}
    config["data_dir"] = config["data_dir"] and str(config["data_dir"])
    write_text(options.output_dir / CONFIG_NAME, json.dumps(config, indent=2) + "\n")


def resolved(options, dataset: jm.Dataset):
    """Returns the options with the name of the data set and its absolute folder filled in."""
    data_dir = options.data_dir and options.data_dir.absolute()
    return dataclasses.replace(options, dataset=dataset.name, data_dir=data_dir)


def load_config(options: type[Options], folder: Path) -> Options:
    """Returns the options with which the training in a folder was begun.

    Raises:
      ValueError: the folder holds no options, or they cannot be read.
    """
    path = folder / CONFIG_NAME
    try:
        config = read_json(path)
        check_format(config.pop("format", FORMAT), path)
        check_config(options, config)
        data_dir = config["data_dir"] and Path(config["data_dir"])
        return options(**with_tuples(config) | {"data_dir": data_dir, "output_dir": folder, "resume": folder})
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"the options in {path} cannot be read: {error}") from None


def check_config(options: type, config: dict) -> None:
    """Raises ValueError if saved options, which a stranger may have written, are unknown or have wrong types."""
    hints = typing.get_type_hints(options, include_extras=True)
    for name, value in config.items():
        if name not in hints or name in OPTIONS_OF_ONE_CALL:
            raise ValueError(f"{checks.shown(name)} is not an option that is saved")
        if not fits(value, hints[name]):
            raise ValueError(f"{name} is {checks.shown(value)}, which has the wrong type")


def fits(value: object, hint) -> bool:
    """Returns whether a value from a JSON file has the type of an option."""
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
