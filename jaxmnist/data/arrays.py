"""A data set of one's own arrays.

Shapes: N examples.
"""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from jaxmnist.checks import SEED, STRING, Number, Optional, Strings, Where, checked_by, shown
from jaxmnist.data.dataset import DataError, Dataset, Split

MAX_WHOLE = 2**31 - 1
SHARE = Number("a number above 0 and below 1", lambda share: 0 < share < 1)
ANY_ARRAY = Where("an array, a DataFrame or a sequence of numbers", lambda value: value is not None)


def _check_shares(given: SimpleNamespace) -> None:
    if given.validation + given.test >= 1:
        raise ValueError(f"validation is {given.validation} and test is {given.test}; together they are below 1")


@checked_by(
    _check_shares, inputs=ANY_ARRAY, targets=ANY_ARRAY, name=STRING, validation=SHARE, test=SHARE, seed=SEED,
    class_names=Optional(Strings()),
)  # fmt: skip
def from_arrays(
    inputs: Any,
    targets: Any,
    *,
    name: str = "mine",
    validation: float = 1 / 12,
    test: float = 1 / 6,
    seed: int = 0,
    class_names: Sequence[str] | None = None,
) -> Dataset:
    """Returns a data set of one's own examples, shuffled and divided into three splits.

    Args:
      inputs: `[N, ...]` numbers of any shape and type: an array of numpy or jax, a DataFrame, or nested lists. uint8 is
        scaled to [0, 1] for the model, booleans are 0 and 1, and all others are given to it as they are.
      targets: `[N, ...]` numbers; whole ones `[N]` from 0 on are labels.
      name: what results call the data set.
      validation: the share of the examples to choose by.
      test: the share of the examples that choose nothing.
      seed: decides which examples they are.
      class_names: K names of labels; default `"0"`, `"1"`, ...

    Raises:
      DataError: lengths differ, there are values that are no finite numbers, or a split would be empty.
      ValueError: another argument is not as described above.
    """
    inputs, targets = _numbers("inputs", inputs), _numbers("targets", targets)
    if len(inputs) != len(targets):
        raise DataError(f"inputs are {len(inputs)} examples and targets {len(targets)}; each example has both")
    is_label = targets.ndim == 1 and targets.dtype.kind in "iu" and targets.min() >= 0
    if is_label:
        targets = targets.astype(np.int32)
        class_names = [str(label) for label in range(int(targets.max()) + 1)] if class_names is None else class_names
        if targets.max() >= len(class_names):
            given = f"class_names are {shown(list(class_names))}"
            raise DataError(f"{given}; {targets.max() + 1} names are needed for labels from 0 to {targets.max()}")
    elif class_names is not None:
        raise DataError(f"class_names are given, and targets are {shown(targets)}; labels [N] from 0 on are needed")
    num_examples = len(targets)
    order = np.random.default_rng(seed).permutation(num_examples)
    num_validation, num_test = round(validation * num_examples), round(test * num_examples)
    num_train = num_examples - num_validation - num_test
    if min(num_train, num_validation, num_test) < 1:
        raise DataError(
            f"validation is {validation:.3g} and test is {test:.3g} of {num_examples} examples, which makes splits of "
            f"{num_train}, {num_validation} and {num_test}; each needs one example"
        )
    ends = num_train, num_train + num_validation
    splits = zip(np.split(inputs[order], ends), np.split(targets[order], ends), strict=True)
    return Dataset(name, tuple(class_names or ()), *(Split(*each) for each in splits))


def _numbers(name: str, given: Any) -> np.ndarray:
    """Returns an array `[N, ...]` of finite numbers."""
    if np.ma.is_masked(given):
        place = ", ".join(map(str, np.argwhere(np.ma.getmaskarray(given))[0]))
        raise DataError(f"{name} are masked at [{place}]; fill them or leave these examples out")
    try:
        array = np.asarray(given)
    except ValueError:
        raise DataError(f"{name} have rows of different lengths; an array [N, ...] of numbers is needed") from None
    if array.dtype.kind not in "buif" or array.ndim == 0 or 0 in array.shape:
        raise DataError(f"{name} are {array.dtype} of shape {array.shape}; an array [N, ...] of numbers is needed")
    if array.dtype.kind in "iu" and not -MAX_WHOLE - 1 <= array.min() <= array.max() <= MAX_WHOLE:
        raise DataError(f"{name} are whole numbers from {array.min()} to {array.max()}; 32 bits hold them in training")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        place = ", ".join(map(str, np.argwhere(~np.isfinite(array))[0]))
        raise DataError(f"{name} hold a value that is not finite, at [{place}]; fill it or leave its example out")
    return array
