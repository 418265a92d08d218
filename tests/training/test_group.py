"""Runs of one shape trained together: each as if it were alone, and which runs of a sweep are of one shape."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from rich.console import Console

from ivae_lab.engine.memory import state_bytes
from ivae_lab.engine.module import SeedsModule
from ivae_lab.storage.locks import locked
from ivae_lab.training import planner
from ivae_lab.training.group import execute
from ivae_lab.training.planner import PER_MODEL, shape, together
from ivae_lab.training.run import Settings, TrainingRun, prepare
from tests.running import SMALL, advance, difference, make_module, make_run, scores, settings

pytestmark = pytest.mark.slow

QUIET = Console(quiet=True)
CHEAP = (*SMALL, "model.encoder.hidden=8", *(f"metric.{name}.chance_draws=1" for name in ("mcc", "mcc_weak")))
IVAE = (*CHEAP, "model=ivae", "trainer.steps=40", "seed=[0,1]")
PRETRAINED = (*CHEAP, "model=vade_pretrained", "model.pretrain_steps=30", "trainer.steps=40", "prior.components=4")
# 12 steps an epoch, 20 a chunk.
PLATEAU = (*CHEAP, "model=ivae", "trainer=khemakhem_released", "trainer.epochs=7", "trainer.chunk=20", "seed=[0,1]")


SWEEPS: dict[str, tuple[tuple[str, ...], list[tuple[str, ...]]]] = {
    "ivae": (
        IVAE,
        [
            ("data.seed=1", "model.beta=1", "trainer.lr=0.001"),
            ("data.seed=1", "model.beta=4", "trainer.lr=0.01"),
            ("data.seed=2", "model.beta=4", "trainer.lr=0.001"),
        ],
    ),
    "ivae, other seeds": (IVAE, [("seed=[0,1]",), ("seed=[1,4,5]", "data.seed=2"), ("seed=0", "model.beta=2")]),
    "vade from data": (
        PRETRAINED,
        [("seed=[0,1]", "data.seed=1", "model.beta=1"), ("seed=[0,1]", "data.seed=2", "model.beta=3")],
    ),
    "plateau": (PLATEAU, [("data.seed=1", "trainer.lr=0.01"), ("data.seed=2", "trainer.lr=0.1")]),
    "plateau after pretraining": (
        (*PRETRAINED, "trainer.schedule=plateau", "trainer.plateau_patience=0", "trainer.steps=100"),
        [("seed=[0,1]", "data.seed=1", "trainer.lr=0.03"), ("seed=[0,1]", "data.seed=2", "trainer.lr=0.05")],
    ),
}


def built(base: tuple[str, ...], cells: list[tuple[str, ...]], *more: str) -> list[TrainingRun]:
    """The runs of a sweep as the planner gives them."""
    each = [settings(*base, *cell, *more) for cell in cells]
    runs = together(each[0], each, QUIET)
    assert [run.settings.folder for run in runs] == [own.folder for own in each]
    return runs


def points(module: SeedsModule) -> list[list[dict[str, float]]]:
    """A point of every run's history."""
    return module.record([[0.5] * len(member.stack.seeds) for member in module.members])


@pytest.mark.parametrize("name", SWEEPS)
def test_a_run_trained_with_others_is_the_run_alone(name: str, tmp_path: Path) -> None:
    base, cells = SWEEPS[name]
    outputs = f"outputs={tmp_path}"
    runs = built(base, cells, outputs)
    module = advance(make_module(*runs))
    for run, cell, recorded in zip(runs, cells, points(module), strict=True):
        alone = make_run(*base, *cell, outputs)
        one = advance(make_module(alone))
        assert difference(run.stack.parameters, alone.stack.parameters) <= 1e-5
        assert scores(run) == pytest.approx(scores(alone), abs=1e-4)
        for row, own in zip(recorded, *points(one), strict=True):
            assert row == pytest.approx(own, rel=1e-4, nan_ok=True)
    ends = [run.stack.parameters for run in runs]
    shared = [own for own in ends if len(next(iter(own.values()))) == len(next(iter(ends[0].values())))]
    assert all(difference(shared[0], other) > 1e-3 for other in shared[1:])
    if name.startswith("plateau"):
        rates = module.state["rates"]["rate"]
        starts = torch.cat([torch.full((len(member.stack.seeds),), member.rate) for member in module.members])
        assert (rates < 0.5 * starts).any()


@pytest.mark.parametrize("at_once", [1, 2, 4])
def test_parts_that_take_turns_are_the_same_as_all_at_once(at_once: int, tmp_path: Path) -> None:
    base = (*PRETRAINED, "trainer.schedule=plateau", "trainer.plateau_patience=0", "trainer.lr=0.05")
    cells: list[tuple[str, ...]] = [("seed=[0,1]", "data.seed=1"), ("seed=[1,3,4]", "data.seed=2")]
    whole = advance(make_module(*built(base, cells, f"outputs={tmp_path}")))
    turns = advance(make_module(*built(base, cells, f"outputs={tmp_path}", f"compute.at_once={at_once}")))
    sizes = [len(part.stack.seeds) for part in turns.parts]
    assert sizes == {1: [1] * 5, 2: [1, 2, 2], 4: [2, 3]}[at_once]
    assert len(whole.parts) == 1
    for row, own in zip(chain(*points(whole)), chain(*points(turns)), strict=True):
        assert row == pytest.approx(own, rel=1e-4, nan_ok=True)
    for kind, state in whole.state.items():
        assert difference(state, turns.state[kind]) <= 1e-5, kind


