"""A result of a grid, with all curves and attributes that `sweep` gives it."""

import functools

import numpy as np

import jaxmnist as jm
from jaxmnist.analysis import results

RATES, SIZES, SEEDS, STEPS = [0.1, 0.2, 0.4], [8, 16, 32], [0, 1, 2], [0, 5, 10]
SPLITS, METRICS = ("train", "validation", "test"), ("accuracy", "loss")


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
