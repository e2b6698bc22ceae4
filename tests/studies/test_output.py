import json
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import optax
import pandas as pd
import pytest
from conftest import make_split
from PIL import Image

import jaxmnist as jm
from jaxmnist.host.files import is_ours
from jaxmnist.plots.style import Figure
from jaxmnist.studies import output

HINTS = {
    "rates": tuple[float, ...], "window": tuple[float, float] | None, "model": Literal["mlp", "cnn"],
    "count": Annotated[int, "words"], "folder": Path | None, "flag": bool,
}  # fmt: skip
OPTIONS = {"rates": (0.1, 1), "window": (0.5, 2.0), "model": "mlp", "count": 3, "folder": None, "flag": True}


def test_options_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "config.json"
    output.write_options(OPTIONS, path)
    assert output.read_options(path, HINTS) == OPTIONS and is_ours(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"unknown": 1}, {"rates": 0.1}, {"rates": ["a"]}, {"window": [1.0]}, {"window": [1.0, 2.0, 3.0]},
        {"model": "other"}, {"count": 1.5}, {"count": True}, {"folder": 3}, {"flag": 1},
    ],
)  # fmt: skip
def test_options_of_another_name_or_type_are_refused(tmp_path, changes):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(OPTIONS | changes))
    with pytest.raises(ValueError, match=next(iter(changes))):
        output.read_options(path, HINTS)


def test_options_of_a_later_version_are_refused(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(OPTIONS | {"format": 2}))
    with pytest.raises(ValueError, match="later version"):
        output.read_options(path, HINTS)


def test_files_of_others_are_claimed_only_if_they_may_be_overwritten(tmp_path):
    mine, ours, free = (tmp_path / name for name in ("mine.png", "ours.png", "free.png"))
    mine.write_bytes(b"mine")
    output.write_figure(Figure(figsize=(1, 1)), ours)
    (tmp_path / "folder.png").mkdir()
    half_written = tmp_path / ".jaxmnist-abcdefgh.png"
    half_written.write_bytes(b"half")
    output.claim_files([ours, free], overwrite=False, remedy="move it")
    assert not half_written.exists()
    with pytest.raises(ValueError, match=r"mine\.png is not known to have been written by jaxmnist; move it"):
        output.claim_files([ours, mine], overwrite=False, remedy="move it")
    output.claim_files([ours, mine], overwrite=True, remedy="move it")
    with pytest.raises(ValueError, match="it is a folder"):
        output.claim_files([tmp_path / "folder.png"], overwrite=True, remedy="move it")
    assert mine.read_bytes() == b"mine"


def test_a_figure_is_written_twice_and_known_as_ours(tmp_path):
    output.write_figure(Figure(figsize=(2, 1)), tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as picture:
        assert picture.size == (300, 150)
    assert {path.name: is_ours(path) for path in tmp_path.iterdir()} == {"figure.png": True, "figure.svg": True}
    first = (tmp_path / "figure.svg").read_bytes()
    output.write_figure(Figure(figsize=(2, 1)), tmp_path / "figure.png")
    assert (tmp_path / "figure.svg").read_bytes() == first


def test_a_table_is_written_with_as_many_digits_as_asked_for(tmp_path):
    table = pd.DataFrame({"step": [1], "trace": [1 / 3]})
    output.write_table(table, tmp_path / "all.csv")
    output.write_table(table, tmp_path / "some.csv", "%.6g")
    assert (tmp_path / "all.csv").read_text() == "step,trace\n1,0.3333333333333333\n"
    assert (tmp_path / "some.csv").read_text() == "step,trace\n1,0.333333\n"


def test_a_folder_in_which_a_file_is_in_the_way_is_not_made(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    output.make_folder(tmp_path / "new" / "folder")
    assert (tmp_path / "new" / "folder").is_dir() and not list((tmp_path / "new" / "folder").iterdir())
    with pytest.raises(OSError):
        output.make_folder(tmp_path / "file" / "folder")


def test_a_finished_sweep_is_not_interrupted_and_clearing_keeps_its_result(tmp_path):
    dataset = jm.Dataset("tiny", tuple("abcd"), *(make_split(count, count) for count in (20, 8, 8)))
    runs = jm.grid(learning_rate=[0.1], batch_size=[4], seed=[0])
    jm.sweep(jm.SoftmaxRegression(4), optax.sgd, runs, dataset, num_steps=2, folder=tmp_path, progress=False)
    saved = output.SavedSweeps([tmp_path, tmp_path / "none"])
    assert not saved.is_begun() and not saved.is_interrupted()
    saved.clear()
    saved.check()
    assert np.isfinite(jm.load_results(tmp_path)["validation_loss"]).all()
    (tmp_path / "results.csv").write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"results\.csv"):
        saved.check()


def test_long_runs_are_interrupted_until_their_predictions_are_there(tmp_path):
    from jaxmnist.host.checkpoints import Checkpoints

    saved = output.SavedRuns(tmp_path, range(2))
    assert not saved.is_interrupted() and not saved.is_finished()
    with Checkpoints(saved.states(5)) as checkpoints:
        checkpoints.save(3, np.zeros(2))
    assert saved.is_interrupted()
    (tmp_path / "predictions.npz").write_bytes(b"")
    assert saved.is_finished() and not saved.is_interrupted()
    saved.check()
    saved.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.npz"]
    saved.states(1).mkdir(parents=True)
    (saved.states(1) / "7.npz").write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"7\.npz"):
        saved.check()
    saved.clear()
    assert (saved.states(1) / "7.npz").read_bytes() == b"mine"
