"""Hyperparameter sweeps in JAX: training is written once, for one run; a sweep is `jit(vmap(...))` of it."""

import importlib
from typing import TYPE_CHECKING

from jaxmnist import limits as limits
from jaxmnist.core import losses as losses
from jaxmnist.core import optimizers as optimizers
from jaxmnist.core import schedules as schedules
from jaxmnist.core.augmentation import Affine as Affine
from jaxmnist.core.model import Model as Model
from jaxmnist.core.models import CNN as CNN
from jaxmnist.core.models import MLP as MLP
from jaxmnist.core.models import SoftmaxRegression as SoftmaxRegression
from jaxmnist.core.optimizers import evaluation_params as evaluation_params
from jaxmnist.core.state import State as State
from jaxmnist.core.state import init_state as init_state
from jaxmnist.core.training import evaluate as evaluate
from jaxmnist.core.training import fit as fit
from jaxmnist.core.training import train_step as train_step
from jaxmnist.data.arrays import from_arrays as from_arrays
from jaxmnist.data.dataset import Batch as Batch
from jaxmnist.data.dataset import DataError as DataError
from jaxmnist.data.dataset import Dataset as Dataset
from jaxmnist.data.dataset import DatasetUnavailable as DatasetUnavailable
from jaxmnist.data.dataset import Split as Split
from jaxmnist.data.loading import load as load
from jaxmnist.data.loading import load_or_digits as load_or_digits
from jaxmnist.data.order import batches as batches
from jaxmnist.data.order import example_order as example_order
from jaxmnist.host.devices import use_cores as use_cores
from jaxmnist.host.progress import progress_bar as progress_bar
from jaxmnist.sweeps.costs import estimate as estimate
from jaxmnist.sweeps.job import check as check
from jaxmnist.sweeps.planning import plan as plan
from jaxmnist.sweeps.runs import grid as grid
from jaxmnist.sweeps.runs import loguniform as loguniform
from jaxmnist.sweeps.runs import sample as sample
from jaxmnist.sweeps.runs import uniform as uniform
from jaxmnist.sweeps.runs import union as union
from jaxmnist.sweeps.runs import with_seeds as with_seeds
from jaxmnist.sweeps.sweep import check_cluster as check_cluster
from jaxmnist.sweeps.sweep import sweep as sweep

if TYPE_CHECKING:
    from jaxmnist.analysis.curves import at_budget as at_budget
    from jaxmnist.analysis.curves import curve_table as curve_table
    from jaxmnist.analysis.export import to_csv as to_csv
    from jaxmnist.analysis.export import to_optuna as to_optuna
    from jaxmnist.analysis.files import load_results as load_results
    from jaxmnist.analysis.files import save as save
    from jaxmnist.analysis.importance import importance_table as importance_table
    from jaxmnist.analysis.intervals import interval as interval
    from jaxmnist.analysis.noise import estimate_noise as estimate_noise
    from jaxmnist.analysis.noise import noise_scale_along_training as noise_scale_along_training
    from jaxmnist.analysis.optimism import optimism as optimism
    from jaxmnist.analysis.pairs import seeds_needed as seeds_needed
    from jaxmnist.analysis.report import comparison as comparison
    from jaxmnist.analysis.report import comparison_table as comparison_table
    from jaxmnist.analysis.report import final_accuracies as final_accuracies
    from jaxmnist.analysis.report import report as report
    from jaxmnist.analysis.results import best as best
    from jaxmnist.analysis.results import best_of_each as best_of_each
    from jaxmnist.analysis.results import settings as settings
    from jaxmnist.analysis.results import table as table
    from jaxmnist.analysis.statistics import is_dead as is_dead
    from jaxmnist.analysis.statistics import refined as refined
    from jaxmnist.analysis.statistics import widened as widened
    from jaxmnist.analysis.targets import best_rates as best_rates
    from jaxmnist.analysis.targets import default_target as default_target
    from jaxmnist.analysis.targets import fit_scaling as fit_scaling
    from jaxmnist.analysis.targets import steps_to_target as steps_to_target
    from jaxmnist.analysis.targets import target_table as target_table
    from jaxmnist.analysis.ties import ties as ties
    from jaxmnist.analysis.tuning import tuning_table as tuning_table
    from jaxmnist.analysis.variance import variance_table as variance_table
    from jaxmnist.networks.classifier import Classifier as Classifier
    from jaxmnist.networks.classifier import load_model as load_model
    from jaxmnist.networks.classifier import save_model as save_model
    from jaxmnist.networks.pictures import read_digit as read_digit
    from jaxmnist.networks.pictures import read_digits as read_digits
    from jaxmnist.networks.run import train_run as train_run
    from jaxmnist.plots.contrast import contrast as contrast
    from jaxmnist.plots.curves import accuracy_curve as accuracy_curve
    from jaxmnist.plots.curves import curves as curves
    from jaxmnist.plots.importance import importance as importance
    from jaxmnist.plots.maps import heatmap as heatmap
    from jaxmnist.plots.maps import scatter as scatter
    from jaxmnist.plots.networks import confusion as confusion
    from jaxmnist.plots.networks import filters as filters
    from jaxmnist.plots.networks import mistakes as mistakes
    from jaxmnist.plots.networks import predictions as predictions
    from jaxmnist.plots.networks import training_curves as training_curves
    from jaxmnist.plots.page import interactive as interactive
    from jaxmnist.plots.parallel import parallel as parallel
    from jaxmnist.plots.rates import rate_curve as rate_curve
    from jaxmnist.plots.report import figures as figures
    from jaxmnist.plots.scaling import budget_maps as budget_maps
    from jaxmnist.plots.scaling import noise_curve as noise_curve
    from jaxmnist.plots.scaling import target_maps as target_maps
    from jaxmnist.plots.slices import slices as slices
    from jaxmnist.plots.tuning import tuning_curve as tuning_curve
    from jaxmnist.sweeps.halving import check_rungs as check_rungs
    from jaxmnist.sweeps.halving import halve as halve
    from jaxmnist.sweeps.hyperband import hyperband as hyperband
    from jaxmnist.sweeps.rerun import rerun as rerun
    from jaxmnist.sweeps.search import search as search
    from jaxmnist.sweeps.shards import merge as merge

