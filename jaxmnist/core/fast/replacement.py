"""Any function with its convolutions and pooling made fast, whichever library its layers come from.

The function is traced, and what was traced is evaluated anew, operation by operation, with some of them replaced.
"""

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.extend import core
from jax.extend.core import primitives

from jaxmnist.core.fast import pooling, windows


def with_fast_operations(function: Callable) -> Callable:
    """Returns a function of the same value whose convolutions and pooling are fast in compiled loops and under `vmap`.

    Values and gradients differ from the function's own by rounding, and not at all without such operations. Replaced
    operations have gradients in reverse mode alone. Those inside a derivative rule of the function's own
    (`jax.custom_jvp`, `jax.custom_vjp`) stay as they are.

    Args:
      function: any function of arrays, or pytrees of them, that jax can trace.
    """

    @functools.wraps(function)
    def replaced(*args):
        traced, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        outputs = _evaluate(traced.jaxpr, traced.consts, *jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shape), outputs)

    return replaced


def _evaluate(jaxpr, constants, *inputs):
    """Returns the outputs of a traced function, its slow operations replaced."""
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*constants, *inputs), strict=True))
    equations = _pooled_first(jaxpr)
    convolved = _convolved(equations)

    def value(atom):
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for equation in equations:
        arguments, primitive = map(value, equation.invars), equation.primitive
        with equation.ctx.manager:
            if _is_slow(equation):
                outputs = REPLACEMENTS[primitive](*arguments, **equation.params)
            elif (axis := _axis_of_bias(equation, convolved)) is not None:
                outputs = windows.add_bias(*arguments, axis)
            else:
                outputs = primitive.bind(*arguments, **primitive.get_bind_params(equation.params))
        values.update(zip(equation.outvars, outputs if primitive.multiple_results else [outputs], strict=True))
    return [value(atom) for atom in jaxpr.outvars]


def _pooled_first(jaxpr) -> list:
    """Returns the equations, with max pooling before what is added to its input, if that is alike within each window.

    The maxima are the same, bit for bit, and there are fewer numbers to add to, and to sum gradients over.
    """
    equations = list(jaxpr.eqns)
    uses = Counter(id(atom) for atom in itertools.chain(jaxpr.outvars, *(each.invars for each in equations)))
    places = {id(each.outvars[0]): place for place, each in enumerate(equations) if each.primitive is primitives.add_p}
    for place, pool in enumerate(jaxpr.eqns):
        source = places.get(id(pool.invars[0])) if pool.primitive is primitives.reduce_window_max_p else None
        if source is None or uses[id(pool.invars[0])] > 1 or not _is_slow(pool):
            continue
        add = equations[source]
        for whole, added in (add.invars, add.invars[::-1]):
            if whole.aval.shape == pool.invars[0].aval.shape and _is_alike_in_windows(added.aval.shape, **pool.params):
                # The variable between them now holds the maxima.
                equations[source] = pool.replace(invars=[whole], outvars=add.outvars)
                equations[place] = add.replace(invars=[*add.outvars, added], outvars=pool.outvars)
                break
    return equations


def _is_alike_in_windows(shape, *, window_dimensions, window_strides, padding, **_) -> bool:
    """Returns whether an array that is broadcast against another is constant within each window of that one."""
    windows_of_one = [each == (1, 1, (0, 0)) for each in zip(window_dimensions, window_strides, padding, strict=True)]
    return len(shape) == len(windows_of_one) and all(
        extent == 1 or is_one for extent, is_one in zip(shape, windows_of_one, strict=True)
    )


def _convolved(equations) -> set[int]:
    """Returns the ids of the variables that hold the outputs of convolutions, or those in another shape."""
    found: set[int] = set()
    for each in equations:
        reshapes = each.primitive in RESHAPES and id(each.invars[0]) in found
        if reshapes or each.primitive is primitives.conv_general_dilated_p:
            found.add(id(each.outvars[0]))
    return found


def _axis_of_bias(equation, convolved: set[int]) -> int | None:
    """Returns the axis of the channels where an operation adds a number per channel to what was convolved.

    Returns None for any other operation, and for channels that come last, which need no `add_bias`.
    """
    if equation.primitive is not primitives.add_p or id(equation.invars[0]) not in convolved:
        return None
    bias = equation.invars[1].aval
    axes = [axis for axis, extent in enumerate(bias.shape) if extent > 1]
    return axes[0] if len(axes) == 1 and axes[0] < len(bias.shape) - 1 else None


