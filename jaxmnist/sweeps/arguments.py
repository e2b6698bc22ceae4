"""What the functions of sweeps accept, as data."""

import math
from collections.abc import Sequence

from jaxmnist.checks import (
    FUNCTION,
    PATH,
    Choices,
    Kind,
    Number,
    Optional,
    Where,
    Whole,
    is_mapping,
    is_number,
    is_whole,
)
from jaxmnist.core.arguments import AUGMENTATION, DTYPE, METRICS, UNCONFIGURED
from jaxmnist.data.dataset import DATASET, SPLIT_NAMES
from jaxmnist.limits import MAX_STEPS

RUNS = Where("a mapping of names to arrays, from grid, sample or union,", is_mapping)
NUM_STEPS = Whole(1, MAX_STEPS, "2**31 - 1")
MEMORY = Optional(Number("a number of bytes above 0", lambda value: value > 0))
CLUSTER = Optional(Where("the address of a cluster, or 'local',", lambda value: isinstance(value, str) and bool(value)))


def _are_resources(value: object) -> bool:
    amounts = value.values() if is_mapping(value) else ()
    return any(amounts) and all(is_number(each) and 0 <= each < math.inf for each in amounts)


RESOURCES = Optional(
    Where("a mapping of resources to amounts from 0 on, such as {'CPU': 4, 'GPU': 1}, not all 0,", _are_resources)
)
# At least 1, perhaps infinite.
LIMIT = Where(
    "a number from 1 on",
    lambda value: (is_number(value) and value >= 1) or (isinstance(value, float) and value == math.inf),
)


def _is_shard(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(map(is_whole, value)) and 1 <= value[0] <= value[1]


SHARD = Optional(Where("two whole numbers (i, n), i from 1 to n,", _is_shard))
OPTIMIZER = Where(
    "a function of hyperparameters that returns a gradient transformation, such as optax.sgd and not optax.sgd(0.1),",
    callable,
)
# What every function that trains runs accepts.
TRAINED: dict[str, Kind] = dict(
    model=UNCONFIGURED, optimizer=OPTIMIZER, runs=RUNS, dataset=DATASET, num_steps=NUM_STEPS, loss=FUNCTION,
    metrics=METRICS, augment=AUGMENTATION, evaluation_params=FUNCTION, dtype=DTYPE,
)  # fmt: skip
RECORD = Optional(Choices(SPLIT_NAMES, least=0))
FOLDER = Optional(PATH)


def check_evaluations(given) -> None:
    """Raises ValueError if there are more evaluations than steps."""
    most = int(given.num_steps)
    Whole(1, most, f"num_steps, {most},").check("num_evaluations", given.num_evaluations)


def recorded_splits(record: Sequence[str] | None, num_evaluations: int) -> tuple[str, ...]:
    """Returns the splits whose evaluations along training are recorded, given what was asked for."""
    if record is None:
        return ("validation",) if num_evaluations != 1 else ()
    return tuple(record)
