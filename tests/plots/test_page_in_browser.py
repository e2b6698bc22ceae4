"""The interactive page in a real browser: what a click, a key, a slider and a brush change."""

import json

import numpy as np
import pytest
from browser_for_tests import browser
from results_for_tests import RATES, SIZES, STEPS, make_result

import jaxmnist as jm
from jaxmnist.analysis import results
from jaxmnist.analysis.metrics import judged
from jaxmnist.plots import page_words

MOMENTA = [0.0, 0.5, 0.9]
EVIL = "<script>document.title = 'evil'</script><img src=x onerror=\"document.title = 'evil'\">$$x$$"
# The pixel of the map at a place in its own numbers.
PIXEL = """
const view = Bokeh.index.get_by_id(map.figure.id), box = view.canvas.el.getBoundingClientRect();
return [box.left + view.frame.x_scale.compute(arguments[0]), box.top + view.frame.y_scale.compute(arguments[1])];
"""


def make_three_axes():
    """Returns a result over learning rates, batch sizes and momenta, in which all runs of one setting diverge."""
    runs = jm.grid(learning_rate=RATES, batch_size=SIZES, momentum=MOMENTA, seed=[0, 1])
    generator = np.random.default_rng(0)
    curves = np.sort(generator.uniform(0.1, 0.9, (54, 3)), axis=1)
    diverged = np.full(54, np.nan)
    diverged[(np.asarray(runs["learning_rate"]) == 0.4) & (np.asarray(runs["momentum"]) == 0.9)] = 7.0
    values = {"diverged_step": diverged, "recorded_validation_accuracy": curves, "recorded_validation_loss": 1 - curves}
    for split in ("validation", "test"):
        values |= {f"{split}_accuracy": curves[:, -1], f"{split}_loss": 1 - curves[:, -1]}
    attributes = {name: value for name, value in make_result().attrs.items() if name != "axes"}
    return results.label(runs, values, STEPS, attributes | {"record": "validation", "model": EVIL, "optimizer": EVIL})


def accuracy_words(mean):
    return f"validation accuracy {100 * float(mean):.2f} %"


@pytest.mark.slow
def test_a_page_is_drawn_and_a_key_chooses_a_setting(tmp_path):
    jm.interactive(make_result(), tmp_path / "page.html")
    with browser(tmp_path / "profile") as page:
        page.open(tmp_path / "page.html")
        first, second = jm.settings(make_result())["validation_accuracy"][:2]
        assert accuracy_words(first) in page.text("setting")
        page.run("document.querySelectorAll('#settings button[aria-label]')[1].click()")
        assert accuracy_words(second) in page.text("setting") and "rank 2 of 9" in page.text("setting")
        assert page.problems() == []


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    jm.interactive(make_three_axes(), folder / "page.html")
    with browser(folder / "profile") as page:
        page.file = folder / "page.html"
        yield page


@pytest.fixture
def page(opened):
    """The page of the result with three axes, as it is when it is opened."""
    opened.open(opened.file)
    opened.problems()
    yield opened
    assert opened.problems() == []


def setting_at(page, x, y):
    """Returns what the page says of a cell of the map, after a click into its middle."""
    from selenium.webdriver.common.action_chains import ActionChains

    page.run("document.getElementById('map').scrollIntoView({block: 'center'})")
    left, top = page.run(PIXEL, x + 0.5, y + 0.5)
    actions = ActionChains(page.driver)
    actions.w3c_actions.pointer_action.move_to_location(round(left), round(top)).click()
    actions.perform()
    page.wait("return !document.getElementById('tip').hidden")
    # A click is one only once it cannot be the first of two.
    page.wait("return settingWords(state.chosen) === document.querySelector('#tip strong').textContent")
    return page.text("setting")


def mean_of(**setting):
    return make_three_axes()["validation_accuracy"].sel(setting).mean()