def _has_slow(jaxpr) -> bool:
    return any(map(_is_slow, jaxpr.eqns))


def _is_slow(equation) -> bool:
    """Returns whether an operation can be replaced by a fast one, or contains one that can."""
    shapes = [atom.aval for atom in equation.invars]
    if equation.primitive is primitives.conv_general_dilated_p:
        return equation.outvars[0].aval.size > 0 and windows.can_convolve(*shapes, **equation.params)
    if equation.primitive in (primitives.reduce_window_max_p, primitives.reduce_window_sum_p):
        return equation.outvars[0].aval.size > 0 and pooling.can_pool(*shapes, **equation.params)
    return _is_followed(equation) and any(map(_has_slow, core.jaxprs_in_params(equation.params)))


def _is_followed(equation) -> bool:
    """Returns whether the operations inside an operation are evaluated anew."""
    if equation.primitive is primitives.cond_p:
        return equation.params.get("branches_platforms") is None
    if equation.primitive is primitives.remat_p:
        return not equation.params["differentiated"]
    return equation.primitive in REPLACEMENTS


def _as_function(closed: core.ClosedJaxpr) -> Callable:
    return functools.partial(_evaluate, closed.jaxpr, closed.consts)


def _jit(*inputs, jaxpr, **_):
    return _as_function(jaxpr)(*inputs)


def _remat(*inputs, jaxpr, policy, prevent_cse, **_):
    function = functools.partial(_evaluate, jaxpr, ())
    return jax.checkpoint(function, policy=policy, prevent_cse=prevent_cse)(*inputs)


def _custom_rule(*inputs, primitive, call_jaxpr, **params):
    """Replaces what is computed without derivatives; the rule for those stays the user's."""
    traced = jax.make_jaxpr(_as_function(call_jaxpr))(*call_jaxpr.in_avals)
    return primitive.bind(*inputs, **primitive.get_bind_params({**params, "call_jaxpr": traced}))


def _scan(*inputs, jaxpr, length, reverse, unroll, _split_transpose=False, **params):
    num_consts, num_carry = _numbers(params)
    constants, start, xs = inputs[:num_consts], inputs[num_consts:][:num_carry], inputs[num_consts + num_carry :]
    function = _as_function(jaxpr)

    def step(carry, x):
        outputs = function(*constants, *carry, *x)
        return outputs[:num_carry], outputs[num_carry:]

    carry, ys = jax.lax.scan(step, list(start), list(xs), length, reverse, unroll, _split_transpose)
    return [*carry, *ys]


def _numbers(params: Mapping[str, Any]) -> tuple[int, int]:
    """Returns how many operands of a scan are constants, and how many are carried from step to step."""
    if "ft_in" in params:  # from jax 0.12 on, a tree
        constants, carried, _ = params["ft_in"].unpack()
        return len(list(constants.vals)), len(list(carried.vals))
    return params["num_consts"], params["num_carry"]


def _while(*inputs, cond_jaxpr, cond_nconsts, body_jaxpr, body_nconsts, **_):
    of_condition, of_body = inputs[:cond_nconsts], inputs[cond_nconsts : cond_nconsts + body_nconsts]
    condition, body = _as_function(cond_jaxpr), _as_function(body_jaxpr)
    return jax.lax.while_loop(
        lambda carry: condition(*of_condition, *carry)[0],
        lambda carry: body(*of_body, *carry),
        list(inputs[cond_nconsts + body_nconsts :]),
    )


def _cond(index, *operands, branches, **_):
    return jax.lax.switch(index, [_as_function(branch) for branch in branches], *operands)


# What gives an array another shape, or takes its maxima.
RESHAPES = (primitives.reshape_p, primitives.squeeze_p, primitives.reduce_window_max_p)
REPLACEMENTS: dict[core.Primitive, Callable[..., Any]] = {
    primitives.conv_general_dilated_p: windows.convolve_generally,
    primitives.reduce_window_max_p: pooling.max_pool_generally,
    primitives.reduce_window_sum_p: pooling.sum_pool_generally,
    primitives.jit_p: _jit,
    primitives.remat_p: _remat,
    primitives.custom_jvp_call_p: functools.partial(_custom_rule, primitive=primitives.custom_jvp_call_p),
    primitives.custom_vjp_call_p: functools.partial(_custom_rule, primitive=primitives.custom_vjp_call_p),
    primitives.scan_p: _scan,
    primitives.while_p: _while,
    primitives.cond_p: _cond,
}
