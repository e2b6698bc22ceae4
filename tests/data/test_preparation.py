import errno
import functools
import hashlib
import http.server
import importlib.util
import os
import shutil
import threading

import numpy as np
import pytest
from formats_for_tests import write_idx, write_tfds

import jaxmnist as jm
from jaxmnist.data import loading, preparation
from jaxmnist.data.dataset import SPLIT_NAMES, prepared_folder

TFDS = pytest.importorskip("tensorflow_datasets")
NAMES = [name for pair in preparation.FILE_NAMES.values() for name in pair]


@pytest.fixture
def files(no_home, monkeypatch):
    """The four files of a small MNIST, which TFDS's record of checksums is told to expect at an address."""
    folder = no_home / "official"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for (images, labels), count in zip(preparation.FILE_NAMES.values(), (24, 7), strict=True):
        write_idx(folder / images, generator.integers(0, 256, (count, 28, 28)).astype(np.uint8))
        write_idx(folder / labels, generator.integers(0, 10, count).astype(np.uint8))

    def expect(address):
        contents = {name: (folder / name).read_bytes() for name in NAMES}
        record = {
            hashlib.sha256(content).hexdigest(): ("mnist", f"{address}/{name}", len(content))
            for name, content in contents.items()
        }
        monkeypatch.setattr(preparation, "_checksums", lambda: record)

    expect("http://127.0.0.1:9")
    return folder, expect


@pytest.fixture
def manual(files, no_home):
    """A TFDS folder with these files in `downloads/manual`."""
    root = no_home / "tfds"
    shutil.copytree(files[0], root / "downloads" / "manual")
    return root


def assert_is_small_mnist(dataset, folder):
    train, test = (
        [preparation.read_idx(folder / name, num_dims) for name, num_dims in zip(pair, (3, 1), strict=True)]
        for pair in preparation.FILE_NAMES.values()
    )
    assert [len(split.targets) for split in (dataset.train, dataset.validation, dataset.test)] == [22, 2, 7]

    # TFDS shuffles as it writes, so the examples are compared as a set.
    def examples(images, labels):
        return sorted((int(label), image.tobytes()) for image, label in zip(images, labels, strict=True))

    parts = [np.concatenate(pair) for pair in zip(dataset.train, dataset.validation, strict=True)]
    assert examples(*parts) == examples(*train) and examples(*dataset.test) == examples(*test)


def test_official_files_in_the_manual_folder(manual, files):
    assert_is_small_mnist(jm.load("mnist", manual), files[0])
    source = TFDS.data_source("mnist", data_dir=str(manual), split="test", download=False)
    assert len(source) == 7 and source[0]["image"].shape == (28, 28, 1)


def test_manual_files_may_lie_in_a_folder_of_their_own(manual, files):
    downloads = manual / "downloads"
    (downloads / "manual").rename(downloads / "mnist")
    (downloads / "manual").mkdir()
    (downloads / "mnist").rename(downloads / "manual" / "mnist")
    assert_is_small_mnist(jm.load("mnist", manual), files[0])


@pytest.fixture
def served(files):
    """The official files at an address of this machine, with the checksums that TFDS expects."""
    folder, expect = files

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    expect(f"http://127.0.0.1:{server.server_port}")
    yield folder
    server.shutdown()
    server.server_close()


def test_download(served, no_home, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(no_home / "tfds"))
    assert_is_small_mnist(jm.load("mnist"), served)


def test_altered_download_is_refused(served, no_home):
    flip(served / NAMES[2])
    with pytest.raises(jm.DataError, match=f"wrong checksum.*{NAMES[2]}"):
        jm.load("mnist", no_home / "tfds")
    assert not (no_home / "tfds" / "mnist").exists()


def test_altered_manual_file_is_named(manual):
    path = manual / "downloads" / "manual" / NAMES[0]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(jm.DataError, match=rf"{NAMES[0]} is not mnist's official file"):
        jm.load("mnist", manual)


def test_second_load_reads_the_cache(manual, monkeypatch):
    first = jm.load("mnist", manual)
    monkeypatch.setattr(preparation, "decode", None)
    second = jm.load("mnist", manual)
    for name in SPLIT_NAMES:
        for one, other in zip(getattr(first, name), getattr(second, name), strict=True):
            np.testing.assert_array_equal(one, other)
    assert first.class_names == second.class_names == tuple("0123456789")


