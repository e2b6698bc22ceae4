"""Schedules of a learning rate whose numbers may be traced, so that a sweep over them is one program.

They equal those of optax, which decides by Python's `if` and so needs the lengths before a program is built.
"""

from collections.abc import Callable
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import optax

from jaxmnist.checks import Number, Optional, checked_by
from jaxmnist.values import is_traced

Scalar = jax.Array | float
RATE = Number(traced=True)
STEPS = Number("a number of steps from 0 on", lambda value: value >= 0, traced=True)
LENGTH = Number("a number of steps from 1 on", lambda value: value >= 1, traced=True)


def _check_lengths(given: SimpleNamespace) -> None:
    """Raises ValueError if a warm-up takes all of the steps; if that is known while tracing only, the rate is nan."""
    if not (is_traced(given.warmup_steps) or is_traced(given.num_steps)) and given.warmup_steps >= given.num_steps:
        raise ValueError(f"warmup_steps is {given.warmup_steps} and num_steps is {given.num_steps}; it is below that")


@checked_by(peak=RATE, warmup_steps=STEPS, start=RATE)
def constant(peak: Scalar, *, warmup_steps: Scalar = 0, start: Scalar = 0.0) -> optax.Schedule:
    """Returns a rate that rises along a line and then stays, as `optax.warmup_constant_schedule`.

    Args:
      peak: `[]`, the rate after the warm-up.
      warmup_steps: `[]`, how long it rises; 0 for no rise.
      start: `[]`, where it begins.
    """
    return lambda step: _warmed_up(step, start, peak, warmup_steps, peak)


@checked_by(_check_lengths, peak=RATE, num_steps=LENGTH, end=RATE, warmup_steps=STEPS, start=RATE)
def linear(
    peak: Scalar,
    num_steps: Scalar,
    *,
    end: Scalar = 0.0,
    warmup_steps: Scalar = 0,
    start: Scalar = 0.0,
) -> optax.Schedule:
    """Returns a rate that rises along a line and then falls along another one, as `optax.linear_schedule` does.

    Args:
      peak: `[]`, the highest rate.
      num_steps: `[]`, the whole length, warm-up included.
      end: `[]`, the rate from then on.
      warmup_steps: `[]`, how long it rises, below `num_steps`; 0 for no rise.
      start: `[]`, where it begins.
    """
    return _rising_and_falling(_along_line, peak, num_steps, end, warmup_steps, start)


@checked_by(_check_lengths, peak=RATE, num_steps=LENGTH, end=RATE, warmup_steps=STEPS, start=RATE)
def cosine(
    peak: Scalar,
    num_steps: Scalar,
    *,
    end: Scalar = 0.0,
    warmup_steps: Scalar = 0,
    start: Scalar = 0.0,
) -> optax.Schedule:
    """Returns a rate that rises along a line and falls along a cosine, as `optax.warmup_cosine_decay_schedule`.

    Args:
      peak: `[]`, the highest rate.
      num_steps: `[]`, the whole length, warm-up included.
      end: `[]`, the rate from then on.
      warmup_steps: `[]`, how long it rises, below `num_steps`; 0 for no rise.
      start: `[]`, where it begins.
    """
    return _rising_and_falling(_along_cosine, peak, num_steps, end, warmup_steps, start)


@checked_by(_check_lengths, peak=RATE, num_steps=LENGTH, warmup_steps=STEPS, start=Optional(RATE), end=Optional(RATE))
def one_cycle(
    peak: Scalar,
    num_steps: Scalar,
    warmup_steps: Scalar,
    *,
    start: Scalar | None = None,
    end: Scalar | None = None,
) -> optax.Schedule:
    """Returns a rate that rises and then falls, each along a cosine (Smith & Topin 2017, arXiv:1708.07120).

    It is that of `optax.cosine_onecycle_schedule`.

    Args:
      peak: `[]`, the highest rate.
      num_steps: `[]`, the whole length, warm-up included.
      warmup_steps: `[]`, how long it rises, below `num_steps`.
      start: `[]`, where it begins; default `peak / 25`.
      end: `[]`, the rate from `num_steps` on; default `peak / 250000`.
    """
    first = peak / 25 if start is None else start
    last = peak / 250_000 if end is None else end

    def schedule(step):
        rising = _along_cosine(first, peak, _share(step, warmup_steps))
        falling = _along_cosine(peak, last, _share_after(warmup_steps, step, num_steps))
        return jnp.where(step < warmup_steps, rising, falling)

    return schedule


def _rising_and_falling(along: Callable, peak, num_steps, end, warmup_steps, start) -> optax.Schedule:
    """Returns a rate that rises along a line during the warm-up, and falls along a curve from then on."""

    def schedule(step):
        falling = along(peak, end, _share_after(warmup_steps, step, num_steps))
        return _warmed_up(step, start, peak, warmup_steps, falling)

    return schedule


def _warmed_up(step, start, peak, warmup_steps, after):
    """Returns a rate on the line from `start` to `peak` during the warm-up, and `after` from then on."""
    return jnp.where(step < warmup_steps, _along_line(start, peak, _share(step, warmup_steps)), after)


def _share_after(warmup_steps, step, num_steps):
    """Returns how much is over of the steps after a warm-up, in [0, 1]; nan if it takes all of them."""
    return jnp.where(warmup_steps < num_steps, _share(step - warmup_steps, num_steps - warmup_steps), jnp.nan)


def _share(step, num_steps):
    """Returns how much of a number of steps is over, in [0, 1]."""
    return jnp.clip(step / jnp.maximum(num_steps, 1), 0.0, 1.0)


def _along_line(first, last, share):
    """Returns a rate between two others."""
    return first + (last - first) * share


def _along_cosine(first, last, share):
    """Returns a rate between two others, which leaves the first and reaches the last without a kink."""
    return last + (first - last) * (1 + jnp.cos(jnp.pi * share)) / 2
