from jaxmnist import progress


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
