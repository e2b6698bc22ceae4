"""Which programs are given to a cluster, and when: as many as keep its nodes busy, while nodes come and go."""

import collections
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from jaxmnist.sweeps import nodes as cluster_nodes
from jaxmnist.sweeps import planning
from jaxmnist.sweeps.folder import Outcome
from jaxmnist.sweeps.nodes import Demand, Node
from jaxmnist.sweeps.worker import LACKS_PACKAGE, Reply

# How often the cluster is looked at: its nodes, and how far its tasks are.
SECONDS_PER_LOOK = 5.0
# Replies are taken together, since Ray looks at all tasks for each wait; nodes have work for longer than this.
SECONDS_PER_WAIT = 0.2
# Results are handed on together, and progress is reported, this often: each file costs several milliseconds.
SECONDS_PER_SAVE = 1.0
# How far programs are: by number, the step that each has reached; and where they run, in words.
Report = Callable[[Mapping[int, int], str], None]


class ClusterError(OSError):
    """A cluster was lost, or one of its tasks failed; the results of other programs are in the sweep's folder."""


class PackageMissingError(ClusterError):
    """A node of a cluster lacks this package."""


class Task(NamedTuple):
    """A program that was given to a cluster.

    Attributes:
      number: that of the program.
      program: the program.
      demand: what it asks of a node.
    """

    number: int
    program: planning.Program
    demand: Demand


class Cluster(Protocol):
    """What gives tasks to nodes."""

    def nodes(self) -> Sequence[Node]:
        """Returns the nodes."""

    def submit(self, task: Task) -> Any:
        """Returns a reference to the reply of a task, which begins when a node has what it asks for."""

    def replies(self, references: Sequence[Any], seconds: float) -> Mapping[Any, Reply]:
        """Returns all replies that come in within some seconds, or sooner if that is all of them."""

    def withdraw(self, references: Sequence[Any]) -> None:
        """Ends tasks whose replies are not needed."""

    def news(self) -> Mapping[int, tuple[str, int]]:
        """Returns the node and the step of each program that has told them since the last call, by its number."""


class Dispatcher:
    """Gives programs to a cluster, and takes their results."""

    def __init__(
        self,
        cluster: Cluster,
        waiting: Sequence[tuple[int, planning.Program]],
        resources: Mapping[str, float] | None = None,
        report: Report = lambda steps, where: None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._cluster, self._resources, self._report, self._clock = cluster, resources, report, clock
        self._queue = collections.deque(waiting)
        self._tasks: dict[Any, Task] = {}
        self._num_tasks: collections.Counter[Demand] = collections.Counter()
        self._running: dict[Demand, int] = {}
        self._most: dict[Demand, int] = {}
        self._places: dict[int, tuple[str, int]] = {}
        self._names: dict[str, str] = {}
        self._where, self._looked = "", 0.0

    def results(self) -> Iterator[dict[int, Outcome]]:
        """Yields the results of programs by their numbers, all that have come in at a time.

        Raises:
          ValueError: no node has a device, and nothing says what to wait for.
          ClusterError: the cluster was lost, or a task failed.
        """
        try:
            self._look()
            if not self._most:
                raise ValueError(
                    f"cluster has no CPU and no GPU (nodes alive: {len(self._names)}); start a node that has one, or "
                    "say by ray_resources what to wait for"
                )
            finished: dict[int, Outcome] = {}
            saved = -math.inf
            while self._queue or self._tasks:
                problem = self._advance(finished)
                is_last = problem is not None or not (self._queue or self._tasks)
                if is_last or self._clock() - saved >= SECONDS_PER_SAVE:
                    if finished:
                        yield finished
                    finished, saved = {}, self._clock()
                    self._report({index: step for index, (_, step) in self._places.items()}, self._where)
                if problem is not None:
                    raise problem
        finally:
            self._cluster.withdraw(list(self._tasks))

    def _advance(self, finished: dict[int, Outcome]) -> ClusterError | None:
        """Gives out programs, and adds the results that come in; returns the first problem, if there is one."""
        try:
            if self._clock() - self._looked >= SECONDS_PER_LOOK:
                self._look()
            self._submit()
            replies = self._cluster.replies(list(self._tasks), SECONDS_PER_WAIT)
        except ClusterError as error:
            return error
        problems = [self._take(reference, reply, finished) for reference, reply in replies.items()]
        return next(filter(None, problems), None)

    def _take(self, reference: Any, reply: Reply, finished: dict[int, Outcome]) -> ClusterError | None:
        """Adds the results of a task, or returns what went wrong."""
        node, outcome, problem = reply
        place, _ = self._places.get(self._tasks[reference].number, (node, 0))
        task = self._remove(reference)
        if outcome is not None:
            finished[task.number] = outcome
            return None
        kind = PackageMissingError if problem == LACKS_PACKAGE else ClusterError
        name = self._names.get(node or place, node or place or "unknown")
        return kind(f"program {task.number + 1} failed on node {name}: {problem}")

    def _look(self) -> None:
        """Finds out what nodes there are, and how far the programs on them."""
        nodes = self._cluster.nodes()
        # If all nodes are gone, what was asked for stays asked for.
        running, most = cluster_nodes.most_tasks(nodes, self._resources)
        if most:
            self._running, self._most = running, most
        self._names = {node["NodeID"]: node["NodeName"] for node in cluster_nodes.alive(nodes)}
        given = {task.number for task in self._tasks.values()}
        self._places |= {index: place for index, place in self._cluster.news().items() if index in given}
        self._where = cluster_nodes.in_words((node for node, _ in self._places.values()), nodes)
        if self._resources is None:
            asked = set(self._num_tasks) - set(self._most)
            self._requeue([each for each in asked if cluster_nodes.fits_nowhere(each, nodes)])
        self._looked = self._clock()

    def _requeue(self, demands: Sequence[Demand]) -> None:
        """Takes back the tasks that ask for what no node has any more, as their node is gone."""
        lost = [reference for reference, task in self._tasks.items() if task.demand in demands]
        self._cluster.withdraw(lost)
        for task in map(self._remove, lost):
            self._queue.append((task.number, task.program))

    def _submit(self) -> None:
        # Only when every node has work do programs wait for one kind of them.
        for demand, most in (*self._running.items(), *self._most.items()):
            while self._queue and self._num_tasks[demand] < most:
                task = Task(*self._queue.popleft(), demand)
                self._tasks[self._cluster.submit(task)] = task
                self._num_tasks[demand] += 1

    def _remove(self, reference: Any) -> Task:
        task = self._tasks.pop(reference)
        self._num_tasks[task.demand] -= 1
        self._places.pop(task.number, None)
        if not self._num_tasks[task.demand]:
            del self._num_tasks[task.demand]
        return task
