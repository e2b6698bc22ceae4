"""The interactive page: its numbers are those of the tables, its texts do nothing, and it needs nothing else."""

import base64
import gzip
import hashlib
import importlib.util
import json
import re

import numpy as np
import pandas as pd
import pytest
from results_for_tests import make_regression, make_result
from test_importance import planted

import jaxmnist as jm
from jaxmnist.analysis import importance, results
from jaxmnist.analysis.arguments import with_one_seed
from jaxmnist.analysis.metrics import judged
from jaxmnist.plots import page, page_data, page_words

EVIL = "</script><script>document.title = 'evil'</script><img src=x onerror=\"document.title = 'evil'\">$$x$$"


def unpacked(text: str):
    """Returns the words and the arrays that a page holds, as its script reads them."""
    (data,) = re.findall(r'<script id="data" type="application/octet-stream">([^<]*)</script>', text)
    block = gzip.decompress(base64.b64decode(data))
    length = int.from_bytes(block[:4], "little")
    contents = json.loads(block[4 : 4 + length])
    arrays = {
        name: np.frombuffer(block, np.dtype(place["type"]), place["length"], 4 + length + place["offset"])
        for name, place in contents["arrays"].items()
    }
    return contents, arrays


def written(result, **more):
    return unpacked(page.page_text(result, judged(result, **more)))


def decoded(codes, scale):
    """Returns recorded values, as the script of the page reads them."""
    low, high, is_log = scale
    values = low + codes.astype(float) * (high - low) / page.MAX_CODE
    return np.where(codes == page.NO_VALUE, np.nan, np.exp(values) if is_log else values)


def with_diverged(result):
    """Returns a result, one of whose runs diverges at its step 6."""
    steps = result["diverged_step"].copy()
    steps[0, 0, 1] = 6
    return result.assign(diverged_step=steps)


@pytest.mark.parametrize("make", [make_result, make_regression])
def test_the_numbers_are_those_of_the_tables(make):
    result = with_diverged(make())
    contents, arrays = written(result)
    table = jm.ties(result)
    num_settings, num_steps = len(table), len(contents["steps"])
    for name in ("num_seeds", "num_diverged"):
        assert arrays[name].tolist() == table[name].tolist()
    assert [contents["standings"][place] for place in arrays["standing"]] == table["standing"].tolist()
    for axis in contents["axes"]:
        values = [eval(axis["code"][place].split("=")[1]) for place in arrays[f"axis_{axis['name']}"]]
        assert values == table[axis["name"]].tolist()
    metrics = result.attrs.get("metrics", "accuracy loss").split()
    curves = jm.curve_table(result, ("train", "validation", "test"), metrics)
    curves = table[["learning_rate", "batch_size"]].merge(curves, on=["learning_rate", "batch_size"])
    assert curves["num_diverged"].sum() == 2  # at the steps 5 and 10
    np.testing.assert_array_equal(arrays["recorded_diverged"], curves["num_diverged"])
    for quantity in contents["quantities"]:
        name, factor = quantity["name"], 100 if quantity["share"] else 1
        if f"{name}_final_mean" in arrays:
            for ours, theirs in (("final_mean", name), ("final_half_width", f"{name}_half_width")):
                expected = np.where(table["num_diverged"] == 0, factor * table[theirs], np.nan)
                np.testing.assert_allclose(arrays[f"{name}_{ours}"], expected, rtol=1e-6)
        for ours in ("mean", "half_width"):
            found = decoded(arrays[f"{name}_recorded_{ours}"], quantity["scales"][f"recorded_{ours}"])
            expected = factor * curves[f"{name}_{ours}"].to_numpy()
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.nanmax(expected))
        assert len(found) == num_settings * num_steps


def test_each_amount_of_each_budget_shows_what_at_budget_says():
    result = make_result()
    contents, arrays = written(result)
    table = jm.settings(result)
    (shown,) = [each for each in contents["quantities"] if each["name"] == "validation_loss"]
    means = decoded(arrays["validation_loss_recorded_mean"], shown["scales"]["recorded_mean"]).reshape(len(table), -1)
    assert [frame["name"] for frame in contents["frames"]] == ["steps", "examples", "epochs"]
    for frame in contents["frames"]:
        # There is a value before the first step, but no budget of nothing.
        for amount, places in list(zip(frame["amounts"], frame["places"], strict=True))[1:]:
            expected = jm.at_budget(result, frame["name"], amount, metric="loss").mean("seed", skipna=False)
            for s, (rate, size) in enumerate(zip(table["learning_rate"], table["batch_size"], strict=True)):
                place = places[arrays["size"][s] if len(places) > 1 else 0]
                value = np.nan if place < 0 else means[s, place]
                np.testing.assert_allclose(value, expected.sel(learning_rate=rate, batch_size=size), rtol=1e-4)


def test_a_page_needs_nothing_else_and_runs_nothing_else(tmp_path):
    jm.interactive(make_result(), tmp_path / "new" / "page.html")
    text = (tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    assert len(text) < 2e6
    own = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"(src|href|action)\s*=|@import|url\(", own)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    scripts = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert re.findall(r"'sha256-([^']*)'", policy) == digests and len(digests) == 3


def test_text_from_results_stays_text():
    result = make_result().assign_attrs(dataset=EVIL, model=EVIL, optimizer=EVIL, budget=EVIL)
    result = result.assign_coords(learning_rate=[EVIL, "b", "c"])
    axes = json.loads(result.attrs["axes"]) | {"learning_rate": ["b", EVIL, "c"]}
    result = result.assign_attrs(axes=json.dumps(axes))
    text = page.page_text(result, judged(result))
    assert "evil" not in re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL).replace("&#x27;evil&#x27;", "")
    assert EVIL not in text and "&lt;script&gt;" in text
    contents, _ = unpacked(text)
    assert contents["axes"][0]["code"][0] == f"learning_rate={EVIL!r}"


