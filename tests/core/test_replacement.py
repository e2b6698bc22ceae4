"""Convolutions and poolings of any kind, replaced by fast ones: their values and gradients stay."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import mostly_slow
from jax import lax
from replacement_for_tests import CHANNELS_LAST, assert_near, run, with_gradients

from jaxmnist.core.fast.replacement import with_fast_operations

CHANNELS_FIRST = ("NCHW", "OIHW", "NCHW")


class Case(NamedTuple):
    """A convolution of images `[B, ..., C]`, and its kernel `[..., C / groups, F]`, before their layout."""

    images: tuple[int, ...]
    kernel: tuple[int, ...]
    padding: Any = "SAME"
    strides: tuple[int, ...] = (1, 1)
    layout: tuple[str, str, str] = CHANNELS_LAST
    options: Mapping = MappingProxyType({})


CONVOLUTIONS = {
    "patches": Case((2, 6, 5, 2), (3, 5, 2, 4)),
    "tiles of 5": Case((2, 8, 7, 8), (5, 5, 8, 3)),
    "tiles of 3, valid": Case((2, 10, 10, 8), (3, 3, 8, 3), "VALID"),
    "tiles, padded unevenly": Case((2, 8, 8, 8), (3, 3, 8, 3), ((0, 2), (3, 1))),
    "tiles, cut off": Case((2, 10, 9, 8), (3, 3, 8, 3), ((1, -1), (0, 1))),
    "tiles of channels first": Case((2, 8, 8, 8), (5, 5, 8, 3), "SAME", (1, 1), CHANNELS_FIRST),
    "groups of tiles": Case((2, 8, 8, 16), (3, 3, 8, 4), options={"feature_group_count": 2}),
    "channels first": Case((2, 6, 5, 3), (3, 3, 3, 4), "SAME", (1, 1), CHANNELS_FIRST),
    "any layout": Case((3, 6, 5, 2), (3, 3, 2, 4), "VALID", (1, 2), ("CHNW", "WOIH", "WNHC")),
    "even kernel": Case((2, 6, 5, 2), (4, 2, 2, 4)),
    "even kernel, valid": Case((2, 6, 5, 2), (2, 2, 2, 4), "VALID"),
    "strides": Case((2, 7, 8, 2), (3, 3, 2, 4), "SAME", (2, 2)),
    "strides, many channels": Case((2, 7, 8, 16), (3, 3, 16, 4), "SAME", (2, 2)),
    "strides beyond the kernel": Case((2, 8, 9, 2), (1, 2, 2, 4), "VALID", (2, 3)),
    "uneven strides": Case((2, 9, 8, 2), (5, 3, 2, 4), ((1, 2), (0, 3)), (3, 1)),
    "patches side by side": Case((2, 9, 8, 2), (4, 4, 2, 3), "VALID", (4, 4)),
    "one weight": Case((2, 4, 5, 3), (1, 1, 3, 4)),
    "one weight, strides": Case((2, 4, 5, 3), (1, 1, 3, 4), "SAME", (2, 2)),
    "groups": Case((2, 6, 5, 6), (3, 3, 3, 4), "SAME", (2, 1), options={"feature_group_count": 2}),
    "groups side by side": Case((2, 6, 4, 6), (2, 2, 2, 3), "SAME", (2, 2), options={"feature_group_count": 3}),
    "by channel": Case((2, 6, 5, 3), (3, 3, 1, 3), options={"feature_group_count": 3}),
    "by channel, two each": Case((2, 7, 5, 3), (3, 3, 1, 6), "VALID", (2, 2), options={"feature_group_count": 3}),
    "dilated kernel": Case((2, 9, 8, 2), (3, 3, 2, 4), "SAME", options={"rhs_dilation": (2, 3)}),
    "dilated kernel, strides": Case((2, 9, 8, 2), (3, 2, 2, 4), "VALID", (2, 2), options={"rhs_dilation": (3, 2)}),
    "transposed": Case((2, 4, 3, 2), (3, 3, 2, 4), ((2, 1), (1, 1)), options={"lhs_dilation": (2, 3)}),
    "one axis": Case((2, 9, 3), (3, 3, 4), "SAME", (1,), ("NWC", "WIO", "NWC")),
    "one axis, channels first": Case((2, 9, 3), (4, 3, 4), "VALID", (2,), ("NCW", "OIW", "NCW")),
    "three axes": Case((2, 4, 5, 4, 2), (3, 2, 3, 2, 3), "SAME", (1, 2, 1), ("NDHWC", "DHWIO", "NDHWC")),
}


def in_layout(array, layout, order):
    return array.transpose([order.index(letter) for letter in layout])


def make_convolution(case):
    """Returns a convolution by XLA, images for it, and three kernels."""
    axes = {3: "W", 4: "HW", 5: "DHW"}[len(case.images)]
    order, kernel_order = f"N{axes}C", f"{axes}IO"
    images = in_layout(jax.random.normal(jax.random.key(0), case.images), case.layout[0], order)
    kernels = [jax.random.normal(jax.random.key(seed), case.kernel) for seed in (1, 2)]
    kernels = jnp.stack([in_layout(kernel, case.layout[1], kernel_order) for kernel in kernels])

    def convolve(images, kernel):
        return lax.conv_general_dilated(
            images, kernel, case.strides, case.padding, dimension_numbers=case.layout, **case.options
        )

    return convolve, images, kernels


def stacked(values):
    return jax.tree.map(lambda *each: jnp.stack(each), *values)


FAST = (
    "patches", "groups of tiles", "any layout", "uneven strides", "by channel, two each", "transposed",
)  # fmt: skip


@pytest.mark.parametrize("name", mostly_slow(CONVOLUTIONS, *FAST))
def test_a_convolution_of_any_kind_keeps_its_values_and_gradients(name):
    convolve, images, kernels = make_convolution(CONVOLUTIONS[name])
    fast = with_fast_operations(convolve)

    def reference(images, kernels):
        return stacked([with_gradients(convolve)(images, kernel) for kernel in kernels]), fast(images, kernels[0])

    def ours(images, kernels):
        over_kernels = [jax.vmap(each, (None, 0))(images, kernels) for each in (fast, with_gradients(fast))]
        return with_gradients(fast)(images, kernels[1]), *over_kernels

    (expected, alone), _ = run(reference, images, kernels)
    (trained, evaluated_runs, trained_runs), slow = run(ours, images, kernels)
    assert not slow
    assert_near(alone, expected[0][0])
    assert_near(trained, jax.tree.map(lambda each: each[1], expected))
    assert_near(evaluated_runs, expected[0])
    assert_near(trained_runs, expected)


@pytest.mark.parametrize(
    "case",
    [
        Case((4, 9, 9, 2), (3, 3, 2, 4), options={"batch_group_count": 2}),
        Case((1, 16, 16, 1), (13, 13, 1, 1)),
        Case((1, 3, 3, 1), (5, 5, 1, 2), "VALID"),
    ],
)
def test_what_cannot_be_replaced_is_left(case):
    convolve, images, kernels = make_convolution(case)
    fast = with_fast_operations(convolve)
    assert names(fast, images, kernels[0]) == names(convolve, images, kernels[0])


@pytest.mark.parametrize("name", mostly_slow(("tiles of 5", "groups", "by channel"), "tiles of 5"))
def test_short_numbers_stay_short_and_are_summed_in_long_ones_if_asked(name):
    case = CONVOLUTIONS[name]
    convolve, *pair = make_convolution(case)
    images, kernel = pair[0].astype(jnp.bfloat16), pair[1][0].astype(jnp.bfloat16)
    wide = make_convolution(case._replace(options={**case.options, "preferred_element_type": jnp.float32}))[0]

    def all_of(replaced):
        return lambda *pair: (with_gradients(replaced(convolve))(*pair), with_gradients(replaced(wide))(*pair)[0])

    ours, theirs = (run(all_of(replaced), images, kernel)[0] for replaced in (with_fast_operations, lambda each: each))
    # The short results are rounded to 8 bits, some of them several times.
    assert_near(ours[0], theirs[0], 0.03)
    assert_near(ours[1], theirs[1])


def test_long_numbers_and_a_precision_that_is_asked_for_are_not_tiled():
    case = CONVOLUTIONS["tiles of 5"]
    convolve, images, kernels = make_convolution(case)
    exactly = make_convolution(case._replace(options={"precision": lax.Precision.HIGHEST}))[0]
    traced = str(jax.make_jaxpr(jax.grad(lambda *args: with_fast_operations(exactly)(*args).sum()))(images, kernels[0]))
    assert "HIGHEST" in traced and "custom_vmap" not in traced
    with jax.enable_x64():
        pair = images.astype(jnp.float64), kernels[0].astype(jnp.float64)
        ours, theirs = (run(with_gradients(each), *pair)[0] for each in (with_fast_operations(convolve), convolve))
        assert_near(ours, theirs, error=1e-14)


POOLINGS = {
    "2 x 2": ((2, 6, 7, 3), (1, 2, 2, 1), (1, 2, 2, 1), "VALID"),
    "2 x 2, channels first": ((2, 3, 7, 6), (1, 1, 2, 2), (1, 1, 2, 2), "VALID"),
    "2 x 2, padded": ((2, 5, 7, 3), (1, 2, 2, 1), (1, 2, 2, 1), "SAME"),
    "3 x 3, overlapping": ((2, 7, 8, 3), (1, 3, 3, 1), (1, 2, 2, 1), "SAME"),
    "3 x 2, every place": ((2, 6, 7, 3), (1, 3, 2, 1), (1, 1, 1, 1), "SAME"),
    "gaps": ((2, 9, 8, 3), (1, 2, 1, 1), (1, 3, 2, 1), "VALID"),
    "all pixels": ((2, 5, 4, 3), (1, 5, 4, 1), (1, 5, 4, 1), "VALID"),
    "channels": ((2, 5, 4, 6), (1, 1, 1, 3), (1, 1, 1, 3), "VALID"),
    "one axis": ((2, 9, 3), (1, 3, 1), (1, 2, 1), ((0, 0), (2, 1), (0, 0))),
}


@pytest.mark.parametrize("name", mostly_slow(POOLINGS, "2 x 2, channels first", "3 x 3, overlapping", "gaps"))
@pytest.mark.parametrize("kind", ["max", "sum"])
def test_pooling_of_any_kind_keeps_its_values_and_gradients(name, kind):
    shape, *window = POOLINGS[name]
    start, combine = {"max": (-jnp.inf, lax.max), "sum": (0.0, lax.add)}[kind]

    def pool(images):
        return lax.reduce_window(images, start, combine, *window)

    # Few values, so that many of a window are equal: which of them has the gradient must not change.
    images = jax.random.randint(jax.random.key(0), (2, *shape), 0, 3).astype(jnp.float32)
    fast = with_fast_operations(pool)
    expected, _ = run(lambda images: stacked([with_gradients(pool)(each) for each in images]), images)
    alone, slow = run(with_gradients(fast), images[1])
    over_runs, also_slow = run(jax.vmap(with_gradients(fast)), images)
    assert not slow | also_slow
    assert_near(alone, jax.tree.map(lambda each: each[1], expected), 1e-6)
    assert_near(over_runs, expected, 1e-6)


BIASES = {
    "channels last": ((1, 1, 1, 3), (1, 2, 2, 1), "VALID", True),
    "padded": ((1, 1, 1, 3), (1, 3, 3, 1), "SAME", True),
    "channels first": ((4, 1, 1, 1), (1, 1, 2, 2), "VALID", True),
    "within a window": ((1, 6, 6, 3), (1, 2, 2, 1), "VALID", False),
    "other windows": ((1, 1, 6, 1), (1, 2, 1, 1), "VALID", True),
}


@pytest.mark.parametrize("name", mostly_slow(BIASES, "channels last", "padded", "channels first", "within a window"))
@pytest.mark.parametrize("is_first", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_what_is_alike_within_windows_is_added_after_max_pooling(name, is_first):
    shape, window, padding, is_moved = BIASES[name]
    generator = np.random.default_rng(0)
    images, bias = (jnp.asarray(generator.normal(size=shape), jnp.float32) for shape in ((4, 6, 6, 3), shape))

    def pooled(images, bias):
        whole = lax.add(bias, images) if is_first else lax.add(images, bias)
        return lax.reduce_window(whole, -jnp.inf, lax.max, window, window, padding)

    fast = with_fast_operations(pooled)
    np.testing.assert_array_equal(jax.jit(fast)(images, bias), jax.jit(pooled)(images, bias))
    added = [each for each in jax.make_jaxpr(fast)(images, bias).eqns if each.primitive is lax.add_p]
    assert (added[0].outvars[0].aval.shape == jax.eval_shape(pooled, images, bias).shape) == is_moved
    found, wanted = (
        jax.jit(jax.grad(lambda *given, function=function: jnp.sum(jnp.sin(function(*given))), argnums=(0, 1)))(
            images, bias
        )
        for function in (fast, pooled)
    )
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6), found, wanted)


@pytest.mark.parametrize("is_one_by_one", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_bias_of_channels_that_come_first_is_added_and_has_its_gradient(is_one_by_one):
    generator = np.random.default_rng(0)
    images, kernel, bias = (
        jnp.asarray(generator.normal(size=shape), jnp.float32) for shape in ((4, 3, 6, 5), (2, 3, 3, 3), (2, 1, 1))
    )

    def convolved(images, kernel, bias):
        def one(image):
            return lax.conv(image[None], kernel, (1, 1), "SAME")[0] + bias

        return jax.nn.relu(
            jax.vmap(one)(images) if is_one_by_one else lax.conv(images, kernel, (1, 1), "SAME") + bias[None]
        )

    fast = with_gradients(with_fast_operations(convolved))
    jax.tree.map(assert_near, fast(images, kernel, bias), with_gradients(convolved)(images, kernel, bias))
    # The gradient is moved once, to where it is summed and convolved.
    operations = jax.make_jaxpr(fast)(images, kernel, bias).eqns
    moved = [each.outvars[0].aval.shape for each in operations if each.primitive.name == "optimization_barrier"]
    assert moved == [(4, 6, 5, 2)]


def test_a_sum_that_is_used_elsewhere_is_pooled_where_it_is():
    def both(images, bias):
        whole = images + bias
        return lax.reduce_window(whole, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"), whole

    images, bias = jnp.ones((2, 4, 4, 3)), jnp.arange(3.0)[None, None, None]
    for one, other in zip(with_fast_operations(both)(images, bias), both(images, bias), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_dilated_window_and_a_nan_are_pooled_as_before():
    images = jax.random.normal(jax.random.key(0), (2, 9, 8, 3)).at[0, 4, 4, 1].set(jnp.nan)
    for size, strides, dilation in (((2, 3), (2, 1), (3, 2)), ((2, 2), (2, 2), (1, 1)), ((3, 3), (2, 2), (1, 1))):

        def pool(images, start=-jnp.inf, combine=lax.max, size=size, strides=strides, dilation=dilation):
            window = ((1, *size, 1), (1, *strides, 1), "VALID", None, (1, *dilation, 1))
            return lax.reduce_window(images, start, combine, *window)

        ours, slow = run(with_fast_operations(pool), images)
        assert not slow
        np.testing.assert_array_equal(ours, pool(images))


def names(function, *args):
    return [equation.primitive.name for equation in jax.make_jaxpr(function)(*args).eqns]
