"""Files from strangers: nothing in them is executed, nothing outside their folder read, and none takes the memory."""

import io
import json
import pickle
import shutil
import zipfile
from pathlib import Path

import h5py
import jax
import numpy as np
import pytest
from conftest import mostly_slow
from results_for_tests import make_result
from scripts_for_tests import load
from test_report import predictions

import jaxmnist as jm
from jaxmnist.host import files
from jaxmnist.studies import report

MODEL = jm.MLP(3, 4)


class Exploit:
    """An object whose pickle, once loaded, leaves a file behind."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


def pickled(trace):
    """Returns an array that only pickle can hold."""
    array = np.empty(1, object)
    array[0] = Exploit(trace)
    return array


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    params = MODEL.init(jax.random.key(0), np.zeros((1, 6, 5, 1), np.float32))["params"]
    jm.save_model(folder, jm.Classifier(MODEL, (params,), (6, 5, 1), tuple("abcd")), [0])
    return folder


@pytest.fixture
def trained(model_folder, tmp_path):
    """The folder of a trained model, which may be changed."""
    return shutil.copytree(model_folder, tmp_path / "trained")


@pytest.fixture
def saved(tmp_path):
    """The folder of a result."""
    jm.save(make_result(), tmp_path)
    return tmp_path


def assert_refused(call, *words):
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert all(word in message for word in words) and "\n" not in message and len(message) < 600, message


def link_outside(file, outside):
    file["secret"] = h5py.ExternalLink(str(outside), "/secret")


def store_outside(file, outside):
    file.create_dataset("secret", (8,), "u1", external=[(str(outside), 0, 8)])


def map_outside(file, outside):
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource(str(outside), "secret", (4,))
    file.create_virtual_dataset("secret", layout)


def grow(file, outside):
    file.create_dataset("secret", (2**20, 2**20), "f8", chunks=(2**10, 2**10), compression="gzip")


def nest(file, outside):
    file.create_group("secret")


def hold_objects(file, outside):
    file.create_dataset("secret", data=np.void(pickle.dumps(Exploit(outside))))


@pytest.mark.parametrize("change", [link_outside, store_outside, map_outside, grow, nest, hold_objects])
def test_a_results_file_reads_no_other_file_and_takes_no_more_room_than_it_has(saved, tmp_path_factory, change):
    outside = tmp_path_factory.mktemp("elsewhere") / "outside.h5"
    if change is not hold_objects:
        with h5py.File(outside, "w") as file:
            file["secret"] = np.arange(4, dtype="f4")
    with h5py.File(saved / "results.nc", "a") as file:
        change(file, outside)
    assert_refused(
        lambda: jm.load_results(saved), "is damaged, or was not written by jaxmnist", "secret" * (change is not grow)
    )
    assert outside.exists() == (change is not hold_objects)


CLAIMS = (
    ("axes", "[" * 50_000), ("axes", '{"seed": [[0]]}'), ("axes", "{}"), ("shard", "3"), ("shard", "1/999999999999"),
    ("model", "os.system(x)"), ("model_fields", "[" * 50_000), ("model_fields", '{"parent": 3}'), ("num_steps", -5),
    ("num_steps", 2**40), ("optimizer", "eval"), ("dataset", "../../etc"),
)  # fmt: skip


@pytest.mark.parametrize("claim", mostly_slow(CLAIMS, CLAIMS[0], CLAIMS[4], CLAIMS[5], CLAIMS[7], *CLAIMS[9:]))
def test_what_a_result_says_of_itself_is_data(saved, claim):
    name, value = claim

    def read_all():
        result = jm.load_results(saved)
        if name == "shard":
            jm.merge([saved])
        jm.rerun(result, learning_rate=0.1, batch_size=8, seed=0)

    with h5py.File(saved / "results.nc", "a") as file:
        file.attrs[name] = value
    assert_refused(read_all)


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n" + b"\0" * 500, b"CDF\x01" + b"\xff" * 100, b"{}"])
def test_something_else_is_no_result(tmp_path, content):
    (tmp_path / "results.nc").write_bytes(content)
    assert_refused(lambda: jm.load_results(tmp_path), "results.nc is damaged")


@pytest.mark.parametrize("name", ["results.nc", "results.csv"])
@pytest.mark.parametrize("to", ["text", "nothing", "result"])
def test_saving_leaves_a_link_and_what_it_leads_to(tmp_path, name, to):
    if to == "result":
        jm.save(make_result(), tmp_path)
    outside = tmp_path / (name if to == "result" else to)
    if to == "text":
        outside.write_text("mine")
    before = outside.read_bytes() if outside.exists() else None
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).symlink_to(outside)
    assert_refused(lambda: jm.save(make_result(), tmp_path / "out"), name, "choose another folder")
    assert (tmp_path / "out" / name).readlink() == outside
    assert (outside.read_bytes() if outside.exists() else None) == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(model="os.system"), "names the model 'os.system'"),
        (dict(model="Dense"), "names the model 'Dense'"),
        (dict(model=["MLP"]), "names the model"),
        (dict(fields={"kernel_init": "os.system"}), "kernel_init"),
        (dict(fields={"parent": {"a": 1}, "num_classes": 4}), ""),
        (dict(fields={"hidden_size": 10**12, "num_classes": 4}), "are allowed"),
        (dict(fields={"hidden_size": -3, "num_classes": 4}), ""),
        (dict(fields={"hidden_size": "3", "num_classes": 4}), ""),
        (dict(fields={"num_classes": 5}), "5 strings"),
        (dict(fields=[1]), ""),
        (dict(model="CNN", fields={"features": [1] * 10_000, "num_classes": 4}), "10000 layers"),
        (dict(image_shape=[10**9, 10**9, 1]), "image_shape"),
        (dict(image_shape=[28, 28]), "shapes"),
        (dict(image_shape=[1] * 9), "image_shape"),
        (dict(input_dtype="object"), "input_dtype"),
        (dict(input_dtype=3), "input_dtype"),
        (dict(image_shape="abc"), "image_shape"),
        (dict(class_names=[1, 2, 3, 4]), "class_names"),
        (dict(class_names="abcd!"), "class_names"),
        (dict(seeds=[]), "no seeds"),
        (dict(seeds=["../../params_0"]), "invalid literal"),
        (dict(seeds=[10**30]), ""),
    ],
)
def test_a_model_folder_names_one_of_our_models_and_holds_numbers(trained, changes, words):
    place = trained / "model" / "model.json"
    description = json.loads(place.read_text()) | changes
    del description["crc32"]  # a stranger would leave it out, or write the right one
    place.write_text(json.dumps(description))
    with pytest.raises(ValueError, match="model") as caught:
        jm.load_model(trained)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[]", "3", "{", '{"model": ' + "9" * 5000 + "}", "\xff", " " * 2**24 + "{}"]
)
def test_a_model_description_that_is_no_json_object_is_refused(trained, text):
    (trained / "model" / "model.json").write_text(text, encoding="latin-1")
    assert_refused(lambda: jm.load_model(trained), "the model in", "cannot be read")


def test_what_a_description_says_of_fields_is_not_shown_at_any_length(trained):
    place = trained / "model" / "model.json"
    description = json.loads(place.read_text()) | {"fields": "x" * 2**20}
    place.write_text(json.dumps(description))
    assert_refused(lambda: jm.load_model(trained, MODEL), "its MLP has the fields xxx")


def test_what_leads_out_of_a_model_folder_is_not_followed(trained, tmp_path_factory):
    outside = tmp_path_factory.mktemp("elsewhere") / "params"
    (trained / "model" / "params_0").rename(outside)
    (trained / "model" / "params_0").symlink_to(outside)
    assert_refused(lambda: jm.load_model(trained), "params_0 leads out of the folder")
    (trained / "model" / "params_0").unlink()
    outside.rename(trained / "model" / "inside")
    (trained / "model" / "params_0").symlink_to(trained / "model" / "inside")
    assert jm.load_model(trained).class_names == tuple("abcd")


def write_archive(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def header_of(shape):
    """Returns an array file that declares a shape and holds nothing."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["pickle", "bomb", "declared", "negative", "short", "text"])