@pytest.mark.slow
def test_a_click_chooses_a_cell_and_shows_its_runs(page):
    best = jm.best(make_three_axes()).setting["momentum"]
    said = setting_at(page, 0, 2)
    assert said.startswith(f"learning rate 0.1, batch size 32, momentum {best:g}: ")
    assert accuracy_words(mean_of(learning_rate=0.1, batch_size=32, momentum=best)) in said
    assert "95 % t interval over 2 seeds" in said and "0 of 2 runs diverged" in said
    name, words = page.run("return [...document.getElementById('tip').children].map((part) => part.textContent)")
    assert f"{name}: {words}" == said
    lines = page.run("return curves.lines.data.ys.map((line) => Array.from(line))")
    expected = make_three_axes()["recorded_validation_accuracy"].sel(learning_rate=0.1, batch_size=32, momentum=best)
    np.testing.assert_allclose(lines, 100 * expected.transpose("seed", "step"), atol=2e-3)
    assert page.run("return document.querySelectorAll('#runs tr').length") == 3


@pytest.mark.slow
def test_a_slider_shows_other_values_of_what_the_map_does_not_show(page):
    for place, momentum in enumerate(MOMENTA[:2]):
        page.set("fixed-2", place)
        said = setting_at(page, 1, 0)
        assert accuracy_words(mean_of(learning_rate=0.2, batch_size=8, momentum=momentum)) in said
    page.set("fixed-2", 2)
    said = setting_at(page, 2, 0)
    assert "no mean, since a run diverged; 2 of 2 runs diverged" in said
    assert "at step 7" in page.text("runs")


@pytest.mark.slow
def test_the_axes_of_the_map_are_chosen(page):
    page.set("y", 2, "change")
    assert page.run("return document.querySelectorAll('#fixed input').length") == 1
    page.set("fixed-1", 1)
    said = setting_at(page, 0, 1)
    assert accuracy_words(mean_of(learning_rate=0.1, batch_size=16, momentum=0.5)) in said
    page.set("x", 2, "change")  # the two change places
    assert page.run("return [state.x, state.y]") == [2, 0]


@pytest.mark.slow
def test_the_budget_decides_which_step_is_shown(page):
    result = make_three_axes()
    page.set("budget", "steps", "change")
    page.set("amount", 1)
    assert page.text("amount-words") == "5 steps"
    setting = dict(learning_rate=0.1, batch_size=8, momentum=0.0)
    page.set("fixed-2", 0)
    said = setting_at(page, 0, 0)
    assert accuracy_words(jm.at_budget(result, "steps", 5).sel(setting).mean()) in said
    page.set("budget", "examples", "change")
    amounts = page.run("return budget().amounts")
    place = amounts.index(80)  # what 8 see in 10 steps, and 32 in 2.5 steps
    page.set("amount", place)
    assert accuracy_words(jm.at_budget(result, "examples", 80).sel(setting).mean()) in page.text("cell")
    setting_at(page, 0, 2)
    setting["batch_size"] = 32
    assert accuracy_words(jm.at_budget(result, "examples", 80).sel(setting).mean()) in page.text("cell")
    page.set("amount", len(amounts) - 1)
    assert "no value at this budget" in setting_at(page, 0, 0)


@pytest.mark.slow
def test_a_brush_selects_in_the_map_the_lines_and_the_table(page):
    from selenium.webdriver.common.action_chains import ActionChains

    before = page.run("return [Array.from(map.picture.data.image[0]), Array.from(parallel.all.data.image[0])]")
    page.run("document.getElementById('parallel').scrollIntoView({block: 'center'})")
    pixel = PIXEL.replace("map.figure", "parallel.figure")
    (left, top), (right, bottom) = page.run(pixel, -0.1, 1.02), page.run(pixel, 0.1, 0.4)
    actions = ActionChains(page.driver)
    pointer = actions.w3c_actions.pointer_action
    pointer.move_to_location(round(left), round(top)).pointer_down()
    for gap in (3, 0):
        pointer.move_to_location(round(right) - gap, round(bottom) - gap)
    pointer.pointer_up()
    actions.perform()
    page.wait("return document.getElementById('selected').textContent.startsWith('18 of 27')")  # two of three rates
    after = page.run("return Array.from(map.picture.data.image[0])")
    alpha = [pixel >> 24 for pixel in after]
    assert alpha == [0x28, 0xFF, 0xFF] * 3 and [pixel >> 24 for pixel in before[0]] == [0xFF] * 9
    assert page.run("return new Set(listing.order.map((s) => arrays.axis_learning_rate[s])).size") == 2
    assert "1 to 15 of 18" in page.text("where")
    assert page.run("return parallel.some.data.image.length") == 1
    page.run("document.getElementById('clear').click()")
    assert page.text("selected").startswith("27 of 27")
    assert page.run("return Array.from(map.picture.data.image[0])") == before[0]


