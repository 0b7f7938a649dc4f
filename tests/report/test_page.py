"""The report holds what the folders hold, lacks what they lack, and is readable in a browser."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from stand_ins import CEILINGS, NO_CONTROLS, board, made_up_scores

from lib import leaderboard
from lib.figures.captions import CAPTIONS, caption_of
from lib.report.grids import as_texts
from lib.report.page import write_report
from lib.report.questions import QUESTIONS, TABLES, question_of
from lib.report.readable import daggers_once
from lib.report.result_table import results_table
from lib.runner.outcomes import Outcome, write_run
from lib.study.comparisons import COMPARISONS
from lib.study.study import Study

EVIL = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>&amp;"


def save_csv(study: Study, name: str, rows: list[dict] | pd.DataFrame) -> None:
    folder = study.places.output / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(folder / f"{name}.csv", index=False)


def save_image(study: Study, name: str, size: tuple[int, int] = (640, 320)) -> None:
    """A figure as `save_figure` leaves it: PNG, caption, provenance."""
    study.places.figures.mkdir(parents=True, exist_ok=True)
    path = study.places.figures / f"{name}.png"
    Image.new("RGB", size, (200, 120, 40)).save(path)
    path.with_suffix(".txt").write_text(f"What {name} shows. Data: embedded example.\n")
    facts = {
        "study": {"device": "cpu"},
        "inputs": {"data/demo/classes.txt": "ab" * 32},
        "commit": "0123456789ab",
        "environment": {"python": "3.11.7", "torch": "2.15.0"},
    }
    path.with_suffix(".json").write_text(json.dumps(facts))


def verdict(claim: str, word: str, **more) -> dict:
    row = {"claim": claim, "verdict": word, "statistic": "mean difference", "value": 0.0123456}
    row |= {"low": -0.5, "high": 12.25, "because": "the interval lies above 0 " * 6, "notes": ""}
    return row | {"speaks_of": "simulated people"} | more


def two_models() -> Study:
    return Study.from_profile("demo", models=["resnet50", "caformer_s18"])


@cache
def results() -> pd.DataFrame:
    study = two_models()
    scores = made_up_scores(study)
    return results_table(
        study,
        pd.concat(scores.assign(protocol=p) for p in study.choices.protocols),
        NO_CONTROLS,
        CEILINGS,
    )


def fill(study: Study) -> None:
    """Every part of a report, some of it long or wide."""
    save_csv(study, "results", results())
    rho = {"middle": 0.3, "best": 0.305, "last": -0.05}
    accuracy = {"imagenet_top1": [9.5, 80.25, np.nan], "n": [60, 1200, 7]}
    save_csv(study, "leaderboard", leaderboard(board(rho).assign(**accuracy)))
    words = ("reproduced", "not reproduced", "undecided at this n")
    unknown = verdict("Claim 4", words[2], statistic="", value=np.nan, low=np.nan, high=np.nan)
    save_csv(study, "verdicts", [*(verdict(f"Claim {w}", w) for w in words), unknown])
    save_csv(study, "left_out", [{"left_out": "val-3", "reason": "/long" * 60}])
    wide = {f"a_column_{i}": i / 7 for i in range(20)}
    for name in TABLES:
        save_csv(study, name, [{"backbone": "ResNet-50", "dcls": True, **wide}] * 3)
    weights = {"label": "ResNet-50", "verified": "yes", "n": 48, "top1": 0.9, "remarks": ""}
    told = {**weights, "label": "CAFormer-S18", "remarks": f"top-1 0.1 % of 48 images {EVIL}"}
    save_csv(study, "weights", [weights, told])
    long = {"backbone": "a_name_that_is_long_and_has_no_space", "difference": 0.5}
    save_csv(study, "power", [long | {"n": 10**9}])
    save_csv(study, "paired", [{"backbone": f"row {i}", "p": 10.0**-i} for i in range(40)])
    for name in [*CAPTIONS, "my_own"]:
        save_image(study, name, size=(2000, 600) if name == "learned_kernels" else (640, 320))
    outcomes = [
        Outcome("01_setup", "ok", "not run yet", 75.2, peak_memory_bytes=2**30),
        Outcome("02_x", "failed", "its cells changed", 3, detail="KeyError: 'a'\nin cell 2"),
    ]
    values = {"profile": "demo", "models": ["resnet50"], "device": "cpu"}
    path = study.places.output / "run.json"
    write_run(path, outcomes, values, "python run_all.py", "2026-01-01", "2026-01-02")


@pytest.fixture
def study(tmp_path, monkeypatch) -> Study:
    for name in ("OUTPUT", "FIGURES"):
        monkeypatch.setattr(f"lib.study.places.{name}", tmp_path / name.lower())
    return two_models()


class Page(HTMLParser):
    """A page's tags, and the text without them."""

    def __init__(self, study: Study):
        super().__init__()
        self.source = write_report(study).read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict]] = []
        self._texts: list[str] = []
        self.feed(self.source)
        self.text = " ".join(" ".join(self._texts).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self._texts.append(data)

    def all(self, *names: str) -> list[dict]:
        return [attributes for tag, attributes in self.tags if tag in names]


# --- what it holds -------------------------------------------------------------------------------


def test_what_another_study_left_is_named_and_not_shown(study):
    fill(study)
    facts = {"commit": "abc", "inputs": {}, "environment": {}}
    other = {"study": {"models": ["convnext_tiny"], "limit": 64}} | facts
    save_csv(study, "summary", [{"backbone": "resnet50", "score": 0.123456}])
    (study.places.output / "tables" / "summary.json").write_text(json.dumps(other))
    (study.places.figures / "cose.json").write_text(json.dumps(other))
    page = Page(study)
    assert "0.123" not in page.text
    assert "summary.csv is not of this study (models: ['convnext_tiny']" in page.text
    assert "cose.png is not of this study" in page.text
    assert "limit: 64, here 0" in page.text
    assert len(page.all("img")) == len(CAPTIONS)  # all but that one, and my own


def test_everything_that_is_there_is_shown(study):
    fill(study)
    page = Page(study)
    assert "ot made in this run" not in page.text
    assert "cannot be read" not in page.text
    for words in (
        COMPARISONS["dcls"].question, study.choices.profile.label, study.choices.profile.caveat, "Skipped", "/long/long",
        "undecided at this n", "mean difference: 0.0123 [-0.500, 12.250]", "These verdicts are about: simulated people",
        "Grad-CAM, protocol published", "Threshold-Grad-CAM, protocol corrected", "CAFormer-S18 mini",
        "(40 rows)", "1.00e-05", "a column 19", "ResNet-50", "0.143",
        *(title.format(change="with DCLS minus without") for title in TABLES.values()),
        *(caption_of(key, study.choices)[0] for key in CAPTIONS), "My own", "What my_own shows.",
        "made at commit 0123456789ab", "python run_all.py", "01_setup", "1:15", "1.0 GiB",
        "KeyError: 'a' in cell 2", "1: a notebook's cell raised an error",
        "torch", "2.15.0", "data/demo/classes.txt", "ab" * 32,
    ):  # fmt: skip
        assert words in page.text
    images = page.all("img")
    alts = [image["alt"] for image in images]
    assert len(set(alts)) == len(alts) == len(CAPTIONS) + 1
    assert all(alts)
    assert alts[-1] == "My own. What my_own shows."
    assert all(image["decoding"] == "async" for image in images)


def test_every_figure_and_table_belongs_to_a_question():
    figures = [name for row in QUESTIONS.values() for name in row.figures]
    tables = [name for row in QUESTIONS.values() for name in row.tables]
    assert sorted(figures) == sorted(CAPTIONS)
    assert sorted(tables) == sorted({*TABLES, "verdicts", "results", "leaderboard"} - {"weights"})
    assert question_of("leaderboard_grad_cam") == question_of("leaderboard") == "agreement"
    assert question_of("my_own") == question_of("scoreless") == "other"
    assert question_of("cose_by_change") == "cose"


def test_questions_hold_their_figures_and_tables_and_count_them(study):
    fill(study)
    page = Page(study)
    folds = [tag for tag in page.all("details") if tag.get("class") == "question"]
    assert len(folds) == len(page.all("section")) == len(QUESTIONS) + 1  # and the run's own
    assert ["open" in fold for fold in folds] == [True] + [False] * len(QUESTIONS)
    for row in QUESTIONS.values():
        start = page.source.index(f'<section id="{row.key}">')
        inside = page.source[start : page.source.index("</section>", start)]
        for name in row.tables:
            assert f'id="table-{name}"' in inside
        for name in row.figures:
            assert f'"#figure-{name}"' in inside or f'id="figure-{name}"' in inside
        assert f'<a href="#{row.key}">' in page.source
    assert f"{QUESTIONS['fixations'].text} 1 figure, 1 table" in page.text
    assert f"{QUESTIONS['claims'].text} 1 table" in page.text
    assert f"{QUESTIONS['other'].text} 1 figure" in page.text
    assert "My own" in page.text.split(QUESTIONS["other"].text)[-1]


def test_the_summary_shows_heatmaps_beside_human_maps_once(study):
    for name in ("scores", "maps_beside_people", "clickme_sample"):
        save_image(study, name)
    page = Page(study)
    assert len(page.all("img")) == 3
    assert page.source.index('id="figure-maps_beside_people"') < page.source.index("<nav")
    assert page.source.index('id="figure-clickme_sample"') > page.source.index("<nav")
    assert "This figure stands at the top of the page." in page.text


def test_a_run_that_failed_says_so_first(study):
    fill(study)
    page = Page(study)
    told = page.text.index("The last run is incomplete")
    assert told < page.text.index("Agreement, ρ")
    assert "02_x: failed. KeyError: 'a'" in page.text
    assert "01_setup: ok" not in page.text
    path = study.places.output / "run.json"
    well = [Outcome("01_setup", "ok"), Outcome("02_x", "kept")]
    write_run(path, well, {}, "python run_all.py", "2026-01-01", "2026-01-02")
    assert "is incomplete" not in Page(study).text


def test_a_figure_per_method_is_named_after_it(study):
    save_image(study, "leaderboard_grad_cam")
    title = caption_of("leaderboard", study.choices)[0]
    assert f"{title}: Grad-CAM" in Page(study).text


def test_the_random_method_counts_as_a_control(study):
    several = Study.from_profile("gaze")
    assert len(several.choices.methods) == 17
    assert "16 CAM methods and a control for the predicted class" in Page(several).text


def test_what_is_not_there_is_named_as_not_made(study):
    page = Page(study)
    assert page.text.count("Not made in this run.") == 3  # run, origin, weights
    for row in QUESTIONS.values():
        change = "with DCLS minus without"
        titles = [caption_of(name, study.choices)[0] for name in row.figures]
        titles += [TABLES.get(name, name.capitalize()).format(change=change) for name in row.tables]
        assert not titles or f"{row.text} Not made in this run: {'; '.join(titles)}." in page.text
    assert "This run has made no scores that can be shown." in page.text
    assert "Skipped" not in page.text
    assert not page.all("img", "table", "svg")
    assert len(page.all("section")) == 1
    assert study.choices.profile.caveat in page.text


@pytest.mark.parametrize("garbage", [b"", b"\xff\xfe\x00", b"a,b\n1,2\n", b"[]", b'{"a": 1}'])
def test_what_is_damaged_is_named_and_the_rest_is_shown(study, garbage):
    fill(study)
    for path in [*study.places.output.rglob("*.*"), *study.places.figures.iterdir()]:
        if path.name not in ("power.csv", "protocols.png") and path.is_file():
            path.write_bytes(garbage)
    page = Page(study)
    for name in ("verdicts.csv", "results.csv", "run.json", "size.png"):
        assert f"{name} cannot be read" in page.text
    assert TABLES["power"] in page.text
    assert len(page.all("img")) == 1


def test_a_table_without_rows_has_none(study):
    save_csv(study, "left_out", pd.DataFrame(columns=["left_out", "reason"]))
    save_csv(study, "power", pd.DataFrame(columns=["n", "power"]))
    save_csv(study, "verdicts", pd.DataFrame(columns=list(verdict("", ""))))
    page = Page(study)
    assert "Skipped" not in page.text
    assert page.text.count("It has no rows.") == 2  # power, verdicts
    assert not page.all("table")


def test_a_profile_without_a_caveat_shows_no_notice(study):
    page = Page(study.changed(profile=replace(study.choices.profile, caveat="")))
    assert "notice" not in [tag.get("class") for _, tag in page.tags]


def test_words_that_describe_the_data_are_no_notice(study):
    page = Page(study.changed(profile=replace(study.choices.profile, warns=False)))
    assert study.choices.profile.caveat in page.text
    assert "notice" not in [tag.get("class") for _, tag in page.tags]


def test_what_a_verdict_counted_stands_in_words(study):
    words = "5 of 8 rise in the mean, 3 significantly"
    counted = verdict("A", "not reproduced", statistic="rising [significantly]", counts=words)
    save_csv(study, "verdicts", [counted, verdict("B", "reproduced", counts="")])
    text = Page(study).text
    assert words in text
    assert "rising [significantly]" not in text
    assert "mean difference: 0.0123" in text


@pytest.mark.parametrize(
    ("cells", "shown", "every"),
    [
        (["0.1 [–] †", "0.2 [–] †", "–"], ["0.1 [–]", "0.2 [–]", "–"], True),
        (["0.1 [–] †", "0.2 [–]"], ["0.1 [–] †", "0.2 [–]"], False),
        (["0.1 [–] †"], ["0.1 [–] †"], False),
    ],
)
def test_daggers_that_tell_no_row_from_another_are_said_once(cells, shown, every):
    table = pd.DataFrame({"Method": "†", "Score [95 %]": cells})
    found, said = daggers_once(table)
    assert (found["Score [95 %]"].tolist(), said) == (shown, every)
    assert (found.Method == "†").all()


def test_the_same_folders_give_the_same_page(study):
    fill(study)
    assert Page(study).source == Page(study).source
    assert [path.name for path in study.places.output.glob("*.html")] == ["report.html"]


def test_names_cannot_write_into_the_page(study, tmp_path, monkeypatch):
    fill(study)
    save_csv(study, "left_out", [{"left_out": EVIL, "reason": EVIL}])
    save_csv(study, "verdicts", [verdict(EVIL, EVIL, because=EVIL, statistic=EVIL)])
    save_csv(study, "power", [{EVIL: EVIL}])
    save_csv(study, "sanity", [{EVIL: i} for i in range(20)])
    (study.places.figures / "my_own.txt").write_text(EVIL)
    facts = {"commit": EVIL, "study": {"device": EVIL}, "inputs": {EVIL: EVIL}, "environment": {}}
    (study.places.figures / "my_own.json").write_text(json.dumps(facts))
    write_run(
        study.places.output / "run.json", [Outcome(EVIL, EVIL, EVIL)], {EVIL: EVIL}, EVIL, EVIL
    )
    page = Page(study.changed(profile=replace(study.choices.profile, label=EVIL, caveat=EVIL)))
    assert page.text.count(EVIL) > 12
    assert page.source.count("<script") == len(page.all("script")) == 1  # that sorts
    assert all(image["src"].startswith("data:image/png;base64,") for image in page.all("img"))
    assert not any(name.startswith("on") for _, tag in page.tags for name in tag)


def test_the_page_needs_nothing_but_itself(study):
    fill(study)
    page = Page(study)
    ids = [tag["id"] for _, tag in page.tags if "id" in tag]
    assert len(ids) == len(set(ids))
    for _, tag in page.tags:
        for name in tag.keys() & {"src", "href", "srcset", "poster", "action", "data", "style"}:
            assert tag[name].startswith(("#", "data:"))
            assert not tag[name].startswith("#") or tag[name][1:] in ids
    assert not re.search(r"url\(|@import|http-equiv", page.source)


def test_headings_and_tables_tell_their_structure(study):
    fill(study)
    page = Page(study)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(later <= level + 1 for level, later in pairwise(levels))
    assert page.all("html")[0]["lang"] == "en"
    assert page.all("th")
    assert all(tag["scope"] in ("col", "row") for tag in page.all("th"))


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0.123456, -1.28569, 1.0, 0.0], ["0.123", "-1.286", "1.000", "0.000"]),
        ([0.0084149, 0.0999999, 0.000012345], ["0.00841", "0.1000", "1.23e-05"]),
        ([123.45678, 25557032.5], ["123.457", "25,557,032"]),
        ([240.0, np.nan, 25557032], ["240", "–", "25,557,032"]),
        ([-6.06, 0.28, 1], ["-6.06", "0.28", "1.00"]),
        ([np.inf, 0.1], ["inf", "0.1"]),
        ([1e-13, 0], ["1.00e-13", "0.000"]),
        ([True, False], ["yes", "no"]),
        (["ResNet-50", None, ""], ["ResNet-50", "–", "–"]),
        ([], []),
    ],
)
def test_numbers_are_rounded_to_what_can_be_read(values, texts):
    assert as_texts(pd.Series(values)) == texts


