import numpy as np
from test_results import make_result

from jaxmnist.host import progress


def test_plain_lines_end_with_everything_done(capsys):
    with progress.progress_bar("sweep", 10) as show:
        show(5, "half")
        show(10, "all")
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.splitlines() == ["sweep: 100 %, all, 0 s left"]


def test_lines_come_at_intervals(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_INTERVAL_S", 0.0)
    with progress.progress_bar("sweep", 10) as show:
        show(0, "begun")
        show(5, "half")
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("sweep: 0 %, begun") and second.startswith("sweep: 50 %, half")


def test_disabled_shows_nothing(capsys):
    with progress.progress_bar("sweep", 10, enabled=False) as show:
        show(10, "all")
    assert capsys.readouterr() == ("", "")


def test_time_left_counts_from_where_this_process_began(capsys, monkeypatch):
    times = iter([0.0, 100.0, 110.0, 120.0])  # 100 s go by before the first report, of work that was done before
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(times))
    with progress.progress_bar("work", 100) as show:
        show(50, "resumed")
        show(60, "on")
        show(70, "on")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("time left not known yet")
    assert lines[1] == "work: 60 %, on, 40 s left" and lines[2] == "work: 70 %, on, 30 s left"


def test_the_map_marks_what_diverged_and_what_has_not_ended():
    accuracy = np.array([0.5, 0.6, 0.7, np.nan, 0.9, 0.1])
    diverged = np.array([np.nan] * 5 + [3])
    result = make_result(accuracy, accuracy, diverged, learning_rate=[0.1, 1.0], batch_size=[8, 16, 32], seed=0)
    text = progress.accuracy_map(result)
    lines = text.plain.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["32", "16", "8"]
    assert "x" in lines[0] and "·" in lines[2] and "50.0 … 90.0 %" in lines[3]
    colours = {str(span.style) for span in text.spans}
    assert len(colours) == 4 and f"on rgb{str(progress.COLORS[0]).replace(' ', '')}" in colours
    assert progress.accuracy_map(result.stack(run=result["test_loss"].dims).reset_index("run")) is None


def test_large_maps_fit_a_terminal():
    rates, sizes = np.geomspace(1e-3, 1, 100), range(1, 101)
    result = make_result(np.linspace(0, 1, 10_000), np.zeros(10_000), learning_rate=rates, batch_size=sizes, seed=0)
    lines = progress.accuracy_map(result).plain.splitlines()
    assert len(lines) <= progress.MAX_MAP_ROWS + 1 and max(map(len, lines)) <= 80


def test_what_takes_long_is_done_seldom():
    now, done = 0.0, []
    pace = progress.Pace(10.0, lambda: now)
    while now < 1000:
        now += 1
        if pace.is_due():
            with pace.measured():
                done.append(now)
                now += 0.1 if now < 100 else 6.0
    # Every ten seconds while it is quick; then it takes 3 % of the time.
    assert [round(time) for time in done[:3]] == [10, 20, 30]
    assert 0.02 < 6 * len([time for time in done if time > 100]) / 900 < 0.04
