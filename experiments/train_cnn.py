"""Trains the original notebook's convolutional network, on the same `fit` as everything else.

Two 5x5 convolutions with pooling, a hidden layer with dropout, Adam. Prints the training accuracy (of the next batch,
dropout off) every 100 steps, and the accuracy on all test images at the end. Writes metrics.csv and config.json.
Nothing is chosen here, so no validation is looked at.

The notebook passed the arguments of its initialiser in the wrong places, which gave weights of standard deviation 1 and
biases of 0; `--init-std 1 --init-bias 0` does the same.
"""

import csv
import dataclasses
import io
import itertools
import json
from pathlib import Path
from typing import Annotated

import common
import jax
import jax.numpy as jnp
import optax
import tyro

import jaxmnist as jm
from jaxmnist.files import write_atomically
from jaxmnist.progress import progress_bar
from jaxmnist.sweep import segments

STEPS_PER_REPORT = 100
STEPS_PER_SEGMENT = 10


@dataclasses.dataclass(frozen=True)
class Options(common.DataOptions):
    features: tuple[int, ...] = (32, 64)
    """Output channels of each 5x5 convolution."""
    hidden_size: int = 1024
    """Units of the hidden layer."""
    dropout_rate: float = 0.5
    """Share of the hidden units dropped in training, in [0, 1)."""
    init_std: float = 0.1
    """Standard deviation of the initial weights' normal, which is cut at two of them."""
    init_bias: float = 0.1
    """Initial biases."""
    learning_rate: float = 1e-4
    """Learning rate of Adam."""
    batch_size: int = 50
    """Batch size, in examples."""
    num_steps: int = 200
    """Training steps."""
    seed: int = 0
    """Seed of the initial parameters, of dropout and of the order of examples."""
    output_dir: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("results/train_cnn")
    """Folder for metrics.csv and config.json."""


def main() -> None:
    options = common.parse(Options, __doc__, {})
    with common.usage_errors():
        if not options.features or min(*options.features, options.hidden_size) < 1:
            raise ValueError(f"features {options.features} and hidden_size {options.hidden_size} are at least 1 each")
        if not 0 <= options.dropout_rate < 1:
            raise ValueError(f"dropout_rate is {options.dropout_rate}; it lies in [0, 1)")
        runs = jm.grid(learning_rate=options.learning_rate, batch_size=options.batch_size, seed=options.seed)
        common.make_output_dir(options.output_dir)
        dataset = options.load()
        model = jm.CNN(
            features=options.features,
            hidden_size=options.hidden_size,
            dropout_rate=options.dropout_rate,
            init_std=options.init_std,
            init_bias=options.init_bias,
            num_classes=len(dataset.class_names),
        )
        jm.check(model, optax.adam, runs, dataset, options.num_steps, 1)
    config = dataclasses.asdict(options) | {"dataset": dataset.name, "data_dir": None}
    save_text(options.output_dir / "config.json", json.dumps(config, indent=2, default=str) + "\n")
    params = train(options, model, dataset)
    evaluate = jax.jit(jm.evaluate, static_argnums=0)
    accuracy = float(evaluate(model, params, jax.device_put(dataset.test)).accuracy)
    num_images = len(dataset.test.labels)
    _, low, high, _ = jm.interval([accuracy], num_images)
    print(f"test accuracy {accuracy:.4f} [{low:.4f}, {high:.4f}] on {num_images} images")


def train(options: Options, model: jm.CNN, dataset: jm.Dataset) -> optax.Params:
    """Returns the trained parameters; reports and saves the training accuracy on its way."""
    optimizer = optax.adam(options.learning_rate)
    fit = jax.jit(jm.fit, static_argnums=(0, 1, 5), static_argnames="num_steps", donate_argnums=2)
    accuracy = jax.jit(jm.evaluate, static_argnums=0)
    split, batch_size = jax.device_put(dataset.train), options.batch_size
    order = jm.example_order(len(dataset.train.labels), options.seed, (options.num_steps + 1) * batch_size)
    state = jm.init_state(model, optimizer, options.seed, dataset.train.images)
    boundaries, _ = segments(options.num_steps, max(options.num_steps // STEPS_PER_SEGMENT, 1))
    rows: list[dict] = []
    with progress_bar("training", options.num_steps) as show:
        for start, stop in itertools.pairwise([*boundaries, options.num_steps]):
            if start % STEPS_PER_REPORT == 0 or start == options.num_steps:
                batch = order[start * batch_size : (start + 1) * batch_size]
                metrics = accuracy(model, state.params, jm.Split(*(field[batch] for field in dataset.train)))
                rows.append(
                    {"step": start, "training_accuracy": f"{metrics.accuracy:.4f}", "loss": f"{metrics.loss:.5f}"}
                )
                print(f"step {start}, training accuracy {rows[-1]['training_accuracy']}", flush=True)
                save_metrics(options.output_dir / "metrics.csv", rows)
            if start < stop:
                window = jnp.asarray(order[start * batch_size : stop * batch_size])
                state, losses = fit(model, optimizer, state, split, window, batch_size, num_steps=stop - start)
                show(stop, f"step {stop}/{options.num_steps}, loss {losses[-1]:.4f}")
    return state.params


def save_metrics(path: Path, rows: list[dict]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    save_text(path, text.getvalue())


def save_text(path: Path, text: str) -> None:
    write_atomically(path, lambda passing: Path(passing).write_text(text))


if __name__ == "__main__":
    common.main(main)
