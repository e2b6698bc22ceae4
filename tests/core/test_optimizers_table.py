"""Every factory of optax: what it returns trains a model as a loop written with optax alone does, or why it cannot."""

import functools
import inspect
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from conftest import make_tiny, mostly_slow

import jaxmnist as jm
from jaxmnist.core.optimizers import OPTIMIZER_KEYS

contrib = optax.contrib
MODEL = jm.SoftmaxRegression(4, init_std=0.1)
TRAIN = make_tiny().train
STEPS = 4
SEED = 3
ONE = {"Dense_0": {"kernel": True, "bias": False}}
DIMENSIONS = {"Dense_0": {"kernel": contrib.MuonDimensionNumbers(), "bias": optax.MaskedNode()}}
LABELS = {"Dense_0": {"kernel": "a", "bias": "b"}}
SGD = optax.sgd(0.3)


def descent(transformation, rate=0.3):
    """Returns gradient descent along what a transformation returns."""
    return optax.chain(transformation, optax.scale(-rate))


def is_second(step, **kwargs):
    return step % 2 == 1


# Those whose first argument is a learning rate, and which need nothing else.
BY_RATE = {
    0.3: "adadelta adafactor adagrad adam adamax adamaxw adamw adan amsgrad fromage lamb lars nadam nadamw novograd "
    "optimistic_gradient_descent radam sgd sm3 yogi adabelief",
    0.03: "lion optimistic_adam optimistic_adam_v2 rmsprop rprop sign_sgd signum",
}
BY_RATE_IN_CONTRIB = {
    0.3: "ademamix adopt madgrad muon",
    0.003: "acprop simplified_ademamix",
    1.0: "cocob dadapt_adamw dog dowg prodigy schedule_free_adamw schedule_free_sgd",
}
# Those that return a direction, and need no arguments.
DIRECTIONS = (
    "centralize scale_by_adadelta scale_by_adam scale_by_adamax scale_by_adan scale_by_amsgrad scale_by_belief "
    "scale_by_lbfgs scale_by_novograd scale_by_optimistic_gradient "
    "scale_by_param_block_norm scale_by_param_block_rms scale_by_radam scale_by_rms scale_by_rss "
    "scale_by_sm3 scale_by_stddev scale_by_trust_ratio scale_by_yogi identity normalize_by_update_norm zero_nans "
    "add_decayed_weights scale_by_distance_over_gradients"
)
DIRECTIONS_IN_CONTRIB = "normalize scale_by_ademamix scale_by_adopt"