def test_stale_or_damaged_cache_is_made_anew(manual, files):
    jm.load("mnist", manual)
    (folder,) = (manual / "mnist").iterdir()
    cache = folder / loading.CACHE_NAME
    for damage in (lambda: cache.write_bytes(cache.read_bytes()[:-3000]), lambda: flip(cache), lambda: touch(folder)):
        damage()
        before = cache.stat().st_mtime_ns
        assert_is_small_mnist(jm.load("mnist", manual), files[0])
        assert cache.stat().st_mtime_ns > before


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def touch(folder):
    os.utime(next(folder.glob("*train*")), ns=(1, 1))


def test_cache_goes_to_the_user_where_the_data_cannot_be_written(manual, no_home, monkeypatch):
    write = loading._write_cache

    def refuse(place, dataset, fingerprint):
        if place.parent.parent.name == "mnist":
            raise PermissionError
        write(place, dataset, fingerprint)

    monkeypatch.setattr(loading, "_write_cache", refuse)
    first = jm.load("mnist", manual)
    assert len(list((no_home / "cache" / "jaxmnist").glob("mnist-*.npz"))) == 1
    monkeypatch.setattr(preparation, "decode", None)
    np.testing.assert_array_equal(jm.load("mnist", manual).train.inputs, first.train.inputs)


def test_without_a_home_prepared_data_are_read(manual, files, monkeypatch):
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])  # as for a user who is in no password file
    monkeypatch.setenv("TFDS_DATA_DIR", str(manual))
    for _ in range(2):
        assert_is_small_mnist(jm.load("mnist"), files[0])


def test_a_missing_array_record_is_named_before_anything_is_prepared(manual, files, monkeypatch):
    find = importlib.util.find_spec
    without = {"array_record": None}
    with monkeypatch.context() as context:
        context.setattr(importlib.util, "find_spec", lambda name: without[name] if name in without else find(name))
        with pytest.raises(jm.DatasetUnavailable, match="array_record, which is not installed"):
            jm.load("mnist", manual)
        assert [path.name for path in manual.iterdir()] == ["downloads"]
    jm.load("mnist", manual)
    (cache,) = manual.rglob(loading.CACHE_NAME)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: without[name] if name in without else find(name))
    assert_is_small_mnist(jm.load("mnist", manual), files[0])
    cache.unlink()
    with pytest.raises(jm.DatasetUnavailable, match="array_record, which is not installed"):
        jm.load("mnist", manual)


