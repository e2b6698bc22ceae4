"""A search: rounds of settings, each chosen by what the rounds before have found and trained as one sweep.

Shapes: R runs, N settings of a round, S seeds.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import xarray as xr
from jax.typing import DTypeLike

from jaxmnist.analysis import files as result_files
from jaxmnist.analysis import results
from jaxmnist.analysis.arguments import BY, LARGEST
from jaxmnist.analysis.export import check_installed
from jaxmnist.analysis.metrics import judged
from jaxmnist.checks import FUNCTION, SEED, Choice, Optional, Where, Whole, checked_by, is_mapping, kinds
from jaxmnist.core import losses, optimizers
from jaxmnist.core.losses import Loss
from jaxmnist.core.model import ModelLike
from jaxmnist.core.training import Augmentation
from jaxmnist.data.dataset import Dataset
from jaxmnist.host.lock import hold
from jaxmnist.limits import MAX_BATCH, MAX_ROUNDS
from jaxmnist.sweeps import planning, samplers
from jaxmnist.sweeps.arguments import TRAINED, check_evaluations, recorded_splits
from jaxmnist.sweeps.configure import make_setup, precision
from jaxmnist.sweeps.job import describe
from jaxmnist.sweeps.layout import Layout, layout_of
from jaxmnist.sweeps.options import check_options, folder_of, means_of
from jaxmnist.sweeps.rounds import Found, Rounds, Setting, Task, settings_of
from jaxmnist.sweeps.runs import Distribution, checked_axis, with_seeds
from jaxmnist.sweeps.samplers import Axis, Sampler
from jaxmnist.sweeps.search_folder import SearchFolder
from jaxmnist.sweeps.sweep import train
from jaxmnist.values import described, is_whole

SPACE = Where(
    "a mapping of names to distributions or values, such as dict(learning_rate=jm.loguniform(1e-4, 1), batch_size=64),",
    lambda value: is_mapping(value) and len(value) > 0,
)
STUDY = Optional(
    Where(
        "a study of Optuna",
        lambda value: all(hasattr(value, name) for name in ("ask", "tell", "add_trial", "directions")),
    )
)


def _check_search(given: SimpleNamespace) -> None:
    for name in ("keep_states", "shard"):
        if value := given.options.get(name):
            raise ValueError(f"{name} is {value!r}; search does not take it, since each of its rounds is a whole sweep")
    check_options("search", given.options)
    evaluations = given.options.get("num_evaluations", 1)
    check_evaluations(SimpleNamespace(num_steps=given.num_steps, num_evaluations=evaluations))
    if given.study is not None and given.sampler != "optuna":
        raise ValueError(f"sampler is {given.sampler!r}, but a study has a sampler of its own; give one of the two")
    if given.sampler == "optuna":
        check_installed()


@checked_by(
    _check_search, **{name: kind for name, kind in TRAINED.items() if name != "runs"}, space=SPACE,
    num_rounds=Whole(1, MAX_ROUNDS), batch=Whole(1, MAX_BATCH), seeds=kinds(with_seeds)["seeds"],
    sampler=Choice(samplers.SAMPLERS), sampler_seed=SEED, study=STUDY, constrain=Optional(FUNCTION), by=BY,
    largest=LARGEST, diverged=Choice(("worst", "failed")),
)  # fmt: skip
def search(
    model: ModelLike,
    optimizer: optimizers.OptimizerFactory,
    space: Mapping[str, Distribution | Any],
    dataset: Dataset,
    *,
    num_rounds: int,
    batch: int,
    num_steps: int,
    seeds: Iterable[int],
    sampler: str = "optuna",
    sampler_seed: int = 0,
    study: Any = None,
    constrain: Callable[[Setting], Mapping[str, Any]] | None = None,
    by: str | None = "loss",
    largest: bool | None = None,
    diverged: str = "worst",
    loss: Loss = losses.cross_entropy,
    metrics: Mapping[str, Loss] | None = None,
    augment: Augmentation | None = None,
    evaluation_params: optimizers.EvaluationParams = optimizers.evaluation_params,
    dtype: DTypeLike = "float32",
    **options: Any,
) -> xr.Dataset:
    """Returns the results of a search in rounds, each of which trains a batch of settings as one sweep.

    A round asks the sampler for settings, trains each with all seeds, and tells the sampler their means over seeds of a
    metric on the validation split; test data choose nothing. A setting that was trained in an earlier round is not
    trained again: the sampler is told what was found.

    Args:
      model: as `sweep`.
      optimizer: as `sweep`.
      space: name to what is drawn, as for `sample`: a distribution (`loguniform`, `uniform`), values to choose from, or
        one value. A `range` is an axis of whole numbers in their order. `batch_size` must be among the names.
      dataset: as `sweep`.
      num_rounds: how many rounds there are.
      batch: N, the settings that each round asks for. Rounds share their compiled programs on CPU, as long as no value
        that decides a shape or a branch differs, and their work is small beside compiling it.
      num_steps: as `sweep`.
      seeds: S distinct whole numbers, the same for all settings.
      sampler: `"optuna"` (TPE; Bergstra et al. 2011), `"sobol"` (a scrambled Sobol sequence; Owen 1998), or `"random"`,
        whose settings are those of `sample(num_rounds * batch, sampler_seed, ...)`.
      sampler_seed: decides what is drawn, except by a `study`.
      study: a study of Optuna to ask and to tell, with any sampler (GP, CMA-ES) and storage (SQLite, a journal file).
        Its direction has to fit the metric. Settings that it has asked for and was never told come first, so that only
        one search at a time may use it. Its sampler is the user's: one with a seed begins its draws again in a new
        process.
      constrain: a function of a setting that was drawn, name to value, that returns the one to train, always with the
        same names. Conditions are stated so: that the momentum is 0 unless `nesterov` is True, or that the learning
        rate is in proportion to the batch size. It maps and does not reject, because every sampler can go on with a
        setting that was changed, and none knows what to draw in place of one that was refused.
      by: the metric whose mean the sampler is told; None is that of `best`.
      largest: whether its largest value is the best, as for `settings`.
      diverged: what a sampler is told of a setting with a run that diverged: `"worst"`, the worst mean so far, from
        which it learns to avoid such settings, or `"failed"`. As long as there is no other mean, it is told that the
        setting failed.
      loss: as `sweep`.
      metrics: as `sweep`.
      augment: as `sweep`.
      evaluation_params: as `sweep`.
      dtype: as `sweep`.
      **options: further arguments of `sweep`, except `keep_states` and `shard`. In `folder`, each round has a folder of
        its own. An interrupted call goes on with the same settings, and a call with more rounds adds those.

    Returns:
      As `sweep`, the runs of all rounds, each setting once, with one dim `run` and the coordinate `round`, counted from
      1, in which a run was trained. The result of a round by itself, in its folder, is that of any sweep: from it,
      `rerun` trains a run again bit for bit.

    Raises:
      ValueError: an argument is not as described above, Optuna is not installed, `sweep` would reject the settings, or
        the folder is in use or holds something else.
    """
    setup = make_setup(model, optimizer, loss, metrics, augment, evaluation_params, dtype)
    metric = judged(xr.Dataset(attrs={"metrics": " ".join(name for name, _ in setup.measured)}), by, largest)
    axes, each_seed = samplers.parse(space), checked_axis("seeds", seeds).tolist()
    description = {
        "space": json.dumps({name: described(axis.integers or axis.distribution or axis.values)
                             for name, axis in axes.items()}),
        "batch": int(batch), "seeds": " ".join(map(str, each_seed)), "num_steps": int(num_steps), "sampler": sampler,
        "sampler_seed": int(sampler_seed), "constrain": described(constrain), "by": metric.name,
        "largest": metric.largest, "diverged": diverged,
    }  # fmt: skip
    num_evaluations = options.get("num_evaluations", 1)
    record = recorded_splits(options.get("record"), num_evaluations)
    task = Task(setup, dataset, num_steps, num_evaluations, record, each_seed)
    means, place = means_of(options)._replace(layout=_layout(axes, batch, len(each_seed))), folder_of(options)
    folder = SearchFolder(place) if place is not None else None
    with precision(setup), hold(place, options.get("wait", False)):
        source = _sampler(sampler, axes, sampler_seed, study, metric.largest)
        rounds = Rounds(source, batch, lambda draws: settings_of(draws, axes, constrain), folder)
        rounds.recall(description, num_rounds)
        found = Found(metric, diverged)
        for number in range(num_rounds):
            asked = rounds.ask(number)
            new = found.new(asked.settings)
            if new:
                job = task.job(new)
                own = means._replace(folder=folder.round(number) if folder is not None else None)
                found.add(number, new, results.by_run(train(job, own), job.arrays))
            source.tell(asked.draws, found.told(asked.settings))
        return _united(task, found, {"search": json.dumps(description), "num_rounds": num_rounds}, folder)


def _layout(axes: Mapping[str, Axis], batch: int, num_seeds: int) -> Layout | None:
    """Returns the layout of all rounds, if the space says which batch sizes they may have."""
    values = axes["batch_size"].values if "batch_size" in axes else ()
    return layout_of(values, batch, num_seeds) if values and all(map(is_whole, values)) else None


def _sampler(name: str, axes: Mapping[str, Axis], seed: int, study: Any, largest: bool) -> Sampler:
    """Returns the sampler of a search."""
    if name == "random":
        return samplers.RandomSampler(axes, seed)
    if name == "sobol":
        return samplers.SobolSampler(axes, seed)
    if study is not None:
        samplers.check_study(study, largest)
    return samplers.OptunaSampler(axes, seed, largest, study)


def _united(task: Task, found: Found, attrs: dict, folder: SearchFolder | None) -> xr.Dataset:
    """Returns the results of all rounds, which are in the folder from then on."""
    job = task.job(found.settings)
    attrs = describe(job) | attrs
    held = folder.held() if folder is not None else None
    finished = held.result_of(attrs) if held is not None else None
    if finished is not None:
        return finished
    values = {name: np.concatenate([each[name] for each in found.values]) for name in found.values[0]}
    steps = planning.recorded_steps(task.num_steps, task.num_evaluations)
    rounds = {"round": np.repeat(found.rounds, len(task.seeds))}
    united = results.label(job.arrays, values, steps, attrs, rounds)
    if folder is not None:
        result_files.save(united, folder.folder)
    return united
