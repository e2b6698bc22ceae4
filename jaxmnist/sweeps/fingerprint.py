"""What is trained, and on which data, as numbers that are the same in every process; functions by what they compute."""

import hashlib
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxmnist import checks
from jaxmnist.core import training
from jaxmnist.core.arguments import UnfitFunction, check_augmentation
from jaxmnist.core.state import State, init_state
from jaxmnist.data.dataset import SPLIT_NAMES, Batch, Dataset, Split
from jaxmnist.host.files import NOT_COMPARED
from jaxmnist.sweeps.configure import Configured

# Names and places of functions change no result, and rules of differentiation are either applied already or not used.
IGNORED = re.compile(r"name|.*debug_info|.*source_info|.*_thunk|.*_fun|fwd|bwd|.*jvp")

# What sweeps of one problem may differ in, what tells their programs, and what a longer one may differ in besides.
RUNS = frozenset({"runs", "num_runs"})
PLAN = frozenset({"memory", "programs_crc32", "layout"})
LENGTH = frozenset({"budget", "num_steps", "num_evaluations"})
COMPUTATION = "computation_sha256"
# These are recorded as numbers that mean nothing to a reader; messages use these words instead.
CHECKSUMS = {
    "inputs_crc32": "inputs differ",
    "targets_crc32": "targets differ",
    "computation_sha256": "computation, as the model, the loss and the optimizer make it up, differs",
    "plan_crc32": "plan differs",
}


def trace_run(
    configure: Callable[[Mapping[str, jax.Array]], Configured],
    names: Sequence[str],
    train: Split,
    dtype: str = "float32",
) -> core.ClosedJaxpr:
    """Returns all that one run computes: its initial state, a training step, and an evaluation of one example.

    Args:
      configure: returns what a run is trained with, given the traced hyperparameters.
      names: those of the traced hyperparameters.
      train: the training split, of whose arrays shapes and dtypes matter.
      dtype: of all that is computed.

    Returns:
      The traced program; its first output is the model's of one example, `[1, ...]`.

    Raises:
      UnsupportedModel: the model would be trained wrongly.
      UnfitFunction: an augmentation would return something else than inputs, or `evaluation_params` than parameters.
    """

    def run(values, seed, batch):
        run = configure(values)
        state = init_state(run.model, run.optimizer, seed, batch.inputs, dtype)
        check_augmentation(run.augment, batch.inputs, dtype)
        after = training.train_step(run.model, run.optimizer, state, batch, run.loss, run.augment)
        evaluated = _evaluated(run, state)
        outputs = training.predict(run.model, *evaluated, batch.inputs)
        return outputs, [measure(outputs, batch.targets) for _, measure in run.measured], state, after

    values = {name: jax.ShapeDtypeStruct((), dtype) for name in names}
    inputs, targets = (
        jax.ShapeDtypeStruct((1, *array.shape[1:]), jax.dtypes.canonicalize_dtype(array.dtype)) for array in train
    )
    batch = Batch(inputs, targets, jax.ShapeDtypeStruct((1,), jnp.float32))
    return jax.make_jaxpr(run)(values, jax.ShapeDtypeStruct((), jnp.int32), batch)


def _evaluated(run: Configured, state: State) -> tuple[Any, Any]:
    """Returns the parameters and the state to evaluate with.

    Raises:
      UnfitFunction: `evaluation_params` returns no parameters.
    """
    try:
        evaluated = run.evaluated(state)
    except Exception as error:  # whatever a person's own function raises
        raise UnfitFunction(f"evaluation_params cannot be computed: {checks.reason(error)}") from error
    if _shapes(evaluated[0]) != _shapes(state.params):
        raise UnfitFunction("evaluation_params does not return a tree like the parameters")
    return evaluated


def _shapes(tree: Any) -> tuple:
    return jax.tree.structure(tree), [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]


