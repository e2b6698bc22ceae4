"""Any function with its slow operations replaced: its values and gradients stay, whatever they are made of."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import mostly_slow
from flax import nnx
from jax import lax

import jaxmnist as jm
from jaxmnist.core.fast.replacement import with_fast_operations

CHANNELS_LAST = ("NHWC", "HWIO", "NHWC")
CHANNELS_FIRST = ("NCHW", "OIHW", "NCHW")
SLOW = ("conv_general_dilated", "reduce_window", "select_and_scatter")


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


def stacked(values):
    return jax.tree.map(lambda *each: jnp.stack(each), *values)


FAST = (
    "patches", "tiles of 5", "groups of tiles", "any layout", "even kernel, valid", "uneven strides", "groups",
    "one weight, strides", "by channel, two each", "dilated kernel, strides", "transposed", "one axis, channels first",
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


@pytest.mark.parametrize("name", mostly_slow(POOLINGS, "2 x 2", "3 x 3, overlapping", "gaps", "one axis"))
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


@pytest.mark.parametrize("name", BIASES)
@pytest.mark.parametrize("is_first", [True, False])
def test_what_is_alike_within_windows_is_added_after_max_pooling(name, is_first):
    shape, window, padding, is_moved = BIASES[name]
    generator = np.random.default_rng(0)
    images, bias = (jnp.asarray(generator.normal(size=shape), jnp.float32) for shape in ((4, 6, 6, 3), shape))

    def pooled(images, bias):
        whole = lax.add(bias, images) if is_first else lax.add(images, bias)
        return lax.reduce_window(whole, -jnp.inf, lax.max, window, window, padding)

    fast = with_fast_operations(pooled)
    np.testing.assert_array_equal(fast(images, bias), pooled(images, bias))
    added = [each for each in jax.make_jaxpr(fast)(images, bias).eqns if each.primitive is lax.add_p]
    assert (added[0].outvars[0].aval.shape == pooled(images, bias).shape) == is_moved
    found, wanted = (
        jax.grad(lambda *given, function=function: jnp.sum(jnp.sin(function(*given))), argnums=(0, 1))(images, bias)
        for function in (fast, pooled)
    )
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6), found, wanted)


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


def test_a_function_without_slow_operations_is_as_before():
    images = jnp.ones((3, 6, 5, 1))
    model = jm.MLP(5)
    variables = model.init(jax.random.key(0), images)
    assert str(jax.make_jaxpr(with_fast_operations(model.apply))(variables, images)) == str(
        jax.make_jaxpr(model.apply)(variables, images)
    )


def convolution(images, kernel):
    return lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=CHANNELS_LAST)


@jax.custom_jvp
def with_jvp_rule(images, kernel):
    return convolution(images, kernel)


@with_jvp_rule.defjvp
def _(primals, tangents):
    outputs, tangent = jax.jvp(convolution, primals, tangents)
    return outputs, 3.0 * tangent


@jax.custom_vjp
def with_vjp_rule(images, kernel):
    return convolution(images, kernel)


with_vjp_rule.defvjp(
    lambda images, kernel: (convolution(images, kernel), (images, kernel)),
    lambda saved, grad: (3.0 * saved[0] * grad.sum(), 5.0 * saved[1]),
)


def scanned(images, kernel):
    def step(carry, factor):
        carry = convolution(carry, factor * kernel)
        return carry, carry.mean()

    last, means = lax.scan(step, images, jnp.array([0.1, 0.2, 0.3]), reverse=True, unroll=2)
    return last + jnp.cumsum(means)[1]


def chosen(images, kernel):
    return lax.cond(images.sum() > 0, convolution, lambda images, kernel: images * kernel.sum(), images, kernel)


def looped(images, kernel):
    return lax.fori_loop(0, 3, lambda step, carry: 0.1 * (step + 1) * convolution(carry, kernel), images)


def whiled(images, kernel):
    def pooled(carry):
        return lax.reduce_window(carry[0], -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID").max()

    return lax.while_loop(
        lambda carry: (pooled(carry) < 100) & (carry[1] < 20),
        lambda carry: (convolution(carry[0], kernel), carry[1] + 1),
        (images, 0),
    )[0]


IN_GRADIENTS = {
    "jit": jax.jit(lambda images, kernel: jax.jit(convolution)(images, kernel) * 2.0),
    "remat": jax.checkpoint(lambda images, kernel: jnp.sin(convolution(images, kernel))),
    "custom_jvp": with_jvp_rule,
    "custom_vjp": with_vjp_rule,
    "scan in reverse": scanned,
    "cond": chosen,
    "fori_loop": looped,
    "vmap": lambda images, kernel: jax.vmap(convolution, (None, 0))(images, jnp.stack([kernel, -2 * kernel])),
    "constants": lambda images, kernel: convolution(images + jnp.arange(4.0).reshape(1, 1, 4, 1), kernel),
}


@pytest.fixture
def pair():
    return jax.random.normal(jax.random.key(0), (2, 4, 4, 2)), jax.random.normal(jax.random.key(1), (3, 3, 2, 2))


@pytest.mark.parametrize("name", mostly_slow(IN_GRADIENTS, "remat", "custom_vjp", "scan in reverse", "cond", "vmap"))
def test_what_lies_inside_other_operations_is_replaced(name, pair):
    function = IN_GRADIENTS[name]
    fast = with_fast_operations(function)
    images, kernels = pair[0], jnp.stack([pair[1], 2 * pair[1]])

    def ours(images, kernels):
        evaluated, trained = (jax.vmap(each, (None, 0))(images, kernels) for each in (fast, with_gradients(fast)))
        return with_gradients(fast)(images, kernels[0]), trained, evaluated

    expected, _ = run(with_gradients(function), *pair)
    (alone, trained, evaluated), slow = run(ours, images, kernels)
    assert slow <= ({"conv_general_dilated"} if name.startswith("custom") else set())
    assert_near(alone, expected)
    assert_near(jax.tree.map(lambda each: each[0], trained), expected)
    assert_near(evaluated[0], expected[0])
    assert float(jnp.abs(evaluated[1] - expected[0]).max()) > 0.01


def test_a_while_loop_is_replaced_in_both_its_functions(pair):
    kernels = jnp.stack([pair[1], 2 * pair[1]])
    ours, slow = run(jax.vmap(with_fast_operations(whiled), (None, 0)), pair[0], kernels)
    assert not slow
    assert_near(ours[0], whiled(pair[0], kernels[0]))
    assert_near(ours[1], whiled(pair[0], kernels[1]))


def test_the_derivative_rules_inside_a_function_stay_its_own(pair):
    def loss(images, kernel):
        return jnp.sum(jax.nn.relu(convolution(images, kernel) - 0.5))

    # At 0 the derivative of jax's relu is 0, and that of a maximum is 1/2.
    rectified = with_fast_operations(lambda x: jnp.sum(jax.nn.relu(convolution(x, pair[1]))))
    slope = jax.jit(jax.grad(rectified))
    np.testing.assert_array_equal(slope(jnp.zeros_like(pair[0])), 0.0)
    assert_near(*(jax.jit(jax.grad(each))(*pair) for each in (with_fast_operations(loss), loss)))


def test_what_is_rematerialised_stays_so(pair):
    def function(images, kernel, policy):
        inner = jax.checkpoint(lambda *args: jnp.sin(jnp.cos(convolution(*args))), policy=policy, prevent_cse=False)
        return inner(images, kernel)

    policy = jax.checkpoint_policies.everything_saveable
    for each in (None, policy):
        traced = jax.make_jaxpr(with_fast_operations(lambda *args, each=each: function(*args, each)))(*pair)
        (equation,) = [equation for equation in traced.eqns if equation.primitive.name == "remat2"]
        assert (equation.params["policy"], equation.params["prevent_cse"]) == (each, False)


def test_pytrees_keys_constants_and_effects_pass_through(pair):
    seen = []

    def function(tree, key):
        jax.debug.callback(lambda value: seen.append(float(value)), tree["kernel"].sum())
        noise = jax.random.normal(jax.random.split(key)[0], tree["images"].shape)
        return {"outputs": [convolution(tree["images"] + noise, tree["kernel"])], "key": key, "none": None, "one": 1}

    tree, key = dict(zip(("images", "kernel"), pair, strict=True)), jax.random.key(5)
    ours, theirs = (jax.jit(each)(tree, key) for each in (with_fast_operations(function), function))
    jax.effects_barrier()
    assert seen == [pytest.approx(float(pair[1].sum()))] * 2
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    assert_near(ours["outputs"], theirs["outputs"])
    assert jax.random.key_data(ours["key"]).tolist() == jax.random.key_data(key).tolist()

    def closed_over(kernel):
        return with_fast_operations(lambda images: convolution(images, kernel))(pair[0]).sum()

    assert_near(jax.grad(closed_over)(pair[1]), jax.grad(lambda kernel: convolution(pair[0], kernel).sum())(pair[1]))
    assert jax.vmap(closed_over)(jnp.stack([pair[1], pair[1]])).shape == (2,)


class Network(nn.Module):
    """Convolutions of several kinds, as a user of flax would write them."""

    @nn.compact
    def __call__(self, images):
        hidden = nn.max_pool(nn.relu(nn.Conv(8, (5, 5))(images)), (2, 2), (2, 2))
        hidden = nn.avg_pool(nn.silu(nn.Conv(4, (3, 3), (2, 2))(hidden)), (2, 2), (1, 1), "SAME")
        return nn.Dense(3)(hidden.reshape(len(hidden), -1))


def linen_network():
    model = Network()
    images = jnp.zeros((1, 12, 12, 1))
    return model.apply, jax.jit(model.init)(jax.random.key(0), images)


def nnx_network():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.first, self.last = nnx.Conv(1, 4, (3, 3), rngs=rngs), nnx.Linear(144, 3, rngs=rngs)

        def __call__(self, images):
            hidden = nnx.max_pool(nnx.relu(self.first(images)), (2, 2), (2, 2))
            return self.last(hidden.reshape(len(hidden), -1))

    graph, state = nnx.split(Net(nnx.Rngs(0)))
    return lambda state, images: nnx.merge(graph, state)(images), state


def equinox_network():
    eqx = pytest.importorskip("equinox")
    keys = jax.random.split(jax.random.key(0))
    layers = [
        eqx.nn.Conv2d(1, 4, 3, key=keys[0]), eqx.nn.Lambda(jax.nn.relu), eqx.nn.MaxPool2d(2, 2), eqx.nn.AvgPool2d(2, 1),
        eqx.nn.Lambda(jnp.ravel), eqx.nn.Linear(64, 3, key=keys[1]),
    ]  # fmt: skip
    params, rest = eqx.partition(eqx.nn.Sequential(layers), eqx.is_array)
    return lambda params, images: jax.vmap(eqx.combine(params, rest))(images.transpose(0, 3, 1, 2)), params


def haiku_network():
    hk = pytest.importorskip("haiku")

    def network(images):
        hidden = jax.nn.relu(hk.Conv2D(4, 3, stride=2)(images))
        return hk.Linear(3)(hk.Flatten()(hk.MaxPool(2, 2, "SAME")(hk.avg_pool(hidden, 2, 1, "SAME"))))

    model = hk.without_apply_rng(hk.transform(network))
    return model.apply, model.init(jax.random.key(0), jnp.zeros((1, 12, 12, 1)))


NETWORKS = (linen_network, nnx_network, equinox_network, haiku_network)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("network", mostly_slow(NETWORKS, linen_network, equinox_network))
def test_a_network_of_any_library_trains_the_same_and_without_slow_operations(network):
    apply, params = network()
    images = jax.random.normal(jax.random.key(7), (5, 12, 12, 1))

    def gradients(apply):
        return jax.value_and_grad(lambda params, images: jnp.mean(jnp.sin(apply(params, images))))

    fast = with_fast_operations(apply)
    both = jax.tree.map(lambda each: jnp.stack([each, 0.5 * each]), params)

    def step(params, images):
        loss, grads = jax.vmap(gradients(fast), (0, None))(params, images)
        return params, (loss, grads)

    (theirs, outputs, ours), slow = run(
        lambda params, images: (gradients(apply)(params, images), apply(params, images), fast(params, images)),
        params, images,
    )  # fmt: skip
    assert slow
    assert_near(ours, outputs)
    (_, (losses, grads)), slow = run(lambda params, images: lax.scan(step, params, images), both, images[None])
    assert not slow
    assert_near((losses[0, 0], jax.tree.map(lambda each: each[0, 0], grads)), theirs)
    assert float(losses[0, 1]) != pytest.approx(float(losses[0, 0]), abs=1e-6)
