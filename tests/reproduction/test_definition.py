"""Figures as data: loading, what every file under experiments/ must keep to, and the cells that they expand to."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ivae_lab.config import compose
from ivae_lab.config.digests import NUMBERS, cell_digest
from ivae_lab.config.paths import EXPERIMENTS
from ivae_lab.reproduction import definition as experiment
from ivae_lab.reproduction.cells import Cell, expand
from ivae_lab.reproduction.definition import SCALES, ExperimentError, Figure, Scale, function, load, names, reported

Compose = Callable[..., DictConfig]
ALL = [f"{path.parent.name}/{path.stem}" for path in sorted(EXPERIMENTS.glob("*/*.yaml"))]
MINIMAL: dict[str, Any] = {
    "title": "t",
    "where": "w",
    "claim": "c",
    "cells": [{"variant": "ours", "overrides": ["model=vae", "data=tcl"]}],
    "seeds": {"quick": 1, "paper": 2},
    "draw": ["f"],
}
HEADER = "claim,figure,where,statement,value,tolerance\n"


def made_up(**changes: Any) -> Figure:
    return Figure.model_validate({**MINIMAL, "paper": "paper", "name": "fig", **changes})


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """(file name, content) writes a file of an experiment tree of its own, which `load` reads."""
    monkeypatch.setattr(experiment, "EXPERIMENTS", tmp_path)
    reported.cache_clear()
    experiment._functions.cache_clear()

    def write(name: str, content: str | dict[str, Any]) -> None:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))

    yield write
    reported.cache_clear()
    experiment._functions.cache_clear()


def one_line(error: pytest.ExceptionInfo[ExperimentError]) -> str:
    said = str(error.value)
    assert "\n" not in said
    return said


class TestLoad:
    def test_gives_the_figure_under_its_folder_and_file_name(self, tree: Callable[..., None]) -> None:
        tree("paper/fig.yaml", MINIMAL)
        figure = load("paper/fig")
        assert figure.full_name == "paper/fig"
        assert figure.cells[0].scales == list(SCALES)
        assert names() == ["paper/fig"]

    def test_an_unknown_key_is_one_line_that_names_it(self, tree: Callable[..., None]) -> None:
        tree("paper/fig.yaml", {**MINIMAL, "colour": "red"})
        with pytest.raises(ExperimentError) as error:
            load("paper/fig")
        assert one_line(error).startswith("paper/fig.yaml: colour")
        assert "'red'" in one_line(error)

    def test_an_unknown_key_of_a_line_says_which_line(self, tree: Callable[..., None]) -> None:
        line = {"variant": "a", "overrides": [], "seed": 3}
        tree("paper/fig.yaml", {**MINIMAL, "cells": [*MINIMAL["cells"], line]})
        with pytest.raises(ExperimentError, match=r"cells\.1\.seed"):
            load("paper/fig")

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ("a: [", "expected YAML"),
            ("- a", "expected the keys of a figure"),
            ({**MINIMAL, "paper": "other"}, "expected the keys of a figure"),
            ({**MINIMAL, "seeds": {"quick": 1}}, "numbers of seeds in each scale, got none in paper"),
            ({**MINIMAL, "seeds": {"quick": 0, "paper": 1}}, "greater than 0"),
            ({**MINIMAL, "choose": [{"over": "trainer.lr", "by": "elbo"}]}, "among the columns, got trainer.lr"),
            ({**MINIMAL, "claims": [{"claim": "x", "test": "at_least", "table": "other"}]}, "got other"),
            ({**MINIMAL, "claims": [{"claim": "x", "test": "above"}]}, "expected `than` with above"),
            ({**MINIMAL, "claims": [{"claim": "x", "test": "at_least", "than": [{"a": 1}]}]}, "expected `than`"),
            ({**MINIMAL, "claims": [{"claim": "x", "test": "correlated"}]}, "expected `against` with correlated"),
            ({**MINIMAL, "claims": [{"claim": "x", "test": "at_least", "against": "elbo"}]}, "expected `against`"),
            ({**MINIMAL, "cells": []}, "cells"),
            ({**MINIMAL, "draw": []}, "draw"),
        ],
    )
    def test_what_cannot_be_is_one_line(
        self, tree: Callable[..., None], content: str | dict[str, Any], said: str
    ) -> None:
        tree("paper/fig.yaml", content)
        with pytest.raises(ExperimentError, match=said) as error:
            load("paper/fig")
        assert one_line(error).startswith("paper/fig.yaml: ")

    @pytest.mark.parametrize("asked", ["fig22", "paper/fig22", "papr/fig2", "fig2"])
    def test_an_unknown_figure_names_the_nearest(self, tree: Callable[..., None], asked: str) -> None:
        tree("paper/fig2.yaml", MINIMAL)
        tree("other/zzz.yaml", MINIMAL)
        with pytest.raises(ExperimentError, match=f"got '{asked}'; nearest: paper/fig2$") as error:
            load(asked)
        one_line(error)

    @pytest.mark.parametrize("asked", ["two2021/fig2c", "tow2021/fig2"])
    def test_the_nearest_is_that_of_the_paper_that_was_asked_for(self, tree: Callable[..., None], asked: str) -> None:
        for name in ("one2020/fig2", "two2021/fig2", "one2020/fig2c"):
            tree(f"{name}.yaml", MINIMAL)
        with pytest.raises(ExperimentError, match=r"; nearest: two2021/fig2, .*one2020/fig2"):
            load(asked)

    def test_a_figure_like_none_is_told_all(self, tree: Callable[..., None]) -> None:
        tree("paper/fig2.yaml", MINIMAL)
        tree("paper/other.yaml", MINIMAL)
        with pytest.raises(ExperimentError, match=r"there are: paper/fig2, paper/other$"):
            load("zzz")

    def test_a_path_out_of_the_experiments_is_no_figure(self, tree: Callable[..., None], tmp_path: Path) -> None:
        tree("paper/fig.yaml", MINIMAL)
        with pytest.raises(ExperimentError, match="expected a figure"):
            load("paper/../paper/fig")


class TestReported:
    def test_a_number_and_an_ordering(self, tree: Callable[..., None]) -> None:
        tree("paper/reported.csv", HEADER + "a,fig,Table 1,says,0.9,0.05\nb,fig,Table 1,orders,,\n")
        stated = reported("paper")
        assert (stated["a"].value, stated["a"].tolerance) == (0.9, 0.05)
        assert (stated["b"].value, stated["b"].tolerance) == (None, None)

    @pytest.mark.parametrize(
        ("rows", "said"),
        [
            ("a,fig,w,s,,\na,fig,w,s,,\n", "got several for one"),
            ("a,fig,w,s,high,\n", "value"),
            ("a,fig,,s,,\n", "where"),
        ],
    )
    def test_what_cannot_be_is_one_line(self, tree: Callable[..., None], rows: str, said: str) -> None:
        tree("paper/reported.csv", HEADER + rows)
        with pytest.raises(ExperimentError, match=said) as error:
            reported("paper")
        assert one_line(error).startswith("paper/reported.csv: ")

    def test_none_at_all_is_one_line(self, tree: Callable[..., None]) -> None:
        tree("paper/fig.yaml", MINIMAL)
        with pytest.raises(ExperimentError, match=r"paper/reported\.csv: expected a table"):
            reported("paper")


class TestFunctions:
    def test_come_from_the_papers_own_file(self, tree: Callable[..., None]) -> None:
        tree("one/figures.py", "def f() -> int:\n    return 1\n")
        tree("two/figures.py", "def f() -> int:\n    return 2\n")
        assert (function("one", "f")(), function("two", "f")()) == (1, 2)

    def test_one_that_is_not_there_is_named(self, tree: Callable[..., None]) -> None:
        tree("one/figures.py", "")
        with pytest.raises(ExperimentError, match=r"one/figures\.py, got 'g'"):
            function("one", "g")
        with pytest.raises(ExperimentError, match=r"expected two/figures\.py, got none"):
            function("two", "g")


@cache
def expanded(name: str, scale: Scale) -> list[Cell]:
    return expand(load(name), scale)


@pytest.mark.parametrize("name", ALL)
class TestEveryFigure:
    def test_loads_with_functions_for_all_it_draws_and_tabulates(self, name: str) -> None:
        figure = load(name)
        for drawn in figure.draw:
            assert list(inspect.signature(function(figure.paper, drawn)).parameters) == ["tables"], drawn
        for made in [*figure.tables.values(), *figure.draw_runs]:
            assert list(inspect.signature(function(figure.paper, made)).parameters) == ["rows", "paths"], made

    def test_tests_exactly_the_claims_that_the_paper_makes_with_it_with_the_numbers_that_they_need(
        self, name: str
    ) -> None:
        figure = load(name)
        stated = {each.claim for each in reported(figure.paper).values() if each.figure == figure.name}
        assert {claim.claim for claim in figure.claims} == stated
        assert stated, "a figure that claims nothing"
        for claim in figure.claims:
            states = reported(figure.paper)[claim.claim]
            assert (states.value is not None) == (claim.test in ("at_least", "at_most", "within")), claim.claim
            assert claim.test != "within" or states.tolerance is not None, claim.claim

    @pytest.mark.slow
    def test_quick_is_less_work_than_the_paper_and_no_two_settings_look_the_same(self, name: str) -> None:
        figure = load(name)
        work: dict[str, int] = {}
        for scale in SCALES:
            own = expanded(name, scale)
            assert all(cell.steps > 0 for cell in own)
            work[scale] = sum(cell.steps * len(cell.seeds) for cell in own)
            digests = [cell.digest for cell in own]
            described = {
                tuple(map(str, cell.describe(figure.columns).values())): digest
                for cell, digest in zip(own, digests, strict=True)
            }
            assert len(set(described.values())) == len(set(digests))
        assert 0 < work["quick"] < work["paper"] / 2


@pytest.mark.parametrize("paper", sorted({name.split("/")[0] for name in ALL}))
def test_a_cell_is_what_hydra_composes(paper: str, composed: Compose) -> None:
    figures = [name for name in ALL if name.startswith(f"{paper}/")]
    cell = expanded(figures[-1], "paper")[-1]
    assert cell.config == hydras(composed, cell.overrides)


@pytest.mark.thorough("more cells, composed as that of each paper which is always compared")
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", ALL)
def test_cells_of_every_figure_are_what_hydra_composes(name: str, scale: Scale, composed: Compose) -> None:
    own = expanded(name, scale)
    for cell in {each.digest: each for each in (own[0], own[-1])}.values():
        assert cell.config == hydras(composed, cell.overrides)


def hydras(composed: Compose, overrides: tuple[str, ...]) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(composed(*overrides), resolve=True)
    return {name: plain[name] for name in NUMBERS}


def cells_of(*overrides: str, more: tuple[str, ...] = (), **line: Any) -> list[Cell]:
    figure = made_up(cells=[{"variant": "ours", "overrides": list(overrides), **line}])
    return expand(figure, "paper", more)


class TestExpand:
    @pytest.mark.parametrize(
        "overrides",
        [
            ("model=ivae", "data=tcl", "model.encoder.hidden=7"),  # the decoder's is an interpolation of it
            ("model=ivae", "data=tcl", "model.decoder.hidden=7"),
            ("model=vade", "data=tcl", "trainer=willetts", "data.segments=6"),
            ("model=beta_vae", "data=tcl", "model.beta=4", "data.mean_range=[-5,5]"),
            ("model=ivae", "prior=conditional_table_k2", "data=tcl_2d", "data.noise_std=0.0"),
            ("data=tcl", "trainer.steps=null", "trainer.epochs=2", "model=vae"),
        ],
    )
    @pytest.mark.slow
    def test_is_what_hydra_composes_from_the_same_overrides(
        self, composed: Compose, overrides: tuple[str, ...]
    ) -> None:
        (cell,) = cells_of(*overrides)
        assert cell.config == hydras(composed, overrides)
        assert cell.digest == cell_digest(hydras(composed, overrides))

    def test_a_value_reaches_what_is_interpolated_from_it(self) -> None:
        (before,), (after,) = cells_of("model=ivae", "data=tcl"), cells_of("model=ivae", "data=tcl", "data.segments=7")
        assert after.digest != before.digest
        assert after.config["data"]["segments"] == 7

    def test_one_cell_does_not_change_the_next(self) -> None:
        first, second, third = cells_of("model=vae", "data=tcl", "data.segments=4,5,4")
        assert first.config == third.config
        assert [first.config["data"]["segments"], second.config["data"]["segments"]] == [4, 5]

    def test_of_two_overrides_of_a_key_the_later_stands(self) -> None:
        (cell,) = cells_of("model=vae", "data=tcl", "data.segments=4", more=("data.segments=9", "model=ivae"))
        assert cell.config["data"]["segments"] == 9
        assert cell.model == "ivae"
        assert cell.overrides == ("model=ivae", "data=tcl", "data.segments=9")

    def test_the_quick_scale_replaces_what_it_names(self) -> None:
        line = {
            "variant": "a",
            "overrides": ["model=vae", "data=tcl", "data.segments=4,5"],
            "quick": ["data.segments=3"],
        }
        figure = made_up(cells=[line], seeds={"quick": 1, "paper": 4})
        quick, paper = expand(figure, "quick"), expand(figure, "paper")
        assert [cell.config["data"]["segments"] for cell in quick] == [3]
        assert [cell.config["data"]["segments"] for cell in paper] == [4, 5]
        assert [cell.seeds for cell in (*quick, *paper)] == [(0,), (0, 1, 2, 3), (0, 1, 2, 3)]

    def test_a_sweep_is_the_product_of_its_values(self) -> None:
        swept = cells_of("model=vae,ivae", "data=tcl", "data.segments=4,5", "data.seed=range(1,4)")
        found = {(cell.model, cell.config["data"]["segments"], cell.config["data"]["seed"]) for cell in swept}
        assert found == {(model, size, seed) for model in ("vae", "ivae") for size in (4, 5) for seed in (1, 2, 3)}
        assert len(swept) == len({cell.digest for cell in swept}) == 12

    def test_a_list_in_brackets_is_one_value(self) -> None:
        (cell,) = cells_of("model=vae", "data=tcl", "data.mean_range=[-5,5]")
        assert cell.config["data"]["mean_range"] == [-5, 5]

    def test_the_same_cell_in_two_lines_has_one_digest(self) -> None:
        lines = [
            {"variant": "a", "label": "one", "overrides": ["model=vae", "data=tcl", "data.segments=4"]},
            {"variant": "b", "label": "two", "overrides": ["data=tcl", "data.segments=4", "model=vae"]},
        ]
        one, two = expand(made_up(cells=lines), "paper")
        assert one.digest == two.digest
        assert (one.describe()["variant"], two.describe()["variant"]) == ("a", "b")

    def test_a_default_written_out_is_the_same_cell(self) -> None:
        (plain,) = cells_of("model=vae", "data=tcl")
        (written,) = cells_of("model=vae", "data=tcl", f"data.segments={plain.config['data']['segments']}")
        assert written.digest == plain.digest

    @pytest.mark.parametrize(
        "override", ["data.colour=red", "model.encoder.colour=1", "colour=red", "model.encodr.hidden=3"]
    )
    def test_an_unknown_key_is_refused(self, override: str) -> None:
        with pytest.raises((HydraException, OmegaConfBaseException), match=r"colour|encodr"):
            cells_of("model=vae", "data=tcl", override)

    def test_an_unknown_choice_is_refused(self) -> None:
        with pytest.raises(HydraException, match="nonesuch"):
            cells_of("model=nonesuch", "data=tcl")

    @pytest.mark.parametrize("override", ["+data.segments=4", "~data.segments", "++data.segments=4"])
    def test_only_changes_are_overrides(self, override: str) -> None:
        with pytest.raises(ExperimentError, match="key=value"):
            cells_of("model=vae", "data=tcl", override)

    def test_a_scale_without_cells_is_refused(self) -> None:
        line = {"variant": "a", "overrides": ["model=vae", "data=tcl"], "scales": ["paper"]}
        assert len(expand(made_up(cells=[line]), "paper")) == 1
        with pytest.raises(ExperimentError, match="paper/fig: expected cells in the quick scale"):
            expand(made_up(cells=[line]), "quick")

    def test_steps_come_from_epochs_where_there_are_no_steps(self) -> None:
        own = ("model=vae", "data=tcl", "data.segments=4", "data.samples_per_segment=100")
        by_epochs, by_steps, impossible = (
            cells_of(*own, f"trainer.batch_size={size}", f"trainer.steps={steps}", "trainer.epochs=3")[0]
            for size, steps in ((20, "null"), (20, 7), (0, "null"))
        )
        rows = int(400 * by_epochs.config["data"].get("split", [1])[0])
        assert by_epochs.steps == 3 * (rows // 20)
        assert by_steps.steps == 7
        assert impossible.steps == 0

    def test_a_u_that_is_made_of_x_is_a_method_of_its_own(self) -> None:
        own = ("model=ivae_images", "data=digits")
        given, made = cells_of(*own)[0], cells_of(*own, "model/auxiliary=rademacher")[0]
        methods = [cell.describe()["method"] for cell in (given, made, *cells_of("model=rvqvae", "data=digits"))]
        assert methods == ["ivae", "rademacher", "rvqvae"]

    def test_a_column_that_the_configuration_lacks_is_none(self) -> None:
        (cell,) = cells_of("model=vae", "data=tcl", "data.seed=3", label="ours")
        described = cell.describe(["model.beta.gamma", "data.mean_range", "data.seed"])
        assert described["label"] == "ours"
        assert described["data_seed"] == described["data.seed"] == 3
        assert described["model.beta.gamma"] is None
        assert isinstance(described["data.mean_range"], str)


def test_composing_shares_nothing_that_a_cell_could_change() -> None:
    (one,) = cells_of("model=vae", "data=tcl")
    one.config["data"]["segments"] = -1
    (again,) = cells_of("model=vae", "data=tcl")
    assert again.config["data"]["segments"] != -1
    assert compose.compose_groups.cache_info().hits > 0
