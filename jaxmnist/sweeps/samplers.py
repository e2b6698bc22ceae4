"""Where the settings of a search come from: random numbers, a Sobol sequence, or a study of Optuna.

Shapes: N settings of a round.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from jaxmnist.analysis.export import new_study
from jaxmnist.checks import raise_invalid
from jaxmnist.sweeps.runs import Distribution, checked_axis, sample
from jaxmnist.values import described, is_whole, shown

SAMPLERS = ("optuna", "sobol", "random")
PLAIN = bool | int | float | str | None


class Axis(NamedTuple):
    """What one hyperparameter of a search is drawn from.

    Attributes:
      distribution: an interval; None for values to choose from.
      values: those to choose from.
      integers: these values, if they are whole numbers in their order.
    """

    distribution: Distribution | None
    values: tuple = ()
    integers: range | None = None

    def has(self, place: float) -> bool:
        """Returns whether a coordinate of a point belongs to this axis."""
        if self.distribution is not None:
            return self.distribution.low <= place <= self.distribution.high
        return is_whole(place) and 0 <= place < len(self.values)


class Draw(NamedTuple):
    """A setting that a sampler has drawn, as JSON can hold it.

    Attributes:
      point: name to a number of an interval, or to the place of a value among those of its axis.
      number: that of the trial in a study; for other samplers, the place in their sequence.
    """

    point: dict[str, float]
    number: int


class Sampler(Protocol):
    """What a search asks for settings."""

    def recall(self, draws: Sequence[Draw]) -> None:
        """Takes what was drawn in an earlier process.

        Raises:
          ValueError: the sampler has drawn something else.
        """

    def ask(self, count: int, round_number: int) -> list[Draw]:
        """Returns the settings of a round, counted from 0; those of the rounds before have been told."""

    def tell(self, draws: Sequence[Draw], means: Sequence[float | None]) -> None:
        """Takes the means of drawn settings; None stands for one that failed."""


def parse(space: Mapping[str, Any]) -> dict[str, Axis]:
    """Returns the axes of a space.

    Raises:
      ValueError: an axis is not as `sample` takes it.
    """
    axes = {}
    for name, given in space.items():
        if isinstance(given, Distribution):
            axes[name] = Axis(given)
        else:
            values = tuple(checked_axis(name, given).tolist())
            # Downwards, a range has the same numbers; Optuna's go upwards.
            axes[name] = Axis(None, values, given if isinstance(given, range) and given.step > 0 else None)
    return axes


def values_at(axes: Mapping[str, Axis], point: Mapping[str, float]) -> dict[str, Any]:
    """Returns the values of the hyperparameters at a point.

    Raises:
      ValueError: the point, which may come from a file, is not one of this space.
    """
    if set(point) != set(axes) or not all(axis.has(point[name]) for name, axis in axes.items()):
        raise ValueError(f"the point {shown(dict(point))} does not lie in space")
    return {
        name: float(point[name]) if axis.distribution is not None else axis.values[int(point[name])]
        for name, axis in axes.items()
    }


class RandomSampler:
    """Independent draws: those of `sample` with the same seed (Bergstra & Bengio 2012, JMLR 13:281)."""

    def __init__(self, axes: Mapping[str, Axis], seed: int):
        self._seed = seed
        self._axes = {name: axis.distribution or range(len(axis.values)) for name, axis in axes.items()}

    def recall(self, draws: Sequence[Draw]) -> None:
        """Does nothing: what is drawn depends on the seed and the round alone."""

    def ask(self, count: int, round_number: int) -> list[Draw]:
        """Returns the settings of a round."""
        numbers = range(round_number * count, (round_number + 1) * count)
        drawn = sample(numbers.stop, self._seed, **self._axes)
        return [Draw({name: column[number].item() for name, column in drawn.items()}, number) for number in numbers]

    def tell(self, draws: Sequence[Draw], means: Sequence[float | None]) -> None:
        """Does nothing."""


class SobolSampler:
    """A scrambled Sobol sequence, whose points fill the space evenly (Owen 1998, ACM TOMACS 8:1)."""

    def __init__(self, axes: Mapping[str, Axis], seed: int):
        self._axes, self._seed = axes, seed

    def recall(self, draws: Sequence[Draw]) -> None:
        """Does nothing: what is drawn depends on the seed and the round alone."""

    def ask(self, count: int, round_number: int) -> list[Draw]:
        """Returns the settings of a round."""
        from scipy.stats import qmc

        numbers = range(round_number * count, (round_number + 1) * count)
        with warnings.catch_warnings():
            # A beginning of the sequence is balanced if its length is a power of 2; others are just as valid.
            warnings.simplefilter("ignore", UserWarning)
            shares = qmc.Sobol(len(self._axes), seed=self._seed).random(numbers.stop)[numbers.start :]
        return [
            Draw({name: _at(axis, share) for (name, axis), share in zip(self._axes.items(), row, strict=True)}, number)
            for row, number in zip(shares.tolist(), numbers, strict=True)
        ]

    def tell(self, draws: Sequence[Draw], means: Sequence[float | None]) -> None:
        """Does nothing."""


def _at(axis: Axis, share: float) -> float:
    """Returns what lies at a share, in `[0, 1)`, of an axis."""
    return axis.distribution.at(share) if axis.distribution is not None else int(share * len(axis.values))


class OptunaSampler:
    """A study of Optuna: the user's own, or one in memory whose sampler is TPE (Bergstra et al. 2011, NeurIPS 24).

    Each round of a study in memory has a random seed of its own, so that what is drawn depends on what was told before
    and not on the process that told it.
    """

    def __init__(self, axes: Mapping[str, Axis], seed: int, largest: bool, study: Any = None):
        self._axes, self._seed, self._is_own = axes, seed, study is None
        self._study = new_study(largest) if study is None else study
        self._distributions = {name: distribution_of(axis) for name, axis in axes.items()}
        self._recalled: set[int] = set()

    def recall(self, draws: Sequence[Draw]) -> None:
        """Takes what was drawn in an earlier process; a study that is empty begins with it."""
        import optuna

        trials = self._study.get_trials(deepcopy=False)
        for draw in draws:
            self._recalled.add(draw.number)
            if draw.number < len(trials):
                is_same = self._point(trials[draw.number].params) == draw.point
            else:
                is_same = draw.number == len(self._study.get_trials(deepcopy=False))
            if not is_same:
                raise ValueError(
                    f"study is another one than that of the search in folder: its trial {draw.number} is not the one "
                    "that was asked for; give that study, or an empty one"
                )
            if draw.number >= len(trials):
                params = {name: _choice(axis, draw.point[name]) for name, axis in self._axes.items()}
                running = optuna.trial.TrialState.RUNNING
                self._study.add_trial(
                    optuna.trial.create_trial(state=running, params=params, distributions=self._distributions)
                )

    def ask(self, count: int, round_number: int) -> list[Draw]:
        """Returns the settings of a round: those that were asked and never told, and then new ones."""
        import optuna

        if self._is_own:
            seed = int(np.random.SeedSequence([self._seed, round_number]).generate_state(1)[0])
            self._study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        running = self._study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
        points = {trial.number: self._point(trial.params) for trial in running if trial.number not in self._recalled}
        draws = [Draw(point, number) for number, point in points.items() if point is not None][:count]
        while len(draws) < count:
            trial = self._study.ask(self._distributions)
            point = self._point(trial.params)
            if point is None:
                raise ValueError(f"study has a trial in its queue whose params lie outside space: {trial.params}")
            draws.append(Draw(point, trial.number))
        self._recalled |= {draw.number for draw in draws}
        return draws

    def tell(self, draws: Sequence[Draw], means: Sequence[float | None]) -> None:
        """Takes the means of drawn settings, unless the study has them already."""
        import optuna

        trials = self._study.get_trials(deepcopy=False)
        for draw, mean in zip(draws, means, strict=True):
            if not trials[draw.number].state.is_finished():
                failed = optuna.trial.TrialState.FAIL if mean is None else None
                self._study.tell(draw.number, mean, state=failed)

    def _point(self, params: Mapping[str, Any]) -> dict[str, float] | None:
        """Returns the point with these params, or None if they are not those of a whole point of the space."""
        places = {name: _place(axis, params[name]) for name, axis in self._axes.items() if name in params}
        whole = {name: place for name, place in places.items() if place is not None}
        return whole if len(whole) == len(self._axes) == len(params) else None


def check_study(study: Any, largest: bool) -> None:
    """Raises ValueError unless a study looks for one value in the right direction."""
    wanted = "MAXIMIZE" if largest else "MINIMIZE"
    found = [getattr(direction, "name", str(direction)) for direction in study.directions]
    if found != [wanted]:
        raise_invalid("study", study, f"a study that says {wanted.lower()}, not {' and '.join(found).lower()},")


def distribution_of(axis: Axis) -> Any:
    """Returns an axis as a distribution of Optuna."""
    from optuna import distributions

    if axis.distribution is not None:
        low, high, logarithmic = axis.distribution.low, axis.distribution.high, axis.distribution.logarithmic
        return distributions.FloatDistribution(low, high, log=logarithmic)
    if axis.integers is not None:
        return distributions.IntDistribution(axis.integers[0], axis.integers[-1], step=axis.integers.step)
    return distributions.CategoricalDistribution([_choice(axis, place) for place in range(len(axis.values))])


def _choice(axis: Axis, place: float) -> Any:
    """Returns how a study names what is at a place of an axis: values that its storage cannot hold by a string."""
    if axis.distribution is not None:
        return place
    value = axis.values[int(place)]
    return value if isinstance(value, PLAIN) else described(value)


def _place(axis: Axis, choice: Any) -> float | None:
    """Returns the place of an axis that a study names so; None if it has none of that name."""
    if axis.distribution is not None:
        return choice if axis.has(choice) else None
    choices = [_choice(axis, place) for place in range(len(axis.values))]
    return choices.index(choice) if choice in choices else None
