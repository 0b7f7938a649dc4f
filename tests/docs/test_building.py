"""What becomes of docstrings, notebooks, links and diagrams on their way into the site."""

from __future__ import annotations

import argparse
import base64
import importlib
import json
import re
from itertools import combinations, pairwise

import pytest
from building import commands, diagram, faces, layout, notebooks
from building.prose import to_markdown
from building.reference import commands_page, doors_page, room_page

from lib.base.paths import NOTEBOOKS, ROOT

# --- docstrings -------------------------------------------------------------------------------


def test_lines_of_names_become_a_list_and_labels_their_own_paragraphs():
    text = (
        "Rank agreement of maps.\n\nIt goes on\nfor two lines.\n\n"
        "model_maps, human_maps : (image, h, w) float,\n"
        "                         any scale\n"
        "settle : rounds first\n"
        "Returns (image,) float64; NaN for\nconstant maps.\n"
        "Raises  : ValueError\n"
        "Source: Spearman, 1904"
    )
    assert to_markdown(text).split("\n\n") == [
        "Rank agreement of maps.",
        "It goes on for two lines.",
        "`model_maps`, `human_maps`\n:   (image, h, w) float, any scale",
        "`settle`\n:   rounds first",
        "**Returns** (image,) float64; NaN for constant maps.",
        "**Raises** ValueError",
        "**Source** Spearman, 1904",
    ]


def test_signs_mean_themselves_and_code_stays_code():
    found = to_markdown("`a_b`: 2 * x * y < [z]_i_ of `**more`")
    assert found == "`a_b`: 2 \\* x \\* y &lt; \\[z\\]\\_i\\_ of `**more`"


def test_a_time_of_day_is_no_name():
    assert to_markdown('75 seconds: "1:15"') == '75 seconds: "1:15"'


def test_public_names_in_backticks_are_links():
    names = {"score_study": "lib.scores.study_scores.score_study"}
    found = to_markdown("As `score_study()` and `other` say.", names)
    assert found == "As [`score_study()`][lib.scores.study_scores.score_study] and `other` say."


def test_an_indented_paragraph_is_kept_as_it_is():
    assert to_markdown("So:\n\n    a  b\n    c *d*") == "So:\n\n```text\na  b\nc *d*\n```"


# --- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "module", ["lib", *(f"lib.{m}" for m in (*faces.ROOMS, *faces.INNER, *faces.DOORS))]
)
def test_the_names_that_are_read_are_those_that_can_be_imported(module):
    face = importlib.import_module(module)
    names = faces.names_of(module)
    if module not in ("lib.timm_variants", "lib.stored"):
        assert set(names) == set(face.__all__)
    for name, full in names.items():
        home, _, own = full.rpartition(".")
        assert own == name
        assert getattr(importlib.import_module(home), name) is getattr(face, name)


def test_every_public_name_is_described_once():
    pages = "".join([*map(room_page, faces.ROOMS), doors_page()])
    for full in faces.all_names().values():
        assert len(re.findall(rf"^(?:::: {full}|#+ .* {{ #{full} }})$", pages, re.M)) == 1, full


# --- links and lists --------------------------------------------------------------------------


def test_links_out_of_docs_lead_to_their_pages_in_the_site():
    text = (
        "[a](../../notebooks/00_x.ipynb#b) [c](../../data/README.md) ![d](../../figures/e.jpg) "
        "[f](../score.md#g) [h](https://i.org/j.md) [k](../../setup.py)\n"
        "```\n[l](../../data/README.md)\n```"
    )
    assert layout.relinked(text, "docs/how-to/x.md", "how-to/x.md") == (
        "[a](../tutorials/00_x.md#b) [c](../data.md) ![d](../files/figures/e.jpg) "
        "[f](../score.md#g) [h](https://i.org/j.md) [k](../../setup.py)\n"
        "```\n[l](../../data/README.md)\n```"
    )
    assert layout.relinked("[a](docs/b.md)", "README.md", "index.md") == "[a](b.md)"
    assert layout.source_of("tutorials/04_scoring.md") == "notebooks/04_scoring.ipynb"


def test_a_list_is_set_apart_from_the_sentence_before_it():
    assert layout.lists_apart("Three:\n- a\n- b\n  c\n- d") == "Three:\n\n- a\n- b\n  c\n- d"
    assert layout.lists_apart("```\nx\n- a\n```") == "```\nx\n- a\n```"


# --- notebooks --------------------------------------------------------------------------------

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def executed(tmp_path):
    """Writes notebook 04 as a run leaves it, with one cell's outputs; returns the folder."""

    def write(outputs: list[dict], change: str = ""):
        notebook = json.loads((NOTEBOOKS / "04_scoring.ipynb").read_text())
        code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        code[-1]["outputs"] = outputs
        code[-1]["source"] = [*code[-1]["source"], change]
        parameters = {"cell_type": "code", "metadata": {"tags": ["injected-parameters"]},
                      "source": "profile = 'secret'", "outputs": []}  # fmt: skip
        notebook["cells"].insert(3, parameters)
        path = tmp_path / "demo" / "notebooks" / "04_scoring.ipynb"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(notebook))
        return tmp_path

    return write


