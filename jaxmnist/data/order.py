"""The order of examples: one permutation per epoch, decided by the seed alone.

Shapes: N images of a split, B examples of a batch.
"""

import functools
import itertools
from collections.abc import Iterator

import numpy as np

from jaxmnist import checks
from jaxmnist.data.dataset import MAX_EXAMPLES, Split, check_split


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
      ValueError: a number is no whole one, or out of range.
    """
    checks.whole("num_examples", num_examples, 1, MAX_EXAMPLES, "2**31 - 1")
    checks.seed(seed)
    checks.whole("length", length, 0, MAX_EXAMPLES, "2**31 - 1")
    checks.whole("start", start, 0)
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


def batches(split: Split, batch_size: int, seed: int = 0) -> Iterator[Split]:
    """Yields, without end, the very batches that a run of this batch size and seed trains on, in its order.

    A batch that reaches the end of an epoch goes on into the next.

    Args:
      split: the training split.
      batch_size: B, from 1 to N.
      seed: the run's seed.

    Raises:
      ValueError: the batch size is not in that range, the seed is none, or there is no split.
    """
    check_split("split", split)
    num_examples = len(split.labels)
    if not checks.is_whole(batch_size) or not 1 <= batch_size <= num_examples:
        raise ValueError(
            f"batch_size {checks.shown(batch_size)} is not between 1 and the {num_examples} training images"
        )
    checks.seed(seed)
    orders = (example_order(num_examples, seed, batch_size, step * batch_size) for step in itertools.count())
    return (Split(split.images[rows], split.labels[rows]) for rows in orders)
