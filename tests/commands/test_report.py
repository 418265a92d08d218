"""The report: what it shows of made-up evidence, how it takes what is damaged, and how it reads in a real browser."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure as DrawnFigure

from ivae_lab import report
from ivae_lab.reproduction import definition as experiment
from ivae_lab.reproduction import present, records, site_content, site_render
from ivae_lab.reproduction.about_json import Sweep, read_about
from ivae_lab.reproduction.claims import NO_VERDICT
from ivae_lab.reproduction.definition import Figure, Scale, load
from ivae_lab.reproduction.evidence import FigureEvidence
from tests.browser import CHROMIUM, Browser
from tests.running import command

pytestmark = pytest.mark.slow

# Made-up evidence: no paper, no training.
PAPER = "madeup2020"
REPORTED = """claim,figure,where,statement,value,tolerance
high,all,Figure 1,iVAE reaches an MCC of .9,.9,.05
better,all,Figure 1,iVAE is better than <em>VAE</em> & co,,
"""
FIGURES = '''"""Made-up figures."""

from matplotlib.figure import Figure

from ivae_lab.plots.style import Picture


def dots(tables):
    figure = Figure(figsize=(3, 2))
    figure.subplots().plot(tables["rows"]["mcc_mean"], ".")
    return Picture("dots", figure, "Made-up MCCs of iVAE and VAE as dots.", "A dot per seed <made up>.")
'''
DEFINITION = """title: Made-up figure {number} <script>alert(1)</script>
where: Figure {number}
claim: iVAE recovers the sources.
seeds: {{quick: 3, paper: 3}}
table: [variant, label]
cells:
  - {{variant: paper, label: iVAE, overrides: [model=ivae, data=tcl]}}
draw: [dots]
claims:
  - {{claim: high, test: within, of: {{label: iVAE}}}}
  - {{claim: better, test: above, of: {{label: iVAE}}, than: [{{label: VAE}}]}}
