"""What writes into folders, the names that it gives there, and files of a person beside them."""

import functools
import importlib
import io
import sys
from pathlib import Path

import matplotlib.figure
import numpy as np
import optax
import xarray as xr
from PIL import Image
from results_for_tests import make_result
from scripts_for_tests import DATASET, EXPERIMENTS

import jaxmnist as jm
from jaxmnist.host import loop as host_loop
from jaxmnist.host.files import MARK
from jaxmnist.networks import run

MODEL = jm.SoftmaxRegression(4)
SGD = optax.sgd(0.1)
RUNS = jm.grid(learning_rate=[0.1, 0.5], batch_size=[1, 2, 40], seed=range(2))
SPACE = dict(learning_rate=jm.loguniform(0.1, 0.5), batch_size=4)
FEW = ("--num-seeds", 2, "--num-steps", 4, "--learning-rates", 0.1, 0.2, "--batch-sizes", 4, 8)
RATES = (word for name in ("sgd", "momentum", "adam", "adamw") for word in (f"--{name}-rates", 0.01))
NETWORK = ("--features", 2, "--kernel-sizes", 3, "--pool-after", 1, "--hidden-size", 4, "--batch-size", 5)
SCRIPTS = {
    "sweep_grid": (*FEW, "--num-evaluations", 2, "--noise-scale", "--refine", "--target", 0.99),
    "sweep_grid halving": (*FEW, "--halving", 2),
    "sweep_grid search": (
        "--num-seeds",
        2,
        "--num-steps",
        4,
        "--search",
        "sobol",
        "--num-rounds",
        2,
        "--batch",
        2,
        "--sample",
        "learning_rate=log:0.1:0.2",
        "batch_size=4,8",
    ),
    "accuracy_vs_steps": ("--num-seeds", 2, "--num-steps", 4, "--batch-size", 4),
    "accuracy_vs_steps comparing": ("--compare", "--num-seeds", 6, "--num-steps", 4, "--batch-size", 4, *RATES),
    "trainability_boundary": ("--resolution", 8, "--num-steps", 4, "--frames", 2),
    "train_cnn": (*NETWORK, "--num-steps", 12, "--evaluation-steps", 6, "--members", 2),
}
# What draws, by module of `plots`.
DRAWING = {
    "report": ("scatter", "heatmap", "budget_maps", "target_maps", "noise_curve"),
    "networks": ("training_curves", "confusion", "mistakes", "filters"),
}
FUNCTIONS = ("sweep", "halve", "search", "save", "save_model", "train_run")
# Names that nothing of ours has, hidden ones and near ones among them.
OTHER_NAMES = (
    "diary.md", "notes.npz", ".abcdefgh.nc", ".abcd_123.npz", ".results.nc", "results.nc.bak", "5.npy", "x5.npz",
    "\u00b2.npz", "0000000.npz.old", "results2.csv", ".jaxmnist-notes", "model.json~", "heatmap.pdf", "07.txt",
)  # fmt: skip
OUR_NAMES = (
    "results.nc", "results.csv", "config.json", "sweep.json", "plan.npz", "000000.npz", "000001.npz", "2.npz",
    "12.npz", "search.json", "settings.json", "model.json", "heatmap.png", "scatter.svg", "boundary.png",
    "frames.gif", "00.png", "01.svg", "metrics.csv", "predictions.npz", "curves.png", "noise_scale.csv",
    "comparison.csv", "accuracy_vs_steps.csv", "report.html", "_METADATA",
)  # fmt: skip
PLACES = (
    "", "progress", "progress/states_000000", "checkpoints", "checkpoints/seed_0", "checkpoints/seed_1", "model",
    "model/params_7", "rung_00000001", "rung_00000004", "round_0001", "round_0002", "refined", "refined/progress",
    "learning_rates", "frames", "frames/01", "states", "states/000000", "shard_1_of_2",
)  # fmt: skip


def content_of(suffix: str) -> bytes:
    """Returns a whole file of another origin, of the kind that its name tells."""
    file = io.BytesIO()
    if suffix == ".npz":
        np.savez(file, mine=np.arange(3))
    elif suffix == ".nc":
        return bytes(xr.Dataset({"mine": 3.0}).to_netcdf(engine="h5netcdf"))
    elif suffix in (".png", ".gif"):
        Image.new("L", (3, 3)).save(file, suffix[1:])
    return file.getvalue() or {".json": b'{"mine": 1}', ".csv": b"day,seed\n1,2\n", ".svg": b"<svg/>"}.get(suffix, b"")


CONTENTS = (lambda suffix: b"mine" + suffix.encode(), content_of, lambda suffix: b"")


def sweep(tiny, folder, optimizer=optax.sgd):
    return jm.sweep(MODEL, optimizer, RUNS, tiny, num_steps=4, progress=False, folder=folder)


@functools.cache
def make_classifier():
    params = jm.init_state(MODEL, SGD, 0, np.zeros((1, 6, 5, 1), np.uint8)).params
    return jm.Classifier(MODEL, (params,), (6, 5, 1), tuple("abcd"))


def make_write(tiny, monkeypatch, capsys):
    """Returns a function that lets one of `FUNCTIONS` or `SCRIPTS` write into a folder, saving states all the time."""
    monkeypatch.setattr(host_loop, "SECONDS_PER_CHECKPOINT", 0.0)
    monkeypatch.setattr("jaxmnist.sweeps.collector.SECONDS_PER_REFRESH", 0.0)
    monkeypatch.setattr("jaxmnist.host.progress.MAX_SHARE", 1e9)
    monkeypatch.syspath_prepend(EXPERIMENTS)
    monkeypatch.setattr(importlib.import_module("common").DataOptions, "load", lambda options: DATASET)
    # Drawing takes most of the time, and other tests look at figures.
    blank = matplotlib.figure.Figure(figsize=(1, 1))
    draw = blank.savefig
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", lambda self, *args, **kwargs: draw(*args, **kwargs))
    monkeypatch.setattr("jaxmnist.plots.page.page_text", lambda result, metric: f"<!-- {MARK} --> {metric.name}")
    for module, names in DRAWING.items():
        for name in names:
            monkeypatch.setattr(f"jaxmnist.plots.{module}.{name}", lambda *args, **kwargs: blank)

    def write(what, folder, *further):
        if what == "sweep":
            sweep(tiny, folder)
        elif what == "halve":
            jm.halve(MODEL, optax.sgd, RUNS, tiny, factor=2, num_steps=4, progress=False, folder=folder)
        elif what == "search":
            shared = dict(num_rounds=2, batch=2, num_steps=4, seeds=[0], sampler="random", progress=False)
            jm.search(MODEL, optax.sgd, SPACE, tiny, folder=folder, **shared)
        elif what == "save":
            jm.save(make_result(), folder)
        elif what == "save_model":
            jm.save_model(folder, make_classifier(), [0])
        elif what == "train_run":
            place = folder / "checkpoints" / "seed_0"
            numbers = dict(batch_size=5, num_steps=12, evaluation_steps=6)
            run.train_run(MODEL, SGD, tiny, 0, **numbers, folder=place)
        else:
            script = what.split()[0]
            # What is resumed has its options.
            arguments = further if "--resume" in further else [*SCRIPTS[what], "--output-dir", folder, *further]
            monkeypatch.setattr(sys, "argv", [f"{script}.py", *map(str, arguments)])
            capsys.readouterr()
            importlib.import_module(script).main()

    return write


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() or path.is_symlink()
    }