def test_an_executed_notebook_is_shown_with_its_results(executed):
    folder = executed(
        [
            {"output_type": "stream", "name": "stdout", "text": ["\x1b[1mtwo\x1b[0m\n", "lines\n"]},
            {"output_type": "stream", "name": "stderr", "text": "a progress bar"},
            {"output_type": "display_data", "data": {"image/png": base64.b64encode(PNG).decode(), "text/plain": "<Figure>"}},
            {"output_type": "execute_result", "data": {"text/html": "<style>x</style><table border=\"1\">\n\n<tr><td>7</td></tr></table>"}},
            {"output_type": "display_data", "data": {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "Box()"}},
        ]
    )  # fmt: skip
    page = notebooks.page_of("04_scoring", folder)
    assert "Executed by `make demo`" in page.text
    assert "say nothing about DCLS" in page.text
    assert "```{ .text .printed }\ntwo\nlines\n```" in page.text
    assert '<div class="result"><table><tr><td>7</td></tr></table></div>' in page.text
    assert "In JupyterLab only" in page.text
    assert list(page.images.values()) == [PNG]
    (alt,) = re.findall(r"!\[(.+)\]\(04_scoring_0.png\)", page.text)
    assert not re.search(r"[*`\[\]]", alt)
    for hidden in ("secret", "progress bar", "Box()", "<style>"):
        assert hidden not in page.text


@pytest.mark.parametrize(("outputs", "change", "said"), [
    (None, "", "has not been executed here"),
    ([], "# another cell", "executed an earlier version"),
])  # fmt: skip
def test_a_notebook_without_results_of_its_own_says_so(executed, tmp_path, outputs, change, said):
    folder = tmp_path if outputs is None else executed(outputs, change)
    page = notebooks.page_of("04_scoring", folder)
    assert said in page.text
    assert "Shown without results" in page.text
    assert "# another cell" not in page.text
    assert page.images == {}


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_parameters_and_imports_are_folded(path, tmp_path):
    text = notebooks.page_of(path.stem, tmp_path).text
    assert text.startswith("# ")
    assert text.count('??? example "Parameters and imports"') == 1
    assert re.search(r"^    profile: str", text, re.M)
    assert not re.search(r"^profile: str", text, re.M)


# --- the diagram ------------------------------------------------------------------------------


def test_the_diagram_of_the_rooms_has_every_room_and_every_arrow():
    page = (ROOT / "docs" / "architecture.md").read_text()
    (text,) = re.findall(r"^```mermaid\n(.*?)^```", page, re.M | re.S)
    svg = diagram.drawn(text, "rooms")
    assert "\n" not in svg
    labels = re.findall(r'\["([^"<]+)', text)
    assert re.findall(r'class="first"[^>]*>([^<]+)<', svg) == labels
    arrows = sum(
        len(a.split("&")) * len(b.split("&"))
        for line in text.splitlines() if "-->" in line
        for a, b in pairwise(line.split("-->"))
    )  # fmt: skip
    assert svg.count('class="edge"') == arrows
    boxes = [[float(n) for n in box] for box in re.findall(
        r'<rect class="box" x="(\d+)" y="(\d+)" width="(\d+)" height="(\d+)"', svg)]  # fmt: skip
    assert len(boxes) == len(labels)
    for (x, y, w, h), (u, v, s, t) in combinations(boxes, 2):
        assert x + w <= u or u + s <= x or y + h <= v or v + t <= y
    width = float(re.search(r'viewBox="0 0 (\d+)', svg)[1])
    assert all(x >= 0 and x + w <= width for x, _, w, _ in boxes)


@pytest.mark.parametrize(("text", "said"), [
    ('flowchart TB\na["x"]\nb["y"]\na -.-> b', "a -.-> b"),
    ('flowchart TB\na["x"]\na --> c', "no node is called c"),
    ('flowchart TB\na["x"]\nb["y"]\na --> b\nb --> a', "circle"),
])  # fmt: skip
def test_what_the_diagram_cannot_draw_is_an_error(text, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        diagram.drawn(text, "")


# --- commands ---------------------------------------------------------------------------------


def test_a_commands_page_has_every_option_of_its_parser():
    parser = commands.parser_of("lib.commands.score_maps")
    assert parser.prog == "dcls-score-maps"
    page = commands_page({"dcls-score-maps": commands.told(parser)})
    for action in parser._actions:
        for option in action.option_strings:
            assert re.search(rf"^`[^`]*{option}\b", page, re.M), option
    assert argparse.ArgumentParser.print_help.__name__ == "print_help"
