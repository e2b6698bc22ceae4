import jax
import numpy as np
import pytest

import jaxmnist as jm
from jaxmnist.core.layers import standardise
from jaxmnist.studies import report

MODEL = jm.CNN((2,), (3,), (1,), hidden_size=0, standardised=True, num_classes=4)


def predictions(tiny, seeds=(3, 5, 6), broken=()):
    params = [MODEL.init(jax.random.key(seed), np.zeros((1, 6, 5, 1), np.float32))["params"] for seed in seeds]
    for index in broken:
        params[index] = jax.tree.map(lambda leaf: leaf * np.nan, params[index])
    classifier = jm.Classifier(MODEL, tuple(params), (6, 5, 1), tiny.class_names)
    steps = [7 if index in broken else -1 for index in range(len(seeds))]
    found = report.predict(
        classifier, tiny, recipe="preset original", num_steps=9, batch_size=5, seeds=seeds, diverged_steps=steps
    )
    return found, params


def test_a_seed_whose_predictions_are_not_finite_is_left_out(tiny):
    found, params = predictions(tiny, broken=(0,))
    whole, _ = predictions(tiny, seeds=(5, 6))
    np.testing.assert_array_equal(found.ensemble, whole.ensemble)
    lines, expected = report.table(found), report.table(whole)
    assert lines[0] == "tiny, preset original, seeds 3 5 6, 9 steps of 5 examples"
    assert lines[1] == "seed 3 diverged at step 7; its predictions are not finite, and it is left out"
    assert lines[2:] == expected[1:] and "below: the ensemble of 2, the mean of the probabilities of seeds 5 6" in lines
    layer = params[1]["Conv_0"]
    np.testing.assert_allclose(found.filters, standardise(layer["kernel"]) * layer["gain"][None, None, None])
    np.testing.assert_array_equal(found.worst_images, tiny.test.inputs[found.worst])
    titles = {name: figure.get_suptitle() for name, figure in report.figures(found, []).items()}
    assert titles["curves"] == "tiny, 3 seeds, batch size 5" and "seed 5" in titles["filters"]
    assert "mean of 2 members" in titles["mistakes"]


def test_without_a_usable_seed_there_is_no_result(tiny):
    found, _ = predictions(tiny, broken=(0, 1, 2))
    assert not found.usable.any() and not len(found.worst)
    assert report.table(found)[-2:] == ["test log loss nan nats", "test accuracy nan [nan, nan] on 23 images"]
    assert list(report.figures(found, [])) == ["curves"]


def test_predictions_come_back_as_they_were(tiny, tmp_path):
    found, _ = predictions(tiny)
    report.save_predictions(tmp_path, found)
    again = report.load_predictions(tmp_path)
    for name, value in found._asdict().items():
        np.testing.assert_array_equal(getattr(again, name), value)
    assert report.table(again) == report.table(found)


@pytest.mark.parametrize("junk", [b"", b"hello", b"PK\x05\x06" + bytes(18), b"\x80\x04N."])
def test_junk_is_one_sentence_about_what_to_do(tmp_path, junk):
    (tmp_path / "predictions.npz").write_bytes(junk)
    with pytest.raises(ValueError, match=r"is damaged or of an earlier version: remove it, and --resume"):
        report.load_predictions(tmp_path)


def test_a_folder_without_predictions_is_no_finished_training(tmp_path):
    with pytest.raises(ValueError, match="nowhere holds no finished training"):
        report.load_predictions(tmp_path / "nowhere")


def test_metrics_come_back_and_junk_is_named(tmp_path):
    rows = [dict.fromkeys(report.METRICS, 0.5)]
    report.write_metrics(tmp_path, rows)
    assert report.read_metrics(tmp_path) == rows
    for text in ("", "hello", "seed,step\n1,x\n"):
        (tmp_path / "metrics.csv").write_text(text)
        with pytest.raises(ValueError, match=r"metrics.csv, which the curves are drawn from, cannot be read"):
            report.read_metrics(tmp_path)


def test_the_time_to_a_milestone_is_given_over_the_seeds_that_reach_it():
    curves = {0: (0.98, 0.991, 0.993), 1: (0.98, 0.985, 0.99), 2: (0.97, 0.98, 0.989), 3: (0.98, 0.99, 0.985)}
    metrics = [
        {"seed": seed, "seconds": 10.0 * (seed + 1) * place, "validation_accuracy": accuracy}
        for seed, curve in curves.items()
        for place, accuracy in enumerate(curve, 1)
    ]
    assert list(report.milestone_lines(metrics)) == [
        "validation accuracy 99.0 % first reached by 3 of 4 seeds, after 60 s (median; 20 to 80 s)",
        "validation accuracy 99.2 % first reached by 1 of 4 seeds, after 30 s (median; 30 to 30 s)",
    ]
    assert not list(report.milestone_lines(metrics[6:9]))
