"""Any function with its slow operations replaced: its values and gradients stay, whatever they are made of."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import mostly_slow
from flax import nnx
from jax import lax
from replacement_for_tests import CHANNELS_LAST, assert_near, run, with_gradients

import jaxmnist as jm
from jaxmnist.core.fast.replacement import with_fast_operations


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


@pytest.mark.parametrize("name", mostly_slow(IN_GRADIENTS, "custom_vjp", "scan in reverse", "cond", "vmap"))
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

    gradients = (jax.jit(jax.grad(each)) for each in (closed_over, lambda kernel: convolution(pair[0], kernel).sum()))
    assert_near(*(gradient(pair[1]) for gradient in gradients))
    assert jax.jit(jax.vmap(closed_over))(jnp.stack([pair[1], pair[1]])).shape == (2,)


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
@pytest.mark.parametrize("network", mostly_slow(NETWORKS, linen_network))
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
