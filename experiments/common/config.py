"""Options in a file of the output folder, so that a training can be resumed."""

import dataclasses
import typing
from pathlib import Path
from typing import TypeVar

import jaxmnist as jm
from jaxmnist.studies import output

CONFIG_NAME = "config.json"
# Options that concern one call, and not what is trained.
OPTIONS_OF_ONE_CALL = frozenset({"resume", "plot_only", "dry_run", "output_dir", "overwrite", "wait", "shard", "json"})
Options = TypeVar("Options")


def save_config(options, dataset: jm.Dataset | None) -> None:
    """Writes the options into the output folder; from then on, the training can be resumed."""
    config = dataclasses.asdict(resolved(options, dataset))
    config = {name: value for name, value in config.items() if name not in OPTIONS_OF_ONE_CALL}
    if config.get("data_dir") is not None:
        config["data_dir"] = str(config["data_dir"])
    output.write_options(config, options.output_dir / CONFIG_NAME)


def resolved(options, dataset: jm.Dataset | None):
    """Returns the options with the name of the data set, if they have one, and its absolute folder filled in."""
    if dataset is None:
        return options
    data_dir = options.data_dir and options.data_dir.absolute()
    return dataclasses.replace(options, dataset=dataset.name, data_dir=data_dir)


def load_config(options: type[Options], folder: Path) -> Options:
    """Returns the options with which the training in a folder was begun.

    Raises:
      ValueError: the folder holds no options, or they cannot be read.
    """
    path = folder / CONFIG_NAME
    hints = typing.get_type_hints(options, include_extras=True)
    # Earlier versions saved the shard as well.
    saved = {name: hints[name] for name in hints if name not in OPTIONS_OF_ONE_CALL or name == "shard"}
    try:
        config = output.read_options(path, saved)
        if config.get("data_dir") is not None:
            config["data_dir"] = Path(config["data_dir"])
        return options(**config | {"output_dir": folder, "resume": folder})
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"the options in {path} cannot be read: {error}") from None
