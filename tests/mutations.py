"""Breaks the package in one place after another, in a copy, and demands that the tests meant to notice do.

As a program, `python tests/mutations.py`, it says which changes were noticed; the slow tests run the same.
"""

import os
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
      file: of the package, or from there.
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
        "a data set seeds the random numbers of a person",
        "data/loading.py",
        "np.random.set_state(states[1])",
        "pass",
        "tests/data/test_data.py::test_mnist1d_leaves_the_random_numbers_of_a_person_alone",
    ),
    Mutation(
        "a function that was given again is read back from its name",
        "sweeps/rerun.py",
        "restored_values(column, objects.get(name, {})))",
        "restored_values(column))",
        "tests/sweeps/test_rerun.py::test_functions_that_cannot_be_imported_are_given_again",
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
        "np.argsort(flat)",
        "flat",
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
        "whether examples mix is tried with parameters of zero",
        "core/influence.py",
        "std * generator",
        "0 * std * generator",
        "tests/core/test_influence.py",
    ),
    Mutation(
        "whether examples mix is tried with scales of 0, of which half are below it",
        "core/influence.py",
        "(np.asarray(initial) + std",
        "(0 * np.asarray(initial) + std",
        "tests/core/test_influence.py",
    ),
    Mutation(
        "tokens beyond an embedding are trained on",
        "sweeps/trials.py",
        "if not gives_numbers(model, found):",
        "if False:",
        "tests/sweeps/test_trials.py",
    ),
    Mutation(
        "a warm-up may take longer than its schedule",
        "core/schedules.py",
        "given.warmup_steps >= given.num_steps:",
        "False:",
        "tests/core/test_schedules.py",
    ),
    Mutation(
        "a module is taken for what makes it",
        "core/adapters/factory.py",
        "if library in sys.modules and",
        "if False and",
        "tests/sweeps/test_any_model.py::test_a_module_in_place_of_its_class_is_named",
    ),
    Mutation(
        "the noise of gradients is that of another loss",
        "analysis/noise.py",
        "functools.partial(estimate_noise, model, loss=loss))",
        "functools.partial(estimate_noise, model, loss=losses.squared_error))",
        "tests/analysis/test_noise.py::test_it_is_measured_with_any_loss",
    ),
    Mutation(
        "whole numbers among the parameters are trained",
        "core/adapters/factory.py",
        "return jnp.issubdtype(dtype, jnp.integer) or dtype == jnp.bool_",
        "return False",
        "tests/core/test_linen.py::test_whole_numbers_and_booleans_among_the_parameters_do_not_move",
    ),
    Mutation(
        "a classifier of numbers takes pixels",
        "networks/classifier.py",
        "(inputs.dtype == np.uint8) == (self",
        "True or (self",
        "tests/networks/test_classifier.py::test_inputs_of_any_shape_and_type_are_classified",
    ),
    Mutation(
        "what differs within a window is added after max pooling",
        "core/fast/replacement.py",
        "extent == 1 or is_one for",
        "extent or is_one for",
        "tests/core/test_replacement.py::test_what_is_alike_within_windows_is_added_after_max_pooling",
    ),
    Mutation(
        "a number per channel is added to the convolution of channels first as it stands",
        "core/fast/replacement.py",
        "id(equation.invars[0]) not in convolved",
        "True",
        "tests/core/test_replacement.py::test_a_bias_of_channels_that_come_first_is_added_and_has_its_gradient",
    ),
    Mutation(
        "a sum that is needed elsewhere is replaced by its maxima",
        "core/fast/replacement.py",
        "or uses[id(pool.invars[0])] > 1 or",
        "or",
        "tests/core/test_replacement.py::test_a_sum_that_is_used_elsewhere_is_pooled_where_it_is",
    ),
    Mutation(
        "a loss may mix the examples of a batch",
        "sweeps/trials.py",
        "and examples_interact(measure, (drawn, targets)):",
        "and False:",
        "tests/sweeps/test_promises.py::test_what_depends_on_the_other_examples_of_a_batch_is_refused",
    ),
    Mutation(
        "a sweep of one program has shards without one",
        "sweeps/sweep.py",
        "while len(planned) < (num_shards or 1) and max_runs > 0:",
        "while not planned:",
        "tests/sweeps/test_sweep_folder.py::test_a_sweep_of_one_program_divides_into_shards_of_their_own",
    ),
    Mutation(
        "a loss of whole numbers trains nothing in silence",
        "sweeps/trials.py",
        'if name == "loss" and not jnp.issubdtype(found.dtype, jnp.floating):',
        "if False:",
        "tests/sweeps/test_promises.py::test_what_cannot_be_trained_is_refused",
    ),
    Mutation(
        "what a model's code reads from around it is that of its first trace",
        "core/adapters/factory.py",
        "identity = frozen(source), captured(source)",
        "identity = frozen(source), None",
        "tests/test_values.py::test_a_sweep_trains_the_network_that_its_code_describes_now",
    ),
    Mutation(
        "what a function on an axis reads from around it is that of its first trace",
        "sweeps/job.py",
        "captured=(setup.captured, captured(on_axes))",
        "captured=setup.captured",
        "tests/test_values.py::test_a_function_on_an_axis_may_read_something_else_later",
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
        "a training flag of another name is left at its default",
        "core/adapters/flags.py",
        "isinstance(default, bool) and WORDS.search(argument)",
        "False",
        "tests/sweeps/test_trials.py::test_a_training_flag_of_another_name_is_told_the_names_that_are_known",
    ),
    Mutation(
        "an augmentation may turn inputs into whole numbers",
        "core/arguments.py",
        "!= (seen.shape, seen.dtype)",
        "!= (seen.shape, changed.dtype)",
        "tests/sweeps/test_trials.py::test_what_does_not_fit_is_named",
    ),
    Mutation(
        "numbers beyond 32 bits become infinite or others",
        "core/arguments.py",
        "if low < limits.min or high > limits.max:",
        "if False:",
        "tests/sweeps/test_trials.py::test_numbers_beyond_the_type_that_is_computed_with_are_named",
    ),
    Mutation(
        "copies of a run count as seeds",
        "sweeps/runs.py",
        "if is_decided and len(seeds) > 1:",
        "if False:",
        "tests/sweeps/test_runs.py::test_check_runs_refuses",
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
        "sweeps/fingerprint.py",
        'hashlib.sha256("".join(digests).encode()).hexdigest()',
        '""',
        "tests/sweeps/test_sweep_folder.py::test_the_same_names_of_something_else_are_refused",
    ),
    Mutation(
        "what a folder holds is trained again",
        "sweeps/growth.py",
        "return known, finished\n",
        "return known, np.zeros_like(finished)\n",
        "tests/sweeps/test_growth.py::test_only_what_is_new_is_trained",
    ),
    Mutation(
        "runs that have ended train on",
        "sweeps/programs.py",
        "jnp.where(all_ended, 0, num_steps), inputs",
        "num_steps, inputs",
        "tests/sweeps/test_survivors.py::test_runs_that_have_ended_take_no_steps",
    ),
    Mutation(
        "a run ends though its loss is finite",
        "sweeps/programs.py",
        "is_nan & has_nan(states.params)",
        "has_nan(states.params)",
        "tests/sweeps/test_survivors.py::test_a_run_ends_only_if_its_loss_and_a_parameter_are_nan",
    ),
    Mutation(
        "a run that moves draws the batches of another seed",
        "sweeps/survivors.py",
        "groups_of[stream]",
        "groups_of[stream[0]]",
        "tests/sweeps/test_survivors.py::test_runs_that_go_on_come_first_in_their_stream_evenly_on_all_devices",
    ),
    Mutation(
        "a string that reads like a number is run again as one",
        "sweeps/rerun.py",
        "if _has_objects(result, name) else column",
        'if column.dtype.kind == "U" else column',
        "tests/sweeps/test_rerun.py::test_a_string_that_reads_like_a_number_stays_a_string",
    ),
    Mutation(
        "a folder grows by a sweep of something else",
        "sweeps/growth.py",
        '{COMPUTATION: combined(digests(same).values()), "versions": description["versions"]}',
        "saved",
        "tests/sweeps/test_growth.py::test_the_same_names_of_another_computation_do_not_grow",
    ),
    Mutation(
        "more steps begin again",
        "sweeps/running.py",
        'watch.kept.restore({"states": states}) if watch.kept is not None else None',
        "None",
        "tests/sweeps/test_growth.py::test_more_steps_go_on_from_the_states_that_were_kept",
    ),
    Mutation(
        "a state that has not diverged says that it has",
        "core/state.py",
        "self.diverged_step != NEVER",
        "self.diverged_step == NEVER",
        "tests/core/test_training.py::test_first_divergence_is_kept",
    ),
    Mutation(
        "a rung begins again",
        "sweeps/pruning.py",
        "keep_states=keeps, origin=origin, reached=reached",
        "keep_states=keeps, origin=None, reached=reached",
        "tests/sweeps/test_halving.py::test_a_rung_goes_on_from_the_states_of_the_one_before_bit_for_bit",
    ),
    Mutation(
        "all brackets prune as early",
        "sweeps/hyperband.py",
        "for power in range(count, -1, -1)",
        "for power in range(num_brackets - 1, -1, -1)",
        "tests/sweeps/test_hyperband.py",
    ),
    Mutation(
        "sweeps of two problems are united",
        "sweeps/shards.py",
        "if not own or any(",
        "if not own or False and any(",
        "tests/sweeps/test_growth.py::test_results_of_different_problems_do_not_unite",
    ),
    Mutation(
        "the last shard leaves the parts apart",
        "sweeps/shards.py",
        "if all(part is not None and part.is_finished for part in held):",
        "if False:",
        "tests/sweeps/test_sweep_folder.py::test_shards_unite_to_the_whole",
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
        "a file that may only be read is forced to the disk",
        "host/files.py",
        'open(temporary, "r+b")',
        'open(temporary, "rb")',
        "tests/host/test_files.py",
    ),
    Mutation(
        "a checkout that is not installed cannot sweep",
        "sweeps/job.py",
        "except importlib.metadata.PackageNotFoundError:",
        "except KeyError:",
        "tests/sweeps/test_job.py::test_a_checkout_that_is_not_installed_has_an_unknown_version",
    ),
    Mutation(
        "a damaged result is read as other numbers",
        "host/files.py",
        "if found and int(found[1], 16) !=",
        "if False and int(found[1], 16) !=",
        "tests/test_faults.py::test_no_damaged_result_is_taken_for_another",
    ),
    Mutation(
        "a damaged model is read as another",
        "networks/classifier.py",
        "if crc32 not in (None, checksum(place, description)):",
        "if False:",
        "tests/networks/test_classifier.py::test_no_damaged_model_is_taken_for_another",
    ),
    Mutation(
        "a saved model is read as one with other fields",
        "networks/classifier.py",
        "if saved != given:",
        "if False:",
        "tests/networks/test_classifier.py::test_a_model_is_read_as_what_it_was_saved_as",
    ),
    Mutation(
        "a user without a home gets no digits",
        "data/loading.py",
        "except RuntimeError:",
        "except KeyError:",
        "tests/data/test_data.py::test_without_a_home_a_folder_in_it_is_named",
    ),
    Mutation(
        "data are downloaded that cannot be prepared",
        "data/preparation.py",
        "_check_array_record(name)\n    try:\n        if name in MNIST_FAMILY",
        "try:\n        if name in MNIST_FAMILY",
        "tests/data/test_preparation.py::test_a_missing_array_record_is_named_before_anything_is_prepared",
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
        "two may hold a folder at once",
        "host/lock.py",
        "fcntl.LOCK_EX |",
        "fcntl.LOCK_SH |",
        "tests/host/test_lock.py::test_others_are_told_who_holds_a_folder_and_nothing_is_left",
    ),
    Mutation(
        "who holds a folder blocks itself",
        "host/lock.py",
        "(place := folder.resolve()) in _held.folders",
        "(place := folder.resolve()) in ()",
        "tests/host/test_lock.py::test_the_holder_may_hold_it_again_by_whatever_name",
    ),
    Mutation(
        "a lock that was removed is taken for the folder's",
        "host/lock.py",
        "if is_locked and _is_at(descriptor, path):",
        "if is_locked:",
        "tests/host/test_lock.py::test_a_file_that_is_removed_as_it_is_locked_is_not_the_lock",
    ),
    Mutation(
        "the lock of the next one is removed",
        "host/lock.py",
        "if is_windows or _is_at(descriptor, path):",
        "if path.exists():",
        "tests/host/test_lock.py::test_a_lock_that_a_person_removed_is_not_taken_from_the_next_one",
    ),
    Mutation(
        "a person's file is taken for a lock",
        "host/lock.py",
        "if not path.is_file() or path.stat().st_size > 0:",
        "if path.is_dir():",
        "tests/host/test_lock.py::test_a_persons_file_of_that_name_stays",
    ),
    Mutation(
        "a link in the place of a lock is followed",
        "host/lock.py",
        'getattr(os, "O_NOFOLLOW", 0)',
        "0",
        "tests/host/test_lock.py::test_a_persons_file_of_that_name_stays",
    ),
    Mutation(
        "a sweep holds no folder",
        "sweeps/sweep.py",
        "with hold(place, means.wait):",
        "with hold(None):",
        "tests/test_foreign_files.py::test_what_trains_keeps_others_out_of_its_folder[sweep]",
    ),
    Mutation(
        "a halving holds its rungs alone",
        "sweeps/pruning.py",
        'hold(folder, options.get("wait", False)):',
        "hold(None):",
        "tests/test_foreign_files.py::test_what_trains_keeps_others_out_of_its_folder[halve]",
    ),
    Mutation(
        "a long run holds no folder",
        "networks/run.py",
        "with hold(folder, wait), ",
        "with hold(None), ",
        "tests/test_foreign_files.py::test_what_trains_keeps_others_out_of_its_folder[train_run]",
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
        "tests/sweeps/test_worker.py::test_a_process_receives_a_job_once_and_compiles_it_once",
    ),
    Mutation(
        "nodes of other versions take part",
        "sweeps/worker.py",
        "if name in found and found[name] != expected[name]]",
        "if name not in found]",
        "tests/sweeps/test_worker.py::test_versions_that_decide_numbers_are_compared",
    ),
    Mutation(
        "the results of two programs in a file are mixed up",
        "sweeps/plan_files.py",
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
    Mutation(
        "a search chooses by test data",
        "sweeps/rounds.py",
        'values[f"validation_{self._metric.name}"]',
        'values[f"test_{self._metric.name}"]',
        "tests/sweeps/test_search.py::test_another_metric_and_its_direction",
    ),
    Mutation(
        "some rounds of a search have no room in the shape of the others",
        "sweeps/layout.py",
        "// length + len(sizes), num_settings)",
        "// length + len(sizes) - 1, num_settings)",
        "tests/sweeps/test_layout.py::test_every_round_has_the_same_shape",
    ),
    Mutation(
        "what a group computes from a batch need not stay in the cache",
        "sweeps/capacity.py",
        'largest = max(state_bytes, activations * int(np.max(job.arrays["batch_size"])))',
        "largest = state_bytes",
        "tests/sweeps/test_capacity.py",
    ),
    Mutation(
        "every round of a search draws with the same seed",
        "sweeps/samplers.py",
        "np.random.SeedSequence([self._seed, round_number])",
        "np.random.SeedSequence([self._seed])",
        "tests/sweeps/test_search.py::test_a_search_is_the_sweep_of_its_settings",
    ),
    Mutation(
        "each report of progress is a line of its own in a notebook",
        "host/display.py",
        "if cell in _LINES:",
        "if cell in ():",
        "tests/test_notebooks.py::test_a_kernel_shows_pictures_and_one_line_of_progress",
    ),
    Mutation(
        "a notebook that uses matplotlib's own formatter draws in another style",
        "plots/style.py",
        """    def _ipython_display_(self) -> None:
        # Comes""",
        """    def _unused(self) -> None:
        # Comes""",
        "tests/test_notebooks.py::test_a_kernel_shows_pictures_and_one_line_of_progress",
    ),
    Mutation(
        "names are taken for HTML",
        "host/display.py",
        "{html.escape(name)}",
        "{name}",
        "tests/host/test_display.py::test_text_is_never_taken_for_html",
    ),
    Mutation(
        "the title of a page is taken for HTML",
        "plots/page.py",
        'html.escape(contents["title"])',
        'contents["title"]',
        "tests/plots/test_page.py::test_text_from_results_stays_text",
    ),
    Mutation(
        "a page shows means over runs that diverged",
        "plots/page_data.py",
        'is_sane = (runs.settings["num_diverged"] == 0).to_numpy()',
        'is_sane = (runs.settings["num_diverged"] >= 0).to_numpy()',
        "tests/plots/test_page.py::test_the_numbers_are_those_of_the_tables",
    ),
    Mutation(
        "a page shows values beyond the end of a curve",
        "plots/page_data.py",
        "np.where(np.isnan(last), -1,",
        "np.where(np.isnan(last), 0,",
        "tests/plots/test_page.py::test_each_amount_of_each_budget_shows_what_at_budget_says",
    ),
    Mutation(
        "a published number counts as inside although its interval lies above ours",
        "studies/published.py",
        "return self.ours.low <= high and low <= self.ours.high",
        "return self.ours.low <= high",
        "tests/studies/test_published.py::test_inside_means_that_theirs_lies_in_our_interval_or_that_the_intervals_meet",
    ),
    Mutation(
        "the time to 99 % is taken with the seeds that never get there",
        "studies/published_speed.py",
        'there = steps.dropna("seed")',
        "there = steps.fillna(LONG_STEPS)",
        "tests/studies/test_published_speed.py::test_the_time_to_a_target_is_of_the_seeds_that_reach_it",
    ),
    Mutation(
        "a model of MNIST-1D is compared after training without the examples held out",
        "studies/published_mnist1d.py",
        'train(with_validation(dataset), sorted({rate, THEIR_RATE}), num_seeds, "trained")',
        'train(dataset, sorted({rate, THEIR_RATE}), num_seeds, "trained")',
        "tests/studies/test_published_tables.py::test_a_rate_is_chosen_on_validation_and_trained_on_all_examples",
    ),
    Mutation(
        "the offset of the weights is added at the beginning alone",
        "studies/fractal.py",
        'params["shift"] - rates[0] * grads["first"]',
        '-rates[0] * grads["first"]',
        "tests/studies/test_fractal.py::test_each_pixel_is_what_the_notebook_computes[offset]",
    ),
    Mutation(
        "local slopes count boxes from a pixel on, unlike the published ones",
        "studies/dimension.py",
        "NUM_LOCAL_SIZES, LEAST_LOCAL_SIZE, MIN_LOCAL_RESOLUTION = 10, 10, 32",
        "NUM_LOCAL_SIZES, LEAST_LOCAL_SIZE, MIN_LOCAL_RESOLUTION = 10, 1, 32",
        "tests/studies/test_dimension.py::test_local_slopes_are_those_of_porespy",
    ),
    Mutation(
        "a page of another origin may read results by a name that leads here",
        "studies/watch.py",
        'self.headers.get("Host") not in self._hosts or answer is None',
        "answer is None",
        "tests/studies/test_watch.py::test_other_names_and_paths_get_nothing",
    ),
    Mutation(
        "a page may run scripts that it was not written with",
        "plots/web/page.html",
        "script-src {{digests}}",
        "script-src 'unsafe-inline' {{digests}}",
        "tests/plots/test_page.py::test_a_page_needs_nothing_else_and_runs_nothing_else",
    ),
    Mutation(
        "jax takes runs for a leaf",
        "sweeps/run_table.py",
        "jax.tree_util.register_pytree_with_keys(RunTable, _with_keys, _from_flat, _flat)",
        "",
        "tests/host/test_display.py::test_runs_are_a_dict_to_all_others",
    ),
    Mutation(
        "the others are not counted when one of them is found better than a setting",
        "analysis/ties.py",
        "p_worse * (num_settings - 1)",
        "p_worse * 1",
        "tests/analysis/test_ties.py",
    ),
    Mutation(
        "what is not told from the best counts as equally good",
        "analysis/ties.py",
        'standing[rivals[found.p_as_good <= SIGNIFICANCE]] = "as good"',
        'standing[rivals[found.p_worse > SIGNIFICANCE]] = "as good"',
        "tests/analysis/test_ties.py",
    ),
    Mutation(
        "the outline does not say that a standing is unclear",
        "plots/panels.py",
        'is_unclear = standing[i, j] == "unclear"',
        "is_unclear = False",
        "tests/plots/test_maps.py::test_settings_as_good_as_the_best_are_outlined_and_dashed_where_that_cannot_be_told",
    ),
    Mutation(
        "a cell of a map shows the worst of its settings",
        "plots/cells.py",
        "np.unique(flat, return_index=True)",
        "len(flat) - 1 - np.array(np.unique(flat[::-1], return_index=True)); held = np.unique(flat)",
        "tests/plots/test_any_axes.py::test_a_cell_has_the_best_of_the_rest_on_validation_whatever_it_shows",
    ),
    Mutation(
        "a stacked selection counts as a grid",
        "analysis/arguments.py",
        "if not stacked and any(own):",
        "if True:",
        "tests/plots/test_any_axes.py::test_a_map_shows_what_xarray_selects",
    ),
    Mutation(
        "a slice leads through any setting of a value",
        "plots/slices.py",
        "_, first = np.unique(found.places(sane[name]), return_index=True)",
        "first = len(sane) - 1 - np.unique(found.places(sane[name])[::-1], return_index=True)[1]",
        "tests/plots/test_slices.py",
    ),
    Mutation(
        "a line of parallel coordinates does not end at its value on the colour bar",
        "plots/parallel.py",
        "ends = (np.clip(ends, low, high) - low) / (high - low)",
        "ends = np.clip(ends, 0, 1)",
        "tests/plots/test_slices.py",
    ),
    Mutation(
        "the upper end of a lead ignores that it is one of several",
        "analysis/ties.py",
        "(1 - CONFIDENCE) / 2 / max(num_settings - 1, 1)",
        "(1 - CONFIDENCE) / 2",
        "tests/analysis/test_ties.py::test_the_lead_over_the_best_of_the_others_has_the_interval_that_it_says",
    ),
    Mutation(
        "settings are tried with replacement",
        "analysis/tuning.py",
        "return np.where(worse >= drawn - 1, np.exp(logarithm - total), 0.0)",
        "return ((worse + 1) / count) ** drawn - (worse / count) ** drawn",
        "tests/analysis/test_tuning.py",
    ),
    Mutation(
        "a setting that diverged is left out of the tries",
        "analysis/tuning.py",
        'return ranked[f"{split}_{metric.name}"].where(ranked["num_diverged"] == 0).to_numpy(float)',
        'return ranked[ranked["num_diverged"] == 0][f"{split}_{metric.name}"].to_numpy(float)',
        "tests/analysis/test_tuning.py",
    ),
    Mutation(
        "an interval is given for the best of all settings",
        "analysis/tuning.py",
        "best[1:, tried > LARGEST_SHARES[statistic] * count] = np.nan",
        "best[1:, tried > count] = np.nan",
        "tests/analysis/test_tuning.py",
    ),
    Mutation(
        "the power of few seeds is that of a normal distribution",
        "analysis/pairs.py",
        "if normal > MAX_EXACT:",
        "if normal > 1:",
        "tests/analysis/test_pairs.py",
    ),
    Mutation(
        "the noise of single runs counts as that of their initial parameters",
        "analysis/variance.py",
        "variance = (squares - noise) / (freedom * each)",
        "variance = squares / (freedom * each)",
        "tests/analysis/test_variance.py",
    ),
    Mutation(
        "the choice is not made again in each bootstrap sample",
        "analysis/optimism.py",
        "(values[0] @ part.T).argmax(axis=0)",
        "np.full(len(part), best)",
        "tests/analysis/test_optimism.py",
    ),
    Mutation(
        "a bootstrap does not divide by the standard errors of its samples",
        "analysis/intervals.py",
        "(resampled.mean(axis=1) - mean) / deviation",
        "(resampled.mean(axis=1) - mean) / values.std(ddof=1)",
        "tests/analysis/test_results.py::test_a_bootstrap_interval_is_studentized",
    ),
    Mutation(
        "seeds are paired in the order in which they were run",
        "analysis/pairs.py",
        "[column[common].to_numpy() for column in columns]",
        "[column.to_numpy()[: len(common)] for column in columns]",
        "tests/plots/test_contrast.py",
    ),
    Mutation(
        "the curve of a seed goes on after it has diverged",
        "analysis/curves.py",
        "np.where(gone | ~np.isfinite(values), np.nan, values)",
        "np.where(~np.isfinite(values), np.nan, values)",
        "tests/plots/test_curves.py::test_a_seed_ends_where_it_diverges_and_the_others_go_on",
    ),
    Mutation(
        "importances are given to other hyperparameters",
        "analysis/importance.py",
        "return np.array([found[name] for name in names], np.float64)",
        "return np.array(list(found.values()), np.float64)",
        "tests/plots/test_importance.py",
    ),
    Mutation(
        "a range of whole numbers lacks its end",
        "studies/command_line.py",
        "range(int(low), int(high) + 1)",
        "range(int(low), int(high))",
        "tests/studies/test_command_line.py::test_what_settings_are_drawn_from",
    ),
    Mutation(
        "the page shows the importance of two hyperparameters",
        "analysis/importance.py",
        "len(names) < MIN_VARIED",
        "len(names) < 2",
        "tests/plots/test_page.py",
    ),
    Mutation(
        "false on the command line is a word",
        "studies/command_line.py",
        """if text.lower() in CONSTANTS""",
        """if text in CONSTANTS""",
        "tests/studies/test_command_line.py::test_values_of_an_axis",
    ),
    Mutation(
        "settings are never drawn log-uniformly",
        "studies/command_line.py",
        """(loguniform if kind == "log" else uniform)""",
        "uniform",
        "tests/studies/test_command_line.py::test_what_settings_are_drawn_from",
    ),
    Mutation(
        "the metric to choose by is not measured",
        "../experiments/common/space_options.py",
        """if self.by == "accuracy" else None""",
        """if self.by == "loss" else None""",
        "tests/experiments/test_axes.py::test_code_of_ones_own_is_trained_and_named_again_to_resume",
    ),
    Mutation(
        "to resume runs code that only a file names",
        "../experiments/common/options.py",
        "        check_typed(default, typed, resumed)\n",
        "",
        "tests/experiments/test_axes.py::test_code_of_ones_own_is_trained_and_named_again_to_resume",
    ),
    Mutation(
        "standard output holds more than the report",
        "../experiments/sweep_grid.py",
        "with apart(options.json):",
        "with apart(False):",
        "tests/experiments/test_axes.py::test_a_report_of_a_dry_run_and_of_an_error",
    ),
    Mutation(
        "a report for programs has the test interval of validation",
        "studies/summary.py",
        """"test": _interval(best.test)""",
        """"test": _interval(best.validation)""",
        "tests/experiments/test_axes.py::test_standard_output_holds_one_report_as_json",
    ),
    Mutation(
        "the ruling of paper is read as ink",
        "networks/ink.py",
        "    ink = without_ruling(contrast, where)\n",
        "    ink = contrast.max(axis=-1)\n",
        "tests/networks/test_paper.py",
    ),
    Mutation(
        "strokes are broken where lines cross them",
        "networks/ruling.py",
        "return np.where(is_line, bridged, left)",
        "return left",
        "tests/networks/test_paper.py",
    ),
    Mutation(
        "a stroke that ends on the paper is taken for a line of it",
        "networks/ruling.py",
        ">= 0.5)",
        ">= 0)",
        "tests/networks/test_paper.py",
    ),
    Mutation(
        "digits of a row are in the order of their heights",
        "networks/digits.py",
        "return sorted(digits, key=lambda digit: digit.left + digit.right)",
        "return digits",
        "tests/networks/test_paper.py",
    ),
    Mutation(
        "of several digits, the first is read without a word",
        "networks/pictures.py",
        "if len(digits) > 1:",
        "if len(digits) > 9:",
        "tests/networks/test_paper.py",
    ),
    Mutation(
        "noise on an empty page is read as a digit",
        "networks/ink.py",
        ">= faintest)",
        ">= 0)",
        "tests/networks/test_paper.py",
    ),
    Mutation(
        "a recipe that is cut short is compared with the published number",
        "studies/published_recipes.py",
        "recipe.theirs if is_whole else None",
        "recipe.theirs",
        "tests/studies/test_published_recipes.py::test_fewer_steps_are_not_compared",
    ),
    Mutation(
        "a recipe without validation of its own trains on fewer examples",
        "studies/published_recipes.py",
        "dataset if recipe.has_validation else with_validation(dataset)",
        "dataset",
        "tests/studies/test_published_recipes.py::"
        "test_without_validation_of_its_own_a_recipe_trains_on_those_examples_as_well",
    ),
    Mutation(
        "the gradients of windows add up",
        "studies/published_noise.py",
        "jnp.where(is_end, 0, leaf)",
        "leaf",
        "tests/studies/test_published_noise.py::test_windows_hold_the_norms_of_their_mean_and_last_gradients",
    ),
    Mutation(
        "the mean noise scale is that of all steps, also after the target",
        "studies/published_noise.py",
        "noise.loc[:step].mean()",
        "noise.mean()",
        "tests/studies/test_published_noise.py::"
        "test_rows_set_critical_batch_sizes_beside_noise_scales_of_the_largest_batch",
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
        # They compile as fast tests do, even if a slow one starts them.
        environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
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
