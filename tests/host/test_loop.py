import pytest

from jaxmnist.host import loop


def run(steps, pressed_at=(), seconds=10.0**9, monkeypatch=None, **options):
    """Returns what the loop did with segments that end at these steps, whose state is ten times the step."""
    done = {"evaluated": [], "reported": [], "saved": []}
    monkeypatch.setattr(loop, "SECONDS_PER_CHECKPOINT", seconds)
    options = (
        dict(
            evaluate=lambda step, state: done["evaluated"].append((step, state)),
            report=lambda step, state: done["reported"].append(step),
            save=lambda step, state: done["saved"].append((step, state)),
            is_interrupted=lambda: done["reported"][-1] in pressed_at,
        )
        | options
    )
    try:
        done["returned"] = loop.run_segments(((step, 10 * step) for step in steps), **options)
    except KeyboardInterrupt as stopped:
        done["stopped"] = str(stopped)
    return done


def test_every_step_is_evaluated_and_reported_and_the_last_state_returned(monkeypatch):
    done = run([0, 3, 5], monkeypatch=monkeypatch)
    assert done["evaluated"] == [(0, 0), (3, 30), (5, 50)] and done["reported"] == [0, 3, 5]
    assert done["returned"] == 50 and done["saved"] == []


def test_states_are_saved_when_due_and_never_where_the_work_begins(monkeypatch):
    assert run([4, 6, 8], seconds=0.0, monkeypatch=monkeypatch)["saved"] == [(6, 60), (8, 80)]
    assert run([4, 6, 8], is_last=lambda step: step == 8, monkeypatch=monkeypatch)["saved"] == [(8, 80)]
    assert run([4, 6, 8], seconds=0.0, save=None, monkeypatch=monkeypatch)["returned"] == 80


@pytest.mark.parametrize(("at", "saved"), [(2, [(2, 20)]), (0, [])])
def test_an_interruption_saves_the_segment_and_stops(monkeypatch, at, saved):
    done = run([0, 2, 4], pressed_at=(at,), monkeypatch=monkeypatch)
    assert done["saved"] == saved and done["reported"][-1] == at and "returned" not in done
    assert done["stopped"] == f"saved at step {at}: the same call resumes from there"
