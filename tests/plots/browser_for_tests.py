"""A real browser for tests of pages: a headless Chromium, which Selenium drives."""

import contextlib
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
SECONDS = 20


class Browser:
    """A page in a browser.

    Attributes:
      driver: Selenium's.
    """

    def __init__(self, driver):
        self.driver = driver

    def run(self, script: str, *arguments):
        """Returns what a script returns, as the body of a function."""
        return self.driver.execute_script(script, *arguments)

    def open(self, path: Path) -> None:
        """Opens a page, and waits until it is drawn."""
        self.driver.get(path.resolve().as_uri())
        self.wait("return document.documentElement.dataset.ready || !document.getElementById('problem').hidden")
        assert self.text("problem") == ""

    def wait(self, script: str) -> None:
        """Waits until a script returns something that is true."""
        from selenium.webdriver.support.wait import WebDriverWait

        WebDriverWait(self.driver, SECONDS, poll_frequency=0.02).until(lambda driver: driver.execute_script(script))

    def text(self, name: str) -> str:
        """Returns the text of an element, given its `id`."""
        return self.run("return document.getElementById(arguments[0]).textContent", name)

    def set(self, name: str, value, kind: str = "input") -> None:
        """Gives a slider or a selection a value, as a person does."""
        script = "const e = document.getElementById(arguments[0]); e.value = arguments[1]; "
        self.run(script + "e.dispatchEvent(new Event(arguments[2]));", name, value, kind)

    def problems(self) -> list[str]:
        """Returns what the page has complained about since it was opened."""
        return [each["message"] for each in self.driver.get_log("browser") if each["level"] in ("WARNING", "SEVERE")]


@contextlib.contextmanager
def browser(profile: Path, width: int = 1280, height: int = 1000) -> Iterator[Browser]:
    """Yields a browser whose window has this size, or skips the test if no browser is installed.

    Args:
      profile: an empty folder.
      width: in pixels.
      height: in pixels.
    """
    program, helper = shutil.which("chromium"), shutil.which("chromedriver")
    if not (program and helper):
        pytest.skip("there is no chromium with its chromedriver here")
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (*FLAGS, f"--window-size={width},{height}", f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # of sockets that Selenium leaves to the garbage collector
        driver = webdriver.Chrome(options=options, service=Service(helper))
        try:
            yield Browser(driver)
        finally:
            driver.quit()
