"""The interactive page without a mouse and without a screen, by the tree that Chromium gives to screen readers."""

import pytest
from browser_for_tests import browser
from test_page_in_browser import make_three_axes

import jaxmnist as jm

# What needs a name, beside whatever the keyboard reaches.
NAMED = {"table", "image", "img", "application", "region", "heading", "columnheader", "rowheader", "slider", "combobox"}


def nodes(page):
    """Returns what a screen reader is told of each part of a page: its role, its name and its further properties."""
    found = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    return [
        {each["name"]: each["value"].get("value") for each in node.get("properties", [])}
        | {key: node.get(key, {}).get("value", "") for key in ("role", "name", "value")}
        for node in found
        if not node["ignored"]
    ]


def press(page, *keys):
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(page.driver).send_keys(*keys).perform()


@pytest.mark.slow
def test_a_screen_reader_and_a_keyboard_reach_everything(tmp_path):
    from selenium.webdriver.common.keys import Keys

    jm.interactive(make_three_axes(), tmp_path / "page.html")
    with browser(tmp_path / "profile") as page:
        page.open(tmp_path / "page.html")
        page.run("document.querySelector('details').open = true")
        reached = [node for node in nodes(page) if node.get("focusable")][1:]  # without the page itself
        roles = [node["role"] for node in reached]
        assert set(roles) == {"combobox", "option", "application", "button", "slider", "DisclosureTriangle"}
        assert (roles.count("combobox"), roles.count("slider"), roles.count("application")) == (4, 1 + 2 * 4, 1)
        assert [node for node in nodes(page) if node["role"] in NAMED | set(roles) and not node["name"]] == []
        assert next(node["valuetext"] for node in reached if node["role"] == "slider") == "0.5"
        # Every figure but the map is a picture with a description; the map says where its cursor is.
        names = [node["name"] for node in nodes(page) if node["role"] in ("image", "img")]
        assert [name.split(" of ")[0] for name in names] == ["Curves", "Parallel coordinates"]
        page.set("fixed-2", 0)
        page.run("choose(settingAt(0, 0)); document.getElementById('cell').textContent = ''")
        page.run("document.getElementById('fixed-2').focus()")
        press(page, Keys.TAB)
        assert page.run("return document.activeElement.id") == "map"
        assert page.text("cell").startswith("learning rate 0.1, batch size 8, momentum 0: validation accuracy ")
        press(page, Keys.ARROW_RIGHT, Keys.ARROW_UP)
        assert page.text("setting").startswith("learning rate 0.1, batch size 8")
        said = page.text("cell")
        assert said.startswith("learning rate 0.2, batch size 16, momentum 0: validation accuracy ") and "rank " in said
        assert said in [node["name"] for node in nodes(page) if node["role"] == "StaticText"]
        assert page.run("return document.getElementById('cell').getAttribute('aria-live')") == "polite"
        press(page, Keys.ENTER)
        assert page.text("setting").startswith("learning rate 0.2, batch size 16, momentum 0: ")
        # From the map, the next stop is what copies the code of the first run.
        press(page, Keys.TAB)
        assert page.run("return document.activeElement.className") == "copy"
        # A slider selects by its keys.
        page.run("document.querySelectorAll('#ranges input')[5].focus()")
        press(page, Keys.ARROW_LEFT)
        page.wait("return document.getElementById('selected').textContent.startsWith('18 of 27')")
        assert page.problems() == []