def checksums(dataset: Dataset) -> dict[str, int]:
    """Returns the CRC-32 of the inputs and of the targets of all splits, as training sees them."""
    found = {}
    for field in Split._fields:
        crc = 0
        for split in SPLIT_NAMES:
            array = np.asarray(getattr(getattr(dataset, split), field))
            seen = np.ascontiguousarray(array, jax.dtypes.canonicalize_dtype(array.dtype))
            crc = zlib.crc32(f"{seen.dtype}{seen.shape[1:]}".encode() + seen.tobytes(), crc)
        found[f"{field}_crc32"] = crc
    return found


def digest(traced: core.ClosedJaxpr) -> str:
    """Returns the SHA-256 of a program: its operations and constants, and how they depend on each other.

    Args:
      traced: what `jax.make_jaxpr` returned.
    """
    sha = hashlib.sha256()
    _add(lambda text: sha.update(text if isinstance(text, bytes) else text.encode()), traced)
    return sha.hexdigest()


def combined(digests: Iterable[str]) -> str:
    """Returns the SHA-256 of the digests of several programs."""
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _add(write: Callable[[str | bytes], None], value: Any) -> None:
    """Writes a program, or a parameter of one of its operations, without names of variables and addresses."""
    if isinstance(value, core.ClosedJaxpr):
        _add_program(write, value.jaxpr)
        _add(write, value.consts)
    elif isinstance(value, core.Jaxpr):
        _add_program(write, value)
    elif isinstance(value, list | tuple):
        write(f"({len(value)} ")
        for each in value:
            _add(write, each)
    elif isinstance(value, dict):
        _add(write, sorted(value.items()))
    elif isinstance(value, np.ndarray | np.generic | jax.Array):
        if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
            value = jax.random.key_data(value)
        array = np.asarray(value)
        write(f"{array.dtype}{array.shape} ")
        write(array.tobytes())
    else:
        write(re.sub(r" at 0x[0-9a-f]+", "", repr(value)) + " ")


def _add_program(write: Callable[[str | bytes], None], program: core.Jaxpr) -> None:
    places: dict[core.Var, int] = {}

    def define(variables):
        for variable in variables:
            places[variable] = len(places)
            write(f"{variable.aval} ")

    def use(operands):
        for operand in operands:
            if isinstance(operand, core.Literal):
                write(f"{operand.aval} ")
                _add(write, operand.val)
            else:
                write(f"v{places[operand]} ")

    define((*program.constvars, *program.invars))
    for equation in program.eqns:
        write(f"{equation.primitive.name} ")
        use(equation.invars)
        _add(write, {name: given for name, given in equation.params.items() if not IGNORED.fullmatch(name)})
        define(equation.outvars)
    use(program.outvars)


def without(names: Collection[str], description: Mapping) -> dict:
    """Returns a description without some of its names."""
    return {name: value for name, value in description.items() if name not in names}


def difference(saved: Mapping, given: Mapping) -> str | None:
    """Returns words for the first difference of two descriptions, in anything that either of them contains, or None.

    Args:
      saved: the description that was found.
      given: the description of what is asked for.
    """
    for name in dict.fromkeys((*given, *saved)):
        found, value = (
            each.item() if isinstance(each, np.generic) else each for each in (saved.get(name), given.get(name))
        )
        if name in NOT_COMPARED or found == value:
            continue
        if found is None and name in CHECKSUMS:
            return (
                f"record, written by an earlier version, does not include its {CHECKSUMS[name].split()[0].strip(',')}"
            )
        if name not in CHECKSUMS:
            return f"{name} is {found!r}, not {value!r}"
        versions = [each.get("versions") for each in (saved, given)]
        other = name == "computation_sha256" and versions[0] != versions[1]
        return f"{CHECKSUMS[name]}; it was traced by {versions[0]}" if other else CHECKSUMS[name]
    return None


def raise_if_different(what: str, saved: Mapping, given: Mapping) -> None:
    """Raises ValueError, with words for what is described, if two descriptions differ."""
    found = difference(saved, given)
    if found is not None:
        raise ValueError(f"{what} is another one: its {found}")
