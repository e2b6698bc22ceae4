"""The nodes of a cluster: what tasks ask of them, how many tasks there are at a time, and how a bar names them.

A node is a mapping, as Ray describes one: `NodeID`, `NodeName`, whether it is `Alive`, and its `Resources`.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# What a task asks for: names of resources and how much of each, in alphabetical order.
Demand = tuple[tuple[str, float], ...]
Node = Mapping[str, Any]
# At least this many tasks wait, so that a small cluster grows by more than a node at a time.
LEAST_WAITING = 16
MAX_NAMED = 4


def alive(nodes: Iterable[Node]) -> list[Node]:
    """Returns the nodes that are alive."""
    return [node for node in nodes if node["Alive"]]


def demands(nodes: Iterable[Node]) -> list[Demand]:
    """Returns what tasks ask for: one demand for the nodes with GPUs, if there are any, and one for those without.

    A task asks for as many devices as the smallest node of its kind has, and thus fits on each of them. If all nodes of
    a kind are alike, each works on one program at a time, with all of its devices; one with several times as many
    works on several programs at once. The CPUs that go with a GPU are those of the node that has the fewest for each
    GPU. Nodes without devices, as the head of a cluster often is, take no part.
    """
    devices = [(node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0)) for node in alive(nodes)]
    with_gpus = [(cpus, gpus) for cpus, gpus in devices if gpus]
    cpus_alone = [cpus for cpus, gpus in devices if cpus and not gpus]
    found = []
    if with_gpus:
        fewest = min(gpus for _, gpus in with_gpus)
        beside = min(cpus / gpus for cpus, gpus in with_gpus) * fewest
        # Ray takes fractions below 1 only.
        found.append(demand({"CPU": math.floor(beside) if beside >= 1 else beside, "GPU": fewest}))
    if cpus_alone:
        found.append(demand({"CPU": min(cpus_alone)}))
    return found


def demand(resources: Mapping[str, float]) -> Demand:
    """Returns what a task asks for that needs these resources."""
    return tuple(sorted((name, float(amount)) for name, amount in resources.items() if amount))


def num_fitting(asked: Demand, node: Node) -> int:
    """Returns how many tasks fit on a node that is otherwise idle."""
    return min(int(node["Resources"].get(name, 0.0) / amount + 1e-9) for name, amount in asked)


def most_tasks(
    nodes: Sequence[Node], resources: Mapping[str, float] | None = None
) -> tuple[dict[Demand, int], dict[Demand, int]]:
    """Returns what tasks ask for, and how many of each can run at a time; and how many there may be, waiting included.

    As many tasks wait as run: a worker that has finished one finds the next at once, and an autoscaler sees that there
    is work for more nodes. In a cluster with GPUs, tasks for the nodes without do not wait: at the end of a sweep these
    would keep the faster nodes waiting.

    Args:
      nodes: those of the cluster.
      resources: what each task asks for instead of the devices of a node.
    """
    first, *others = [demand(resources)] if resources else demands(nodes) or [()]
    if not first:
        return {}, {}
    without = [node for node in alive(nodes) if not node["Resources"].get("GPU")]
    running = {first: sum(num_fitting(first, node) for node in alive(nodes))}
    running |= {asked: sum(num_fitting(asked, node) for node in without) for asked in others}
    return running, running | {first: running[first] + max(running[first], LEAST_WAITING)}


def fits_nowhere(asked: Demand, nodes: Iterable[Node]) -> bool:
    """Returns whether no node that is alive has what a task asks for."""
    return not any(num_fitting(asked, node) for node in alive(nodes))


def shares_gpus(asked: Demand, nodes: Iterable[Node]) -> bool:
    """Returns whether several tasks run on one node, each with some of its GPUs."""
    return "GPU" in dict(asked) and any(num_fitting(asked, node) > 1 for node in alive(nodes))


def in_words(places: Iterable[str], nodes: Iterable[Node]) -> str:
    """Returns how many programs run, and on which nodes.

    Args:
      places: the `NodeID` of each program that runs; those of nodes that are not alive are not counted.
      nodes: those of the cluster.
    """
    names = {node["NodeID"]: node["NodeName"] for node in alive(nodes) if demands([node])}
    running = Counter(names[place] for place in places if place in names)
    named = ", ".join(f"{name} ({count})" for name, count in running.most_common(MAX_NAMED))
    more = f" and {len(running) - MAX_NAMED} more" if len(running) > MAX_NAMED else ""
    told = f"programs running: {running.total()}, on {len(running)} of {len(names)} nodes"
    return f"{told}: {named}{more}" if named else told