def test_a_run_goes_on_alone_from_where_it_stood_beside_others(tmp_path: Path) -> None:
    base, cells = SWEEPS["vade from data"]
    whole = advance(make_module(*built(base, cells[:2], f"outputs={tmp_path}")))
    for stop in (20, 30, 50):  # in and between the phases
        begun = advance(make_module(*built(base, cells[:2], f"outputs={tmp_path}")), stop)
        snapshot = copy.deepcopy(begun.snapshot(begun.members[1]))
        alone = make_module(make_run(*base, *cells[1]))
        alone.restore(alone.members[0], snapshot)
        assert alone.step == max(stop, begun.step)
        advance(alone)
        assert difference(alone.stack.parameters, whole.members[1].stack.parameters) <= 1e-5


def test_a_run_that_diverges_leaves_the_others_alone(tmp_path: Path) -> None:
    base, cells = SWEEPS["vade from data"]
    fine = advance(make_module(*built(base, cells[:2], f"outputs={tmp_path}")))
    module = advance(make_module(*built(base, cells[:2], f"outputs={tmp_path}")), 20)
    for value in module.members[0].stack.parameters.values():
        value[1] = torch.nan
    advance(module)
    first, second = module.members
    assert (first.diverged, second.diverged) == ({1: 30}, {})
    for name, value in module.stack.parameters.items():
        assert torch.equal(value[[0, 2, 3]], fine.stack.parameters[name][[0, 2, 3]]), name


def leaves(node: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for key, child in node.items():
        own = f"{path}.{key}" if path else key
        if isinstance(child, Mapping):
            yield from leaves(child, own)
        else:
            yield own


def changed(base: Settings, key: str) -> Settings:
    config = base.config.copy()
    OmegaConf.update(config, key, "another value")
    return replace(base, config=config)


@pytest.mark.parametrize("model", ["ivae", "vade_pretrained", "beta_tcvae_released"])
def test_runs_are_of_one_shape_if_they_differ_in_their_own_numbers_only(model: str) -> None:
    base = settings(f"model={model}")
    may_differ = {".".join(key) for key in PER_MODEL} | {"seed", "outputs", "show"}
    assert may_differ == {"data.seed", "model.beta", "trainer.lr", "seed", "outputs", "show"}
    keys = list(leaves(base.plain()))
    assert may_differ < set(keys)
    assert {key for key in keys if shape(changed(base, key)) == shape(base)} == may_differ


def test_asking_for_the_shape_leaves_the_configuration_as_it_is() -> None:
    base = settings()
    before = base.fingerprint
    shape(base)
    assert base.fingerprint == before
    assert base.plain()["data"]["seed"] == 1


class TestCompanions:
    @pytest.fixture
    def sweep(self, tmp_path: Path) -> list[Settings]:
        return [settings(*IVAE, f"outputs={tmp_path}", f"data.seed={seed}") for seed in (1, 2, 3)]

    @staticmethod
    def data_seeds(sweep: list[Settings]) -> list[int]:
        return [run.settings.data_seed for run in together(sweep[0], sweep, QUIET)]

    def test_all_of_one_shape_come_along_once(self, sweep: list[Settings]) -> None:
        assert self.data_seeds(sweep) == [1, 2, 3]
        assert self.data_seeds([*sweep, *sweep]) == [1, 2, 3]

    def test_one_of_another_shape_stays(self, sweep: list[Settings], tmp_path: Path) -> None:
        sweep[1] = settings(*IVAE, f"outputs={tmp_path}", "data.seed=2", "trainer.eps=1e-7")
        assert self.data_seeds(sweep) == [1, 3]

    def test_a_finished_one_stays_unless_forced(self, tmp_path: Path) -> None:
        own = (*IVAE, f"outputs={tmp_path}", "trainer.steps=2", "compute.threads=1")
        quick = [settings(*own, f"data.seed={seed}") for seed in (1, 2, 3)]
        prepare(quick[1].compute)
        execute([TrainingRun(quick[1], QUIET)], QUIET)
        assert self.data_seeds(quick) == [1, 3]
        forced = [settings(*own, f"data.seed={seed}", "force=true") for seed in (1, 2, 3)]
        assert self.data_seeds(forced) == [1, 2, 3]

    def test_a_busy_one_stays_until_it_is_free(self, sweep: list[Settings]) -> None:
        sweep[2].folder.mkdir()
        with locked(sweep[2].folder):
            assert self.data_seeds(sweep) == [1, 2]
        assert self.data_seeds(sweep) == [1, 2, 3]

    def test_an_impossible_one_stays(self, sweep: list[Settings], tmp_path: Path) -> None:
        sweep[1] = settings(*IVAE, f"outputs={tmp_path}", "data.seed=2", "model.beta=-1")
        assert self.data_seeds(sweep) == [1, 3]

    def test_data_are_drawn_once(self, sweep: list[Settings], tmp_path: Path) -> None:
        sweep[1] = settings(*IVAE, f"outputs={tmp_path}", "model.beta=2")
        first, second, third = together(sweep[0], sweep, QUIET)
        assert first.splits is second.splits
        assert first.splits is not third.splits
        data = make_module(first, second, third).data
        assert data.first_rows == [0, 0, 800]
        assert len(data.table) == 1600

    @pytest.mark.parametrize(("places", "expected"), [(0, [1]), (3, [1]), (4, [1, 2]), (6, [1, 2, 3])])
    def test_no_more_come_along_than_there_is_memory_for(
        self, sweep: list[Settings], places: int, expected: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        each = state_bytes(make_run(*IVAE).stack)
        monkeypatch.setattr(planner, "free_bytes", lambda device: 4 * places * each)
        assert self.data_seeds(sweep) == expected

    def test_wandb_has_one_run_a_process(self, tmp_path: Path) -> None:
        tracked = [settings(*IVAE, f"outputs={tmp_path}", f"data.seed={seed}", "logger=wandb") for seed in (1, 2)]
        assert self.data_seeds(tracked) == [1]
