"""A sweep on a cluster of Ray as a program of its own: `python ray_driver.py ADDRESS FOLDER`.

It prints what tasks ask for, which nodes they run on, how many programs have been saved, and its number of tasks.
"""

import os
import sys
from pathlib import Path

import optax
from conftest import make_tiny

import jaxmnist as jm
from jaxmnist.sweeps import capacity, cluster, dispatch
from jaxmnist.sweeps.folder import SweepFolder

RECEIVED = "received.txt"


class Counted:
    """An optimizer factory that writes a line with the number of its process whenever it is received by one."""

    def __init__(self, folder: str):
        self.folder = folder

    def __call__(self, learning_rate):
        return optax.sgd(learning_rate)

    def __reduce__(self):
        return received, (self.folder,)


def received(folder: str) -> Counted:
    with open(Path(folder, RECEIVED), "a") as file:
        file.write(f"{os.getpid()}\n")
    return Counted(folder)


def sweep(place: Path, **more):
    """Returns the result of a sweep of eight programs."""
    capacity.MAX_STATE_BYTES = 4 * 1100
    runs = jm.grid(learning_rate=[0.1, 0.5], batch_size=[3, 40], seed=range(16))
    optimizer = Counted(str(place))
    return jm.sweep(jm.SoftmaxRegression(4), optimizer, runs, make_tiny(), num_steps=5_000, progress=False, **more)


def tell(*words: object) -> None:
    print(*words, flush=True)


def main() -> None:
    address, folder = sys.argv[1], Path(sys.argv[2])
    submit, in_words, finish = cluster.RayCluster.submit, dispatch.cluster_nodes.in_words, SweepFolder.finish

    def telling_submit(self, task):
        tell("asked", dict(task.demand))
        return submit(self, task)

    def telling_words(places, nodes):
        words = in_words(places, nodes)
        tell(words)
        return words

    def telling_finish(self, finished):
        finish(self, finished)
        tell("saved", len(finished))

    cluster.RayCluster.submit, SweepFolder.finish = telling_submit, telling_finish
    dispatch.cluster_nodes.in_words = telling_words
    dispatch.SECONDS_PER_LOOK = 0.5
    sweep(folder, folder=folder, cluster=address)


if __name__ == "__main__":
    main()
