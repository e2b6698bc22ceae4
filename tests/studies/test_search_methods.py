"""What methods of search have found, in a table and in a figure."""

import numpy as np
import optax
import pandas as pd
import pytest
from conftest import make_split
from scripts_for_tests import picture_size, start

import jaxmnist as jm
from jaxmnist.studies import search_methods
from jaxmnist.studies.search_methods import ALONE, COLUMNS, Budget

# Model, method, repetition, settings, seconds, validation loss.
ROWS = [
    ("softmax", "grid", 0, 8, 4.0, 0.5), ("softmax", "grid", 1, 8, 6.0, 0.3),
    ("softmax", "TPE", 0, 4, 2.0, 0.4), ("softmax", "TPE", 0, 8, 4.0, 0.2),
    ("softmax", "TPE", 1, 4, 2.0, 0.3), ("softmax", "TPE", 1, 8, 4.0, 0.3),
    ("softmax", ALONE, 0, 1, 1.0, np.inf), ("softmax", ALONE, 0, 2, 8.0, 0.4), ("softmax", ALONE, 0, 3, 9.0, 0.4),
    ("softmax", ALONE, 1, 1, 1.0, 0.9), ("softmax", ALONE, 1, 2, 12.0, 0.3),
]  # fmt: skip
FOUND = pd.DataFrame(ROWS, columns=list(COLUMNS))
TINY = Budget(16, 2, (2, 1, 1, 1), 6, 3, 2, 12, 0.5)


def test_the_table_compares_with_optuna_alone():
    table = search_methods.table(FOUND).set_index("method")
    assert table.loc["TPE", ["settings", "seconds", "validation_loss"]].tolist() == [8, 4, 0.25]
    # Student's t with one degree of freedom: 12.706 times the standard error.
    assert table.loc["TPE", "half_width"] == pytest.approx(12.7062 * 0.05, rel=1e-4)
    # Settings per second: 2 of TPE; 3 / 9 and 2 / 12 of Optuna alone.
    assert table.loc["TPE", "times_settings"] == pytest.approx((6 + 12) / 2)
    # Optuna alone had its best losses after 8 and 12 seconds, TPE such ones after 2.
    assert table.loc["TPE", "times_sooner"] == pytest.approx((8 / 2 + 12 / 2) / 2)
    # The grid got there in one of two repetitions.
    assert table.loc["grid", "times_sooner"] == pytest.approx((0 + 12 / 6) / 2)
    assert table.loc[ALONE, ["times_settings", "times_sooner"]].tolist() == [1, 1]
    never = FOUND.assign(validation_loss=np.where(FOUND["method"] == "grid", 1.0, FOUND["validation_loss"]))
    assert np.isnan(search_methods.table(never).set_index("method").loc["grid", "times_sooner"])


def test_the_figure_shows_means_over_repetitions():
    (axes,) = search_methods.figure(FOUND, "as told").axes
    lines = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    np.testing.assert_allclose(lines["TPE"].get_xydata(), [(2, 0.35), (4, 0.25)])
    # Of its first and its third trial, not both repetitions have a loss.
    np.testing.assert_allclose(lines[ALONE].get_xydata(), [(10, 0.35)])
    (bar,) = axes.containers
    np.testing.assert_allclose(bar.lines[0].get_xydata(), [(5, 0.4)])


@pytest.mark.slow
def test_each_method_finds_what_it_says():
    dataset = jm.Dataset("small", tuple("abcd"), *(make_split(count, seed) for seed, count in enumerate((130, 20, 20))))
    rows = pd.concat(search_methods.compare({"softmax": jm.SoftmaxRegression(4)}, dataset, TINY, 1))
    assert [*dict.fromkeys(rows["method"])] == [*search_methods.methods()]
    last = rows.groupby("method").last()
    expected = {"grid": 6, "random": 12, "Sobol": 12, "TPE": 12, "halving": 12, "Hyperband": 12}
    assert last.loc[list(expected), "settings"].to_dict() == expected
    assert rows.loc[rows["method"] == "TPE", "settings"].tolist() == [6, 12]
    for _, own in rows.groupby("method"):
        assert (np.diff(own["seconds"]) >= 0).all() and (np.diff(own["validation_loss"]) <= 0).all()
    # The same settings as those of a sweep, each with both seeds.
    runs = jm.with_seeds(jm.sample(12, 0, **search_methods.SPACE), range(2))
    optimizer = search_methods.Problem(None, search_methods.sgd, dataset, TINY, 0).optimizer

    def sgd(**values):
        return optimizer(**values, num_steps=TINY.num_steps)

    result = jm.sweep(jm.SoftmaxRegression(4), sgd, runs, dataset, num_steps=TINY.num_steps, progress=False)
    best = jm.settings(result, by="loss")["validation_loss"].iloc[0]
    assert last.loc["random", "validation_loss"] == pytest.approx(best, rel=1e-4)
    assert isinstance(optimizer(0.1, 0.9, 0.0, 0.5, 3), optax.GradientTransformation)


@pytest.mark.slow
def test_the_script_compares_methods_and_replaces_its_files_only_if_told(tmp_path):
    out, _ = start("search_methods", "--dataset", "digits", "--output-dir", "compared", cwd=tmp_path)
    names = [*search_methods.methods()]
    table = pd.read_csv(tmp_path / "compared" / "table.csv")
    assert table["method"].tolist() == names and np.isfinite(table["validation_loss"]).all()
    found = pd.read_csv(tmp_path / "compared" / "search_methods.csv")
    assert found["repetition"].nunique() == 2 and all(name in out for name in names)
    width, height = picture_size(tmp_path / "compared" / "search_methods.png")
    assert width > height > 100
    _, refused = start("search_methods", "--dataset", "digits", "--output-dir", "compared", cwd=tmp_path, status=2)
    assert "--overwrite" in refused
