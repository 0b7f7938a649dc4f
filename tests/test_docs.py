"""What the pages say is what the software does."""

from __future__ import annotations

import re

from lib.base.paths import ROOT
from lib.maps.methods import METHODS
from lib.people.protocols import PROTOCOLS
from lib.study.profiles import PROFILES

PAGES = sorted((ROOT / "docs").rglob("*.md"))


def _source() -> str:
    """All of the code, with texts that go over several lines joined."""
    files = [*(ROOT / "lib").rglob("*.py"), ROOT / "run_all.py"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    return re.sub(r'"\s*\n?\s*f?"', "", text)


def test_messages_in_the_troubleshooting_table_are_really_given():
    rows = re.findall(r"^\| `([^`]+)`", (ROOT / "docs" / "troubleshooting.md").read_text(), re.M)
    source = _source()
    assert len(rows) > 20
    for row in rows:
        for part in row.split("…"):
            assert part.strip() in source, f"{part!r} of {row!r}"


def test_commands_of_pages_have_their_options():
    from lib.commands.average_drop import build_parser as average_drop
    from lib.commands.cose import build_parser as cose
    from lib.commands.cose_train import build_parser as cose_train
    from lib.commands.fetch import build_parser as fetch
    from lib.commands.lcam import build_parser as lcam
    from lib.commands.leaderboard import build_parser as leaderboard
    from lib.commands.one_image import build_parser as cam
    from lib.commands.score_maps import build_parser as score_maps
    from run_all import build_parser as run_all

    parsers = {
        "python run_all.py": run_all, "dcls-lcam": lcam, "dcls-average-drop": average_drop,
        "dcls-cam": cam, "dcls-cose": cose, "dcls-cose-train": cose_train,
        "dcls-score-maps": score_maps, "dcls-leaderboard": leaderboard, "dcls-fetch": fetch,
    }  # fmt: skip
    for page in [*PAGES, ROOT / "README.md"]:
        for name, parser in parsers.items():
            known = {o for action in parser()._actions for o in action.option_strings}
            for line in re.findall(rf"{re.escape(name)} .*", page.read_text().replace("\\\n", "")):
                command = re.split(r"[`#|;]", line)[0]
                for option in re.findall(r"(?<!\S)(--[a-z-]+)", command):
                    assert option in known, f"{page.name}: {option} of {name}"


def test_the_glossary_is_in_order_and_names_what_there_is():
    text = (ROOT / "docs" / "glossary.md").read_text()
    terms = [row for row in re.findall(r"^\| ([^|]+) \|", text, re.M) if row not in ("term", "---")]
    assert terms == sorted(terms, key=str.lower)
    for word in ("published", "corrected"):
        assert word in PROTOCOLS
    for word in ("demo", "paper", "rehearsal"):
        assert word in PROFILES
        assert f"`{word}`" in text
    assert METHODS["threshold_grad_cam"].floor == 0.3