def test_where_nobody_may_write_the_digits_stand_in(manual, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(TFDS.core.GeneratorBasedBuilder, "_download_and_prepare", refuse)
    dataset, notice = jm.load_or_digits(None, manual)
    assert dataset.name == "digits" and "Read-only file system" in notice


def test_damaged_prepared_file_is_named(manual):
    jm.load("mnist", manual)
    (folder,) = (manual / "mnist").iterdir()
    record = next(folder.glob("*train*"))
    content = record.read_bytes()
    record.write_bytes(content[: len(content) // 2])
    with pytest.raises(jm.DataError, match=record.name):
        jm.load("mnist", manual)


@pytest.mark.parametrize("pair", [(0, 2), (1, 3), (0, 1)])
def test_swapped_manual_files_are_named(manual, pair):
    first, second = (manual / "downloads" / "manual" / NAMES[index] for index in pair)
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    with pytest.raises(jm.DataError, match="is not mnist's official file"):
        jm.load("mnist", manual)
    assert not (manual / "mnist").exists()


def test_a_cut_off_download_is_taken_again(served, no_home):
    whole = (served / NAMES[0]).read_bytes()
    (served / NAMES[0]).write_bytes(whole[: len(whole) // 2])
    for _ in range(2):
        with pytest.raises(jm.DataError, match=NAMES[0]):
            jm.load("mnist", no_home / "tfds")
        assert not (no_home / "tfds" / "mnist").exists()
    (served / NAMES[0]).write_bytes(whole)
    assert_is_small_mnist(jm.load("mnist", no_home / "tfds"), served)


def test_what_a_kill_leaves_of_a_preparation_is_no_hindrance(manual, files):
    place = manual / "mnist" / "incomplete.ABCDEF_3.0.1"
    place.mkdir(parents=True)
    (place / "mnist-train.array_record-00000-of-00001").write_bytes(b"half")
    assert_is_small_mnist(jm.load("mnist", manual), files[0])


def test_a_folder_that_is_not_whole_is_named(manual, files):
    jm.load("mnist", manual)
    (folder,) = (manual / "mnist").iterdir()
    record = next(folder.glob("*test*"))
    record.rename(manual / "elsewhere")
    with pytest.raises(jm.DataError, match=r"test.* is damaged or incomplete"):
        jm.load("mnist", manual)
    (manual / "elsewhere").rename(record)
    (folder / "dataset_info.json").rename(manual / "elsewhere")
    with pytest.raises(jm.DataError, match=r"is incomplete in .*/mnist: .*remove it"):
        jm.load("mnist", manual)
    shutil.rmtree(folder)
    assert_is_small_mnist(jm.load("mnist", manual), files[0])


def test_two_that_prepare_at_the_same_time(manual, files, monkeypatch):
    # The second one comes when the first has its files and has written none.
    obtain = preparation._obtain_files
    others = []

    def obtain_twice(name, downloads):
        found = obtain(name, downloads)
        if not others:
            others.append(None)
            others[0] = jm.load(name, manual)
        return found

    monkeypatch.setattr(preparation, "_obtain_files", obtain_twice)
    assert_is_small_mnist(jm.load("mnist", manual), files[0])
    assert_is_small_mnist(others[0], files[0])
    assert len(list((manual / "mnist").iterdir())) == 1


def test_one_that_ends_first_while_another_prepares(manual, files, monkeypatch):
    write, ended = TFDS.core.GeneratorBasedBuilder._download_and_prepare, []

    def write_after_another(self, *args, **kwargs):
        if not ended:
            ended.append(None)
            ended[0] = jm.load("mnist", manual)
        return write(self, *args, **kwargs)

    monkeypatch.setattr(TFDS.core.GeneratorBasedBuilder, "_download_and_prepare", write_after_another)
    assert_is_small_mnist(jm.load("mnist", manual), files[0])
    assert_is_small_mnist(ended[0], files[0])
    assert [path.name for path in (manual / "mnist").iterdir()] == ["3.0.1"]


def test_a_disk_that_fills_up_while_preparing_leaves_nothing(manual, files, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as context, pytest.raises(jm.DataError, match=r"cannot be prepared .*No space left"):
        context.setattr(TFDS.core.GeneratorBasedBuilder, "_download_and_prepare", refuse)
        jm.load("mnist", manual)
    assert not list((manual / "mnist").glob("*"))
    # The cache is another file: without it, the next load decodes again.
    with monkeypatch.context() as context:
        context.setattr(loading, "write_atomically", refuse)
        assert_is_small_mnist(jm.load("mnist", manual), files[0])
    assert_is_small_mnist(jm.load("mnist", manual), files[0])


def test_the_cache_of_another_data_set_or_version_is_not_taken(manual, files):
    features = TFDS.features.FeaturesDict(
        {"image": TFDS.features.Image(shape=(8, 6, 3)), "label": TFDS.features.ClassLabel(names=["cat", "dog"])}
    )
    examples = [{"image": np.full((8, 6, 3), i, np.uint8), "label": i % 2} for i in range(12)]
    for version in ("1.0.0", "1.10.0"):
        write_tfds(manual / "pets" / version, features, {"train": examples[:10], "test": examples})
        examples = [{**example, "image": example["image"] + 100} for example in examples]
        assert (jm.load("pets", manual).test.inputs.max() >= 100) == (version == "1.10.0")
    jm.load("mnist", manual)
    (ours,) = (manual / "mnist").iterdir()
    for other in ("1.0.0", "1.10.0"):
        shutil.copy(manual / "pets" / other / loading.CACHE_NAME, ours / loading.CACHE_NAME)
        assert_is_small_mnist(jm.load("mnist", manual), files[0])
    shutil.copy(manual / "pets" / "1.0.0" / loading.CACHE_NAME, manual / "pets" / "1.10.0" / loading.CACHE_NAME)
    assert jm.load("pets", manual).test.inputs.max() >= 100


@pytest.mark.slow
def test_real_official_files(tmp_path, mnist_dir):
    official = mnist_dir.parent / "mnist-idx"
    if not official.is_dir():
        pytest.skip("the official files are not here")
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "manual").symlink_to(official.resolve())
    ours, theirs = jm.load("mnist", tmp_path), preparation.decode("mnist", prepared_folder("mnist", mnist_dir))
    for split in SPLIT_NAMES:
        for one, other in zip(getattr(ours, split), getattr(theirs, split), strict=True):
            np.testing.assert_array_equal(one, other)
