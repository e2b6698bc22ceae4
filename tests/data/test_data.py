import random
import subprocess
import sys
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import jaxmnist as jm
from jaxmnist.data import preparation
from jaxmnist.data.dataset import split_train


def test_order_is_one_permutation_per_epoch():
    order = jm.example_order(10, 3, 35)
    assert order.dtype == np.int32 and len(order) == 35
    for epoch in range(3):
        assert sorted(order[10 * epoch : 10 * (epoch + 1)]) == list(range(10))
    assert (order[:10] != order[10:20]).any()
    np.testing.assert_array_equal(order[:7], jm.example_order(10, 3, 7))
    assert (order != jm.example_order(10, 4, 35)).any()


@pytest.mark.parametrize("batch_size", [1, 3, 7, 47])
def test_one_epoch_has_every_example_once_whatever_the_batch_size(tiny, batch_size):
    seen = []
    for images, labels in jm.batches(tiny.train, batch_size, seed=1):
        assert len(images) == len(labels) == batch_size
        seen.extend(images)
        if len(seen) >= 47:
            break
    expected = sorted(image.tobytes() for image in tiny.train.inputs)
    assert sorted(image.tobytes() for image in seen[:47]) == expected


@pytest.mark.parametrize("batch_size", [0, 48])
def test_batches_refuse(tiny, batch_size):
    with pytest.raises(ValueError, match=f"batch_size is {batch_size}; a whole number from 1 "):
        jm.batches(tiny.train, batch_size)


def test_digits_are_the_embedded_ones():
    dataset = jm.load("digits")
    assert [len(split.targets) for split in (dataset.train, dataset.validation, dataset.test)] == [1257, 180, 360]
    assert dataset.train.inputs.shape == (1257, 28, 28, 1) and dataset.train.inputs.dtype == np.uint8
    assert dataset.train.targets.dtype == np.int32 and len(dataset.class_names) == 10
    assert dataset.train.inputs.max() == 255 and not dataset.train.inputs[:, :2].any()
    whole = np.concatenate([dataset.train.targets, dataset.validation.targets, dataset.test.targets])
    assert np.bincount(whole).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_mnist1d_leaves_the_random_numbers_of_a_person_alone(monkeypatch):
    def make_dataset(args):  # as the package does it
        random.seed(args.seed)
        np.random.seed(args.seed)
        inputs, targets = np.random.normal(size=(36, 40)), np.arange(36) % 10
        return {"x": inputs[:24], "y": targets[:24], "x_test": inputs[24:], "y_test": targets[24:]}

    def drawn():
        return random.random(), np.random.random()

    package = SimpleNamespace(get_dataset_args=lambda: SimpleNamespace(seed=42), make_dataset=make_dataset)
    monkeypatch.setitem(sys.modules, "mnist1d.data", package)
    states = random.getstate(), np.random.get_state()
    expected = drawn()
    random.setstate(states[0])
    np.random.set_state(states[1])
    dataset = jm.load("mnist1d")
    assert drawn() == expected
    assert [len(split.targets) for split in (dataset.train, dataset.validation, dataset.test)] == [22, 2, 12]
    assert dataset.train.inputs.dtype == np.float32 and dataset.train.targets.dtype == np.int32


@pytest.mark.slow
def test_mnist1d_is_what_its_package_makes():
    pytest.importorskip("mnist1d")
    dataset = jm.load("mnist1d")
    assert dataset.train.inputs.shape == (3667, 40) and len(dataset.validation.targets) == 333
    assert len(dataset.test.targets) == 1000 and len(dataset.class_names) == 10
    assert (np.bincount(dataset.train.targets, minlength=10) > 300).all()
    assert dataset.train.inputs.std() == pytest.approx(1, abs=0.01)


def test_a_data_set_is_shown_in_a_line_without_its_pixels(tiny):
    assert repr(tiny) == "Dataset('tiny', train=47, validation=13, test=23, input_shape=(6, 5, 1), num_classes=4)"
    in_short = "Split(inputs=uint8[23, 6, 5, 1], targets=int32[23])"
    assert repr(tiny.test) == in_short
    shown = []
    jax.jit(lambda split: shown.append(repr(split)))(tiny.test)
    assert [*shown, repr(jax.eval_shape(lambda split: split, tiny.test))] == [in_short] * 2


@pytest.mark.parametrize("value", [None, 0, "x", [[1] * 10_000], np.array(1), object()])
def test_what_is_no_data_set_is_shown_too(tiny, value):
    split = jm.Split(value, value)
    broken = [split, jm.Dataset("x", value, *[tiny.test] * 3), jm.Dataset(value, ("a",), *[split] * 3)]
    assert all(len(repr(each)) < 250 and "\n" not in repr(each) for each in broken)


def test_last_twelfth_of_train_is_held_out():
    images, labels = np.zeros((30, 2, 2, 1), np.uint8), np.arange(30)
    train, validation = split_train(images, labels)
    assert train.targets.tolist() == list(range(28)) and validation.targets.tolist() == [28, 29]


