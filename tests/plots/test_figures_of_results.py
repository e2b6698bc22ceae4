import pandas as pd
from results_for_tests import make_result
from test_any_axes import four_axes, sample_of

import jaxmnist as jm
from jaxmnist.analysis import export, importance


def test_a_grid_with_curves_has_all_figures():
    noise = pd.DataFrame({"step": [0, 5], "noise_scale": [3.0, 5.0]})
    found = jm.figures(make_result(), 0.5, noise)
    assert list(found)[:5] == ["scatter", "heatmap", "budgets", "steps_to_target", "noise_scale"]


def test_figures_need_what_they_show():
    result = make_result()
    without = result.drop_vars([name for name in result.data_vars if name.startswith("recorded_")])
    assert list(jm.figures(without)) == ["scatter", "heatmap"]


def test_curves_are_drawn_where_lines_can_be_told_apart():
    result = make_result().isel(batch_size=[0])
    assert {"learning_curves", "test_accuracy"} <= jm.figures(result).keys()


def test_results_over_other_axes_have_figures_too(monkeypatch):
    studies, study_of = [], export.study_of
    monkeypatch.setattr(importance, "study_of", lambda *given: studies.append(given) or study_of(*given))
    monkeypatch.setattr(importance, "_table", lambda trials, *rest: len(trials))
    monkeypatch.setattr("jaxmnist.plots.report.figure_of", lambda result, metric, table: (*metric, table))
    result, sample = (each.assign_attrs(num_train=100) for each in (four_axes(), sample_of()))
    found = jm.figures(result)
    assert list(found) == ["slices", "heatmap", "parallel", "importance"]
    assert found["importance"] == ("accuracy", True, 24) and len(studies) == 1
    assert list(jm.figures(sample)) == ["slices", "heatmap", "parallel"]
    assert list(jm.figures(result.isel(learning_rate=0, batch_size=0, momentum=0))) == ["slices", "heatmap"]
    assert "importance" not in jm.figures(result.isel(activation=0, batch_size=[0, 1]).isel(learning_rate=[0]))
    assert len(studies) == 1
