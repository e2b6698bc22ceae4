"""Where the runs of a program train once some of them have ended: those that go on, side by side.

Groups whose runs have all ended take no time. Runs that share their batches may change places, and compute the same.

Shapes: G groups of a program, P runs of a group.
"""

from collections import defaultdict

import numpy as np

from jaxmnist.sweeps.planning import Program


def places(program: Program, ended: np.ndarray, num_devices: int) -> np.ndarray | None:
    """Returns where on its device the run for each place is, so that fewer groups have runs that go on.

    Args:
      program: the program, whose groups are divisible by the number of devices.
      ended: `[G, P]` bool, which runs have ended.
      num_devices: each has as many neighbouring groups.

    Returns:
      `[G, P]` int32, or None if no other places would leave more groups without such runs.
    """
    if not ended.any():
        return None
    groups_of = defaultdict(list)
    share = len(ended) // num_devices
    for group, stream in enumerate(zip(program.batch_size.tolist(), program.seed.tolist(), strict=True)):
        groups_of[group // share, stream].append(group)
    found = np.arange(ended.size, dtype=np.int32).reshape(ended.shape)
    for groups in groups_of.values():
        order = np.argsort(ended[groups], axis=None, kind="stable")
        found[groups] = found[groups].ravel()[order].reshape(len(groups), -1)
    if ended.ravel()[found].all(axis=1).sum() == ended.all(axis=1).sum():
        return None
    return found % (share * ended.shape[1])


def inverse(places: np.ndarray, num_devices: int) -> np.ndarray:
    """Returns the places, `[G, P]` int32, that undo a move."""
    return np.argsort(places.reshape(num_devices, -1), axis=1).astype(np.int32).reshape(places.shape)
