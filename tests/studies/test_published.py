"""Published tables: what a row says, and how tables are shown, drawn, saved and read again."""

import json
import math

import numpy as np
import pytest

from jaxmnist.analysis.intervals import Interval
from jaxmnist.studies import published, published_figures
from jaxmnist.studies.published import Row, Table

NO_ENDS = Interval(1.5, math.nan, math.nan, "1 seed, no interval")


def interval(mean, low, high):
    return Interval(mean, low, high, "t interval over 10 seeds")


TABLE = Table(
    "Accuracies", "A paper (2020)", "a network", "100 steps", "10 seeds",
    (
        Row("logistic regression", "%", 32.0, interval(31.8, 31.2, 32.4), 1.25),
        Row("network", "%", 68.0, interval(70.1, 69.5, 70.7), 2, note="fewer steps"),
        Row("with an interval", "%", 92.27, interval(92.6, 92.4, 92.8), 3, (92.09, 92.45)),
        Row("alone", "%", None, interval(50.0, 49.0, 51.0), 4),
        Row("noise scale", "examples", 876.0, NO_ENDS, 5),
    ),
    ("Theirs is one run.",),
)  # fmt: skip


@pytest.mark.parametrize(
    ("theirs", "theirs_interval", "low", "high", "inside"),
    [
        (1.0, None, 0.5, 1.5, True), (1.0, None, 1.0, 1.5, True), (1.0, None, 1.1, 1.5, False),
        (2.0, None, 1.1, 1.5, False), (2.0, (1.4, 2.6), 1.1, 1.5, True), (2.0, (1.6, 2.4), 1.1, 1.5, False),
        (None, None, 1.1, 1.5, None), (1.0, None, math.nan, math.nan, None),
    ],
)  # fmt: skip
def test_inside_means_that_theirs_lies_in_our_interval_or_that_the_intervals_meet(
    theirs, theirs_interval, low, high, inside
):
    assert Row("x", "%", theirs, interval(1.3, low, high), 1.0, theirs_interval).inside is inside


def test_a_table_as_text_holds_theirs_ours_the_interval_and_the_answer():
    lines = published.table_text(TABLE).splitlines()
    assert lines[:4] == ["Accuracies: A paper (2020)", "recipe: a network", "budget: 100 steps", "seeds: 10 seeds"]
    words = ["|".join(line.split()) for line in lines]
    assert words[4] == "theirs|ours|95|%|interval|inside?|time"
    assert words[5] == "logistic|regression|32.00|%|31.80|%|[31.20,|32.40]|yes|1.2|s"
    assert words[7] == "with|an|interval|92.27|%|[92.09,|92.45]|92.60|%|[92.40,|92.80]|yes|3.0|s"
    assert words[8] == "alone|50.00|%|[49.00,|51.00]|4.0|s"
    assert words[9] == "noise|scale|876|examples|2|examples|5.0|s"
    assert lines[10:] == ["- network: fewer steps", "- Theirs is one run."]


def test_a_saved_table_is_read_as_it_was(tmp_path):
    path = tmp_path / "table.json"
    published.save(TABLE, path)
    assert repr(published.load(path)) == repr(TABLE)  # nan does not equal itself


@pytest.mark.parametrize(
    "changes", [dict(rows=3), dict(rows=[{}]), dict(notes=4), dict(other=1), dict(format=99), dict(rows=[[1]])]
)
def test_a_file_that_holds_no_table_is_one_sentence(tmp_path, changes):
    path = tmp_path / "table.json"
    published.save(TABLE, path)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=r"table\.json"):
        published.load(path)


def test_all_rows_of_all_tables_make_one_table():
    rows = published.frame({"one": TABLE, "two": TABLE})
    assert rows["table"].tolist() == ["one"] * 5 + ["two"] * 5
    assert rows["theirs"].tolist()[:3] == [32.0, 68.0, 92.27] and rows["ours"].tolist()[1] == 70.1
    assert rows["inside"].tolist()[:5] == ["yes", "no", "yes", "", ""]
    assert np.isnan(rows["theirs_low"][0]) and rows["theirs_high"][2] == 92.45


def test_the_figure_has_a_panel_for_each_unit_with_theirs_and_ours_in_it():
    upper, lower = published_figures.figure(TABLE).axes
    assert [label.get_text() for label in upper.get_yticklabels()] == [row.name for row in TABLE.rows[:4]]
    ours, theirs = (container.lines[0].get_xdata() for container in upper.containers)
    np.testing.assert_array_equal(ours, [31.8, 70.1, 92.6, 50.0])
    np.testing.assert_array_equal(theirs, [32.0, 68.0, 92.27])
    (bars,) = upper.containers[0].lines[2]
    np.testing.assert_allclose([segment[:, 0] for segment in bars.get_segments()][1], [69.5, 70.7])
    assert lower.get_xlabel() == "examples" and lower.containers[0].lines[0].get_xdata() == [1.5]
