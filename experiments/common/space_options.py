"""The options of a sweep's settings: which hyperparameters it has, their values, and by what settings are judged."""

import dataclasses
import math
from typing import Annotated, Any, Literal

import tyro

import jaxmnist as jm
from jaxmnist.studies import command_line

from .options import DEFAULT_MOMENTUM, TrainingOptions, check_whole

DEFAULT_SAMPLES = 100
# What has an option of its own, and which.
ELSEWHERE = {"learning_rate": "learning_rates", "batch_size": "batch_sizes", "seed": "num_seeds"}


@dataclasses.dataclass(frozen=True)
class SpaceOptions(TrainingOptions):
    learning_rates: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8)
    """Learning rates of the grid."""
    batch_sizes: tuple[int, ...] = (20, 40, 60, 80)
    """Batch sizes of the grid, in examples."""
    axes: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUES...")] = ()
    """Further axes of the grid: any hyperparameter of the model, the optimizer or the loss, such as
    hidden_size=64,128 weight_decay=0,1e-4 nesterov=true,false. Values are numbers, true, false, none, words, or tuples
    such as (64,32), which a shell wants in quotes."""
    sample: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=RANGE...")] = ()
    """Random search instead of the grid: what settings are drawn from, such as learning_rate=log:1e-4:1 (log-uniform)
    momentum=0:0.99 (uniform) hidden_size=int:16:512 (whole numbers) batch_size=16,64 (choices). What is not named here
    is drawn from the values of the grid."""
    num_samples: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """For --sample: the number of settings, by default 100. With more of them, only those that are new are trained."""
    loss: Annotated[str, tyro.conf.arg(metavar="NAME")] = "cross_entropy"
    """Loss: cross_entropy or squared_error, or MODULE:NAME, a function in a module of the current folder from outputs
    and targets to the loss of each example."""
    by: Literal["accuracy", "loss"] | None = None
    """Metric by which settings are compared and the best is chosen, on validation. By default accuracy if the loss is
    cross_entropy, and otherwise the loss."""

    def grid_axes(self) -> dict[str, Any]:
        """Returns the values of each hyperparameter of the grid but the seed: learning rate, batch size, others."""
        given = command_line.axes("axes", self.axes)
        for name in ELSEWHERE.keys() & given.keys():
            raise ValueError(f"axes has {name}, whose values --{ELSEWHERE[name].replace('_', '-')} gives")
        fixed = dict(learning_rate=self.learning_rates, batch_size=self.batch_sizes)
        return fixed | self.momentum_beside({*given, *self.sampled()}) | given

    def momentum_beside(self, names: set[str]) -> dict[str, float]:
        """Returns the momentum by its option, unless it is among these names."""
        if "momentum" not in names:
            return self.further_axes()
        if self.momentum != DEFAULT_MOMENTUM:
            raise ValueError(f"momentum is {self.momentum}, but --axes or --sample has values of it too")
        return {}

    def sampled(self) -> dict[str, Any]:
        """Returns what --sample names, and what it is drawn from."""
        found = command_line.space("sample", self.sample)
        if "seed" in found:
            raise ValueError("sample has seed, but each setting is trained with the same seeds: --num-seeds gives them")
        return found

    def space(self) -> dict[str, Any]:
        """Returns what the hyperparameters of a random search, or of a search in rounds, are drawn from."""
        return self.grid_axes() | self.sampled()

    def sample_size(self) -> int:
        """Returns the number of settings that are drawn."""
        return DEFAULT_SAMPLES if self.num_samples is None else self.num_samples

    def has_accuracy(self) -> bool:
        """Returns whether settings are judged by their accuracy."""
        return self.by == "accuracy" or (self.by is None and self.loss == "cross_entropy")

    def objective(self) -> dict[str, Any]:
        """Returns the loss, and the metrics if they are not those that go with it."""
        loss = command_line.chosen("loss", self.loss, jm.losses.LOSSES)
        return dict(loss=loss, metrics={"accuracy": jm.losses.accuracy} if self.by == "accuracy" else None)

    def check_hyperparameters(self, dataset: jm.Dataset) -> None:
        """Raises ValueError if an axis belongs to none of model, optimizer and loss."""
        model, optimizer = self.build(dataset)
        for option, names in (("axes", command_line.axes("axes", self.axes)), ("sample", self.sampled())):
            command_line.check_names(option, names, model, optimizer, self.objective()["loss"])

    def grown_axes(self, begun: Any) -> set[str]:
        """Returns the options by which a grid that was begun with fewer values, or fewer samples, grows."""
        if self.sample:
            # The draws of fewer samples are the first of those of more.
            return {"num_samples"} if begun.sample_size() <= self.sample_size() else set()
        before, now = begun.grid_axes(), self.grid_axes()
        lacking = {
            ELSEWHERE.get(name, "axes")
            for name, values in before.items()
            if not set(map(repr, listed(values))) <= set(map(repr, listed(now.get(name, ()))))
        }
        return {"learning_rates", "batch_sizes", "axes"} - lacking

    def check_space(self) -> None:
        """Raises ValueError if one of these options makes no sense by itself, or beside another of them."""
        check_whole("num_samples", self.sample_size(), 1, jm.limits.MAX_RUNS)
        if self.num_samples is not None and not self.sample:
            raise ValueError(f"num_samples is {self.num_samples}, but only --sample uses it")
        both = command_line.axes("axes", self.axes).keys() & self.sampled().keys()
        if both:
            raise ValueError(f"sample has {min(both)}, and so has --axes; give it to one of them")
        for name in ELSEWHERE.keys() & self.sampled().keys():
            option = ELSEWHERE[name]
            if getattr(self, option) != getattr(SpaceOptions, option):
                raise ValueError(f"{option} are {getattr(self, option)}, but --sample has {name}")


def listed(values: Any) -> list:
    """Returns the values of an axis, which may be a single one."""
    return list(values) if isinstance(values, list | tuple) else [values]


def check_target(target: float, is_accuracy: bool) -> None:
    """Raises ValueError if a target is no value of an accuracy, or of another metric."""
    if not (0 < target < 1 if is_accuracy else math.isfinite(target)):
        needed = "an accuracy between 0 and 1" if is_accuracy else "a finite number"
        raise ValueError(f"target is {target}; {needed} is needed")
