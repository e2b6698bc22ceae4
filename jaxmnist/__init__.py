"""Hyperparameter sweeps in JAX: training is written once, for one run; a sweep is `jit(vmap(...))` of it."""

import importlib
import types

from jaxmnist.augmentation import Affine as Affine
from jaxmnist.checking import check as check
from jaxmnist.costs import estimate as estimate
from jaxmnist.data import DataError as DataError
from jaxmnist.data import Dataset as Dataset
from jaxmnist.data import DatasetUnavailable as DatasetUnavailable
from jaxmnist.data import Split as Split
from jaxmnist.data import batches as batches
from jaxmnist.data import example_order as example_order
from jaxmnist.data import load as load
from jaxmnist.data import load_or_digits as load_or_digits
from jaxmnist.models import CNN as CNN
from jaxmnist.models import MLP as MLP
from jaxmnist.models import SoftmaxRegression as SoftmaxRegression
from jaxmnist.planning import plan as plan
from jaxmnist.programs import use_cores as use_cores
from jaxmnist.runs import grid as grid
from jaxmnist.runs import loguniform as loguniform
from jaxmnist.runs import sample as sample
from jaxmnist.runs import uniform as uniform
from jaxmnist.runs import union as union
from jaxmnist.runs import with_seeds as with_seeds
from jaxmnist.sweep import sweep as sweep
from jaxmnist.training import State as State
from jaxmnist.training import evaluate as evaluate
from jaxmnist.training import fit as fit
from jaxmnist.training import init_state as init_state
from jaxmnist.training import train_step as train_step

# These bring xarray, pandas and matplotlib with them: seconds that only some need.
_LATE = {
    "Classifier": "checkpoint",
    "load_model": "checkpoint",
    "save_model": "checkpoint",
    "read_digit": "pictures",
    "halve": "halving",
    "rerun": "single_run",
    "accuracy_curve": "curves",
    "learning_curves": "curves",
    "rate_curve": "curves",
    "best": "results",
    "best_of_each": "results",
    "curve_table": "results",
    "interval": "results",
    "load_results": "result_files",
    "merge": "result_files",
    "save": "result_files",
    "settings": "results",
    "at_budget": "statistics",
    "best_rates": "statistics",
    "default_target": "statistics",
    "refined": "statistics",
    "fit_scaling": "statistics",
    "is_dead": "statistics",
    "steps_to_target": "statistics",
    "target_table": "statistics",
    "ties": "statistics",
    "estimate_noise": "noise",
    "noise_scale_along_training": "noise",
    "budget_maps": "scaling_plots",
    "noise_curve": "scaling_plots",
    "target_maps": "scaling_plots",
    "table": "results",
    "confusion": "plotting",
    "filters": "plotting",
    "mistakes": "plotting",
    "predictions": "plotting",
    "training_curves": "plotting",
    "heatmap": "maps",
    "scatter": "maps",
}

_NOW = {name for name, value in globals().items() if not (name.startswith("_") or isinstance(value, types.ModuleType))}
__all__ = sorted(_NOW | set(_LATE))


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str):
    if name in _LATE:
        return getattr(importlib.import_module(f"jaxmnist.{_LATE[name]}"), name)
    raise AttributeError(f"module 'jaxmnist' has no attribute {name!r}")
