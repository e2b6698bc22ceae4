"""What the driver of a cluster does, with clusters that are not there; `test_real_clusters.py` starts real ones."""

import functools
import importlib.util
import sys
from collections import Counter
from types import SimpleNamespace

import fake_cluster
import numpy as np
import optax
import pytest
from fake_cluster import FakeCluster, node

import jaxmnist as jm
from jaxmnist.sweeps import cluster, dispatch, nodes, planning, worker

MODEL = jm.SoftmaxRegression(4)
ONE = {"CPU": 1.0}


def test_without_ray_a_sentence_says_what_to_install(tiny, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *args: None if name == "ray" else real(name, *args))
    with pytest.raises(ValueError, match=r"ray is not installed; install it by pip install 'jaxmnist\[distributed\]'"):
        cluster.check_installed()
    with pytest.raises(ValueError, match="ray is not installed"):
        jm.sweep(MODEL, optax.sgd, jm.grid(learning_rate=0.1, batch_size=3, seed=0), tiny, num_steps=1, cluster="local")


def test_resources_without_a_cluster_are_one_sentence(tiny):
    runs = jm.grid(learning_rate=0.1, batch_size=3, seed=0)
    for train in (jm.sweep, functools.partial(jm.halve, factor=2)):
        with pytest.raises(ValueError, match=r"ray_resources are \{'CPU': 1\}, but cluster is None"):
            train(MODEL, optax.sgd, runs, tiny, num_steps=4, ray_resources={"CPU": 1})


@pytest.mark.parametrize(
    ("machines", "expected"),
    [
        ([node(CPU=2.0)], [{"CPU": 2}]),
        ([node(CPU=4.0, GPU=1.0)] * 3, [{"CPU": 4, "GPU": 1}]),
        ([node(), node(CPU=1.0), node(CPU=3.0)], [{"CPU": 1}]),
        ([node(CPU=0.0), node(CPU=3.0), node(CPU=1.0)], [{"CPU": 1}]),
        # Each GPU is used: two by a task, with as many CPUs as there are for these on the node with the fewest.
        ([node(CPU=64.0), node(CPU=8.0, GPU=4.0), node(CPU=16.0, GPU=2.0)], [{"CPU": 4, "GPU": 2}, {"CPU": 64}]),
        ([node(CPU=8.0, GPU=1.0), node(CPU=4.0, GPU=1.0), node(CPU=2.0)], [{"CPU": 4, "GPU": 1}, {"CPU": 2}]),
        ([node(CPU=7.0, GPU=3.0), node(CPU=64.0, GPU=2.0)], [{"CPU": 4, "GPU": 2}]),
        ([node(CPU=2.0, GPU=4.0), node(CPU=8.0, GPU=1.0)], [{"CPU": 0.5, "GPU": 1}]),
        ([node(GPU=1.0), node(CPU=2.0)], [{"GPU": 1}, {"CPU": 2}]),
        ([node(alive=False, CPU=1.0), node(CPU=3.0)], [{"CPU": 3}]),
        ([node(alive=False, CPU=8.0, GPU=1.0), node(CPU=3.0)], [{"CPU": 3}]),
        ([{"Alive": False, "Resources": {}}, node(CPU=3.0)], [{"CPU": 3}]),
        ([node(TPU=4.0, labelled=1.0), node(CPU=5.0, labelled=2.0)], [{"CPU": 5}]),
        ([node(), node(alive=False, CPU=4.0)], []),
        ([], []),
    ],
)
def test_a_task_fits_on_each_node_of_its_kind(machines, expected):
    for order in (machines, machines[::-1]):
        asked = nodes.demands(order)
        assert asked == [nodes.demand(each) for each in expected]
        for machine in nodes.alive(order):
            resources = machine["Resources"]
            kind = "GPU" if resources.get("GPU") else "CPU"
            if resources.get(kind):
                (fitting,) = [each for each in asked if ("GPU" in dict(each)) == (kind == "GPU")]
                assert nodes.num_fitting(fitting, machine) >= 1
                # Whatever is left is less than what one more task needs.
                assert nodes.num_fitting(fitting, machine) <= resources[kind] / dict(fitting)[kind]


def test_as_many_tasks_wait_as_run_and_only_for_one_kind_of_node():
    cpu, gpu = nodes.demand({"CPU": 8}), nodes.demand({"CPU": 4, "GPU": 1})
    machines = [node()] + [node(CPU=8.0)] * 100 + [node(CPU=16.0)] * 10 + [node(alive=False, CPU=8.0)]
    assert nodes.most_tasks(machines) == ({cpu: 120}, {cpu: 240})
    machines += [node(CPU=8.0, GPU=2.0), node(CPU=4.0, GPU=1.0)]
    assert nodes.most_tasks(machines) == ({gpu: 3, cpu: 120}, {gpu: 3 + nodes.LEAST_WAITING, cpu: 120})
    # What is asked for is visible to an autoscaler before there is any node.
    asked = nodes.demand({"CPU": 2, "TPU": 4})
    assert nodes.most_tasks([node()], {"CPU": 2, "TPU": 4}) == ({asked: 0}, {asked: nodes.LEAST_WAITING})
    assert nodes.most_tasks([node(CPU=5.0, TPU=8.0)], {"CPU": 2, "TPU": 4, "GPU": 0})[0] == {asked: 2}
    assert nodes.most_tasks([node()]) == ({}, {})


