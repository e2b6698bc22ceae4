import numpy as np
import optax
import pytest
from conftest import mostly_slow

import jaxmnist as jm
from jaxmnist.core.optimizers import KEYWORDS, OPTIMIZERS, OWNERS, from_settings, named

NAMED = dict(learning_rate=0.1, optimizer="sgd", momentum=0.9, weight_decay=0.01)
FROM_SETTINGS = dict(name="momentum", learning_rate=0.1, settings={"momentum": 0.9})

RATES = {"sgd": [0.1, 0.5], "momentum": [0.05], "adam": [0.01], "adamw": [0.01]}


@pytest.fixture(scope="module")
def swept(tiny):
    fixed = dict(batch_size=[5], momentum=0.7, weight_decay=0.5, seed=[0, 1])
    runs = jm.union(*[jm.grid(optimizer=[name], learning_rate=rates, **fixed) for name, rates in RATES.items()])
    return jm.sweep(jm.SoftmaxRegression(4), named, runs, tiny, num_steps=6, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", mostly_slow(RATES, "momentum", "adamw"))
def test_an_axis_of_optimizers_is_each_of_them(swept, tiny, name):
    own = {own: value for own, value in (("momentum", 0.7), ("weight_decay", 0.5)) if OWNERS[own] == name}
    factory = {"sgd": optax.sgd, "momentum": optax.sgd, "adam": optax.adam, "adamw": optax.adamw}[name]
    runs = jm.grid(learning_rate=RATES[name], batch_size=[5], seed=[0, 1], **own)
    alone = jm.sweep(jm.SoftmaxRegression(4), factory, runs, tiny, num_steps=6, progress=False)
    together = swept["validation_loss"].values[(swept["optimizer"] == name).values]
    np.testing.assert_allclose(together, alone["validation_loss"].values.ravel(), rtol=1e-5)


@pytest.mark.slow
def test_its_runs_are_saved_with_their_names(swept, tmp_path):
    assert swept.attrs["optimizer"] == "named" and OPTIMIZERS["named"] is named
    jm.save(swept, tmp_path)
    assert jm.load_results(tmp_path).identical(swept)
    assert set(jm.best_of_each(swept, "optimizer")) == set(RATES)


@pytest.mark.parametrize("name", KEYWORDS)
def test_an_optimizer_takes_its_own_settings(name):
    settings = dict(momentum=0.5, b1=0.8, b2=0.9, eps=1e-3, weight_decay=0.2)
    params = {"kernel": np.ones((2, 3), np.float32), "bias": np.ones(3, np.float32)}
    grads = {"kernel": np.full((2, 3), 0.1, np.float32), "bias": np.full(3, 0.1, np.float32)}
    own = {keyword: settings[keyword] for keyword in KEYWORDS[name]}
    if name == "adamw":
        own["mask"] = {"kernel": True, "bias": False}
    expected = OPTIMIZERS[name](0.1, **own)
    found = from_settings(name, 0.1, settings)
    updates = [each.update(grads, each.init(params), params)[0] for each in (found, expected)]
    for ours, theirs in zip(*map(dict.values, updates), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("function", "given", "words"),
    [
        (named, NAMED | {"optimizer": "named"}, "optimizer is 'named'; one of 'sgd', 'momentum', 'adam', 'adamw' is"),
        (named, NAMED | {"learning_rate": "0.1"}, "learning_rate is '0.1'; a finite number or a schedule is needed"),
        (named, NAMED | {"momentum": None}, "momentum is None; a finite number is needed"),
        (named, NAMED | {"weight_decay": np.nan}, "weight_decay is nan; a finite number is needed"),
        (from_settings, FROM_SETTINGS | {"name": "magic"}, "name is 'magic'; one of 'sgd',"),
        (from_settings, FROM_SETTINGS | {"learning_rate": np.inf}, "learning_rate is inf; a finite number or a"),
        (from_settings, FROM_SETTINGS | {"settings": [0.9]}, r"settings is \[0.9\]; a mapping of keywords to values"),
        (
            from_settings,
            FROM_SETTINGS | {"settings": {"b1": 0.9}},
            "settings lack momentum, which the optimizer",
        ),
        (from_settings, FROM_SETTINGS | {"settings": {"momentum": "0.9"}}, "momentum is '0.9'; a finite number is"),
    ],
)
def test_what_an_optimizer_by_name_is_not_made_from_is_named(function, given, words):
    with pytest.raises(ValueError, match=words):
        function(**given)
