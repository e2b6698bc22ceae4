"""Folders of interrupted sweeps from strangers: nothing in them is executed, and no other runs are trained."""

import numpy as np
import optax
import pytest
from test_untrusted_files import assert_refused, pickled

import jaxmnist as jm
from jaxmnist.host import files
from jaxmnist.sweeps import folder, planning


class InterruptionError(Exception):
    pass


@pytest.fixture
def interrupted(tiny, tmp_path, monkeypatch):
    """A function that goes on with an interrupted sweep, and its folder."""

    def interrupt(self, finished):
        raise InterruptionError

    def sweep():
        runs = jm.grid(learning_rate=[0.1, 0.2], batch_size=4, seed=[0, 1])
        return jm.sweep(jm.SoftmaxRegression(4), optax.sgd, runs, tiny, num_steps=2, progress=False, folder=tmp_path)

    with monkeypatch.context() as context:
        context.setattr(folder.SweepFolder, "finish", interrupt)
        with pytest.raises(InterruptionError):
            sweep()
    return sweep, tmp_path / folder.FOLDER


@pytest.mark.parametrize(
    "name",
    [*planning.Program._fields, "num_sizes", "num_groups", "num_runs"],
)
def test_a_plan_that_trains_other_runs_is_refused(interrupted, name):
    sweep, folder = interrupted
    arrays = files.read_arrays((folder / "plan.npz").read_bytes())
    wrong = np.array(['[["x", 1]]']) if name == "static" else arrays[name] * 0
    files.write_arrays(folder / "plan.npz", arrays | {name: wrong})
    assert_refused(sweep, "cannot be read")


def test_outcomes_and_plans_from_strangers_hold_numbers_alone(interrupted):
    sweep, folder = interrupted
    trace = folder / "trace"
    names = {files.NAMES: np.array(["programs", "validation_loss"]), "programs": np.zeros(1, int)}
    np.savez(folder / "000000.npz", allow_pickle=True, **names, validation_loss=pickled(trace))
    whole = sweep()
    assert np.isfinite(whole["validation_loss"]).all() and not trace.exists()


@pytest.mark.parametrize("shape", [(1, 1), (7, 7), (5,)])
@pytest.mark.parametrize("programs", [np.array([0]), np.array([-1]), np.array([0, 0]), np.array("x"), np.zeros((1, 1))])
def test_an_outcome_of_another_shape_or_program_is_trained_again(interrupted, shape, programs):
    sweep, folder = interrupted
    names = ("validation_accuracy", "validation_loss", "test_accuracy", "test_loss", "diverged_step")
    given = {"programs": programs} | dict.fromkeys(names, np.zeros(shape, np.float32))
    files.write_arrays(folder / "000000.npz", given)
    assert (sweep()["validation_loss"] > 0).all()


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "{", "9" * 5000])
def test_a_sweep_description_that_is_no_json_object_is_refused(interrupted, text):
    sweep, folder = interrupted
    (folder / "sweep.json").write_text(text)
    assert_refused(sweep, "cannot be read")
