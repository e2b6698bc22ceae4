"""A cluster that is not there: it has a clock of its own, nodes come and go, and nothing is trained.

As a program, `python tests/fake_cluster.py [programs] [nodes]`, it measures the driver of a large sweep. Tasks and
nodes are simulated; what gives them out, collects their results and writes all files is that of a real sweep.
"""

import collections
import functools
import heapq
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import optax

import jaxmnist as jm
from jaxmnist.sweeps import dispatch, planning
from jaxmnist.sweeps.collector import ResultCollector
from jaxmnist.sweeps.configure import make_setup
from jaxmnist.sweeps.folder import SweepFolder
from jaxmnist.sweeps.growth import begin, grow
from jaxmnist.sweeps.job import Job, describe, make_job
from jaxmnist.sweeps.nodes import Demand, Node, num_fitting
from jaxmnist.sweeps.running import outcome_shapes
from jaxmnist.sweeps.worker import Reply

RUNS_PER_PROGRAM = 10
# In the simulation, each node loses its power once in this many seconds on average, and is replaced a minute later.
SECONDS_PER_FAILURE, SECONDS_TO_REPLACE = 2000.0, 60.0


def node(name: str = "a", alive: bool = True, **resources: float) -> Node:
    """Returns what Ray says of a node, with what every node has besides its devices."""
    others = {"memory": 1e9, "node:127.0.0.1": 1.0}
    return {"NodeID": f"id of {name}", "NodeName": name, "Alive": alive, "Resources": {**others, **resources}}


def not_the_driver(method: Callable) -> Callable:
    """Returns a method whose time is not counted as the driver's."""

    @functools.wraps(method)
    def measured(self, *args):
        self.driver_seconds += time.perf_counter() - self._left
        found = method(self, *args)
        self._left = time.perf_counter()
        return found

    return measured