deviations: [Everything is made up.]
"""
KEPT, OWN, QUICK, NONE = (f"{PAPER}/fig{number}" for number in (1, 2, 3, 10))


def _rows(ivae: float, run: str) -> pd.DataFrame:
    spread = np.array([-0.01, 0.0, 0.01])
    return pd.DataFrame(
        [
            {
                "variant": "paper",
                "label": label,
                "method": label.lower(),
                "model": label.lower(),
                "data": "tcl",
                "data_seed": 1,
                "seed": seed,
                "mcc_mean": mean + spread[seed],
                "elbo": float(seed),
                "chance": 0.02,
                "state": "done",
                "run": run,
            }
            for label, mean in (("iVAE", ivae), ("VAE", 0.5))
            for seed in range(3)
        ]
    )


def _evidence(figure: Figure, scale: Scale, ivae: float, run: str = "a-run") -> FigureEvidence:
    lacking = {"overrides": ["model=vade"], "variant": "paper", "seeds": [0, 1, 2], "state": "failed"}
    return FigureEvidence(
        figure,
        scale,
        [],
        f"python -m ivae_lab.reproduce {figure.full_name} scale={scale}",
        total=9,
        tables={"rows": _rows(ivae, run)},
        missing=[{**lacking, "error": "out of <memory>", "folder": "another-run"}],
        lines=[
            {
                "variant": "paper",
                "label": label,
                "model": label.lower(),
                "data": "tcl",
                "cells": 2,
                "seeds": [0, 1, 2],
                "first": [f"model={label.lower()}", "data=tcl"],
                "config": {"data": {"seed": 1}, "model": {"name": f"of {label}"}},
            }
            for label in ("iVAE", "VAE")
        ],
        runs={
            run: {
                "state": "done",
                "seeds": [0, 1, 2],
                "seconds": 3720.0,
                "commit": "abc",
                "written": "2026-01-01T00:00:00Z",
                "device": "cpu",
                "threads": 2,
                "versions": {"python": "3.11"},
                "error": None,
            }
        },
    )


@pytest.fixture(scope="module")
def patched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Experiments of four made-up figures, of which the project keeps the first."""
    experiments = tmp_path_factory.mktemp("experiments")
    folder = experiments / PAPER
    folder.mkdir()
    (folder / "reported.csv").write_text(REPORTED)
    (folder / "figures.py").write_text(FIGURES)
    for name in (KEPT, OWN, QUICK, NONE):
        (experiments / f"{name}.yaml").write_text(DEFINITION.format(number=name.rpartition("fig")[2]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "EXPERIMENTS", experiments)
        patch.setattr(records, "EXPERIMENTS", experiments)
        records.record(_evidence(load(KEPT), "paper", 0.95))
        yield experiments


@pytest.fixture(scope="module")
def material(patched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs with a figure of both scales, one of the quick scale, and the folder of a run."""
    outputs = tmp_path_factory.mktemp("made up") / "outputs"
    drawn: list[tuple[str, Scale, float]] = [(OWN, "paper", 0.84), (OWN, "quick", 0.1), (QUICK, "quick", 0.3)]
    for name, scale, ivae in drawn:
        present.present(_evidence(load(name), scale, ivae), outputs / "figures" / name / scale)
    (outputs / "a-run").mkdir()
    (outputs / "a-run" / "status.json").touch()
    return outputs


@pytest.fixture
def outputs(material: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(material, tmp_path / "outputs"))


@pytest.fixture(scope="module")
def made(material: Path) -> Path:
    """The report of the material, whole."""
    assert report.main([f"outputs={material}"]) == 0
    return material / "report"


def _page(made: Path, name: str) -> str:
    return (made / f"{name}.html").read_text(encoding="utf-8")


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_best_evidence_is_shown_and_other_is_named(made: Path) -> None:
    assert "shown is the paper scale kept with the project, 6 of 9 runs." in _page(made, KEPT)
    assert (
        "shown is the paper scale under the outputs, 6 of 9 runs. Also there: quick scale under the outputs, 6 of 9"
        in _page(made, OWN)
    )
    assert "shown is the quick scale under the outputs" in _page(made, QUICK)
    assert "Quick scale: smaller than the paper" in _page(made, QUICK)
    assert f"python -m ivae_lab.reproduce {NONE} scale=paper" in _page(made, NONE)
    assert (made / KEPT / "dots.svg").is_file()


def test_claims_of_every_figure_are_in_the_overview(made: Path) -> None:
    claims = pd.read_csv(made / "claims.csv").set_index(["figure", "claim"])
    assert claims["verdict"].to_dict() == {
        ("fig1", "high"): "reproduced",
        ("fig1", "better"): "reproduced",
        ("fig10", "high"): "not run",
        ("fig10", "better"): "not run",
        ("fig2", "high"): "partly",
        ("fig2", "better"): "reproduced",
        ("fig3", "high"): NO_VERDICT,
        ("fig3", "better"): NO_VERDICT,
    }
    index = _page(made, "index")
    assert index.count("<tr ") - 1 == len(claims)
    assert "iVAE is better than &lt;em&gt;VAE&lt;/em&gt; &amp; co" in index
    assert f'<a href="{OWN}.html">fig2</a>' in index


def test_the_quick_scale_gets_no_verdict_and_is_not_counted(made: Path) -> None:
    index = _page(made, "index")
    tally = re.findall(r"<li><strong>(\d+)</strong> <span class=\"verdict ([a-z-]+)", index)
    assert tally == [("3", "reproduced"), ("1", "partly"), ("0", "not-reproduced"), ("2", "not-run")]
    assert index.count(f'data-verdict="{NO_VERDICT}"') == 2
    assert f"<option>{NO_VERDICT}</option>" in index
    page = _page(made, QUICK).split("Verdicts</h2>")[1]
    assert page.count(f"</svg>{NO_VERDICT}</span>") == 2
    assert "not reproduced" not in page.split("Numbers</h2>")[0]


def test_page_of_a_figure_says_where_it_comes_from(made: Path) -> None:
    page = _page(made, OWN)
    for said in (
        "python -m ivae_lab.reproduce madeup2020/fig2 scale=paper",
        "python -m ivae_lab.train model=ivae data=tcl &#39;seed=[0,1,2]&#39;",
        "It trains 4 configurations. Of each group of them, the first alone:",
        'VAE <span class="variant">variant: paper, model: vae, data: tcl</span>',
        'iVAE <span class="variant">variant: paper, model: ivae, data: tcl</span>',
        "python -m ivae_lab.train model=vae data=tcl &#39;seed=[0,1,2]&#39;",
        "2 configurations, model seeds 0 to 2",
        "data:\n  seed: 1\nmodel:\n  name: of iVAE\n",
        "data:\n  seed: 1\nmodel:\n  name: of VAE\n",
        "Everything is made up.",
        "1 h 2 min",
        "1 run: cpu, 2 threads, python 3.11",
        '<a href="../../a-run/">a-run</a>',
        "out of &lt;memory&gt;",
        "0.840 [0.830, 0.850], asked 0.85 to 0.95",
        "mean within the tolerance of the paper&#39;s value",
        'alt="Made-up MCCs of iVAE and VAE as dots."',
        "A dot per seed &lt;made up&gt;.",
    ):
        assert said in page, said
    assert "<script>alert" not in page


def test_of_an_older_record_only_the_variant_of_a_sweep_is_known() -> None:
    old = {"variant": "paper", "label": "iVAE", "cells": 2, "seeds": [0], "first": ["model=ivae"], "config": {}}
    assert Sweep.model_validate(old).heading == "variant: paper"


def test_every_link_leads_somewhere(made: Path) -> None:
    seen = 0
    for path in made.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        for address in re.findall(r'(?:href|src)="([^"#]+)"', text):
            assert (path.parent / address).exists(), f"{path.name}: {address}"
            seen += 1
        assert set(re.findall(r'href="#([^"]+)"', text)) <= set(re.findall(r'id="([^"]+)"', text))
    assert seen > 60


def test_same_evidence_gives_the_same_bytes(made: Path, material: Path) -> None:
    before = _contents(made)
    assert report.main([f"outputs={material}"]) == 0
    assert _contents(made) == before
    assert [path.name for path in material.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"title": "half"}'], ids=["empty", "cut", "list", "half"])
def test_damaged_about_is_named_and_the_next_best_is_taken(
    outputs: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = outputs / "figures" / OWN / "paper" / "about.json"
    damaged.write_text(content)
    assert report.main([f"outputs={outputs}"]) == 1
    said = capsys.readouterr().err.strip()
    assert said.startswith(f"ivae_lab.report: {OWN}: {damaged}: ")
    assert "\n" not in said
    for name in ("index", OWN):
        assert "about.json" in _page(outputs / "report", name).split("Could not be read")[1]
    assert "shown is the quick scale" in _page(outputs / "report", OWN)
    assert "Could not be read" not in _page(outputs / "report", KEPT)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.csv", "", "No columns"),
        ("rows.csv", "variant,run\npaper,b-run\n", "expected rows of the runs in about.json, got none of a-run"),
        ("rows.csv", "variant\npaper\n", "expected 'run', got none"),
        ("dots.svg", None, "dots.svg"),
        ("summary.csv", "variant\npaper\n", "expected 'data_seeds', got none"),
    ],
)
def test_damaged_file_is_named_and_the_rest_goes_on(
    outputs: Path, name: str, content: str | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = outputs / "figures" / QUICK / "quick" / name
    path.unlink()
    if content is not None:
        path.write_text(content)
    assert report.main([f"outputs={outputs}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"ivae_lab.report: {QUICK}: quick scale under the outputs")
    assert said in error
    assert len(error.splitlines()) == 1
    assert "There are no results of this figure yet" in _page(outputs / "report", QUICK)
    assert not (outputs / "report" / QUICK).exists()


@pytest.mark.parametrize(
    ("rows", "said"),
    [("", "got none of a-run"), ("paper,a-run\npaper,b-run\n", "got some of b-run"), ("paper,a-run\n", None)],
)
def test_rows_are_those_of_the_runs(outputs: Path, rows: str, said: str | None) -> None:
    """Also where some were cut off, or are of runs of which nothing is said."""
    folder = outputs / "figures" / QUICK / "quick"
    (folder / "rows.csv").write_text(f"variant,run\n{rows}")
    with pytest.raises(ValueError, match=f"expected rows of the runs in .*{said}") if said else nullcontext():
        site_content._summary(read_about(folder), folder)


def test_damaged_records_and_definitions_are_named(
    patched: Path, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, definition = patched / PAPER / "results" / "fig1.json", patched / f"{NONE}.yaml"
    before = {path: path.read_text() for path in (kept, definition)}
    try:
        kept.write_text('{"scale": "paper"}')
        definition.write_text("title: [")
        assert report.main([f"outputs={outputs}"]) == 1
    finally:
        for path, text in before.items():
            path.write_text(text)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert f"{KEPT}: what the project keeps: expected 'changed', got none" in said[0]
    assert NONE in said[1]
    assert not (outputs / "report" / f"{NONE}.html").exists()


@pytest.mark.parametrize("arguments", [[], ["outputs=."]])
def test_no_results_says_what_makes_some(
    patched: Path,
    tmp_path: Path,
    arguments: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    kept = patched / PAPER / "results"
    aside = kept.rename(kept.with_name("aside"))
    try:
        assert report.main(arguments) == 2
    finally:
        aside.rename(kept)
    assert f"`python -m ivae_lab.reproduce {KEPT}` makes some" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("argument", ["colour=red", "all", "to=", "outputs=nowhere"])
def test_bad_arguments_are_one_line(tmp_path: Path, argument: str) -> None:
    done = command(argument, cwd=tmp_path, module="ivae_lab.report")
    assert done.code == 2
    assert re.fullmatch(r"ivae_lab\.report: .*expected .*, got .*\n", done.err), done.err
    assert list(tmp_path.iterdir()) == []


def test_only_a_report_is_replaced(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for there in (outputs, outputs / "figures", outputs / "figures" / OWN / "paper" / "about.json"):
        before = _contents(outputs)
        assert report.main([f"outputs={outputs}", f"to={there}"]) == 2
        assert "to: expected a report, an empty folder, or none yet" in capsys.readouterr().err
        assert _contents(outputs) == before


def test_report_that_fails_half_way_leaves_the_old_one(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert report.main([f"outputs={outputs}"]) == 0
    before = _contents(outputs)

    def fails(*arguments: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(site_render, "write_table", fails)
    assert report.main([f"outputs={outputs}"]) == 2
    assert _contents(outputs) == before


def test_evidence_in_which_nothing_finished_is_none(outputs: Path) -> None:
    path = outputs / "figures" / OWN / "paper" / "about.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "done": 0}))
    assert report.main([f"outputs={outputs}"]) == 0
    assert "shown is the quick scale" in _page(outputs / "report", OWN)


def test_examples_of_images_are_copied_for_each_setting(pictured: Path) -> None:
    for name in (KEPT, OWN, QUICK):
        page = _page(pictured, name)
        assert page.count('loading="lazy"') == 2
        for number in (0, 1):
            copied = pictured / name / f"examples-{number}.png"
            assert copied.read_bytes() == (pictured.parent / "a-run" / "examples.png").read_bytes()
            assert f'src="{name.partition("/")[2]}/{copied.name}" alt="paper, ' in page
    assert "examples" not in _page(pictured, NONE)


def test_without_examples_nothing_is_said_of_them(made: Path) -> None:
    assert all("examples" not in path.read_text() for path in made.rglob("*.html"))
    assert list(made.rglob("examples*")) == []


def test_a_figure_whose_runs_are_hardly_trained_has_no_examples(
    outputs: Path, patched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiments = tmp_path / "experiments"
    shutil.copytree(patched, experiments)
    monkeypatch.setattr(experiment, "EXPERIMENTS", experiments)
    with (experiments / f"{OWN}.yaml").open("a") as definition:
        definition.write("examples: false\n")
    (outputs / "a-run" / "examples.png").touch()
    assert report.main([f"outputs={outputs}"]) == 0
    assert "examples" not in _page(outputs / "report", OWN)
    assert list((outputs / "report" / OWN).glob("examples*")) == []
    assert "examples" in _page(outputs / "report", QUICK)


def test_examples_that_cannot_be_copied_are_named(
    outputs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (outputs / "a-run" / "examples.png").touch()
    copy = shutil.copyfile

    def fails(source: Path, target: Path) -> None:
        if source.name == "examples.png":
            raise OSError("damaged disk")
        copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", fails)
    assert report.main([f"outputs={outputs}"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"ivae_lab.report: {name}: examples: damaged disk" for name in (KEPT, OWN, QUICK)
    ]
    assert "shown is the paper scale under the outputs" in _page(outputs / "report", OWN)


def test_words_of_times_and_seeds() -> None:
    assert [site_render.duration(seconds) for seconds in (0.4, 61, 7260)] == ["0 s", "1 min 1 s", "2 h 1 min"]
    assert [site_render.spans(seeds) for seeds in ([], [3], [5, 0, 1, 2])] == ["", "3", "0 to 2, 5"]


def _luminance(colour: str) -> float:
    """As WCAG defines it."""
    parts = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_texts_can_be_read_on_every_ground() -> None:
    schemes = re.findall(r":root {(.*?)}", (site_render.TEMPLATES / "style.css").read_text(), re.DOTALL)
    assert len(schemes) == 2  # light and dark
    for scheme in schemes:
        colours = {name: _luminance(value) for name, value in re.findall(r"--(\w+): (#\w{6});", scheme)}
        for text in ("text", "soft", "link", "good", "half", "bad", "none"):
            for ground in ("ground", "raised", "sunken"):
                dark, light = sorted((colours[text], colours[ground]))
                assert (light + 0.05) / (dark + 0.05) >= 4.5, f"{text} on {ground}"


# In a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (Debian: chromium)")
    with Browser() as tab:
        yield tab


def _pages(made: Path) -> list[Path]:
    return [made / "index.html", *(made / f"{name}.html" for name in (KEPT, OWN, QUICK, NONE))]


@pytest.fixture
def pictured(outputs: Path) -> Path:
    """The report of outputs whose run left a picture of images."""
    figure = DrawnFigure(figsize=(3, 2))
    figure.subplots().imshow(np.eye(3))
    figure.savefig(outputs / "a-run" / "examples.png")
    assert report.main([f"outputs={outputs}"]) == 0
    return outputs / "report"


def _wide(browser: Browser) -> bool:
    """Whether the page scrolls sideways."""
    return bool(browser.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))


def _shown(browser: Browser) -> list[str]:
    """Figure and verdict of the rows that are seen, in their order."""
    rows: list[str] = browser.evaluate(
        "[...document.querySelectorAll('tbody tr')].filter(row => row.checkVisibility())"
        ".map(row => `${row.cells[1].textContent.trim()} ${row.dataset.verdict}`)"
    )
    return rows


def _count(browser: Browser) -> str:
    return str(browser.evaluate("document.getElementById('count').textContent"))


def _tab_to(browser: Browser, selector: str) -> None:
    """Move the focus there by keyboard alone."""
    for _ in range(40):
        browser.press("Tab")
        if browser.evaluate(f"document.activeElement.matches({json.dumps(selector)})"):
            return
    raise AssertionError(
        f"expected Tab to reach {selector}, got {browser.evaluate('document.activeElement.outerHTML')}"
    )


def test_browser_sees_what_is_wrong(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "wrong.html"
    page.write_text(
        '<!DOCTYPE html><html><body><img src="https://example.org/a.png"><div style="width: 3000px">wide</div>'
        "<script>console.error('wrong'); undefined.x</script></body></html>"
    )
    browser.open(page, width=390)
    assert "https://example.org/a.png" in browser.requests
    assert any("'wrong'" in each for each in browser.complaints)
    assert any("TypeError" in each for each in browser.complaints)
    assert _wide(browser)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 700, 390])
def test_pages_load_without_errors_and_requests(browser: Browser, made: Path, width: int, dark: bool) -> None:
    for page in _pages(made):
        browser.open(page, width=width, dark=dark)
        assert browser.complaints == [], page
        assert browser.requests[0] == page.as_uri()
        assert all(each.startswith(made.as_uri()) for each in browser.requests), page
        assert any(each.endswith("style.css") for each in browser.requests)
        assert not _wide(browser), page
        assert browser.evaluate("document.documentElement.lang") == "en"
        ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", ground))) < 380) is dark


def test_pictures_are_seen_and_have_words(browser: Browser, made: Path) -> None:
    for page in _pages(made):
        browser.open(page)
        images = browser.evaluate(
            "Promise.all([...document.images].map(async image => { image.loading = 'eager'; await image.decode();"
            " return [image.alt, image.naturalWidth, getComputedStyle(image).backgroundColor]; }))"
        )
        assert len(images) == {"index.html": 3, "fig10.html": 0}.get(page.name, 1)
        for alt, width, ground in images:
            assert alt == "Made-up MCCs of iVAE and VAE as dots."
            assert width > 100
            assert ground == "rgb(255, 255, 255)"


@pytest.mark.parametrize("width", [1280, 390])
def test_examples_of_images_are_seen_where_the_report_is_moved(
    browser: Browser, pictured: Path, tmp_path: Path, width: int
) -> None:
    moved = pictured.rename(tmp_path / "moved")
    shutil.rmtree(tmp_path / "outputs")
    browser.open(moved / f"{OWN}.html", width=width)
    assert browser.complaints == []
    assert all(each.startswith(moved.as_uri()) for each in browser.requests)
    assert not _wide(browser)
    seen = browser.evaluate(
        "Promise.all([...document.querySelectorAll('.examples img')].map(async image => {"
        " const lazy = image.loading; image.loading = 'eager'; await image.decode();"
        " return [image.alt.split(':')[0], image.naturalWidth, lazy]; }))"
    )
    assert seen == [["paper, iVAE", 300, "lazy"], ["paper, VAE", 300, "lazy"]]


@pytest.mark.parametrize("width", [1280, 390])
def test_filters_work_by_keyboard(browser: Browser, made: Path, width: int) -> None:
    browser.open(made / "index.html", width=width)
    assert _count(browser) == "8 claims"
    _tab_to(browser, "a.skip")
    _tab_to(browser, "input[name=text]")
    browser.type("FIG2 ivae")
    assert _shown(browser) == ["fig2 partly", "fig2 reproduced"]
    assert _count(browser) == "2 of 8 claims"
    _tab_to(browser, "select[name=verdict]")
    browser.press("ArrowDown")
    assert _shown(browser) == ["fig2 reproduced"]
    assert _count(browser) == "1 of 8 claims"
    browser.reload()
    _tab_to(browser, "button[type=reset]")
    assert _shown(browser) == ["fig2 reproduced"], "the choice is in the address"
    browser.press("Enter")
    assert len(_shown(browser)) == 8
    assert browser.evaluate("document.activeElement.name") == "text"


@pytest.mark.parametrize("width", [1280, 390])
def test_sorting_works_by_keyboard(browser: Browser, made: Path, width: int) -> None:
    browser.open(made / "index.html", width=width)
    plain = _shown(browser)
    header = "document.activeElement.parentElement.ariaSort"
    _tab_to(browser, "th:nth-child(2) button")
    ordered = []
    for key, order in (("Enter", "ascending"), (" ", "descending"), ("Enter", "none")):
        browser.press(key)
        assert browser.evaluate(header) == order
        ordered.append([each.split()[0] for each in _shown(browser)])
    assert ordered[0] == ["fig1", "fig1", "fig2", "fig2", "fig3", "fig3", "fig10", "fig10"]
    assert ordered[1] == ordered[0][::-1]
    assert _shown(browser) == plain
    _tab_to(browser, "th:nth-child(9) button")
    browser.press("Enter")
    ranks = [(*site_content.VERDICTS, NO_VERDICT).index(each.partition(" ")[2]) for each in _shown(browser)]
    assert ranks == sorted(ranks)
    assert browser.evaluate("document.querySelectorAll('th:not([aria-sort=none])').length") == 1


def test_focus_is_seen(browser: Browser, made: Path) -> None:
    browser.open(made / "index.html")
    for selector in ("a.skip", "input[name=text]", "th button", "td a"):
        _tab_to(browser, selector)
        assert browser.evaluate("getComputedStyle(document.activeElement).outlineWidth") == "3px", selector


def test_without_scripts_it_is_a_plain_table(browser: Browser, made: Path) -> None:
    browser.open(made / "index.html", scripts=False)
    assert len(_shown(browser)) == 8
    assert browser.evaluate("document.querySelector('form').checkVisibility()") is False
    assert browser.evaluate("document.querySelectorAll('th button').length") == 0
    assert browser.complaints == []
