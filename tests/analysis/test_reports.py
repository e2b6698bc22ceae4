import pandas as pd
import pytest
from results_for_tests import make_result

import jaxmnist as jm
from jaxmnist.analysis import report


def test_the_report_says_what_the_tables_hold():
    result = make_result()
    text, best = jm.report(result), jm.best(result)
    chosen = ", ".join(f"{name} {value:g}" for name, value in best.setting.items())
    assert f"chosen on validation: {chosen}" in text
    assert f"its test accuracy: {100 * best.test.mean:.2f} % [{100 * best.test.low:.2f}, " in text
    for name in best.edges:
        assert f"warning: the best {name}, {best.setting[name]:g}, lies on the edge of the grid" in text
    diverged = result["diverged_step"].notnull()
    assert f"diverged: {int(diverged.sum())} of {diverged.size} runs" in text
    assert len(text.splitlines()[1]) == len(text.splitlines()[2])  # a table


def test_the_report_counts_steps_to_a_target_and_says_the_noise_scale():
    result = make_result()
    noise = pd.DataFrame({"step": [0, 5], "noise_scale": [3.0, 5.0]})
    target = jm.default_target(result)
    text = jm.report(result, target, noise)
    for _, row in jm.best_rates(jm.target_table(result, target)).iterrows():
        assert f"batch size {row['batch_size']:.0f}: {row['steps']:.0f}" in text
    assert f"steps to {100 * target:g} % validation accuracy" in text
    assert "gradient noise scale: median 4 examples" in text


def test_a_result_whose_every_setting_diverged_has_no_choice():
    result = make_result()
    result = result.assign(diverged_step=result["diverged_step"].fillna(1.0))
    assert "no setting is chosen" in jm.report(result)


def test_a_comparison_is_at_the_best_learning_rate_of_each():
    result = make_result()
    table = report.comparison_table(result, "batch_size")
    text = report.comparison(result, "batch_size")
    for (value, best), (_, row) in zip(jm.best_of_each(result, "batch_size").items(), table.iterrows(), strict=True):
        assert row["batch_size"] == value and row["learning_rate"] == best.setting["learning_rate"]
        assert row["test_accuracy"] == pytest.approx(best.test.mean)
        assert f"{100 * best.test.mean:.2f} [{100 * best.test.low:.2f}, {100 * best.test.high:.2f}]" in text


def test_a_target_that_is_reached_before_the_first_step_has_no_critical_batch_size():
    result = make_result()
    text = jm.report(result, float(result["recorded_validation_accuracy"].min()))
    assert "batch size 8: 0" in text and "critical batch size" not in text