class FakeCluster:
    """A `dispatch.Cluster`.

    Attributes:
      now: the time of its clock in seconds.
      machines: its nodes, by name.
      driver_seconds: real time that has passed outside its methods.
    """

    def __init__(
        self,
        machines: Sequence[Node],
        seconds: Callable[[dispatch.Task], float],
        reply: Callable[[dispatch.Task, str], Reply],
        events: Callable[["FakeCluster"], None] = lambda cluster: None,
        is_coupled: bool = False,
    ):
        """Makes a cluster.

        Args:
          machines: its nodes.
          seconds: returns how long a task takes.
          reply: returns what a task replies from a node, given its `NodeID`.
          events: called whenever time has passed; may add and kill nodes.
          is_coupled: whether time passes while the driver works, as long as it does.
        """
        self._seconds, self._reply, self._events, self._is_coupled = seconds, reply, events, is_coupled
        self.now, self.driver_seconds, self._left, self._counted = 0.0, 0.0, time.perf_counter(), 0.0
        self.num_submitted = self.num_retried = self.num_withdrawn = self.most_at_once = 0
        self.waiting: dict[Demand, collections.deque[int]] = {}
        self._tasks: dict[int, dispatch.Task] = {}
        self._places: dict[int, tuple[str, float]] = {}
        self._ends: list[tuple[float, int]] = []
        self._news: dict[int, tuple[str, int]] = {}
        self.machines: dict[str, Node] = {}
        self._free: dict[str, dict[str, float]] = {}
        self._roomy: set[str] = set()
        for machine in machines:
            self.add(machine)

    def clock(self) -> float:
        return self.now

    def add(self, machine: Node) -> None:
        """A node comes."""
        name = machine["NodeName"]
        self.machines[name], self._free[name] = machine, dict(machine["Resources"])
        self._roomy.add(name)

    def kill(self, name: str) -> None:
        """A node goes; as Ray does, its tasks are given to others."""
        self.machines[name] = {**self.machines[name], "Alive": False}
        self._roomy.discard(name)
        del self._free[name]
        for reference in [reference for reference, (place, _) in self._places.items() if place == name]:
            del self._places[reference]
            self.waiting[self._tasks[reference].demand].append(reference)
            self.num_retried += 1

    @not_the_driver
    def nodes(self) -> Sequence[Node]:
        return list(self.machines.values())

    @not_the_driver
    def submit(self, task: dispatch.Task) -> int:
        self.num_submitted += 1
        self._tasks[self.num_submitted] = task
        self.waiting.setdefault(task.demand, collections.deque()).append(self.num_submitted)
        self.most_at_once = max(self.most_at_once, len(self._tasks))
        return self.num_submitted

    @not_the_driver
    def replies(self, references: Sequence[int], seconds: float) -> Mapping[int, Reply]:
        assert set(references) == set(self._tasks)
        if self._is_coupled:
            self.now += self.driver_seconds - self._counted
            self._counted = self.driver_seconds
        self._events(self)
        done: dict[int, Reply] = {}
        until = self.now + seconds
        self._place()
        while self._tasks and self._ends and self._ends[0][0] <= until:
            end, reference = heapq.heappop(self._ends)
            # A task that was given to another node has another end.
            if reference in self._places and self._places[reference][1] == end:
                self.now = max(self.now, end)
                name, _ = self._places.pop(reference)
                task = self._tasks.pop(reference)
                self._release(name, task.demand)
                done[reference] = self._reply(task, self.machines[name]["NodeID"])
                self._place()
        if self._tasks:
            self.now = until
        return done

    @not_the_driver
    def withdraw(self, references: Sequence[int]) -> None:
        for reference in references:
            self.num_withdrawn += 1
            task = self._tasks.pop(reference)
            if reference in self._places:
                self._release(self._places.pop(reference)[0], task.demand)
            else:
                self.waiting[task.demand].remove(reference)

    @not_the_driver
    def news(self) -> Mapping[int, tuple[str, int]]:
        news, self._news = self._news, {}
        return news

    def _release(self, name: str, demand: Demand) -> None:
        for kind, amount in demand:
            self._free[name][kind] += amount
        self._roomy.add(name)

    def _place(self) -> None:
        """Begins the tasks that wait, as long as there is room; as in Ray, on a node without GPUs if one has room."""
        for demand, waiting in self.waiting.items():
            for name in sorted(self._roomy, key=lambda name: "GPU" in self._free[name]) if waiting else ():
                free = self._free[name]
                while waiting and num_fitting(demand, {"Resources": free}):
                    reference = waiting.popleft()
                    for kind, amount in demand:
                        free[kind] -= amount
                    end = self.now + self._seconds(self._tasks[reference])
                    self._places[reference] = name, end
                    self._news[self._tasks[reference].number] = self.machines[name]["NodeID"], 0
                    heapq.heappush(self._ends, (end, reference))
        self._roomy -= {name for name in self._roomy if not any(self._free[name].get(each) for each in ("CPU", "GPU"))}


def failures(generator: np.random.Generator) -> Callable[[FakeCluster], None]:
    """Returns what happens to nodes: some go at random times, and others come for them."""
    absent: list[tuple[float, str]] = []
    last = 0.0

    def happen(cluster: FakeCluster) -> None:
        nonlocal last
        alive = [name for name, machine in cluster.machines.items() if machine["Alive"]]
        num_lost = generator.poisson(len(alive) * (cluster.now - last) / SECONDS_PER_FAILURE)
        last = cluster.now
        for name in generator.choice(alive, min(num_lost, len(alive)), replace=False):
            cluster.kill(str(name))
            heapq.heappush(absent, (last + SECONDS_TO_REPLACE, str(name)))
        while absent and absent[0][0] <= last:
            _, name = heapq.heappop(absent)
            cluster.add({**cluster.machines[name], "Alive": True})

    return happen


