"""The page in Chromium with the network off: it shows, it links, it can be read by everyone."""

import shutil
from pathlib import Path

import pytest

import resnetkit as rk
from resnetkit.lab.experiment import conduct
from resnetkit.lab.landscape import Landscape
from resnetkit.reporting.report import write_report
from tests.reporting.conftest import write_run

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert path, "no Chromium on the path; on Debian: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])  # a container runs as root
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(run, shared, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    flowers = rk.train(
        shared / "data/flowers", out=folder / "flowers", model="resnet18", epochs=2, img_size=64, lr=0.01, workers=0
    )
    classes = [f"class {i}" for i in range(100)]
    answers = [
        (str(i), classes[i % 100], classes[i % 100 if i % 5 else i * i % 100], (i % 97) / 97) for i in range(5000)
    ]
    runs = {
        "flowers": flowers.folder,
        "hostile": run,
        "digits": rk.train("digits", out=folder / "digits", model="resnet8_cifar", epochs=2).folder,
        "many": write_run(folder / "many", classes, answers),
        "unfinished": write_run(folder / "unfinished", ["x", "y"], None),
    }
    lab = conduct(Landscape(depths=(8,), images=32, epochs=1, points=5, side=3, seeds=2), folder / "lab")
    return {name: write_report(path) for name, path in runs.items()} | {"lab": lab.page}


class Visit:
    """A page opened offline; what it asked for and complained of."""

    def __init__(self, browser, path: Path, **options) -> None:
        self.context = browser.new_context(offline=True, **options)
        self.page = self.context.new_page()
        self.console: list[str] = []
        self.failed: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.console.append(message.text))
        self.page.on("pageerror", lambda error: self.console.append(str(error)))
        self.page.on("requestfailed", lambda request: self.failed.append(request.url))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()


NAMES = ("flowers", "hostile", "digits", "many", "unfinished", "lab")


@pytest.mark.parametrize("name", NAMES)
def test_it_opens_with_all_its_pictures(chromium, pages, name):
    assert pages[name].stat().st_size < 5_000_000
    with Visit(chromium, pages[name]) as visit:
        widths = visit.page.eval_on_selector_all("img", "images => images.map(i => i.complete && i.naturalWidth)")
        assert all(widths)
        assert len(widths) > 20 or name in ("many", "unfinished", "lab")
        assert visit.page.evaluate("window.alerted") is None
        assert visit.console == [] and visit.failed == []
        assert [url for url in visit.asked if not url.startswith("data:")] == [pages[name].as_uri()]


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_somewhere(chromium, pages, name):
    with Visit(chromium, pages[name]) as visit:
        lost = visit.page.eval_on_selector_all(
            "a", "links => links.filter(a => !document.getElementById(a.hash.slice(1))).map(a => a.outerHTML)"
        )
        assert lost == []


def test_a_cell_leads_to_its_photos(chromium, pages):
    with Visit(chromium, pages["flowers"], viewport={"width": 1280, "height": 800}) as visit:
        cell = visit.page.locator("td.wrong a").first
        target = cell.get_attribute("href")
        cell.click()
        visit.page.wait_for_function("id => document.querySelector(id).getBoundingClientRect().top < 700", arg=target)
        shown = visit.page.locator(target)
        assert shown.locator("img").count() > 0
        assert int(cell.inner_text()) == int(shown.locator("h4 .n").inner_text())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", NAMES)
def test_axe_finds_nothing_serious(chromium, pages, name, scheme):
    from axe_playwright_python.sync_playwright import Axe

    with Visit(chromium, pages[name], color_scheme=scheme) as visit:
        visit.page.eval_on_selector_all("details", "all => all.forEach(d => d.open = true)")
        violations = Axe().run(visit.page).response["violations"]
    grave = [
        f"{v['id']} ({v['impact']}): {v['help']}: {[node['html'][:200] for node in v['nodes'][:3]]}"
        for v in violations
        if v["impact"] in ("serious", "critical")
    ]
    assert grave == []


@pytest.mark.parametrize("width", [320, 375, 768, 1280])
@pytest.mark.parametrize("name", NAMES)
def test_no_page_is_wider_than_the_screen(chromium, pages, name, width):
    with Visit(chromium, pages[name], viewport={"width": width, "height": 800}) as visit:
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width


def test_colours_follow_the_reader(chromium, pages):
    brightness = []
    for scheme in ("light", "dark"):
        with Visit(chromium, pages["digits"], color_scheme=scheme) as visit:
            colour = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
            brightness.append(sum(int(value) for value in colour[4:-1].split(",")))
    assert brightness[0] > 3 * 200 and brightness[1] < 3 * 60


def test_the_keyboard_is_enough(chromium, pages):
    with Visit(chromium, pages["flowers"]) as visit:
        visit.page.keyboard.press("Tab")
        assert visit.page.evaluate("document.activeElement.className") == "skip"
        visit.page.keyboard.press("Tab")
        assert visit.page.evaluate("document.activeElement.getAttribute('href')") == "#advice"
        outline = visit.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"
        visit.page.locator("summary").first.focus()
        visit.page.keyboard.press("Enter")
        assert visit.page.locator("details").first.get_attribute("open") is not None


def test_it_needs_no_script(chromium, pages):
    with Visit(chromium, pages["flowers"], java_script_enabled=False) as visit:
        visit.page.locator("td.wrong a").first.click()
        assert "#pair-" in visit.page.url
