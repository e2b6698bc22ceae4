"""What compares a function with the one whose slow operations are replaced."""

import jax
import jax.numpy as jnp
import numpy as np

CHANNELS_LAST = ("NHWC", "HWIO", "NHWC")
SLOW = ("conv_general_dilated", "reduce_window", "select_and_scatter")


def assert_near(ours, theirs, error=2e-5):
    """Asserts that values differ by rounding: by 2e-5 of the largest, several times the error of the tiles."""
    for each, expected in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert (each.shape, each.dtype) == (expected.shape, expected.dtype)
        each, expected = (np.asarray(values, np.float64) for values in (each, expected))
        np.testing.assert_allclose(each, expected, rtol=0, atol=error * max(np.abs(expected).max(), 1e-30))


def with_gradients(function):
    """Returns a function of a function's outputs and the gradients of all its arguments, with weights that differ."""

    def both(*args):
        outputs, to_gradients = jax.vjp(function, *args)
        return outputs, to_gradients(jnp.cos(jnp.arange(outputs.size, dtype=outputs.dtype)).reshape(outputs.shape))

    return both


def run(function, *args):
    """Returns what a function gives when it is compiled, and the slow operations in it, however deep."""
    traced = jax.jit(function).trace(*args)
    text = str(traced.jaxpr)
    return traced.lower().compile()(*args), {name for name in SLOW if name in text}
