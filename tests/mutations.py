"""Breaks the package in one place after another, in a copy, and demands that the tests meant to notice do.

As a program, `python tests/mutations.py`, it says which changes were noticed; the slow tests run the same.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]


class Mutation(NamedTuple):
    """One change.

    Attributes:
      what: is broken, in words.
      file: of the package.
      before: a piece of it that occurs once.
      after: what takes its place.
      tests: those meant to notice, as pytest takes them.
    """

    what: str
    file: str
    before: str
    after: str
    tests: str


MUTATIONS = (
    Mutation(
        "padding is not masked",
        "core/training.py",
        "weights = (rows < batch_size).astype(jnp.float32)",
        "weights = (rows < batch_size + 1).astype(jnp.float32)",
        "tests/sweeps/test_sweep.py::test_a_sample_of_settings_has_one_dim_of_runs",
    ),
    Mutation(
        "a hidden nan spoils its batch",
        "core/losses.py",
        "jnp.sum(values * weights, where=weights > 0)",
        "jnp.sum(values * weights)",
        "tests/core/test_losses.py",
    ),
    Mutation(
        "every epoch has the same order",
        "data/order.py",
        "default_rng([seed, epoch])",
        "default_rng([seed, 0])",
        "tests/data/test_data.py::test_order_is_one_permutation_per_epoch",
    ),
    Mutation(
        "every seed has the same order",
        "data/order.py",
        "default_rng([seed, epoch])",
        "default_rng([0, epoch])",
        "tests/data/test_data.py::test_order_is_one_permutation_per_epoch",
    ),
    Mutation(
        "all runs of a sweep have the initial parameters of one seed",
        "sweeps/programs.py",
        "run.model, run.optimizer, inputs.seed, examples,",
        "run.model, run.optimizer, 0 * inputs.seed, examples,",
        "tests/sweeps/test_sweep.py::test_every_run_equals_the_same_run_alone",
    ),
    Mutation(
        "the results' axes are mixed up",
        "analysis/results.py",
        "array[np.argsort(flat)]",
        "array[flat]",
        "tests/sweeps/test_sweep.py::test_permuted_runs_give_permuted_results",
    ),
    Mutation(
        "the last, partial batch of an evaluation counts its padding",
        "core/training.py",
        "weights = (rows < num_examples).astype(jnp.float32)",
        "weights = jnp.ones(batch_size)",
        "tests/core/test_training.py",
    ),
    Mutation(
        "one evaluation is missing",
        "sweeps/planning.py",
        "for i in range(num_evaluations + 1)]",
        "for i in range(num_evaluations)] + [num_steps + 1]",
        "tests/sweeps/test_sweep.py::test_segments_cover_the_steps_and_the_evaluations",
    ),
    Mutation(
        "the oldest state is gone on from",
        "host/checkpoints.py",
        "key=lambda path: -int(path.stem)",
        "key=lambda path: int(path.stem)",
        "tests/test_faults.py::test_a_long_run_whose_disk_is_full_loses_nothing",
    ),
    Mutation(
        "each segment of a long run takes the first examples",
        "networks/run.py",
        "(stop - start) * batch_size, start=start * batch_size)",
        "(stop - start) * batch_size, start=0)",
        "tests/networks/test_run.py::test_it_trains_as_fit_does",
    ),
    Mutation(
        "what goes on begins to count its steps again",
        "networks/run.py",
        "boundaries(first, *steps)",
        "boundaries(0, *steps)",
        "tests/networks/test_run.py::test_an_interrupted_run_ends_as_if_it_had_not_been",
    ),
    Mutation(
        "running statistics stay as they were",
        "core/adapters/linen.py",
        "return outputs, {**state, **after}",
        "return outputs, state",
        "tests/core/test_linen.py::test_a_sweep_of_batch_normalisation_is_the_loop_of_flaxs_guide_whatever_the_batch_sizes",
    ),
    Mutation(
        "examples that influence each other are padded",
        "sweeps/sweep.py",
        "max_padding=1.0 if job.rows_interact else padding",
        "max_padding=padding",
        "tests/core/test_linen.py::test_a_sweep_of_batch_normalisation_is_the_loop_of_flaxs_guide_whatever_the_batch_sizes",
    ),
    Mutation(
        "a loss may mix the examples of a batch",
        "sweeps/job.py",
        "and examples_interact(measure, (drawn, targets)):",
        "and False:",
        "tests/sweeps/test_promises.py::test_what_depends_on_the_other_examples_of_a_batch_is_refused",
    ),
    Mutation(
        "what a function reads from around it is that of its first trace",
        "sweeps/configure.py",
        "captured=tuple(map(captured, functions))",
        "captured=None",
        "tests/sweeps/test_promises.py::test_what_a_function_reads_from_around_it_may_change",
    ),
    Mutation(
        "a training flag is the same in evaluation",
        "core/adapters/flags.py",
        "FLAGS[name] == training for",
        "FLAGS[name] for",
        "tests/core/test_linen.py::test_a_training_flag_reaches_a_module_under_whatever_name_it_has",
    ),
    Mutation(
        "a traced factor of an Equinox module is trained",
        "core/adapters/factory.py",
        "0.5 if is_traced(value) else value",
        "value",
        "tests/sweeps/test_any_model.py::test_constants_of_equinox_are_neither_trained_nor_decayed",
    ),
    Mutation(
        "a training flag within a model is never set",
        "core/adapters/linen.py",
        "if any(map(operator.eq,",
        "if False and any(map(operator.eq,",
        "tests/core/test_linen.py::test_a_flag_within_a_module_that_nobody_sets_is_refused_by_name",
    ),
    Mutation(
        "another optimizer of the same name is taken for the same",
        "sweeps/job.py",
        "sha.update(fingerprint.digest(traced).encode())",
        'sha.update(b"")',
        "tests/sweeps/test_sweep_folder.py::test_the_same_names_of_something_else_are_refused",
    ),
    Mutation(
        "other images are taken for the same",
        "sweeps/fingerprint.py",
        "+ seen.tobytes(), crc)",
        ", crc)",
        "tests/sweeps/test_sweep_folder.py::test_the_same_names_of_something_else_are_refused",
    ),
    Mutation(
        "a person's file is replaced",
        "host/files.py",
        "if os.path.lexists(path) and not is_ours(path):",
        "if path.is_dir():",
        "tests/test_foreign_files.py::test_a_file_in_the_place_of_ours_is_refused_before_training",
    ),
    Mutation(
        "a state that cannot be read is deleted",
        "host/checkpoints.py",
        "aside = set_aside(path)",
        "aside = path\n                path.unlink()",
        "tests/test_faults.py::test_no_damaged_state_is_taken_for_another",
    ),
    Mutation(
        "arguments are not checked",
        "checks.py",
        "if _outermost.is_checked:",
        "if True:",
        "tests/test_bad_results.py",
    ),
    Mutation(
        "Ctrl-C loses what was trained since the last checkpoint",
        "host/loop.py",
        "(is_due or stops or is_last(step))",
        "(is_due or is_last(step))",
        "tests/host/test_interrupts.py::test_a_sweep_saves_the_segment_and_goes_on",
    ),
    Mutation(
        "the largest loss is the best",
        "analysis/metrics.py",
        'return Metric(by, by == "accuracy" if largest is None',
        "return Metric(by, True if largest is None",
        "tests/analysis/test_metrics.py",
    ),
    Mutation(
        "settings are ranked the wrong way round",
        "analysis/results.py",
        "ascending=[True, False, not metric.largest, True]",
        "ascending=[True, False, metric.largest, True]",
        "tests/analysis/test_metrics.py",
    ),
    Mutation(
        "a loss reaches a target from below",
        "analysis/targets.py",
        "there = curves >= target if is_largest else curves <= target",
        "there = curves >= target",
        "tests/analysis/test_metrics.py",
    ),
    Mutation(
        "the default target is that of the easiest batch size",
        "analysis/targets.py",
        "sign = 1 if is_largest else -1",
        "sign = 1",
        "tests/analysis/test_metrics.py",
    ),
    Mutation(
        "high losses are bright",
        "plots/metrics.py",
        'else f"{COLORMAP}_r"',
        'else f"{COLORMAP}"',
        "tests/plots/test_figures_of_metrics.py",
    ),
    Mutation(
        "the best values are taken for outliers",
        "plots/metrics.py",
        "goodness = (1 if metric.largest else -1) *",
        "goodness = 1 *",
        "tests/plots/test_figures_of_metrics.py",
    ),
    Mutation(
        "the head of a cluster, without CPUs, decides what tasks ask for",
        "sweeps/nodes.py",
        "for cpus, gpus in devices if cpus and not gpus]",
        "for cpus, gpus in devices if not gpus]",
        "tests/sweeps/test_cluster.py::test_a_task_fits_on_each_node_of_its_kind",
    ),
    Mutation(
        "a node with many GPUs but few CPUs works on nothing",
        "sweeps/nodes.py",
        "beside = min(cpus / gpus",
        "beside = max(cpus / gpus",
        "tests/sweeps/test_cluster.py::test_a_task_fits_on_each_node_of_its_kind",
    ),
    Mutation(
        "no task waits, so that an autoscaler sees no need of nodes",
        "sweeps/nodes.py",
        "running[first] + max(running[first], LEAST_WAITING)",
        "running[first]",
        "tests/sweeps/test_cluster.py::test_as_many_tasks_wait_as_run_and_only_for_one_kind_of_node",
    ),
    Mutation(
        "programs wait for slow nodes",
        "sweeps/nodes.py",
        "running |= {asked: sum(",
        "running |= {asked: 9 + sum(",
        "tests/sweeps/test_cluster.py::test_nodes_with_and_without_gpus_work_beside_each_other",
    ),
    Mutation(
        "a process stays on a GPU that is another's",
        "sweeps/nodes.py",
        "num_fitting(asked, node) > 1 for",
        "num_fitting(asked, node) > 9 for",
        "tests/sweeps/test_cluster.py::test_processes_stay_unless_tasks_share_the_gpus_of_a_node",
    ),
    Mutation(
        "a cluster is given all programs at once",
        "sweeps/dispatch.py",
        "while self._queue and self._num_tasks[demand] < most:",
        "while self._queue:",
        "tests/sweeps/test_cluster.py::test_every_program_gives_its_result_while_a_bounded_number_waits",
    ),
    Mutation(
        "programs whose node is gone are forgotten",
        "sweeps/dispatch.py",
        "            self._queue.append((task.number, task.program))",
        "            pass",
        "tests/sweeps/test_cluster.py::test_nodes_come_and_go",
    ),
    Mutation(
        "results that have just come in are lost with the cluster",
        "sweeps/dispatch.py",
        "is_last = problem is not None or not",
        "is_last = not",
        "tests/sweeps/test_cluster.py::test_results_that_had_come_in_are_handed_on_where_the_cluster_is_lost",
    ),
    Mutation(
        "each program of a cluster writes a file",
        "sweeps/dispatch.py",
        "if is_last or self._clock() - saved >= SECONDS_PER_SAVE:",
        "if True:",
        "tests/sweeps/test_cluster.py::test_a_large_sweep_writes_few_files_whatever_happens_to_its_nodes",
    ),
    Mutation(
        "nodes that lack the package are not sent it",
        "sweeps/cluster.py",
        "for sends_package in (False, True):",
        "for sends_package in (False, False):",
        "tests/sweeps/test_cluster.py::test_this_package_is_sent_only_if_a_node_lacks_it",
    ),
    Mutation(
        "a process receives a job for each of its tasks",
        "sweeps/worker.py",
        "@functools.lru_cache(maxsize=1)",
        "@functools.lru_cache(maxsize=0)",
        "tests/sweeps/test_cluster.py::test_a_process_receives_a_job_once_and_compiles_it_once",
    ),
    Mutation(
        "nodes of other versions take part",
        "sweeps/worker.py",
        "if name in found and found[name] != expected[name]]",
        "if name not in found]",
        "tests/sweeps/test_cluster.py::test_versions_that_decide_numbers_are_compared",
    ),
    Mutation(
        "the results of two programs in a file are mixed up",
        "sweeps/folder.py",
        "np.split(values, ends[:-1])",
        "np.split(values, len(values) - ends[:-1])",
        "tests/sweeps/test_sweep_folder.py::test_programs_that_end_together_are_one_file",
    ),
    Mutation(
        "results so far are written however long that takes",
        "host/progress.py",
        "max(self._seconds, (end - start) / MAX_SHARE)",
        "self._seconds",
        "tests/host/test_progress.py::test_what_takes_long_is_done_seldom",
    ),
)


def is_noticed(mutation: Mutation) -> bool:
    """Returns whether the tests fail in a copy with this change.

    Where nothing is changed they must not, which shows that a failure is the change's.

    Raises:
      ValueError: the piece to change does not occur once.
      RuntimeError: the tests did not run.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("jaxmnist", "tests", "experiments"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        path = copy / "jaxmnist" / mutation.file
        source = path.read_text()
        if source.count(mutation.before) != 1:
            raise ValueError(f"{mutation.file} has {mutation.before!r} {source.count(mutation.before)} times")
        path.write_text(source.replace(mutation.before, mutation.after))
        # The copy's folder comes first on the path, before an installed package.
        command = [sys.executable, "-m", "pytest", "-qx", "-n", "0", "-p", "no:cacheprovider", *mutation.tests.split()]
        done = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    if done.returncode not in (0, 1) or (done.returncode and " failed" not in done.stdout):
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
    return done.returncode == 1


NO_CHANGE = Mutation(
    "nothing", "core/state.py", "NEVER = -1", "NEVER = -1", " ".join(dict.fromkeys(each.tests for each in MUTATIONS))
)


if __name__ == "__main__":
    unnoticed = 0
    assert not is_noticed(NO_CHANGE), "the tests fail by themselves"
    for each in MUTATIONS:
        noticed = is_noticed(each)
        unnoticed += not noticed
        print(f"{'noticed' if noticed else 'NOT NOTICED'}: {each.what}", flush=True)
    sys.exit(unnoticed > 0)
