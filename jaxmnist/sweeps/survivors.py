"""Where the runs of a program train once some of them have ended: those that go on, side by side.

Groups whose runs have all ended take no time. Runs that share their batches may change places, and compute the same.

Shapes: G groups of a program, P runs of a group.
"""

import math
from collections import defaultdict

import numpy as np

from jaxmnist.sweeps.planning import Program


def places(program: Program, ended: np.ndarray, num_devices: int) -> np.ndarray | None:
    """Returns from where the run of each place comes, so that fewer groups have runs that go on.

    Such groups are spread evenly over the devices.

    Args:
      program: the program, whose groups are divisible by the number of devices.
      ended: `[G, P]` bool, which runs have ended.
      num_devices: each has as many neighbouring groups.

    Returns:
      `[G, P]` int32, or None if no other places would leave more groups without runs that go on.
    """
    if not ended.any():
        return None
    groups_of = defaultdict(list)
    for group, stream in enumerate(zip(program.batch_size.tolist(), program.seed.tolist(), strict=True)):
        groups_of[stream].append(group)
    share = len(ended) // num_devices
    found = np.arange(ended.size, dtype=np.int32).reshape(ended.shape)
    num_first = 0
    for groups in groups_of.values():
        # In turns over the devices; the next stream begins where this one has the last of the runs that go on.
        groups = sorted(groups, key=lambda group: (group % share, (group // share - num_first) % num_devices))
        order = np.argsort(ended[groups], axis=None, kind="stable")
        found[groups] = found[groups].ravel()[order].reshape(len(groups), -1)
        num_first += math.ceil((~ended[groups]).sum() / ended.shape[1])
    is_gain = ended.ravel()[found].all(axis=1).sum() > ended.all(axis=1).sum()
    return found if is_gain else None


def inverse(places: np.ndarray) -> np.ndarray:
    """Returns the places, `[G, P]` int32, that undo a move."""
    return np.argsort(places, axis=None).astype(np.int32).reshape(places.shape)
