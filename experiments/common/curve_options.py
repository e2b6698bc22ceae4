"""The options of experiments/accuracy_vs_steps.py, and which of them go together."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import optax
import tyro

import jaxmnist as jm

from .options import TrainingOptions, seeds

STEPS_PER_POINT = 10
COMPARED = ("sgd", "momentum", "adam", "adamw")
MIN_SEEDS_TO_COMPARE = 6


@dataclasses.dataclass(frozen=True)
class Options(TrainingOptions):
    learning_rates: tuple[float, ...] = (0.5,)
    """Learning rates, each drawn as one line."""
    batch_size: int = 100
    """Batch size, in examples."""
    num_seeds: int = 8
    """Runs per line, each with its own seed (0, 1, ...) for initial parameters and order of examples."""
    num_steps: int = 490
    """Training steps of every run."""
    num_evaluations: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Number of evaluations, evenly spaced along training, besides step 0. By default a tenth of the steps."""
    log_log: bool = False
    """Draw error (1 - accuracy) and loss on logarithmic axes, without step 0; works with --plot-only, too."""
    compare: bool = False
    """Compare SGD, momentum, Adam and AdamW, each at a learning rate chosen on validation; needs 6 seeds or more."""
    sgd_rates: tuple[float, ...] = (0.0625, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
    """For --compare: the learning rates to choose from for SGD."""
    momentum_rates: tuple[float, ...] = (0.00625, 0.0125, 0.025, 0.05, 0.1, 0.2, 0.4)
    """For --compare: the learning rates to choose from for SGD with momentum."""
    adam_rates: tuple[float, ...] = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032)
    """For --compare: the learning rates to choose from for Adam."""
    adamw_rates: tuple[float, ...] = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032)
    """For --compare: the learning rates to choose from for AdamW."""
    weight_decay: float = 0.01
    """For --compare: AdamW's weight decay, which is multiplied by the learning rate (optax's default is 0.0001)."""
    output_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder for results and figures. By default results/accuracy_vs_steps, or with --compare results/comparison."""
    dry_run: bool = False
    """Print the numbers of runs and programs, memory, FLOPs and the estimated time, and stop."""
    pretty: bool = False
    """The longer setting: 990 steps."""

    def folder(self) -> Path:
        """Returns the output folder."""
        return self.output_dir or Path("results/comparison" if self.compare else "results/accuracy_vs_steps")

    def budget(self) -> dict:
        """Returns the numbers of steps and evaluations."""
        num_evaluations = self.num_evaluations
        if num_evaluations is None:
            num_evaluations = max(self.num_steps // STEPS_PER_POINT, 1)
        return dict(num_steps=self.num_steps, num_evaluations=num_evaluations)

    def check(self) -> None:
        """Raises ValueError if two options make no sense together."""
        if not self.compare:
            for name in (*(f"{name}_rates" for name in COMPARED), "weight_decay"):
                if getattr(self, name) != getattr(Options, name):
                    raise ValueError(f"{name} is given, but only --compare uses it")
            self.further_axes()
            return
        for name in ("learning_rates", "optimizer"):
            if getattr(self, name) != getattr(Options, name):
                raise ValueError(f"{name} is given, but --compare has its own: --sgd-rates and the like")
        dataclasses.replace(self, optimizer="momentum").further_axes()
        if self.num_seeds < MIN_SEEDS_TO_COMPARE:
            raise ValueError(f"num_seeds is {self.num_seeds}; --compare needs at least {MIN_SEEDS_TO_COMPARE}")

    def runs(self) -> dict:
        """Returns the runs: of the curves, or with --compare those among which learning rates are chosen."""
        if self.compare:
            return self.runs_to_compare({name: getattr(self, f"{name}_rates") for name in COMPARED})
        axes: dict = dict(learning_rate=self.learning_rates, batch_size=self.batch_size, **self.further_axes())
        return jm.grid(**axes, seed=seeds(self.num_seeds))

    def runs_to_compare(self, rates: Mapping[str, Sequence[float]]) -> dict:
        """Returns the runs of each optimizer with its learning rates."""
        fixed: dict = dict(batch_size=self.batch_size, momentum=self.momentum, weight_decay=self.weight_decay)
        each_seed = seeds(self.num_seeds)
        parts = [jm.grid(optimizer=[name], learning_rate=rates[name], **fixed, seed=each_seed) for name in rates]
        return jm.union(*parts)

    def build(self, dataset: jm.Dataset) -> tuple[Any, Callable[..., optax.GradientTransformation]]:
        """Returns the model and the optimizer factory."""
        model, optimizer = super().build(dataset)
        return model, jm.optimizers.named if self.compare else optimizer
