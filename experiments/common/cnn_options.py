"""The options of experiments/train_cnn.py, which of them go together, and what is built from them."""

import dataclasses
import math
from pathlib import Path
from typing import Annotated, Literal

import optax
import tyro

import jaxmnist as jm
from jaxmnist.studies import report

from .cnn_presets import PRESETS
from .config import OPTIONS_OF_ONE_CALL
from .options import DEFAULT_MOMENTUM, RunOptions

MAX_MEMBERS, MAX_FEATURES, MAX_HIDDEN_SIZE = 1000, 2**12, 2**16
# Option -> the option on which its use depends, and the values with which it is used.
USERS = {
    keyword: ("optimizer", tuple(name for name, keywords in jm.optimizers.KEYWORDS.items() if keyword in keywords))
    for keyword in ("momentum", "b1", "b2", "eps", "weight_decay")
} | dict.fromkeys(("warmup", "final_div"), ("schedule", ("one_cycle",)))
# Named elsewhere in the report, or without influence on what is trained.
NOT_OF_THE_RECIPE = OPTIONS_OF_ONE_CALL | {
    "preset", "dataset", "data_dir", "members", "seed", "batch_size", "num_steps", "num_epochs", "evaluation_steps",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Options(RunOptions):
    preset: Literal["original", "tutorial", "best"] = "original"
    """Sets the defaults of the other options; --help together with --preset shows them."""
    members: int = 1
    """Number of seeds to train, one after another; the ensemble is the mean of their probabilities."""
    seed: int = 0
    """Seed of initial parameters, dropout, augmentation and order of examples; further members use the next seeds."""
    features: tuple[int, ...] = (32, 64)
    """Output channels of each convolution."""
    kernel_sizes: tuple[int, ...] = (5, 5)
    """Height and width of each convolution's kernel, odd, in pixels."""
    pool_after: tuple[int, ...] = (1, 2)
    """Convolutions, counted from 1, that are followed by 2x2 max pooling."""
    hidden_size: int = 1024
    """Units of the hidden layer; 0 for none."""
    dropout_rate: float = 0.5
    """Share of the last layer's inputs that are dropped in training, in [0, 1)."""
    standardised: bool = False
    """Standardise the convolutions' kernels (weight standardisation, instead of batch normalisation)."""
    init_std: float = 0.1
    """Standard deviation of the initial weights, normal and truncated at two standard deviations."""
    init_bias: float = 0.1
    """Initial value of all biases."""
    rotation: float = 0.0
    """Augmentation: largest rotation, in degrees."""
    scale: float = 0.0
    """Augmentation: largest logarithm of the scale."""
    shift: float = 0.0
    """Augmentation: largest shift, in pixels."""
    optimizer: Literal["sgd", "momentum", "adam", "adamw"] = "adam"
    """Optimizer from optax; momentum is SGD with momentum."""
    momentum: float = DEFAULT_MOMENTUM
    """Momentum, in [0, 1); used by --optimizer momentum only."""
    b1: float = 0.9
    """Decay rate of the mean of gradients, in [0, 1); used by --optimizer adam and adamw."""
    b2: float = 0.999
    """Decay rate of the mean of squared gradients, in [0, 1); used by --optimizer adam and adamw."""
    eps: float = 1e-8
    """Added to the root of that mean; used by --optimizer adam and adamw."""
    weight_decay: float = 0.0
    """Weight decay of the kernels; used by --optimizer adamw."""
    schedule: Literal["constant", "one_cycle"] = "constant"
    """Schedule of the learning rate; one_cycle rises to it from a 25th of it, then falls to nearly 0, along cosines."""
    warmup: float = 0.2
    """Share of the steps in which one_cycle rises, in [0, 1)."""
    final_div: float = 1e3
    """Decides where one_cycle ends: at learning_rate / 25 / final_div."""
    learning_rate: float = 1e-4
    """Learning rate; with a schedule, the highest one."""
    batch_size: int = 50
    """Batch size, in examples."""
    num_steps: int = 200
    """Training steps."""
    num_epochs: Annotated[float | None, tyro.conf.arg(metavar="FLOAT")] = None
    """Passes through the training images; replaces --num-steps."""
    evaluation_steps: int = 100
    """Steps between evaluations on the validation split and on the next training batch."""
    output_dir: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("results/train_cnn")
    """Folder for config.json, metrics.csv, predictions.npz, checkpoints, the model and the figures."""

    def seeds(self) -> range:
        """Returns the seeds of the ensemble."""
        return range(self.seed, self.seed + self.members)

    def recipe(self) -> str:
        """Returns the preset, and the options that differ from it, in words."""
        preset = Options(preset=self.preset, **PRESETS[self.preset])
        values = {name: value for name, value in vars(self).items() if name not in NOT_OF_THE_RECIPE}
        return report.recipe(
            self.preset, {name: value for name, value in values.items() if value != getattr(preset, name)}
        )


def check(options: Options) -> None:
    """Raises ValueError if an option by itself, or two together, make no sense."""
    depth = len(options.features)
    limits: dict[str, tuple[bool, str]] = {
        "members": (1 <= options.members <= MAX_MEMBERS, f"from 1 to {MAX_MEMBERS}"),
        "seed": (
            0 <= options.seed <= jm.limits.MAX_SEED + 1 - options.members,
            "from 0 on, and no member's above 2**31 - 1",
        ),
        "features": (
            1 <= depth <= jm.limits.MAX_LAYERS and all(1 <= count <= MAX_FEATURES for count in options.features),
            f"1 to {jm.limits.MAX_LAYERS} numbers, each from 1 to {MAX_FEATURES}",
        ),
        "kernel_sizes": (
            len(options.kernel_sizes) == depth and all(size % 2 and 1 <= size <= 99 for size in options.kernel_sizes),
            f"{depth} odd numbers from 1 to 99, one for each of features",
        ),
        "pool_after": (set(options.pool_after) <= set(range(1, depth + 1)), f"numbers from 1 to {depth}"),
        "hidden_size": (0 <= options.hidden_size <= MAX_HIDDEN_SIZE, f"from 1 to {MAX_HIDDEN_SIZE}, or 0 for none"),
        "dropout_rate": (0 <= options.dropout_rate < 1, "in [0, 1)"),
        "init_std": (0 < options.init_std < math.inf, "above 0"),
        "init_bias": (math.isfinite(options.init_bias), "a finite number"),
        "rotation": (0 <= options.rotation <= 180, "in [0, 180]"),
        "scale": (0 <= options.scale <= 1, "in [0, 1]"),
        "shift": (0 <= options.shift <= 28, "in [0, 28]"),
        "momentum": (0 <= options.momentum < 1, "in [0, 1)"),
        "b1": (0 <= options.b1 < 1, "in [0, 1)"),
        "b2": (0 <= options.b2 < 1, "in [0, 1)"),
        "eps": (0 < options.eps < math.inf, "above 0"),
        "weight_decay": (0 <= options.weight_decay < math.inf, "0 or more"),
        "learning_rate": (0 < options.learning_rate < math.inf, "above 0"),
        "warmup": (0 <= options.warmup < 1, "in [0, 1)"),
        "final_div": (0 < options.final_div < math.inf, "above 0"),
        "batch_size": (options.batch_size >= 1, "at least 1"),
        "num_steps": (1 <= options.num_steps <= jm.limits.MAX_STEPS, "from 1 to 2**31 - 1"),
        "num_epochs": (options.num_epochs is None or 0 < options.num_epochs < math.inf, "above 0"),
        "evaluation_steps": (options.evaluation_steps >= 1, "at least 1"),
    }
    for name, (is_right, allowed) in limits.items():
        if not is_right:
            raise ValueError(f"{name} is {getattr(options, name)}; allowed: {allowed}")
    for name, (option, users) in USERS.items():
        default = getattr(Options, name)
        if getattr(options, name) != default and getattr(options, option) not in users:
            raise ValueError(
                f"{name} is {getattr(options, name)}, but only --{option} {' or '.join(users)} uses it; "
                f"allowed with {getattr(options, option)}: {default}"
            )


def build(options: Options, dataset: jm.Dataset) -> tuple[jm.CNN, optax.GradientTransformation, int]:
    """Returns the model, the optimizer and the number of steps.

    Raises:
      ValueError: they do not fit the data set.
    """
    height, width = dataset.train.inputs.shape[1:3]
    if min(height, width) < 2 ** len(set(options.pool_after)):
        raise ValueError(
            f"pool_after is {options.pool_after}; halved that often, images of {height} x {width} pixels have none left"
        )
    names = {field.name for field in dataclasses.fields(jm.CNN)}
    given = {name: value for name, value in vars(options).items() if name in names}
    model = jm.CNN(**given, num_classes=len(dataset.class_names))
    num_steps = steps(options, len(dataset.train.targets))
    learning_rate: optax.ScalarOrSchedule = options.learning_rate
    if options.schedule == "one_cycle":
        warmup_steps, end = int(options.warmup * num_steps), options.learning_rate / 25 / options.final_div
        learning_rate = jm.schedules.one_cycle(options.learning_rate, num_steps, warmup_steps, end=end)
    return model, jm.optimizers.from_settings(options.optimizer, learning_rate, vars(options)), num_steps


def steps(options: Options, num_train: int) -> int:
    """Returns the number of steps, from the number of epochs if that is given.

    Raises:
      ValueError: there are too many steps.
    """
    if options.num_epochs is None:
        return options.num_steps
    wanted = options.num_epochs * num_train / options.batch_size
    if not wanted <= jm.limits.MAX_STEPS:
        raise ValueError(f"num_epochs is {options.num_epochs:g}, which is {wanted:g} steps; allowed: 2**31 - 1 steps")
    return max(round(wanted), 1)