# --- in a browser --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patched:
        for name in ("OUTPUT", "FIGURES"):
            patched.setattr(f"lib.study.places.{name}", folder / name.lower())
        study = two_models()
        fill(study)
        return write_report(study)


@pytest.fixture
def opened(browser, written):
    """Opens the page at a width, in a colour scheme, with every fold open or as it is; at the end
    nothing may have gone wrong."""
    contexts, wrong, requests = [], [], []

    def open_page(width: int, scheme: str = "light", closed: bool = False):
        size = {"width": width, "height": 800}
        contexts.append(browser.new_context(viewport=size, color_scheme=scheme))
        page = contexts[-1].new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(written.as_uri())
        if not closed:
            page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []
    assert [url for url in requests if not url.startswith("data:")] == [written.as_uri()]


WIDTHS = [320, 360, 820, 1280]


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_fits_every_width(opened, width, closed):
    page = opened(width, closed=closed)
    assert page.evaluate("""() => {
        const root = document.documentElement
        return root.scrollWidth <= root.clientWidth
    }""")
    assert (
        page.evaluate("""() => [...document.querySelectorAll('tbody th')].filter(
        head => head.scrollWidth > head.clientWidth + 1).map(head => head.innerText)""")
        == []
    )
    assert page.locator("table").count() > 10
    assert page.evaluate("""() => [...document.querySelectorAll('table')].filter(table => {
        const holder = table.closest('.scroll')
        const outside = holder?.getBoundingClientRect().right > innerWidth
        const named = holder?.tabIndex === 0 && holder.ariaLabel
        return !named || outside || getComputedStyle(holder).overflowX !== 'auto'
    }).length""") == 0  # fmt: skip


