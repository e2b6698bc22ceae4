"""Some settings of a result: those that a dictionary, several of them, or the rows of a table name."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from jaxmnist.analysis import results
from jaxmnist.checks import Where, is_mapping, is_sequence
from jaxmnist.values import shown

Settings = Mapping[str, Any] | Sequence[Mapping[str, Any]] | pd.DataFrame


def _is_setting(value: object) -> bool:
    return is_mapping(value) and len(value) > 0


def _are_settings(value: object) -> bool:
    if isinstance(value, pd.DataFrame):
        return len(value) > 0
    return _is_setting(value) or (is_sequence(value) and len(value) > 0 and all(map(_is_setting, value)))


SETTING = Where("a dictionary of hyperparameters and their values", _is_setting)
SEVERAL = Where(f"{SETTING.words}, a sequence of such dictionaries, or rows of a table", _are_settings)


def as_dicts(result: xr.Dataset, settings: Settings) -> list[dict]:
    """Returns settings as a list of dictionaries; of a table, the columns that are hyperparameters of the result."""
    if isinstance(settings, pd.DataFrame):
        names = [name for name in results.hyperparameters(result) if name in settings and name != "seed"]
        columns = (settings[name].tolist() for name in names)
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    return [dict(each) for each in ([settings] if isinstance(settings, Mapping) else settings)]


def select(result: xr.Dataset, settings: Settings, argument: str = "settings") -> xr.Dataset:
    """Returns the runs of some settings, in the order in which these are given, as a result with a dim `run`.

    Args:
      result: of a sweep.
      settings: a dictionary from hyperparameters to values, a sequence of them, or rows of `results.settings`. One that
        names some hyperparameters alone stands for all settings with these values.
      argument: what the caller calls the settings.

    Raises:
      ValueError: one of them names what is no hyperparameter, or no run has these values.
    """
    flat = as_one_dim(result)
    names = [name for name in results.hyperparameters(flat) if name != "seed"]
    places: dict[int, None] = {}
    dictionaries = as_dicts(result, settings)
    if not dictionaries:
        raise ValueError(f"{argument} has no column of a hyperparameter; some of {', '.join(names)} are needed")
    for setting in dictionaries:
        unknown = [name for name in setting if name not in names]
        if unknown or not setting:
            raise ValueError(f"{argument} names {shown(unknown)}; some of {', '.join(names)} are needed")
        matches = [np.array([each == value for each in flat[name].values.tolist()]) for name, value in setting.items()]
        found = np.flatnonzero(np.logical_and.reduce(matches))
        if not len(found):
            raise ValueError(f"{argument} has {shown(setting)}; values that a run of the result has are needed")
        places.update(dict.fromkeys(found.tolist()))
    return flat.isel(run=list(places))


def as_one_dim(result: xr.Dataset) -> xr.Dataset:
    """Returns a result with one dim `run` in place of those of the hyperparameters, in the order of its table."""
    if "run" in result.dims:
        return result
    typed = results.hyperparameters(result)
    whole = results.with_all_dims(result)
    return whole.isel(results.places(whole, typed)).stack(run=list(typed), create_index=False)
