"""States that runs have reached, for other programs to go on from.

Shapes: G groups of a program, P runs of a group.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmnist.core.state import State
from jaxmnist.host.checkpoints import is_key
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
        # Of each program, its states as numpy can hold them, and the kinds of those that are random keys.
        self._states: list[tuple[State, State]] = []

    def keep(self, program: Program, states: State) -> None:
        """Keeps the states of a program's runs, `[G, P, ...]`."""
        self._places |= {row: (len(self._states), place) for place, row in enumerate(program.rows.ravel().tolist())}
        impls = jax.tree.map(lambda leaf: str(jax.random.key_impl(leaf)) if is_key(leaf) else "", states)
        self._states.append((jax.tree.map(_flat, states), impls))

    def only(self, rows: Sequence[int]) -> "Carried":
        """Returns the states of some of the runs, which are numbered anew, in this order."""
        kept = Carried(self.step)
        kept._places = {index: self._places[row] for index, row in enumerate(rows)}
        kept._states = self._states
        return kept

    def of(self, program: Program) -> State:
        """Returns the states of a program's runs, `[G, P, ...]`."""
        numbers, places = np.array([self._places[row] for row in program.rows.ravel().tolist()]).T
        used = np.unique(numbers)
        states, impls = zip(*(self._states[number] for number in used), strict=True)

        def gathered(impl, *kept):
            found = np.empty((len(places), *kept[0].shape[1:]), kept[0].dtype)
            for number, leaf in zip(used, kept, strict=True):
                found[numbers == number] = leaf[places[numbers == number]]
            array = found.reshape(*program.rows.shape, *found.shape[1:])
            return jax.random.wrap_key_data(jnp.asarray(array), impl=impl) if impl else array

        # Programs that one program goes on from have the same static values.
        return jax.tree.map(gathered, impls[0], *states)


def _flat(leaf: Any) -> np.ndarray:
    """Returns `[G * P, ...]` of `[G, P, ...]`."""
    array = np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)
    return array.reshape(-1, *array.shape[2:])
