"""What the rounds of a search ask for, how it is trained, and what they have found.

Shapes: N settings of a round, S seeds.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxmnist.analysis.metrics import Metric
from jaxmnist.checks import is_mapping, reason, shown
from jaxmnist.data.dataset import Dataset
from jaxmnist.data.order import SEEDS
from jaxmnist.sweeps import samplers
from jaxmnist.sweeps.configure import Setup
from jaxmnist.sweeps.folder import Outcome
from jaxmnist.sweeps.growth import run_keys
from jaxmnist.sweeps.job import Job, make_job
from jaxmnist.sweeps.objects import column_of
from jaxmnist.sweeps.runs import with_seeds
from jaxmnist.sweeps.samplers import Axis, Draw, Sampler
from jaxmnist.sweeps.search_folder import Asked, SearchFolder

Setting = dict[str, Any]


class Task(NamedTuple):
    """How the settings of every round are trained.

    Attributes:
      setup: model, optimizer, loss, metrics and augmentation.
      dataset: what to train and evaluate on.
      num_steps: training steps.
      num_evaluations: how often along training to evaluate.
      record: the splits to evaluate on along training.
      seeds: those of each setting.
    """

    setup: Setup
    dataset: Dataset
    num_steps: int
    num_evaluations: int
    record: tuple[str, ...]
    seeds: list[int]

    def job(self, settings: Sequence[Setting]) -> Job:
        """Returns the sweep of settings, each with all seeds, the seed fastest."""
        columns = {name: column_of([setting[name] for setting in settings]) for name in settings[0]}
        runs = with_seeds(columns, self.seeds)
        return make_job(self.setup, runs, self.dataset, self.num_steps, self.num_evaluations, self.record)


class Rounds:
    """The settings of the rounds: those that a folder holds, and then those that a sampler draws."""

    def __init__(
        self,
        sampler: Sampler,
        batch: int,
        settings_of: Callable[[Sequence[Draw]], list[Setting]],
        folder: SearchFolder | None,
    ):
        self._sampler, self._batch, self._settings_of, self._folder = sampler, batch, settings_of, folder
        self._asked: list[Asked] = []

    def recall(self, description: dict, num_rounds: int) -> None:
        """Begins a search in its folder, or takes what is saved there of its rounds.

        Raises:
          ValueError: the folder holds something else, or more rounds.
        """
        if self._folder is None:
            return
        self._folder.check(num_rounds)
        self._folder.begin(description)
        self._asked = self._folder.asked(self._settings_of)
        if len(self._asked) > num_rounds:
            raise ValueError(
                f"the search in {self._folder.folder} has begun {len(self._asked)} rounds, more than num_rounds "
                f"{num_rounds}; choose another folder"
            )
        self._sampler.recall([draw for asked in self._asked for draw in asked.draws])

    def ask(self, number: int) -> Asked:
        """Returns the settings of a round, which are in the folder from then on."""
        if number == len(self._asked):
            draws = self._sampler.ask(self._batch, number)
            self._asked.append(Asked(draws, self._settings_of(draws)))
            if self._folder is not None:
                self._folder.begin_round(number, self._asked[number])
        return self._asked[number]


class Found:
    """What the rounds have found so far.

    Attributes:
      settings: those that were trained, each once.
      rounds: the round of each of them, counted from 1.
      values: the results of each round, name to `[N * S, ...]`.
    """

    def __init__(self, metric: Metric, diverged: str):
        self._metric, self._diverged = metric, diverged
        self._means: dict[tuple, float | None] = {}
        self.settings: list[Setting] = []
        self.rounds: list[int] = []
        self.values: list[Outcome] = []

    def new(self, settings: Sequence[Setting]) -> list[Setting]:
        """Returns the settings that were not trained yet, each once, in their order."""
        distinct = dict(reversed([*zip(_keys(settings), settings, strict=True)]))
        return [setting for key, setting in reversed(distinct.items()) if key not in self._means]

    def add(self, number: int, settings: Sequence[Setting], values: Outcome) -> None:
        """Takes the results of settings, which were trained in the round of this number, counted from 0."""
        self.settings += settings
        self.rounds += [number + 1] * len(settings)
        self.values.append(values)
        means = values[f"validation_{self._metric.name}"].reshape(len(settings), -1).mean(axis=1, dtype=np.float64)
        has_diverged = np.isfinite(values["diverged_step"]).reshape(len(settings), -1).any(axis=1)
        usable = np.isfinite(means) & ~has_diverged
        for key, mean, is_usable in zip(_keys(settings), means.tolist(), usable, strict=True):
            self._means[key] = mean if is_usable else None

    def told(self, settings: Sequence[Setting]) -> list[float | None]:
        """Returns what a sampler is told of settings: the means over seeds, and of those that diverged what was chosen.

        None stands for a setting that failed.
        """
        finite = [mean for mean in self._means.values() if mean is not None]
        worst = None
        if finite and self._diverged == "worst":
            worst = min(finite) if self._metric.largest else max(finite)
        means = [self._means[key] for key in _keys(settings)]
        return [worst if mean is None else mean for mean in means]


def settings_of(
    draws: Sequence[Draw],
    axes: Mapping[str, Axis],
    constrain: Callable[[Setting], Mapping[str, Any]] | None,
) -> list[Setting]:
    """Returns what is trained for what was drawn.

    Raises:
      ValueError: `constrain` fails, or does not return settings with the same names.
    """
    settings = [samplers.values_at(axes, draw.point) for draw in draws]
    if constrain is not None:
        settings = [_constrained(setting, constrain) for setting in settings]
    names = [*settings[0]]
    other = next((setting for setting in settings if set(setting) != set(names)), None)
    if other is not None:
        raise ValueError(f"constrain returns settings of {names} and of {[*other]}; give all of them the same names")
    if SEEDS & set(names):
        raise ValueError(f"space has {min(SEEDS & set(names))}; the seeds of all settings are given by seeds")
    return [{name: setting[name] for name in names} for setting in settings]


def _constrained(setting: Setting, constrain: Callable[[Setting], Mapping[str, Any]]) -> Setting:
    """Returns a setting as a user's function changes it."""
    try:
        changed = constrain(dict(setting))
    except Exception as error:  # whatever a user's function raises
        raise ValueError(f"constrain fails for {shown(setting)}: {reason(error)}") from error
    if not is_mapping(changed) or not changed:
        raise ValueError(f"constrain returns {shown(changed)}; a mapping of names to values is needed")
    return dict(changed)


def _keys(settings: Sequence[Setting]) -> list[tuple]:
    """Returns what tells settings apart."""
    return run_keys({name: [setting[name] for setting in settings] for name in sorted(settings[0])})
