"""States that runs have reached, for other programs to go on from.

Shapes: G groups of a program, P runs of a group.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxmnist.core.state import State
from jaxmnist.sweeps.planning import Program


class Carried:
    """The states of runs in the memory of the host, after the same number of steps.

    Attributes:
      step: how many steps they have taken.
    """

    def __init__(self, step: int):
        self.step = step
        # For each run, the number of its program, and its place in there.
        self._places: dict[int, tuple[int, int]] = {}
        self._states: list[State] = []

    def keep(self, program: Program, states: State) -> None:
        """Keeps the states of a program's runs, `[G, P, ...]`."""
        self._places |= {row: (len(self._states), place) for place, row in enumerate(program.rows.ravel().tolist())}
        self._states.append(jax.tree.map(_flat, states._replace(key=jax.random.key_data(states.key))))
        self._key_impl = str(jax.random.key_impl(states.key))

    def only(self, rows: Sequence[int]) -> "Carried":
        """Returns the states of some of the runs, which are numbered anew, in this order."""
        kept = Carried(self.step)
        kept._places = {index: self._places[row] for index, row in enumerate(rows)}
        kept._states, kept._key_impl = self._states, self._key_impl
        return kept

    def of(self, program: Program) -> State:
        """Returns the states of a program's runs, `[G, P, ...]`."""
        numbers, places = np.array([self._places[row] for row in program.rows.ravel().tolist()]).T
        used = np.unique(numbers)

        def gathered(*kept):
            found = np.empty((len(places), *kept[0].shape[1:]), kept[0].dtype)
            for number, leaf in zip(used, kept, strict=True):
                found[numbers == number] = leaf[places[numbers == number]]
            return found.reshape(*program.rows.shape, *found.shape[1:])

        states = jax.tree.map(gathered, *(self._states[number] for number in used))
        return states._replace(key=jax.random.wrap_key_data(states.key, impl=self._key_impl))


def _flat(leaf: Any) -> np.ndarray:
    """Returns `[G * P, ...]` of `[G, P, ...]`."""
    array = np.asarray(leaf)
    return array.reshape(-1, *array.shape[2:])
