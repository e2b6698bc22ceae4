"""Whether examples influence each other is found out, in deep networks too, and whatever their inputs are."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from conftest import mostly_slow

from jaxmnist.core.adapters.factory import model_factory
from jaxmnist.core.influence import rows_interact


class Deep(nn.Module):
    """Twenty layers, before or after which examples may be mixed; its scale is under a root."""

    mixed: str
    activation: str

    @nn.compact
    def __call__(self, inputs, train: bool = False):
        hidden = nn.Embed(9, 8)(inputs) if jnp.issubdtype(inputs.dtype, jnp.integer) else inputs
        hidden = hidden.reshape(inputs.shape[0], -1)
        for layer in range(20):
            if train and self.mixed == f"before layer {layer}":
                hidden = hidden + jnp.mean(hidden, axis=0, keepdims=True)
            hidden = getattr(nn, self.activation)(nn.Dense(64)(hidden))
        if self.mixed == "by normalisation":
            hidden = nn.BatchNorm(use_running_average=not train)(hidden)
        scale = self.param("scale", nn.initializers.ones, (1, hidden.shape[1]))
        return nn.LayerNorm()(hidden * jnp.sqrt(scale))


CASES = list(
    itertools.product(
        ("never", "before layer 0", "before layer 19", "by normalisation"), ("relu", "tanh"), (jnp.uint8, jnp.int32)
    )
)
FAST = [case for case in CASES if case[1:] == ("relu", jnp.uint8)] + [("before layer 0", "relu", jnp.int32)]


@pytest.mark.parametrize("case", mostly_slow(CASES, *FAST))
def test_mixing_is_noticed_wherever_it_is(case):
    mixed, activation, dtype = case
    model = model_factory(Deep(mixed, activation)).make()
    found = rows_interact(model, jax.ShapeDtypeStruct((1, 6, 5, 1), dtype))
    assert found == (mixed != "never", False)