@pytest.mark.parametrize("name", ["", "../mnist", "Mnist", "mnist; rm", "a/b/c", "mnist/..", 3])
def test_names_that_are_none(name):
    with pytest.raises(jm.DataError, match="is not a name"):
        jm.load(name)


def test_digits_stand_in_where_mnist_is_out_of_reach(no_home, monkeypatch):
    monkeypatch.setattr("socket.create_connection", refuse)
    dataset, notice = jm.load_or_digits(None)
    assert dataset.name == "digits" and "not MNIST" in notice
    with pytest.raises(jm.DatasetUnavailable, match=r"'mnist' is not prepared .*TFDS_DATA_DIR"):
        jm.load_or_digits("mnist")


def test_offline_is_known_soon(no_home, monkeypatch):
    monkeypatch.setattr("socket.create_connection", refuse)
    start = time.monotonic()
    for name in ("mnist", "kmnist", "fashion_mnist"):
        with pytest.raises(jm.DatasetUnavailable):
            jm.load(name)
    assert time.monotonic() - start < 3 * 5


def test_a_network_that_swallows_what_is_sent_is_known_as_soon(no_home, monkeypatch):
    # Six addresses that never answer: one after another, each would take its time-out.
    def swallow(address, timeout):
        time.sleep(6 * timeout)
        raise OSError("timed out")

    monkeypatch.setattr("socket.create_connection", swallow)
    assert preparation.PROBE_TIMEOUT_S <= 3
    monkeypatch.setattr(preparation, "PROBE_TIMEOUT_S", 0.5)
    start = time.monotonic()
    with pytest.raises(jm.DatasetUnavailable, match=r"no answer within 0.5 s"):
        jm.load("mnist")
    assert time.monotonic() - start < 2.5
    assert not (no_home / "tensorflow_datasets").exists()


def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(jm.DataError, match=r"cannot be read from .*loop"):
        jm.load("mnist", loop)


@pytest.mark.parametrize("folder", [None, "~/data", "~nobody_here/data"])
def test_without_a_home_a_folder_in_it_is_named(no_home, monkeypatch, folder):
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])  # as for a user who is in no password file
    with pytest.raises(jm.DatasetUnavailable, match=f"'mnist' is looked for in {folder or '~/'}.* TFDS_DATA_DIR"):
        jm.load("mnist", folder)
    dataset, notice = jm.load_or_digits(None, folder)
    assert dataset.name == "digits" and "that home is not known" in notice


def test_the_argument_is_stronger_than_the_variable(no_home, monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "variable"))
    monkeypatch.setattr("socket.create_connection", refuse)
    with pytest.raises(jm.DatasetUnavailable, match="argument"):
        jm.load("mnist", tmp_path / "argument")
    with pytest.raises(jm.DatasetUnavailable, match="variable"):
        jm.load("mnist")


def test_any_part_of_an_order(tiny):
    whole = jm.example_order(47, 3, 500)
    assert whole.dtype == np.int32
    for start, length in ((0, 0), (0, 47), (13, 100), (94, 47), (46, 2), (200, 300)):
        np.testing.assert_array_equal(jm.example_order(47, 3, length, start), whole[start : start + length])
    far = jm.example_order(47, 3, 47, 47 * 10**9)
    assert sorted(far) == list(range(47))


@pytest.mark.parametrize("start", [10_000_000, 2**31 - 7, 2**31 + 5, 2**40])
def test_an_order_goes_on_beyond_32_bits(start):
    expected = [np.random.default_rng([1, place // 55_000]).permutation(55_000)[place % 55_000]
                for place in (start, start + 19)]  # fmt: skip
    order = jm.example_order(55_000, 1, 20, start)
    assert order.dtype == np.int32 and [order[0], order[-1]] == expected
    narrow = [np.int32(number) for number in (55_000, 1, 20)]
    np.testing.assert_array_equal(jm.example_order(*narrow, np.int64(start)), order)
    if start < 2**31:
        np.testing.assert_array_equal(jm.example_order(*narrow, np.int32(start)), order)


def test_unknown_name(no_home):
    with pytest.raises(jm.DataError, match="'no_such_thing' is not known to tensorflow-datasets"):
        jm.load("no_such_thing")


def refuse(*args, **kwargs):
    raise OSError("unreachable")


def test_import_is_light():
    heavy = ("tensorflow", "tensorflow_datasets", "matplotlib", "xarray", "pandas", "orbax", "sklearn", "scipy.stats")
    code = f"import sys, jaxmnist.core.training, jaxmnist; print([name for name in {heavy} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


@pytest.mark.slow
def test_mnist_as_prepared_and_then_from_its_cache(mnist_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    (tmp_path / "mnist").symlink_to(mnist_dir.resolve() / "mnist")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    dataset = jm.load("mnist")
    assert [len(split.targets) for split in (dataset.train, dataset.validation, dataset.test)] == [55000, 5000, 10000]
    assert dataset.test.inputs.shape == (10000, 28, 28, 1) and dataset.test.inputs.dtype == np.uint8
    # Of the 70,000 digits of MNIST; the counts are those of the labels in its official files.
    both = np.concatenate([dataset.train.targets, dataset.validation.targets])
    assert np.bincount(both).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(dataset.test.targets).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
