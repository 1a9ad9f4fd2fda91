"""The page of an evaluation: what is in it, and a real browser that shows it."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.image import imread

from p3d_regression.cli.main import main
from support.evaluation import write_predictions


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("report")
    write_predictions(directory, {"small": (2, 12, 30, 40), "large": (2, 24, 50, 60)}, units="mm")
    with h5py.File(directory / "out" / "large_predictions.h5", "a") as file:
        file["predictions"][0, 17] += 40
    arguments = ["evaluate", str(directory / "predict.yml"), "--report", str(directory / "report.html")]
    assert CliRunner().invoke(main, arguments, catch_exceptions=False).exit_code in (0, 1)
    return directory / "report.html"


class Elements(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found.append((tag, dict(attrs)))


def test_is_one_file_that_names_no_other(page: Path) -> None:
    text = page.read_text()
    assert len(text) < 10 * 2**20
    elements = Elements(text).found
    images = [attributes for tag, attributes in elements if tag == "img"]
    assert len(images) > 8
    assert all(str(image["src"]).startswith("data:image/png;base64,") for image in images)
    assert all(image["alt"] for image in images)
    assert not re.findall(
        r"""(?:src|href)=["'](?!data:)|url\(|@import|https?://""", re.sub(r"<pre>.*?</pre>", "", text, flags=re.S)
    )


def test_says_what_the_terminal_says(page: Path) -> None:
    text = re.sub(r"<script>.*?</script>", "", page.read_text(), flags=re.S)
    verdict = re.search(r'<p class="verdict (better|worse)">(.*?)</p>', text)
    assert verdict is not None
    assert "RMSE" in verdict[2]
    for words in ("in mm", "small", "large", "all voxels", "best constant", "model_path", "extremes are squashed"):
        assert words in text
    assert "the largest one is plane 17 of large" in text


def test_names_with_markup_stay_text(tmp_path: Path) -> None:
    write_predictions(tmp_path, {"<b>a": (12, 14, 16)}, units="<script>alert(1)</script>")
    arguments = ["evaluate", str(tmp_path / "predict.yml"), "--report", str(tmp_path / "report.html")]
    CliRunner().invoke(main, arguments, catch_exceptions=False)
    tags = [tag for tag, _ in Elements((tmp_path / "report.html").read_text()).found]
    assert tags.count("script") == 1
    assert "b" not in tags


def test_one_plane(tmp_path: Path) -> None:
    write_predictions(tmp_path, {"a": (1, 30, 40)})
    arguments = ["evaluate", str(tmp_path / "predict.yml"), "--report", str(tmp_path / "report.html")]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code in (0, 1)
    assert result.stdout.endswith(f"Report: {tmp_path / 'report.html'}\n")
    result = CliRunner().invoke(main, [*arguments, "--json"], catch_exceptions=False)
    assert json.loads(result.stdout)
    assert result.stderr.endswith(f"Report: {tmp_path / 'report.html'}\n")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    selenium = pytest.importorskip("selenium.webdriver")
    driver, chromium = shutil.which("chromedriver"), shutil.which("chromium") or shutil.which("google-chrome")
    if driver is None or chromium is None:
        pytest.skip("no Chromium with its driver is installed")
    options = selenium.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-sync",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = selenium.Chrome(options, selenium.ChromeService(driver))
    yield started
    started.quit()


@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_it(page: Path, browser: Any, width: int, tmp_path: Path) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    browser.get(page.as_uri())
    assert browser.get_log("browser") == []
    loaded = "return [...document.images].every(image => image.complete && image.naturalWidth > 100)"
    assert browser.execute_script(loaded)
    # nothing is wider than the page
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    before = browser.find_element("id", "plane").get_attribute("src")
    browser.execute_script(
        "const p = document.getElementById('position'); p.value = p.max; p.dispatchEvent(new Event('input'));"
    )
    assert browser.find_element("id", "plane").get_attribute("src") != before
    assert "Z = 23 of 24" in browser.find_element("id", "caption").text
    assert browser.find_element("id", "plane").get_attribute("alt") == browser.find_element("id", "caption").text
    colours = {}
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        path = Path(os.environ.get("P3D_REGRESSION_SCREENSHOTS", tmp_path)) / f"{width}-{scheme}.png"
        assert browser.save_screenshot(str(path))
        shown = imread(path)
        assert shown.shape[1] == width
        # text and a table, not an empty page
        assert np.std(shown[..., :3].mean(-1)) > 0.03
        colours[scheme] = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert colours == {"light": "rgb(255, 255, 255)", "dark": "rgb(13, 17, 23)"}
