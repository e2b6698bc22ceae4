"""The order of examples: one permutation per epoch, decided by seed and epoch alone.

Shapes: N images of a split, B examples of a batch.
"""

import functools
import itertools
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np

from jaxmnist.checks import SEED, Whole, checked_by
from jaxmnist.data.dataset import MAX_EXAMPLES, SPLIT, Split

# What decides the draws of a run: `seed` all of them, unless `init_seed` decides the initial parameters and what is
# drawn in training, or `order_seed` the order of examples.
SEEDS = frozenset({"seed", "init_seed", "order_seed"})


@checked_by(
    num_examples=Whole(1, MAX_EXAMPLES, "2**31 - 1"), seed=SEED, length=Whole(0, MAX_EXAMPLES, "2**31 - 1"),
    start=Whole(0),
)  # fmt: skip
def example_order(num_examples: int, seed: int, length: int, start: int = 0) -> np.ndarray:
    """Returns `length` examples of a seed's order: one permutation per epoch, one after another.

    Args:
      num_examples: N, size of the training split.
      seed: decides the order, together with the epoch alone.
      length: how many examples are needed; any number of epochs.
      start: the place in the order of the first of them.

    Returns:
      `[length]` int32 in `[0, N)`.

    Raises:
      ValueError: a number is not a whole number, or out of range.
    """
    # Of numpy's 32 bits, sums could be beyond them.
    num_examples, seed, length, start = int(num_examples), int(seed), int(length), int(start)
    first, offset = divmod(start, num_examples)
    last = -(-(start + length) // num_examples)
    epochs = [_permutation(num_examples, seed, epoch) for epoch in range(first, last)]
    return np.concatenate([*epochs, np.empty(0, np.int32)])[offset : offset + length]


@functools.lru_cache(maxsize=256)
def _permutation(num_examples: int, seed: int, epoch: int) -> np.ndarray:
    # On CPU, numpy's permutation is 30 times cheaper than jax.random's, which sorts twice.
    order = np.random.default_rng([seed, epoch]).permutation(num_examples).astype(np.int32)
    order.setflags(write=False)
    return order


def _check_batches(given: SimpleNamespace) -> None:
    num_examples = len(given.split.targets)
    Whole(1, num_examples, f"the {num_examples} training images").check("batch_size", given.batch_size)


@checked_by(_check_batches, split=SPLIT, batch_size=Whole(1), seed=SEED)
def batches(split: Split, batch_size: int, seed: int = 0) -> Iterator[Split]:
    """Yields, without end, the very batches that a run of this batch size and seed trains on, in its order.

    A batch that reaches the end of an epoch continues into the next.

    Args:
      split: the training split.
      batch_size: B, from 1 to N.
      seed: the run's seed.

    Raises:
      ValueError: an argument is not as described above.
    """
    num_examples = len(split.targets)
    orders = (example_order(num_examples, seed, batch_size, step * batch_size) for step in itertools.count())
    return (Split(split.inputs[rows], split.targets[rows]) for rows in orders)
