import numpy as np
import optax
import pytest

import jaxmnist as jm
from jaxmnist.sweeps import pruning

MODEL = jm.SoftmaxRegression(4)
RUNS = jm.grid(learning_rate=np.geomspace(1e-3, 0.5, 9), batch_size=[3, 16], seed=range(2))


def search(tiny, runs=RUNS, **options):
    return jm.hyperband(MODEL, optax.sgd, runs, tiny, **dict(num_steps=18, factor=3, progress=False) | options)


@pytest.mark.slow
def test_each_bracket_is_a_halving_of_its_settings(tiny):
    result = search(tiny)
    assert result.attrs["rungs"] == "2 6 18; 6 18; 18" and result.attrs["factor"] == 3
    table = jm.table(result)
    assert (table.groupby(["learning_rate", "batch_size"])["bracket"].nunique() == 1).all()
    # In proportion 3 : 1.5 : 1, so that each takes about as many steps; each has one at least.
    assert table["bracket"].value_counts().to_dict() == {2: 2 * 9, 1: 2 * 5, 0: 2 * 4}
    for bracket, rungs in ((2, [2, 6]), (1, [6])):
        members = table[table["bracket"] == bracket]
        runs = {name: members[name].to_numpy() for name in ("learning_rate", "batch_size", "seed")}
        halved = jm.halve(MODEL, optax.sgd, runs, tiny, num_steps=18, factor=3, rungs=rungs, progress=False)
        for name in ("pruned_step", "validation_loss", "test_loss"):
            np.testing.assert_allclose(members[name].astype(float), halved[name], rtol=1e-4)
    members = table[table["bracket"] == 0]
    assert members["pruned_step"].isna().all()
    whole = jm.table(jm.sweep(MODEL, optax.sgd, RUNS, tiny, num_steps=18, progress=False)).loc[members.index]
    np.testing.assert_allclose(members["test_loss"], whole["test_loss"], rtol=1e-4)
    assert result["pruned_step"].sel(jm.best(result).setting).isnull().all()
    jm.heatmap(result)


@pytest.mark.slow
def test_an_interrupted_search_goes_on_and_a_finished_one_is_returned(tiny, tmp_path, monkeypatch):
    whole = search(tiny, folder=tmp_path / "whole")
    trained = []
    real = pruning.train

    def interrupted(job, means):
        trained.append(job.num_steps)
        if len(trained) == 4:
            raise KeyboardInterrupt
        return real(job, means)

    with monkeypatch.context() as context:
        context.setattr(pruning, "train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            search(tiny, folder=tmp_path / "parts")
    assert search(tiny, folder=tmp_path / "parts").identical(whole)
    monkeypatch.setattr(pruning, "train", lambda *arguments: pytest.fail("trained"))
    assert search(tiny, folder=tmp_path / "parts").identical(whole)
    assert not list(tmp_path.rglob("states"))
    with pytest.raises(ValueError, match="its rungs is"):
        search(tiny, folder=tmp_path / "parts", num_brackets=2)
    assert jm.load_results(tmp_path / "parts")["bracket"].identical(whole["bracket"])


def test_fewer_settings_than_brackets_are_refused(tiny):
    with pytest.raises(ValueError, match="num_brackets is 3; each needs a setting, and the runs have 2"):
        search(tiny, jm.grid(learning_rate=[0.1, 0.5], batch_size=3, seed=range(4)))