def large_job(num_programs: int) -> tuple[Job, list[planning.Program]]:
    """Returns a sweep of ten runs for each program, and its programs."""
    generator = np.random.default_rng(0)
    inputs, targets = generator.integers(0, 255, (60, 2, 2, 1), np.uint8), np.arange(60, dtype=np.int32) % 2
    rates = np.geomspace(1e-3, 1.0, RUNS_PER_PROGRAM).astype(np.float32)
    runs = jm.grid(learning_rate=rates, batch_size=8, seed=range(num_programs))
    dataset = jm.from_arrays(inputs, targets, name="small", class_names=("a", "b"))
    job = make_job(make_setup(jm.SoftmaxRegression(2), optax.sgd), runs, dataset, num_steps=10)
    rows = np.argsort(job.arrays["seed"], kind="stable").reshape(num_programs, 1, RUNS_PER_PROGRAM)
    eight = np.array([8])
    return job, [planning.Program((8,), 1, eight, np.array([seed]), rows[seed]) for seed in range(num_programs)]


def resident_mib() -> float:
    """Returns the most memory that this process has used."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def simulate(num_programs: int, num_nodes: int, seconds_per_program: float, folder: Path) -> dict[str, float]:
    """Returns what the driver of a sweep on a cluster does, by name."""
    written: list[tuple[str, int]] = []
    replace = os.replace

    def count(source, target):
        written.append((Path(target).suffix, os.stat(source).st_size))
        replace(source, target)

    job, planned = large_job(num_programs)
    shape = outcome_shapes(job, planned[0])
    outcome = {name: np.zeros(each, np.float32) for name, each in shape.items()}
    description = describe(job) | {"memory": 1.0}
    generator = np.random.default_rng(0)
    before = resident_mib()
    os.replace = count
    try:
        start = time.perf_counter()
        sweep_folder = SweepFolder(folder)
        sweep_folder.begin(description, job.arrays, planned)
        collector = ResultCollector(begin(job, planned, description), sweep_folder)
        waiting = collector.waiting()
        begun = time.perf_counter() - start
        cluster = FakeCluster(
            [node(f"node {number}", CPU=8.0) for number in range(num_nodes)],
            lambda task: seconds_per_program * generator.uniform(0.5, 1.5),
            lambda task, place: (place, outcome, ""),
            failures(generator),
            is_coupled=True,
        )
        report = collector.reporter(lambda done, text, result: None)
        for finished in dispatch.Dispatcher(cluster, waiting, report=report, clock=cluster.clock).results():
            collector.add(finished)
        most_memory = resident_mib()
        start = time.perf_counter()
        again = grow(job, sweep_folder.held(), description, "the sweep", lambda job: [])
        assert not ResultCollector(again, sweep_folder).waiting()
        resumed = time.perf_counter() - start
        start = time.perf_counter()
        sweep_folder.end(collector.result())
        ended = time.perf_counter() - start
    finally:
        os.replace = replace
    parts = [size for suffix, size in written if suffix == ".npz"]
    return {
        "simulated seconds": cluster.now,
        "programs per simulated second": num_programs / cluster.now,
        "driver's seconds": cluster.driver_seconds,
        "driver's ms per program": 1e3 * cluster.driver_seconds / num_programs,
        "programs per second of the driver's": num_programs / cluster.driver_seconds,
        "seconds to begin": begun,
        "seconds to end": ended,
        "seconds to resume at the end": resumed,
        "tasks at once": cluster.most_at_once,
        "tasks tried again": cluster.num_retried,
        "files written": len(written),
        "of these, results so far": len([suffix for suffix, _ in written if suffix == ".nc"]) - 1,
        "MiB written": sum(size for _, size in written) / 2**20,
        "MiB of programs' results and plan": sum(parts) / 2**20,
        "MiB of memory": most_memory,
        "MiB of memory before": before,
    }


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]] + [100_000, 2000][len(sys.argv) - 1 :]
    for duration in (2.0, 0.0):
        with tempfile.TemporaryDirectory() as place:
            print(f"{given[0]} programs of {duration} s on {given[1]} nodes")
            for title, value in simulate(*given, duration, Path(place)).items():
                print(f"{title:36} {value:12.2f}")
