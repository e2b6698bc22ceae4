"""The formats of data sets: idx files, and folders of tensorflow-datasets of any shape, classes and splits."""

import gzip

import numpy as np
import pytest
from formats_for_tests import write_idx, write_tfds

import jaxmnist as jm
from jaxmnist.data import loading, preparation

TFDS = pytest.importorskip("tensorflow_datasets")


def test_labels_and_sizes_that_the_description_does_not_have(no_home):
    features = TFDS.features.FeaturesDict(
        {"image": TFDS.features.Image(shape=(8, 6, 1)), "label": TFDS.features.ClassLabel(num_classes=3)}
    )
    examples = [{"image": np.zeros((8, 6), np.uint8), "label": i % 3} for i in range(12)]
    folder = no_home / "pets" / "1.0.0"
    write_tfds(folder, features, {"train": examples, "test": examples})
    description = folder / "features.json"
    text = description.read_text()
    assert text.count('"3"') == 1 and text.count('"8"') == text.count('"6"') == 1
    description.write_text(text.replace('"3"', '"2"'))
    (folder / "label.labels.txt").unlink(missing_ok=True)
    with pytest.raises(jm.DataError, match="train has the label 2, but there are 2 classes"):
        jm.load("pets", no_home)
    # As many pixels, in another order.
    description.write_text(text.replace('"8"', '"x"').replace('"6"', '"8"').replace('"x"', '"6"'))
    with pytest.raises(jm.DataError, match=r"train.* is damaged or incomplete: .*8, 6"):
        jm.load("pets", no_home)
    assert not (folder / loading.CACHE_NAME).exists()


def test_read_idx_refuses(tmp_path):
    path = tmp_path / "images.gz"
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    write_idx(path, images)
    np.testing.assert_array_equal(preparation.read_idx(path, 3), images)
    with pytest.raises(jm.DataError, match=r"images\.gz is not an idx file of 1 dim"):
        preparation.read_idx(path, 1)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(jm.DataError, match=r"images\.gz is damaged"):
        preparation.read_idx(path, 3)
    path.write_bytes(gzip.compress(gzip.decompress(gzip.compress(np.array([0x803, 9, 3, 4], ">u4").tobytes()))))
    with pytest.raises(jm.DataError, match=r"images\.gz is truncated"):
        preparation.read_idx(path, 3)


def test_other_datasets_have_other_shapes_classes_and_splits(no_home):
    features = TFDS.features.FeaturesDict(
        {"image": TFDS.features.Image(shape=(8, 6, 3)), "label": TFDS.features.ClassLabel(names=["cat", "dog"])}
    )
    generator = np.random.default_rng(0)
    made = {
        split: [{"image": generator.integers(0, 256, (8, 6, 3)).astype(np.uint8), "label": i % 2} for i in range(count)]
        for split, count in (("train", 9), ("validation", 4), ("test", 5))
    }
    write_tfds(no_home / "pets" / "1.0.0", features, made)
    dataset = jm.load("pets", no_home)
    assert dataset.class_names == ("cat", "dog")
    for split, examples in made.items():
        ours = getattr(dataset, split)
        assert ours.inputs.shape == (len(examples), 8, 6, 3)
        expected = sorted((example["label"], example["image"].tobytes()) for example in examples)
        got = sorted((int(label), image.tobytes()) for image, label in zip(*ours, strict=True))
        assert got == expected
