"""What a plan consists of: programs, each of them runs that train together.

Shapes: G groups of a program, P runs of each group.
"""

from typing import Any, NamedTuple

import numpy as np

from jaxmnist.host.display import in_words, listed, shown_by

Static = tuple[tuple[str, Any], ...]


def _rows(program: "Program") -> dict[str, str]:
    groups, length = program.rows.shape
    sizes = listed(sorted(set(program.batch_size.tolist())))
    padded = f" (padded to {', '.join(map(str, program.padded_batch_sizes))})"
    static = {name: in_words(value) for name, value in program.static}
    return {
        "runs": f"{len(np.unique(program.rows)):,}, in {groups:,} groups of {length:,}",
        "at once": f"{program.at_once:,} groups",
        "batch_size": sizes + padded,
        "seed": listed(sorted(set(program.seed.tolist()))),
    } | static


@shown_by(_rows)
class Program(NamedTuple):
    """Runs that train together, as a `vmap` over groups of a `vmap` over the runs of a group.

    The runs of a group share batch size and seed, and with them every batch; this is what makes a sweep fast.

    Attributes:
      padded_batch_sizes: ascending; groups that train at once pad their batches to the least of these that holds them.
        Each is compiled.
      at_once: how many neighbouring groups may train at once; more of them would need more padding.
      batch_size: `[G]` int.
      seed: `[G]` int, of the order of examples.
      rows: `[G, P]` int, which runs these are. If runs do not fill a group, the last one is repeated; if groups do not
        fill a program, the smallest one is. Repeated runs do the same work again.
      static: hyperparameters whose values the program is built with, the same for all of its runs.
    """

    padded_batch_sizes: tuple[int, ...]
    at_once: int
    batch_size: np.ndarray
    seed: np.ndarray
    rows: np.ndarray
    static: Static = ()
