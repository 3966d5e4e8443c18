"""The site that Sphinx builds: offline, without a warning, light, and accessible in a real browser."""

import functools
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from conftest import IN_CI
from test_report import Tags

ROOT = Path(__file__).resolve().parents[1]
GUIDES = sorted(ROOT.glob("docs/*.md"))
LESSONS = sorted(ROOT.glob("notebooks/*.ipynb"))
COMPUTED = sorted(ROOT.glob("docs/*.ipynb"))  # from stored rows
WRITTEN = [*GUIDES, *LESSONS, *COMPUTED, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
PAGES = [path.relative_to(ROOT).with_suffix(".html").as_posix() for path in WRITTEN]
HEAVIEST = 1_500_000  # bytes, including everything that a page loads

pytestmark = [
    pytest.mark.site,
    pytest.mark.skipif(find_spec("sphinx_book_theme") is None and not IN_CI, reason="Sphinx or its theme is missing"),
]


def build(folder: Path, kept: Path, **environment: str) -> Path:
    """Build the site offline, with no repository unless `environment` names one; parsed sources are kept."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GITHUB_")}
    environ |= {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}
    command = [sys.executable, "-m", "sphinx", "-c", "docs", "-d", str(kept), "-W", "--keep-going", "-q"]
    command += [".", str(folder)]
    ran = subprocess.run(command, cwd=ROOT, env={**environ, **environment}, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return folder


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("doctrees")


@pytest.fixture(scope="module")
def site(tmp_path_factory, kept: Path) -> Path:
    return build(tmp_path_factory.mktemp("site"), kept)


@functools.cache
def tags(page: Path) -> list[tuple[str, dict[str, str | None]]]:
    """Return all tags of a page with their attributes, in order."""
    return Tags(page.read_text(encoding="utf-8")).tags


def links(page: Path) -> list[str]:
    return [attributes.get("href") or "" for tag, attributes in tags(page) if tag == "a"]


def loaded(page: Path) -> Iterator[str]:
    """Yield the addresses that a page loads automatically: scripts, styles, pictures."""
    for tag, attributes in tags(page):
        if tag in ("script", "img", "source", "iframe") and attributes.get("src"):
            yield attributes["src"]
        elif tag == "link" and attributes.get("rel") in ("stylesheet", "icon", "preload"):
            yield attributes["href"]


def test_nothing_is_loaded_from_elsewhere_and_every_page_is_light(site):
    for page in ("index.html", "search.html", *PAGES):
        addresses = list(loaded(site / page))
        assert len(addresses) > 5 or page == "index.html"  # which only redirects to the first page
        assert not [address for address in addresses if urlsplit(address).netloc], page
        files = {(site / page).parent / urlsplit(address).path for address in addresses}
        assert sum(file.stat().st_size for file in files if file.suffix in (".png", ".svg")) < HEAVIEST, page
        assert (site / page).stat().st_size < HEAVIEST, page
    for file in site.glob("_static/**/*.css"):
        assert not re.search(r"(?:url\(|@import )['\"]?(?:https?:)?//", file.read_text(encoding="utf-8")), file


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.stem)
def test_every_figure_has_its_alternative_text(path, site):
    page = site / path.relative_to(ROOT).with_suffix(".html")
    shown = [attributes.get("alt") or "" for tag, attributes in tags(page) if tag == "img"]
    pattern = r'"alt": "(.*)"' if path in [*LESSONS, *COMPUTED] else r"!\[(.*?)\]|:img-alt: (.+)"
    written = [found[found.lastindex or 0] for found in re.finditer(pattern, path.read_text(encoding="utf-8"))]
    assert shown == [json.loads(f'"{text}"') for text in written]
    assert all(len(text) > 20 for text in shown) and (shown or path not in [*LESSONS, *COMPUTED])


@pytest.mark.parametrize("path", [*WRITTEN, ROOT / "README.md"], ids=lambda path: path.stem)
def test_links_between_files_lead_to_a_file_and_to_a_heading_as_github_names_it(path):
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", path.read_text(encoding="utf-8")):
        file, _, place = link.partition("#")
        target = path.parent / file if file else path
        assert target.is_file(), link
        if place:
            written = target.read_text(encoding="utf-8")
            headings = re.findall(r'(?m)^ *"?#+ (.+?)(?:\\n",)?$', written)  # in a notebook, they are in quotes
            assert place in [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings], link


def launches(page: Path) -> list[str]:
    """Return the addresses of a page's buttons for Binder and Colab."""
    return [link for link in links(page) if urlsplit(link).netloc in ("mybinder.org", "colab.research.google.com")]


def test_without_an_address_there_are_no_buttons_but_each_lesson_can_be_downloaded(site):
    for lesson in LESSONS:
        page = site / "notebooks" / f"{lesson.stem}.html"
        assert not launches(page)
        assert (site / "_sources" / "notebooks" / lesson.name).read_bytes() == lesson.read_bytes()
        assert f"../_sources/notebooks/{lesson.name}" in links(page)
    assert not list(site.glob("colab"))


def test_with_an_address_each_lesson_opens_on_binder_and_its_copy_on_colab(site, kept, tmp_path):
    published = build(tmp_path, kept, GITHUB_SERVER_URL="https://github.com", GITHUB_REPOSITORY="somebody/course")
    for lesson in (path.stem for path in LESSONS):
        assert launches(published / "notebooks" / f"{lesson}.html") == [
            f"https://mybinder.org/v2/gh/somebody/course/HEAD?urlpath=lab/tree/notebooks/{lesson}.ipynb",
            f"https://colab.research.google.com/github/somebody/course/blob/gh-pages/colab/{lesson}.ipynb",
        ]
        assert (published / "colab" / f"{lesson}.ipynb").is_file()
    assert not launches(published / "docs" / "index.html")
    (binder,) = launches(published / "docs" / "results.html")  # Colab would not have the course
    assert binder == "https://mybinder.org/v2/gh/somebody/course/HEAD?urlpath=lab/tree/docs/results.ipynb"


# The site in a real browser


@pytest.fixture(scope="module")
def address(site) -> Iterator[str]:
    """Serve the site on this machine, because the search needs a server; return its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


LEVELS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
IGNORE_COLORS = {"rules": {"color-contrast": {"enabled": False}}}


@pytest.mark.browser
@pytest.mark.parametrize(  # only contrast depends on the color scheme, and it does not depend on the width
    ("scheme", "width", "rules"),
    [
        ("light", 1280, {"runOnly": LEVELS}),
        ("dark", 1280, {"runOnly": ["color-contrast"]}),
        ("dark", 400, {"runOnly": LEVELS, **IGNORE_COLORS}),
    ],
)
def test_no_page_has_barriers_is_too_wide_or_asks_another_host(scheme, width, rules, browser, address):
    """Barriers are violations of levels A and AA of WCAG 2.1 that axe finds on the whole page."""
    if not IN_CI:
        pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")
    from axe_playwright_python.sync_playwright import Axe

    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    hosts, wrong = set(), []
    page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
    for name in ("search.html", *PAGES):
        page.goto(f"{address}/{name}", wait_until="networkidle")
        assert page.evaluate("document.documentElement.dataset.theme") == scheme
        if page.evaluate("document.documentElement.scrollWidth > window.innerWidth"):
            wrong.append(f"{name}: too wide")
        for barrier in Axe().run(page, options={"resultTypes": ["violations"], **rules}).response["violations"]:
            wrong += [f"{name}: {barrier['id']}: {node['html'][:120]}" for node in barrier["nodes"][:3]]
    page.close()
    assert not wrong, "\n".join(wrong)
    assert hosts == {"127.0.0.1"}