def deprecated_or_not(factory, *arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return factory(*arguments)


def made(module, by_rate, directions):
    rates = {name: rate for rate, names in by_rate.items() for name in names.split()}
    simple = {name: deprecated_or_not(getattr(module, name), rate) for name, rate in rates.items()}
    return simple | {name: descent(getattr(module, name)()) for name in directions.split()}


TRIED = made(optax, BY_RATE, DIRECTIONS) | {
    "adaptive_grad_clip": optax.chain(optax.adaptive_grad_clip(0.1), SGD),
    "apply_every": optax.chain(optax.apply_every(2), SGD),
    "apply_if_finite": optax.apply_if_finite(SGD, 2),
    "chain": optax.chain(optax.clip(0.1), SGD),
    "clip": descent(optax.clip(0.1)),
    "clip_by_block_rms": descent(optax.clip_by_block_rms(0.1)),
    "clip_by_global_norm": descent(optax.clip_by_global_norm(0.1)),
    "conditionally_mask": optax.conditionally_mask(SGD, is_second),
    "conditionally_transform": optax.chain(optax.conditionally_transform(optax.clip(0.1), is_second), SGD),
    "ema": descent(optax.ema(0.9)),
    "flatten": optax.flatten(optax.adam(0.1)),
    "freeze": optax.chain(SGD, optax.freeze({"Dense_0": {"kernel": False, "bias": True}})),
    "inject_hyperparams": optax.inject_hyperparams(optax.adam)(0.1),
    "inject_stateful_hyperparams": deprecated_or_not(optax.inject_stateful_hyperparams, optax.adam)(0.1),
    "keep_params_nonnegative": optax.chain(SGD, optax.keep_params_nonnegative()),
    "lbfgs": optax.lbfgs(),
    "lookahead": optax.lookahead(SGD, 2, 0.5),
    "masked": optax.chain(optax.masked(optax.clip(0.1), ONE), SGD),
    "multi_transform": optax.multi_transform({"a": SGD, "b": optax.adam(0.1)}, LABELS),
    "named_chain": optax.named_chain(("clip", optax.clip(0.1)), ("sgd", SGD)),
    "partition": optax.partition({"a": SGD, "b": optax.adam(0.1)}, LABELS),
    "polyak_sgd": optax.polyak_sgd(1.0),
    "scale": optax.scale(-0.3),
    "scale_by_backtracking_linesearch": optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(5)),
    "scale_by_factored_rms": descent(optax.scale_by_factored_rms(), 0.03),
    "scale_by_learning_rate": optax.scale_by_learning_rate(0.3),
    "scale_by_lion": descent(optax.scale_by_lion(), 0.01),
    "scale_by_polyak": descent(optax.scale_by_polyak(), 1.0),
    "scale_by_rprop": descent(optax.scale_by_rprop(0.03), 1.0),
    "scale_by_schedule": optax.scale_by_schedule(lambda step: -0.3 / (1 + step)),
    "scale_by_sign": descent(optax.scale_by_sign(), 0.01),
    "scale_by_zoom_linesearch": optax.chain(optax.sgd(1.0), optax.scale_by_zoom_linesearch(5)),
    "selective_transform": optax.selective_transform(SGD, freeze_mask=ONE),
    "snapshot": optax.chain(optax.snapshot("norm", optax.tree.norm), SGD),
    "stateless": optax.stateless(lambda updates, params: optax.tree.scale(-0.3, updates)),
    "stateless_with_tree_map": optax.stateless_with_tree_map(lambda update, params: -0.3 * update),
    "trace": descent(optax.trace(0.5)),
    "with_extra_args_support": optax.with_extra_args_support(SGD),
    "MultiSteps": optax.MultiSteps(SGD, 2),
}
TRIED_OF_CONTRIB = made(contrib, BY_RATE_IN_CONTRIB, DIRECTIONS_IN_CONTRIB) | {
    "galore": contrib.galore(0.03, rank=2),
    "mechanize": contrib.mechanize(optax.sgd(1.0)),
    "momo": contrib.momo(),
    "momo_adam": contrib.momo_adam(),
    "reduce_on_plateau": optax.chain(SGD, contrib.reduce_on_plateau(0.5, patience=1)),
    "sam": contrib.sam(SGD, optax.sgd(0.01)),
    "sam, opaque": contrib.sam(SGD, optax.sgd(0.01), opaque_mode=True),
    "sam, in a chain": optax.chain(optax.clip(0.1), contrib.sam(SGD, optax.sgd(0.01), opaque_mode=True)),
    "scale_by_acprop": descent(contrib.scale_by_acprop(), 0.003),
    "scale_by_cocob": contrib.scale_by_cocob(),
    "scale_by_galore": descent(contrib.scale_by_galore(2), 0.03),
    "scale_by_muon": descent(optax.masked(contrib.scale_by_muon(weight_dimension_numbers=DIMENSIONS), ONE)),
    "scale_by_madgrad": contrib.scale_by_madgrad(0.3),
    "scale_by_simplified_ademamix": descent(contrib.scale_by_simplified_ademamix(), 0.003),
    "schedule_free": contrib.schedule_free(SGD, 0.3),
    "split_real_and_imaginary": contrib.split_real_and_imaginary(SGD),
}
# Functions of their key, which jm folds with the seed.
NOISY = {
    "add_noise": lambda key: optax.chain(optax.add_noise(1e-4, 0.5, key), SGD),
    "noisy_sgd": lambda key: optax.noisy_sgd(0.3, 1e-4, key=key),
    "sophia": lambda key: contrib.sophia(
        0.03, hessian_diagonal_fn=contrib.hutchinson_estimator_diag_hessian(jax.random.key_data(key))
    ),
}
# What optax's documentation passes to `update`; to all others, nothing.
TOLD = dict.fromkeys(("lbfgs", "scale_by_backtracking_linesearch", "scale_by_zoom_linesearch"), "value grad value_fn")
TOLD |= dict.fromkeys(("polyak_sgd", "scale_by_polyak", "momo", "momo_adam", "reduce_on_plateau"), "value")
TOLD |= {"sophia": "obj_fn", "sam, opaque": "grad_fn", "sam, in a chain": "grad_fn"}

# Those with loops or branches of their own, which are faster if they are compiled.
COMPILED = (
    "lbfgs scale_by_lbfgs scale_by_backtracking_linesearch scale_by_zoom_linesearch sophia muon scale_by_muon galore "
    "scale_by_galore apply_if_finite mechanize conditionally_mask conditionally_transform MultiSteps adadelta adafactor"
)

_OF_EACH = "it needs the gradient of each example by itself, where training has that of their mean"
REASONS = {
    "set_to_zero": "it trains nothing",
    "monitor": "its state has another structure after the first update than before, so that no loop can carry it",
    "measure_with_ema": "it returns a measurement, for `monitor`, and no update",
    "hutchinson_estimator_diag_hessian": "it returns a diagonal of the Hessian, for `sophia`, and no direction",
    "differentially_private_aggregate": _OF_EACH,
    "dpsgd": _OF_EACH,
}
# Functions of optax that say nothing of what they return, and return something else.
OTHERS = (
    "bias_correction matrix_inverse_pth_root sigmoid_binary_cross_entropy update_infinity_moment update_moment "
    "update_moment_per_elem_norm schedule_free_eval_params"
)


def is_function(value):
    return inspect.isfunction(value) or isinstance(value, functools.partial)