@pytest.mark.parametrize("is_sample", [False, True])
def test_the_code_of_each_run_means_that_run(is_sample):
    runs = jm.grid(learning_rate=[0.1, 0.2], batch_size=8, init_seed=[3, 4], order_seed=[5, 6])
    names = ("validation_accuracy", "validation_loss", "test_accuracy", "test_loss")
    values = {name: np.linspace(0.1, 0.8, 8) for name in names} | {"diverged_step": np.full(8, np.nan)}
    runs = {"seed": np.zeros(8, int)} | {name: np.asarray(column) for name, column in runs.items() if name != "seed"}
    attributes = {name: value for name, value in make_result().attrs.items() if name != "axes"}
    places = {"row": np.arange(8)} if is_sample else None
    result = results.label(runs, values, [10], attributes, places)
    contents, arrays = written(result)
    rows = jm.table(result)
    finals = []
    for s in range(2):
        for run in range(arrays["first_run"][s], arrays["first_run"][s + 1]):
            codes = [axis["code"][arrays[f"axis_{axis['name']}"][s]] for axis in contents["axes"]]
            wanted = eval(f"dict({', '.join([*codes, contents['seeds'][arrays['seed'][run]]])})")
            (found,) = np.flatnonzero(np.logical_and.reduce([rows[name] == value for name, value in wanted.items()]))
            finals.append(found)
            np.testing.assert_allclose(
                arrays["validation_accuracy_final_runs"][run], 100 * rows["validation_accuracy"][found], rtol=1e-6
            )
    assert sorted(finals) == list(range(8))


@pytest.mark.parametrize(
    ("values", "is_log"), [([0.1, 0.5, 0.9, np.nan], False), ([1e-4, 3.0, np.inf, 200.0], True), ([-1.0, 5.0], False)]
)
def test_values_are_coded_to_half_of_one_part_in_65534_of_their_range(values, is_log):
    values = np.array(values)
    codes, scale = page.coded(values)
    assert scale[2] == is_log
    scaled, known = (np.log if is_log else np.asarray), np.isfinite(values)
    error = scaled(decoded(codes, scale)[known]) - scaled(values[known])
    assert np.abs(error).max() <= 0.501 * np.ptp(scaled(values[known])) / page.MAX_CODE
    assert np.isnan(decoded(codes, scale)[~known]).all()


def test_steps_are_left_out_evenly_where_there_are_too_many(monkeypatch):
    monkeypatch.setattr(page_data, "MAX_RECORDED", 2 * 6 * (27 + 2 * 9))
    result = make_result()
    kept = page_data.thinned(result, page_data.runs_of(result, judged(result)))
    assert kept["step"].values.tolist() == [0, 10]


def test_a_sample_has_points_and_a_grid_has_cells():
    result = make_result()
    axes, _ = page_words.axes_of(result, jm.settings(result))
    assert page_words.has_cells(axes, 9)
    assert not page_words.has_cells([dict(axis, words=range(1000)) for axis in axes], 1000)
    assert [axis["positions"] for axis in axes] == [[0.0, 0.5, 1.0]] * 2
    spread = page_words._positions(np.geomspace(1e-3, 10, 601))
    np.testing.assert_allclose(spread, np.linspace(0, 1, 601), atol=1e-5)


def test_without_bokeh_one_sentence_names_the_extra(tmp_path, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "bokeh" else real(name))
    with pytest.raises(ValueError, match=r"^bokeh is not installed; install it by pip install 'jaxmnist\[page\]'$"):
        jm.interactive(make_result(), tmp_path / "page.html")


def test_a_page_of_another_origin_stays(tmp_path):
    (tmp_path / "page.html").write_text("<p>mine</p>")
    with pytest.raises(ValueError, match="was not written by jaxmnist"):
        jm.interactive(make_result(), tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == "<p>mine</p>"
    jm.interactive(make_result(), tmp_path / "other.html")
    jm.interactive(make_result(), tmp_path / "other.html")


def test_a_single_setting_has_a_page():
    contents, arrays = written(make_result().isel(learning_rate=0, batch_size=1))
    assert [axis["name"] for axis in contents["axes"]] == ["learning_rate", "batch_size"]
    assert arrays["first_run"].tolist() == [0, 3] and with_one_seed(make_result()) is make_result()


def test_importance_is_that_of_the_table_and_only_where_three_hyperparameters_differ(monkeypatch):
    columns = dict(hyperparameter=["batch_size", "init"], num_settings=32)
    shares = dict(fanova=[0.75, 0.125], fanova_low=[0.5, 0.1], fanova_high=[0.9, 0.2])
    shares |= {name.replace("fanova", "ped_anova"): values for name, values in shares.items()}
    monkeypatch.setattr(importance, "_table", lambda *given: pd.DataFrame(columns | shares))
    assert page_words.importance_of(make_result(), judged(make_result())) is None
    found = page_words.importance_of(planted(), judged(planted()))
    assert [row["label"] for row in found["rows"]] == ["batch size", "init"] and len(found["methods"]) == 2
    expected = {"words": "75 % [50, 90]", "value": 0.75, "low": 0.5, "high": 0.9}
    assert found["rows"][0]["shares"] == [expected] * 2 and "over 32 settings" in found["note"]