def test_processes_stay_unless_tasks_share_the_gpus_of_a_node():
    gpu = nodes.demand({"CPU": 4, "GPU": 1})
    assert not nodes.shares_gpus(gpu, [node(CPU=8.0, GPU=1.0), node(CPU=64.0)])
    assert nodes.shares_gpus(gpu, [node(CPU=4.0, GPU=1.0), node(CPU=8.0, GPU=2.0)])
    assert not nodes.shares_gpus(nodes.demand({"CPU": 1}), [node(CPU=8.0, GPU=2.0)])


def test_a_bar_names_the_nodes_on_which_most_programs_run():
    machines = [node(), *(node(name, CPU=1.0) for name in "abcdef"), node("gone", alive=False, CPU=1.0)]
    places = [f"id of {name}" for name in "abbcdeee"] + ["id of gone"]
    expected = "programs running: 8, on 5 of 6 nodes: e (3), b (2), a (1), c (1) and 1 more"
    assert nodes.in_words(places, machines) == expected
    assert nodes.in_words([], machines) == "programs running: 0, on 0 of 6 nodes"


def numbered(count):
    """Returns programs of one run each, with their numbers."""
    one = np.ones(1, int)
    return [(index, planning.Program((1,), 1, one, one, np.array([[index]]))) for index in range(count)]


def outcome_of(task, place):
    return place, {"loss": np.full((1, 1), float(task.number))}, ""


def collect(fake, count, resources=None, report=lambda steps, where: None):
    """Returns the losses of programs by number, and how many results came at a time."""
    found, sizes = {}, []
    dispatcher = dispatch.Dispatcher(fake, numbered(count), resources, report, fake.clock)
    for finished in dispatcher.results():
        sizes.append(len(finished))
        assert not found.keys() & finished.keys()
        found |= {index: outcome["loss"].item() for index, outcome in finished.items()}
    return found, sizes


def identity(count):
    return {index: float(index) for index in range(count)}


def test_every_program_gives_its_result_while_a_bounded_number_waits():
    fake = FakeCluster([node("head"), *(node(f"{i}", CPU=2.0) for i in range(10))], lambda task: 0.3, outcome_of)
    found, sizes = collect(fake, 500)
    assert found == identity(500)
    assert fake.num_submitted == 500 and fake.most_at_once == 10 + nodes.LEAST_WAITING
    # No node ever waits for work, and results that come within a second come together.
    assert fake.now == pytest.approx(500 / 10 * 0.3)
    assert len(sizes) <= fake.now + 2


def test_nodes_with_and_without_gpus_work_beside_each_other():
    seconds = {"GPU": 1.0, "CPU": 30.0}
    machines = [node("head"), node("cpu", CPU=8.0), node("gpu", CPU=4.0, GPU=1.0)]
    asked = Counter()

    def duration(task):
        kind = "GPU" if "GPU" in dict(task.demand) else "CPU"
        asked[kind] += 1
        return seconds[kind]

    fake = FakeCluster(machines, duration, outcome_of)
    found, _ = collect(fake, 100)
    assert found == identity(100)
    # The slow node has one program at a time, and keeps none that the fast one could have trained long ago.
    assert asked["CPU"] in (3, 4) and fake.now <= 120
    # Few programs are spread over all nodes before any waits.
    asked.clear()
    collect(FakeCluster(machines, duration, outcome_of), 2)
    assert asked == {"GPU": 1, "CPU": 1}
    asked.clear()
    collect(FakeCluster(machines, duration, outcome_of), 5, {"CPU": 1, "GPU": 1})
    assert asked == {"GPU": 5}


def test_nodes_come_and_go():
    def happen(fake):
        if fake.now >= 10 and "large" in fake.machines and fake.machines["large"]["Alive"]:
            fake.kill("large")
        if fake.now >= 40 and "small" not in fake.machines:
            fake.add(node("small", CPU=2.0))

    # Of the first node, tasks ask for 8 CPUs, which none has that comes after it.
    fake = FakeCluster([node("head"), node("large", CPU=8.0)], lambda task: 1.5, outcome_of, happen)
    found, _ = collect(fake, 60)
    assert found == identity(60)
    assert fake.num_retried == 1 and fake.num_withdrawn == nodes.LEAST_WAITING + 1
    assert 40 + 54 * 1.5 <= fake.now < 50 + 54 * 1.5


