"""A result of a grid, with all curves and attributes that `sweep` gives it."""

import functools

import numpy as np

import jaxmnist as jm
from jaxmnist.analysis import results

RATES, SIZES, SEEDS, STEPS = [0.1, 0.2, 0.4], [8, 16, 32], [0, 1, 2], [0, 5, 10]
SPLITS, METRICS = ("train", "validation", "test"), ("accuracy", "loss")


# The settings of `make_regression` that are best, in the order of the grid, three sizes for each rate.
LEAST_LOSS, MOST_LOSS, LEAST_MAE, MOST_MAE = 4, 0, 7, 2


@functools.cache
def make_regression():
    """Returns a result of a grid without an accuracy, whose metrics `mae` and `loss` disagree on which is best."""
    runs = jm.grid(learning_rate=RATES, batch_size=SIZES, seed=SEEDS)
    loss, mae = np.linspace(1, 2, 9), np.linspace(3, 4, 9)
    loss[[LEAST_LOSS, MOST_LOSS]], mae[[LEAST_MAE, MOST_MAE]] = (0.5, 8.0), (1.0, 9.0)
    spread = np.array([-0.01, 0.002, 0.008])
    values = {"diverged_step": np.full(27, np.nan)}
    for name, means in (("mae", mae), ("loss", loss)):
        final = np.ravel(means[:, None] * (1 + spread))
        values |= {f"validation_{name}": final, f"test_{name}": 1.1 * final}
        for split in SPLITS:
            values[f"recorded_{split}_{name}"] = final[:, None] * np.array([3.0, 2.0, 1.0])
    attributes = dict(
        dataset="noisy", num_train=47, num_validation=13, num_test=23, num_classes=0, num_steps=10, num_evaluations=2,
        budget="equal steps: 10", model="Dense(1)", optimizer="sgd", num_runs=27, loss="squared_error",
        metrics="mae loss", record="train validation test",
    )  # fmt: skip
    return results.label(runs, values, STEPS, attributes)


@functools.cache
def make_result():
    """Returns a result of a grid, with all curves and attributes that `sweep` gives it."""
    runs = jm.grid(learning_rate=RATES, batch_size=SIZES, seed=SEEDS)
    generator = np.random.default_rng(0)
    accuracy = np.sort(generator.uniform(0.1, 0.9, (27, 3)), axis=1)
    values = {"validation_accuracy": accuracy[:, -1], "test_accuracy": accuracy[:, -1] * 0.9}
    values |= {"validation_loss": 1 - accuracy[:, -1], "test_loss": 1.1 - accuracy[:, -1]}
    values["diverged_step"] = np.full(27, np.nan)
    for split in SPLITS:
        values[f"recorded_{split}_accuracy"] = accuracy
        values[f"recorded_{split}_loss"] = 1 - accuracy
    attributes = dict(
        dataset="tiny", num_train=47, num_validation=13, num_test=23, num_classes=4, num_steps=10, num_evaluations=2,
        budget="equal steps: 10", model="SoftmaxRegression(num_classes=4)", optimizer="sgd", num_runs=27,
        model_fields='{"num_classes": 4}', record="train validation test",
    )  # fmt: skip
    return results.label(runs, values, STEPS, attributes)