def test_arrays_from_strangers_are_numbers_of_bounded_size(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(files, "MAX_BYTES", 2**26)  # to write as many zeros as are allowed takes seconds
    path, trace = tmp_path / "x.npz", tmp_path / "trace"
    if kind == "pickle":
        np.savez(path, allow_pickle=True, x=pickled(trace))
    elif kind == "bomb":
        num_numbers = files.MAX_BYTES // 4
        write_archive(path, {"x.npy": header_of((num_numbers,)) + bytes(4 * num_numbers)})
        assert path.stat().st_size < 2**20
    else:
        shape = {"declared": (2**50,), "negative": (-5,)}.get(kind, (3,))
        write_archive(path, {"x.npy": b"text" if kind == "text" else header_of(shape)})
    assert_refused(
        lambda: files.read_arrays(path.read_bytes(), path.name),
        "x.npz cannot be read",
        "are allowed" if kind == "bomb" else "",
    )
    assert not trace.exists()


def test_predictions_from_strangers_are_checked(tiny, tmp_path):
    found, _ = predictions(tiny)
    trace = tmp_path / "trace"
    for changes in (
        dict(labels=np.full(23, 9)), dict(labels=found.labels[:3]), dict(worst=np.array([99])),
        dict(seeds=np.arange(2)), dict(probabilities=np.ones((3, 23))), dict(class_names=np.array(["a"])),
        dict(num_steps=np.array("x")),
        dict(filters=np.zeros(3)), dict(worst_images=np.zeros((1, 2))), dict(recipe=np.array([1, 2])),
        dict(class_names=pickled(trace)),
    ):  # fmt: skip
        arrays = {name: np.asarray(value) for name, value in found._asdict().items()} | changes
        np.savez(tmp_path / report.FILE_NAME, allow_pickle=True, **arrays)
        assert_refused(lambda: report.load_predictions(tmp_path), "is damaged or of an earlier version")
    assert not trace.exists()


@pytest.mark.parametrize("script", ["sweep_grid", "trainability_boundary", "train_cnn"])
@pytest.mark.parametrize(
    "changes",
    [
        dict(output_dir="/etc"), dict(plot_only="/etc"), dict(resume="/etc"), dict(num_steps="5"), dict(num_steps=1.5),
        dict(num_steps=True), dict(num_steps=[5]), dict(__class__="os.system"), dict(dataset=3), dict(data_dir=["/"]),
    ],
)  # fmt: skip
def test_saved_options_are_options_of_their_types(tmp_path, script, changes):
    common, module = load(script)
    options = module.Options(output_dir=tmp_path)
    common.save_config(options, jm.Dataset("digits", (), None, None, None))
    assert common.load_config(module.Options, tmp_path).num_steps == options.num_steps
    path = tmp_path / common.CONFIG_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    assert_refused(lambda: common.load_config(module.Options, tmp_path), "the options in", next(iter(changes)))


def test_no_module_unpickles_evaluates_or_runs_what_it_reads():
    for path in Path(jm.__file__).parent.rglob("*.py"):
        text = path.read_text()
        for word in ("pickle.load", "import pickle", "allow_pickle=True", "eval(", "exec(", "yaml.load", "os.system"):
            assert word not in text.replace("literal_eval(", ""), (path.name, word)