def test_what_a_person_asks_for_waits_for_its_node():
    def happen(fake):
        if fake.now >= 100 and "late" not in fake.machines:
            fake.add(node("late", CPU=4.0, TPU=4.0))

    fake = FakeCluster([node("head"), node("other", CPU=8.0)], lambda task: 1.0, outcome_of, happen)
    found, _ = collect(fake, 20, {"TPU": 4})
    assert found == identity(20) and fake.num_withdrawn == 0 and 115 < fake.now < 125


@pytest.mark.parametrize("machines", [[], [node()], [node(CPU=0.0, GPU=0.0), node(alive=False, CPU=4.0)]])
def test_a_cluster_without_devices_is_one_sentence(machines):
    with pytest.raises(ValueError, match=r"cluster has no CPU and no GPU .*; start a node that has one, or"):
        collect(FakeCluster([{**each, "NodeName": f"{i}"} for i, each in enumerate(machines)], None, None), 1)


def test_an_error_of_a_task_is_one_sentence_with_its_node_and_loses_no_result():
    def reply(task, place):
        return (place, None, "ValueError: broken") if task.number == 7 else outcome_of(task, place)

    fake = FakeCluster([node("first", CPU=1.0), node("second", CPU=1.0)], lambda task: 1.0, reply)
    found = {}
    with pytest.raises(dispatch.ClusterError, match=r"^program 8 failed on node (first|second): ValueError: broken$"):
        for finished in dispatch.Dispatcher(fake, numbered(30), clock=fake.clock).results():
            found |= finished
    assert set(range(7)) <= set(found) and 7 not in found
    # Nothing is left running for nobody.
    assert not fake.waiting[nodes.demand(ONE)] and fake.num_submitted == len(found) + 1 + fake.num_withdrawn


def test_results_that_had_come_in_are_handed_on_where_the_cluster_is_lost():
    def happen(fake):
        if fake.now >= 4.7:
            raise dispatch.ClusterError("it was lost")

    fake, found = FakeCluster([node(CPU=1.0)], lambda task: 0.2, outcome_of, happen), {}
    with pytest.raises(dispatch.ClusterError, match=r"^it was lost$"):
        for finished in dispatch.Dispatcher(fake, numbered(60), clock=fake.clock).results():
            found |= finished
    assert found.keys() == set(range(24))


@pytest.mark.parametrize("lacking", [set(), {"id of second"}, {"id of first", "id of second"}])
def test_this_package_is_sent_only_if_a_node_lacks_it(monkeypatch, lacking):
    connections = []

    def reply(task, place):
        has_package = place not in lacking or connections[-1]
        return outcome_of(task, place) if has_package else (place, None, worker.LACKS_PACKAGE)

    machines = [node("first", CPU=1.0), node("second", CPU=1.0)]
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False, shutdown=lambda: None))
    monkeypatch.setattr(cluster, "_connect", lambda address, sends_package: connections.append(sends_package))
    monkeypatch.setattr(cluster, "RayCluster", lambda *given: FakeCluster(machines, lambda task: 1.0, reply))
    monkeypatch.setattr(dispatch, "SECONDS_PER_LOOK", 0.0)
    found = {}
    for finished in cluster.run(None, numbered(60), cluster.Place("address"), lambda steps, where: None):
        assert not found.keys() & finished.keys()
        found |= finished
    assert found.keys() == identity(60).keys() and connections == [False, True][: 1 + bool(lacking)]


def test_a_package_that_cannot_be_sent_is_one_sentence(monkeypatch):
    def reply(task, place):
        return place, None, worker.LACKS_PACKAGE

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: True))
    monkeypatch.setattr(cluster, "RayCluster", lambda *given: FakeCluster([node(CPU=1.0)], lambda task: 1.0, reply))
    with pytest.raises(dispatch.ClusterError, match=r"program 1 failed on node a: No module named 'jaxmnist'; install"):
        list(cluster.run(None, numbered(3), cluster.Place("address"), lambda steps, where: None))


def test_the_driver_says_where_programs_run():
    told = []
    fake = FakeCluster([node("first", CPU=1.0), node("second", CPU=1.0)], lambda task: 7.0, outcome_of)
    collect(fake, 8, report=lambda steps, where: told.append((dict(steps), where)))
    places = ("first (1), second (1)", "second (1), first (1)")
    words = [f"programs running: 2, on 2 of 2 nodes: {place}" for place in places]
    assert any(steps == {0: 0, 1: 0} and where in words for steps, where in told)
    assert told[-1][0] == {}


def test_a_large_sweep_writes_few_files_whatever_happens_to_its_nodes(tmp_path):
    found = fake_cluster.simulate(1000, 200, 40.0, tmp_path)
    assert found["tasks tried again"] > 0
    assert found["files written"] <= found["simulated seconds"] + 10 < 400
    result = jm.load_results(tmp_path)
    assert result.sizes["seed"] == 1000 and (result["validation_loss"] == 0).all()