def factories():
    """Returns the names of all public factories of gradient transformations."""
    found = set()
    for module in (optax, contrib):
        for name, value in inspect.getmembers(module):
            if name.startswith("_") or name in OTHERS.split():
                continue
            if inspect.isclass(value):
                is_one = hasattr(value, "gradient_transformation")
            else:
                returns = inspect.signature(value).return_annotation if is_function(value) else None
                is_one = returns is inspect.Signature.empty or "GradientTransformation" in str(returns)
            if is_one:
                found.add(name)
    return found


def test_every_factory_is_tried_or_has_a_reason():
    named = {name.split(",")[0] for name in (*TRIED, *TRIED_OF_CONTRIB, *NOISY)}
    assert not named & set(REASONS)
    assert factories() == named | set(REASONS)


@jax.jit
def mean_loss(params):
    logits = MODEL.apply({"params": params}, jnp.asarray(TRAIN.inputs, jnp.float32) / 255)
    return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(TRAIN.targets)).mean()


value_and_grad = jax.jit(jax.value_and_grad(mean_loss))


@functools.cache
def initial():
    return jm.init_state(MODEL, SGD, SEED, TRAIN.inputs).params


def plain_loop(name, optimizer):
    """Returns the parameters after a few steps of a loop as optax documents it, and those to evaluate with."""
    is_pair = name == "lookahead"

    def step(params, opt_state):
        value, grads = value_and_grad(params.fast if is_pair else params)
        functions = dict(value_fn=mean_loss, obj_fn=mean_loss, grad_fn=lambda params, i: jax.grad(mean_loss)(params))
        everything = dict(value=value, grad=grads, **functions)
        told = {each: everything[each] for each in TOLD.get(name, "").split()}
        updates, opt_state = optimizer.update(grads, opt_state, params, **told)
        return optax.apply_updates(params, updates), opt_state

    params = initial()
    params = optax.LookaheadParams.init_synced(params) if is_pair else params
    opt_state = optimizer.init(params)
    step = jax.jit(step) if name in COMPILED.split() else step
    for _ in range(STEPS):
        params, opt_state = step(params, opt_state)
    if is_pair:
        return params
    if isinstance(opt_state, contrib.ScheduleFreeState):
        return params, contrib.schedule_free_eval_params(opt_state, params)
    return params, params


def ours(name, optimizer):
    """Returns the same by `jm.train_step`."""
    size = len(TRAIN.targets)
    state = jm.init_state(MODEL, optimizer, SEED, TRAIN.inputs)
    # A loop can carry its state; it is not compiled, since that would take most of the time.
    jax.eval_shape(lambda state: jm.fit(MODEL, optimizer, state, TRAIN, jnp.arange(size), size, num_steps=1), state)
    batch = jm.Batch(jnp.asarray(TRAIN.inputs), jnp.asarray(TRAIN.targets), jnp.ones(size))

    def step(state):
        return jm.train_step(MODEL, optimizer, state, batch)

    step = jax.jit(step) if name in COMPILED.split() else step
    for _ in range(STEPS):
        state, _ = step(state)
    return state.params, jm.evaluation_params(state.opt_state, state.params)


def key():
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(0), OPTIMIZER_KEYS), SEED)


PAIRS = {name: (optimizer, optimizer) for name, optimizer in (TRIED | TRIED_OF_CONTRIB).items()}
PAIRS |= {name: (make(jax.random.key(0)), make(key())) for name, make in NOISY.items()}


# One or two of each kind: what they are told, what they carry, and what they evaluate with.
FAST = (
    "adam", "muon", "schedule_free_sgd", "add_decayed_weights", "lbfgs", "lookahead", "multi_transform", "polyak_sgd",
    "MultiSteps", "reduce_on_plateau", "sam, opaque", "add_noise",
)  # fmt: skip


@pytest.mark.parametrize("name", mostly_slow(PAIRS, *FAST))
def test_it_trains_as_a_loop_with_optax_alone(name):
    optimizer, same = PAIRS[name]
    with jax.numpy_rank_promotion("allow"):  # as some of optax need it
        found, expected = ours(name, optimizer), plain_loop(name, same)
    assert mean_loss(found[1]) < mean_loss(initial())
    for params, wanted in zip(found, expected, strict=True):
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), params, wanted)


def test_gradients_of_each_example_are_refused():
    with (
        jax.numpy_rank_promotion("allow"),
        pytest.raises(ValueError, match="updates do not have the shapes of the parameters"),
    ):
        ours("", optax.chain(contrib.differentially_private_aggregate(1.0, 0.5, 0), SGD))


def test_a_state_that_changes_its_structure_is_refused(tiny):
    def monitored(learning_rate):
        return optax.chain(optax.sgd(learning_rate), optax.monitor({"norm": optax.tree.norm}))

    runs = jm.grid(learning_rate=[0.1], batch_size=[4], seed=[0])
    with pytest.raises(ValueError, match="its state changes its structure"):
        jm.check(MODEL, monitored, runs, tiny, 2)
