"""The interactive page in a real browser: what a click, a key, a slider and a brush change."""

from browser_for_tests import browser
from results_for_tests import make_result

import jaxmnist as jm


def test_a_page_is_drawn_and_a_key_moves_the_cursor(tmp_path):
    jm.interactive(make_result(), tmp_path / "page.html")
    with browser(tmp_path / "profile") as page:
        page.open(tmp_path / "page.html")
        assert page.problems() == []
        best = jm.best(make_result())
        assert f"learning rate {best.setting['learning_rate']:g}" in page.text("setting")