def test_every_figure_is_drawn_and_told(opened):
    page = opened(820)
    images = page.evaluate("""() => [...document.images].map(image => ({
        natural: image.naturalWidth, shown: image.getBoundingClientRect().width,
        ratio: image.width / image.height * image.naturalHeight / image.naturalWidth,
        alt: image.alt, caption: image.closest('figure').querySelector('figcaption').innerText}))
    """)
    assert len(images) == len(CAPTIONS) + 1
    for image in images:
        assert image["natural"] > 0
        assert 0 < image["shown"] <= 820
        assert image["ratio"] == pytest.approx(1, abs=0.01)
        assert image["alt"].strip()
        assert image["caption"].strip()


# WCAG 2.2: contrast of relative luminances, of every element that has text of its own.
CONTRASTS = """() => {
    const channels = colour => colour.match(/[\\d.]+/g).map(Number)
    const luminance = colour => {
        const [r, g, b] = channels(colour).slice(0, 3).map(value => value / 255).map(
            value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b
    }
    const ground = element => {
        for (let e = element; e; e = e.parentElement) {
            const colour = getComputedStyle(e).backgroundColor
            if ((channels(colour)[3] ?? 1) === 1) return colour
        }
        return 'rgb(255, 255, 255)'
    }
    const written = element =>
        [...element.childNodes].some(n => n.nodeType === Node.TEXT_NODE && n.data.trim()) ||
        getComputedStyle(element, '::before').content !== 'none'
    return [...document.body.querySelectorAll('*')]
        .filter(element => element.checkVisibility() && written(element))
        .flatMap(element => ['', '::before'].map(part => {
            const [low, high] = [getComputedStyle(element, part).color, ground(element)]
                .map(luminance).sort((a, b) => a - b)
            return {text: element.textContent.slice(0, 40), contrast: (high + 0.05) / (low + 0.05)}
        }))
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_every_text_stands_out_from_its_ground(opened, scheme, width):
    page = opened(width, scheme)
    found = page.evaluate(CONTRASTS)
    assert len(found) > 500
    assert [each for each in found if not each["contrast"] >= 4.5] == []
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")


def test_a_heading_sorts_by_click_and_by_keyboard_numbers_as_numbers(opened):
    page = opened(1280)
    table = page.locator("#table-leaderboard table")

    def shown():
        return table.locator("tbody th").all_inner_texts()

    def sorted_by():
        return table.locator("th[aria-sort]").evaluate_all(
            "all => all.map(h => [h.innerText, h.ariaSort])"
        )

    assert (shown(), sorted_by()) == (["best", "middle", "last"], [])
    score = table.get_by_role("button", name="Score [95 %]")
    score.click()
    assert shown() == ["last", "middle", "best"]  # -0.100, 0.600, 0.610
    score.focus()
    page.keyboard.press("Enter")
    assert (shown(), sorted_by()) == (["best", "middle", "last"], [["Score [95 %]", "descending"]])
    table.get_by_role("button", name="ImageNet top-1 (%)").click()
    assert shown() == ["middle", "best", "last"]  # 9.5, 80.3, not known
    assert sorted_by() == [["ImageNet top-1 (%)", "ascending"]]
    table.get_by_role("button", name="Model").click()
    assert shown() == ["best", "last", "middle"]
    table.get_by_role("button", name="n", exact=True).click()
    assert shown() == ["last", "middle", "best"]  # 7, 60, 1200


def test_other_tables_sort_too(opened):
    page = opened(1280)
    table = page.locator("#table-paired table")
    table.get_by_role("button", name="p", exact=True).click()  # 1, 0.1, …, 1e-39
    assert table.locator("tbody th").all_inner_texts()[:2] == ["row 39", "row 38"]


OPEN = "e => e.closest('details').open"


def test_a_link_opens_the_fold_of_its_target(opened):
    page = opened(1280, closed=True)
    link = page.locator("nav a", has_text=QUESTIONS["cose"].text)
    heading = page.locator("#cose h2")
    assert not heading.evaluate(OPEN)
    link.focus()
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('#cose details').open")
    assert page.locator("#figure-cose").is_visible()
    heading.click()
    assert not heading.evaluate(OPEN)
    link.click()  # the address has this target already
    page.wait_for_function("() => document.querySelector('#cose details').open")
    page.goto(page.url.partition("#")[0] + "#table-parameters")
    page.wait_for_function("() => document.querySelector('#conversion details').open")


def test_every_question_opens_and_closes_at_once(opened):
    page = opened(1280, closed=True)
    folds = page.locator("details.question")
    count = "all => all.filter(fold => fold.open).length"
    assert folds.evaluate_all(count) == 1
    button = page.get_by_role("button", name="Open all questions")
    button.focus()
    page.keyboard.press("Enter")
    assert folds.evaluate_all(count) == folds.count() == len(QUESTIONS) + 1
    page.get_by_role("button", name="Close all questions").click()
    assert folds.evaluate_all(count) == 0


def test_the_drawn_scale_lies_within_a_phone(opened):
    page = opened(360, closed=True)
    places = page.evaluate("""() => [...document.querySelectorAll('.scale circle, .scale text')]
        .map(e => e.getBoundingClientRect()).map(r => [r.left, r.right])""")
    assert len(places) > 10
    assert all(left >= 0 and right <= 360 for left, right in places)


def test_it_prints_on_pages_every_fold_and_figure(opened):
    page = opened(1280, "dark", closed=True)
    printed = page.pdf(format="A4")
    assert printed.startswith(b"%PDF")
    assert len(re.findall(rb"/Type /Page\b", printed)) > len(CAPTIONS) / 3
    shown = page.locator("details").evaluate_all("all => all.filter(fold => fold.open).length")
    assert shown < page.locator("details").count()  # closed again