# These bring xarray, pandas and matplotlib with them: seconds that only some need.
_LATE = {
    "analysis.export": ("to_csv", "to_optuna"),
    "analysis.files": ("load_results", "save"),
    "analysis.importance": ("importance_table",),
    "analysis.intervals": ("interval",),
    "analysis.noise": ("estimate_noise", "noise_scale_along_training"),
    "analysis.optimism": ("optimism",),
    "analysis.pairs": ("seeds_needed",),
    "analysis.report": ("comparison", "comparison_table", "final_accuracies", "report"),
    "analysis.results": ("best", "best_of_each", "settings", "table"),
    "analysis.curves": ("at_budget", "curve_table"),
    "analysis.statistics": ("is_dead", "refined", "widened"),
    "analysis.targets": ("best_rates", "default_target", "fit_scaling", "steps_to_target", "target_table"),
    "analysis.ties": ("ties",),
    "analysis.tuning": ("tuning_table",),
    "analysis.variance": ("variance_table",),
    "networks.classifier": ("Classifier", "load_model", "save_model"),
    "networks.pictures": ("read_digit", "read_digits"),
    "networks.run": ("train_run",),
    "plots.contrast": ("contrast",),
    "plots.curves": ("accuracy_curve", "curves"),
    "plots.page": ("interactive",),
    "plots.rates": ("rate_curve",),
    "plots.importance": ("importance",),
    "plots.maps": ("heatmap", "scatter"),
    "plots.networks": ("confusion", "filters", "mistakes", "predictions", "training_curves"),
    "plots.parallel": ("parallel",),
    "plots.report": ("figures",),
    "plots.scaling": ("budget_maps", "noise_curve", "target_maps"),
    "plots.slices": ("slices",),
    "plots.tuning": ("tuning_curve",),
    "sweeps.halving": ("check_rungs", "halve"),
    "sweeps.hyperband": ("hyperband",),
    "sweeps.rerun": ("rerun",),
    "sweeps.search": ("search",),
    "sweeps.shards": ("merge",),
}
_MODULES = {name: module for module, names in _LATE.items() for name in names}

_NOW = (
    "Affine",
    "Batch",
    "CNN",
    "DataError",
    "Dataset",
    "DatasetUnavailable",
    "MLP",
    "Model",
    "SoftmaxRegression",
    "Split",
    "State",
    "batches",
    "check",
    "check_cluster",
    "estimate",
    "evaluate",
    "evaluation_params",
    "example_order",
    "fit",
    "from_arrays",
    "grid",
    "init_state",
    "limits",
    "load",
    "load_or_digits",
    "loguniform",
    "losses",
    "optimizers",
    "plan",
    "progress_bar",
    "sample",
    "schedules",
    "sweep",
    "train_step",
    "uniform",
    "union",
    "use_cores",
    "with_seeds",
)
__all__ = sorted((*_NOW, *_MODULES))


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return getattr(importlib.import_module(f"jaxmnist.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'jaxmnist' has no attribute {name!r}")
