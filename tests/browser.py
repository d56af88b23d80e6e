"""A headless Chromium for tests of pages: tests that ask for `chromium` are skipped where there is none.

A test module imports the fixture: `from tests.browser import chromium  # noqa: F401`. Needs the package selenium, the
browser and its driver (Debian: apt-get install chromium chromium-driver).
"""

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
)
DESKTOP, TABLET = (1280, 800), (820, 1180)


class Page:
    """One browser window.

    Attributes:
      driver: selenium's.
      downloads: the folder that downloads fall into.
    """

    def __init__(self, driver: Any, downloads: Path):
        self.driver, self.downloads = driver, downloads

    def open(self, path: Path, size: tuple[int, int] = DESKTOP) -> None:
        """Opens a file as a user does, without a server, in a window whose inside has the size (width, height)."""
        self.resize(size)
        self.driver.get(Path(path).resolve().as_uri())

    def resize(self, size: tuple[int, int]) -> None:
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def run(self, script: str, *arguments: Any) -> Any:
        """Runs the body of a JavaScript function and returns what it returns."""
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> Any:
        """Returns the first element of a CSS selector."""
        return self.driver.find_element("css selector", selector)

    def press(self, *keys: str) -> None:
        """Presses keys one after another, where the focus is."""
        from selenium.webdriver.common.action_chains import ActionChains  # pyright: ignore[reportMissingImports]

        ActionChains(self.driver, duration=0).send_keys(*keys).perform()

    def complaints(self) -> list[str]:
        """Returns what the page has written to the console since the last call: errors, refused requests."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Returns the addresses that the page has asked for, but for itself and what it holds."""
        entries = self.run("return performance.getEntriesByType('resource').map((entry) => entry.name)")
        return [name for name in entries if not name.startswith(("data:", "blob:"))]

    def overflow(self) -> int:
        """Returns by how many pixels the page is wider than its window."""
        return self.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth")

    def downloaded(self, pattern: str, seconds: float = 10) -> Path:
        """Returns the file among the downloads that matches, when it is whole."""
        until = time.monotonic() + seconds
        while not (found := sorted(self.downloads.glob(pattern))):
            assert time.monotonic() < until, f"no {pattern} in {[path.name for path in self.downloads.iterdir()]}"
            time.sleep(0.05)
        return found[-1]

    def screenshot(self, path: Path) -> None:
        """Writes what is seen as a PNG."""
        path.write_bytes(self.driver.get_screenshot_as_png())


@contextlib.contextmanager
def open_chromium(folder: Path) -> Iterator[Page]:
    """Starts Chromium with a fresh profile below `folder`.

    Raises:
      FileNotFoundError: the browser or its driver is not installed.
    """
    from selenium import webdriver  # pyright: ignore[reportMissingImports]
    from selenium.webdriver.chrome.service import Service  # pyright: ignore[reportMissingImports]

    browser, driver_path = next(filter(None, map(shutil.which, BROWSERS)), None), shutil.which("chromedriver")
    if browser is None or driver_path is None:
        raise FileNotFoundError("chromium and chromedriver")
    downloads = folder / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in (*ARGUMENTS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(driver_path))
    try:
        yield Page(driver, downloads)
    finally:
        driver.quit()


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[Page]:
    """A window of a fresh headless Chromium."""
    pytest.importorskip("selenium")
    with contextlib.ExitStack() as stack:
        try:
            page = stack.enter_context(open_chromium(tmp_path / "chromium"))
        except FileNotFoundError as error:
            pytest.skip(f"{error} are not there")
        yield page