@pytest.mark.slow
def test_sliders_select_as_a_brush_does(page):
    page.run(
        "const e = document.querySelectorAll('#ranges input')[5]; e.value = 1; e.dispatchEvent(new Event('input'))"
    )  # momentum, at most the second value
    page.wait("return document.getElementById('selected').textContent.startsWith('18 of 27')")
    shown = page.run("return listing.order.map((s) => contents.axes[2].words[arrays.axis_momentum[s]])")
    assert set(shown) == {"0", "0.5"}


@pytest.mark.slow
def test_the_call_that_trains_a_run_again_is_copied_by_a_click(page):
    best = jm.best(make_three_axes()).setting
    page.run("window.copied = ''; navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    page.run("document.querySelectorAll('.copy')[1].click()")
    page.wait("return document.getElementById('copied').textContent === 'Copied.'")
    code = page.run("return window.copied")
    assert code == f"jm.rerun(result, {', '.join(f'{name}={value!r}' for name, value in best.items())}, seed=1)"


@pytest.mark.slow
def test_the_table_is_sorted_and_turned(page):
    page.run("document.querySelectorAll('#settings th button')[4].click()")  # by the mean, ascending
    ascending = page.run("return Array.from(frame().mean).filter((v) => !Number.isNaN(v)).sort((a, b) => a - b)")
    column = "return [...document.querySelectorAll('#settings tr')].slice(1).map((row) => row.children[4].textContent)"
    assert [float(words) for words in page.run(column)] == [round(value, 2) for value in ascending[:15]]
    page.run("document.getElementById('next').click()")
    assert page.run(column)[-3:] == ["\u2013"] * 3  # what diverged comes last


@pytest.mark.slow
def test_importance_is_a_table_whose_bars_show_what_its_words_say(page):
    found = page_words.importance_of(make_three_axes(), judged(make_three_axes()))
    cells = page.run("return [...document.querySelectorAll('#shares td')].map((cell) => cell.textContent)")
    assert cells == [share["words"] for row in found["rows"] for share in row["shares"]] and len(cells) == 6
    widths = page.run(
        "return [...document.querySelectorAll('.share .value')].map((bar) => parseFloat(bar.style.width))"
    )
    np.testing.assert_allclose(widths, [100 * share["value"] for row in found["rows"] for share in row["shares"]], 1e-4)


@pytest.mark.slow
def test_the_address_keeps_the_view(page):
    page.set("y", 2, "change")
    page.set("quantity", 1, "change")
    page.set("budget", "examples", "change")
    page.set("amount", 3)
    page.run("choose(11)")
    page.run("state.brushes.set(0, [0, 0.6]); brushed()")
    page.wait("return location.hash.includes('brushes') && decodeURIComponent(location.hash).includes('0.6')")
    view = "return JSON.stringify(view())"
    before = page.run(view)
    page.driver.refresh()
    page.wait("return document.documentElement.dataset.ready")
    assert page.run(view) == before and page.text("selected").startswith("18 of 27")
    page.driver.get("about:blank")
    page.driver.get(f"{page.file.as_uri()}#%7B%22x%22:%5B1%5D,%22brushes%22:7")  # somebody else's
    page.wait("return document.documentElement.dataset.ready")
    assert page.text("selected").startswith("27 of 27")


@pytest.mark.slow
def test_text_from_results_does_nothing(page):
    assert EVIL[:30] in page.text("title") and page.run("return document.title") != "evil"
    assert page.run("return document.querySelectorAll('img').length") == 0


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_and_a_dark_screen(page, width, scheme):
    size = dict(width=width, height=800, deviceScaleFactor=1, mobile=width < 500)
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = [dict(name="prefers-color-scheme", value=scheme)]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", dict(features=media))
    page.open(page.file)
    assert page.run("return document.documentElement.scrollWidth") <= width
    lightness = page.run("return getComputedStyle(document.body).color.match(/\\d+/g).map(Number)")
    assert (min(lightness) > 200) == (scheme == "dark")
    color = page.run("return map.figure.below[0].axis_label_text_color")
    assert (int(color[1:3], 16) > 200) == (scheme == "dark")
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", dict(features=[]))


def make_large(num_rates, num_sizes, num_seeds, splits):
    """Returns a result of so many runs, whose curves have 101 steps on these splits."""
    rates = [float(f"{rate:.6g}") for rate in np.geomspace(1e-3, 10, num_rates)]
    runs = jm.grid(learning_rate=rates, batch_size=range(1, num_sizes + 1), seed=range(num_seeds))
    num_runs = num_rates * num_sizes * num_seeds
    generator = np.random.default_rng(0)
    values = {"diverged_step": np.where(np.arange(num_runs) % 50, np.nan, 20.0)}
    for name in ("accuracy", "loss"):
        curves = generator.uniform(0.1, 0.9, (num_runs, 101)).astype(np.float32)
        values |= {f"recorded_{split}_{name}": curves for split in splits}
        values |= {f"{split}_{name}": curves[:, -1] for split in ("validation", "test")}
    attributes = {name: value for name, value in make_result().attrs.items() if name != "axes"}
    return results.label(runs, values, np.arange(101).tolist(), attributes | {"record": " ".join(splits)})


@pytest.mark.slow
def test_a_page_of_ten_thousand_runs_is_small_and_follows_a_brush(tmp_path):
    jm.interactive(make_large(50, 50, 4, ("train", "validation", "test")), tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size < 6e6
    with browser(tmp_path / "profile") as page:
        page.open(tmp_path / "page.html")
        assert page.text("thinned").startswith("Of 101 recorded steps, this page holds 13, ")
        page.run("state.brushes.set(0, [0.5, 1]); brush()")
        page.wait("return document.getElementById('selected').textContent.startsWith('1,250 of 2,500')")
        assert page.run("return selected.reduce((sum, each) => sum + each, 0)") == 1250
        assert page.problems() == []


@pytest.mark.slow
def test_65536_runs_are_one_picture(tmp_path):
    jm.interactive(make_large(256, 256, 1, ("train",)), tmp_path / "page.html")
    with browser(tmp_path / "profile") as page:
        page.open(tmp_path / "page.html")
        assert page.run("return map.picture.data.image[0].shape") == [256, 256]
        assert page.run("return map.points.data.x.length") == 0
        page.run("map.figure.x_range.setv({start: 100, end: 110}); map.figure.y_range.setv({start: 100, end: 110})")
        page.wait("return map.figure.below[0].ticker.ticks.every((tick) => tick >= 100 && tick <= 110)")
        assert page.problems() == []


@pytest.mark.slow
def test_a_sample_is_drawn_as_points(tmp_path):
    space = dict(learning_rate=jm.loguniform(1e-3, 1), batch_size=[16, 32], momentum=jm.uniform(0, 0.9))
    runs = jm.with_seeds(jm.sample(100, 0, **space), [0])
    values = {
        f"{split}_{name}": np.linspace(0.1, 0.9, 100)
        for split in ("validation", "test")
        for name in ("accuracy", "loss")
    }
    attributes = {name: value for name, value in make_result().attrs.items() if name != "axes"}
    result = results.label(runs, values | {"diverged_step": np.full(100, np.nan)}, [10], attributes)
    jm.interactive(result, tmp_path / "page.html")
    with browser(tmp_path / "profile") as page:
        page.open(tmp_path / "page.html")
        assert page.run("return [map.points.data.x.length, map.picture.data.image.length]") == [100, 0]
        assert page.run("return document.querySelectorAll('#fixed input').length") == 0
        assert page.run("return settingUnder(...spot(7))") == 7
        assert page.problems() == []
        assert json.loads(page.run("return JSON.stringify(contents.frames)")) == []
