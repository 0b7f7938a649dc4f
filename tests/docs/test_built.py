"""The built site, read in a browser: no page has an error and none asks for anything elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lib.base.paths import ROOT

MKDOCS = ROOT / ".venv-docs" / "bin" / "mkdocs"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built strictly: a broken link or a page without an entry is an error."""
    if not MKDOCS.is_file():
        pytest.skip("the documentation's tools are not installed: `make docs` installs them")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [str(MKDOCS), "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "STUDY_PYTHON": sys.executable},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)], ids=["desktop", "phone"])
def test_every_page_opens_from_its_file(site, browser, width, height):
    page = browser.new_page(viewport={"width": width, "height": height})
    faults = []
    page.on("console", lambda said: faults.append(said.text) if said.type != "log" else None)
    page.on("pageerror", lambda error: faults.append(f"{error}"))
    page.on("requestfailed", lambda request: faults.append(request.url))
    page.on("request", lambda request: faults.append(request.url)
            if request.url.startswith("http") else None)  # fmt: skip
    page.goto(f"{(site / 'index.html').as_uri()}")
    links = page.eval_on_selector_all(".md-nav--primary a[href]", "all => all.map(a => a.href)")
    files = sorted({link.partition("#")[0] for link in links})
    assert len(files) > 50
    for file in files:
        page.goto(file)
        assert page.locator("h1").count() == 1, file
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), file
        broken = page.evaluate(
            "[...document.images].filter(i => i.loading != 'lazy' && !i.naturalWidth).length"
        )
        assert not broken, file
        assert not faults, (file, faults)


@pytest.mark.slow
def test_the_search_answers_without_a_server(site, browser):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto((site / "index.html").as_uri())
    page.locator(".md-search__input").click()
    page.keyboard.type("ceiling")
    found = page.locator(".md-search-result__item a[href*='/score.html'][href$='#the-ceiling']")
    found.first.wait_for()
