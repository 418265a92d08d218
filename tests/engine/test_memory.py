"""How much memory a step takes, and how many models are trained by one call."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ivae_lab.engine import control_groups as cgroup
from ivae_lab.engine import memory
from ivae_lab.engine.compiler import traced
from ivae_lab.engine.memory import (
    MemoryNeed,
    free_bytes,
    models_at_once,
    peak_bytes,
    state_bytes,
    step_bound,
    step_bytes,
)
from ivae_lab.engine.module import SeedsModule
from ivae_lab.engine.options import Compute
from ivae_lab.training import group
from tests.running import SMALL, make_module, make_run, settings

pytestmark = pytest.mark.slow

ROWS = 100  # of four bytes


def peak(function: Callable[[Tensor], Tensor]) -> int:
    return peak_bytes(traced(function, [torch.zeros(ROWS)]))


@given(length=st.integers(2, 30), rows=st.integers(1, 50))
def test_a_chain_holds_a_result_and_the_one_before(length: int, rows: int) -> None:
    def chain(x: Tensor) -> Tensor:
        for _ in range(length):
            x = x.sin()
        return x

    assert peak_bytes(traced(chain, [torch.zeros(rows)])) == 2 * 4 * rows


def test_what_is_used_again_is_held_until_then() -> None:
    def again(x: Tensor) -> Tensor:
        first = x.exp()
        return first + first.sin().cos().tan()

    assert peak(again) == 3 * 4 * ROWS


def test_arguments_are_not_counted() -> None:
    assert peak(lambda x: x.sum()) == 4


def test_a_view_takes_nothing_and_keeps_what_it_looks_at() -> None:
    def viewed(x: Tensor) -> Tensor:
        view = x.exp().view(2, -1).mT
        return view + view.sin().cos()

    assert peak(viewed) == 3 * 4 * ROWS
    assert peak(lambda x: x.view(2, -1).mT) == 0


def test_a_change_in_place_takes_nothing() -> None:
    def in_place(x: Tensor) -> Tensor:
        return x.exp().add_(1).mul_(2).sqrt_()

    assert peak(in_place) == 4 * ROWS


def test_parts_of_a_result_are_views() -> None:
    def halves(x: Tensor) -> Tensor:
        one, other = x.exp().chunk(2)
        return one.sum() + other.sum()

    assert peak(halves) == 4 * ROWS + 8


@pytest.mark.parametrize(
    "columns",
    [
        2,
        20,
    ],
)
def test_a_product_takes_its_result(columns: int) -> None:
    graph = traced(torch.bmm, [torch.zeros(3, 20, 5), torch.zeros(3, 5, columns)])
    assert peak_bytes(graph) == 4 * 3 * 20 * columns


def test_the_type_of_a_number_decides() -> None:
    assert peak(lambda x: x.double()) == 8 * ROWS
    assert peak(lambda x: x > 0) == ROWS


@cache
def module() -> SeedsModule:
    return make_module(make_run(*SMALL, "model=ivae", "seed=[0,1,2,3,4,5,6,7,8,9]", "model.encoder.hidden=8"))


@cache
def compute() -> Compute:
    return settings().compute


def at_once(models: int, setting: str | int = "auto") -> int:
    own, how = module(), replace(compute(), at_once=setting)  # type: ignore[arg-type]
    return models_at_once(own.stack, own.data, own.parts[0].config, models, how)[0]


def test_a_model_keeps_its_parameters_and_two_moments() -> None:
    weights = sum(parameter.numel() for parameter in module().stack.model(0).parameters())
    assert state_bytes(module().stack) == 3 * 4 * weights


def test_a_step_needs_more_memory_for_more_rows_and_not_for_more_models() -> None:
    def needs(batch_size: int, seed: str) -> int:
        own = make_module(make_run(*SMALL, "model=vade", f"trainer.batch_size={batch_size}", f"seed={seed}"))
        return step_bytes(own.stack, own.data, own.parts[0].config)

    small, large = needs(64, "0"), needs(512, "0")
    assert 4 * small < large < 8 * small
    assert needs(64, "[0,1,2]") == small


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_step_takes_as_much_on_a_gpu() -> None:
    def needs(device: str) -> int:
        own = make_module(make_run(*SMALL, "model=ivae", f"compute.device={device}"))
        return step_bytes(own.stack, own.data, own.parts[0].config)

    assert needs("cuda") == needs("cpu")


def test_asking_what_a_step_needs_computes_nothing() -> None:
    own = make_module(make_run(*SMALL, "model=ivae", "seed=[0,1]"))
    before = {name: value.clone() for name, value in own.stack.parameters.items()}
    step_bytes(own.stack, own.data, own.parts[0].config)
    assert all(torch.equal(value, before[name]) for name, value in own.stack.parameters.items())


def test_a_number_is_taken_as_it_is() -> None:
    assert [at_once(models, 3) for models in (1, 3, 100)] == [1, 3, 3]


def test_few_small_models_are_trained_at_once_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    def trace(*arguments: object) -> int:
        raise AssertionError("expected no trace")

    module()  # kept by now, as making it asks for memory too
    monkeypatch.setattr(memory, "step_bytes", trace)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 10**9)
    assert [at_once(models) for models in (1, 2, 8)] == [1, 2, 8]
    with pytest.raises(AssertionError, match="no trace"):
        at_once(9)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 10 * state_bytes(module().stack))
    assert at_once(1) == 1  # there is nothing to choose
    with pytest.raises(AssertionError, match="no trace"):
        at_once(2)


@pytest.mark.parametrize(("fit", "expected"), [(0, 1), (1, 1), (3, 3), (4, 3), (6, 6)])
def test_few_models_are_as_many_as_fit_and_a_cpus_cache_does_not_part_them(
    fit: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, each = 6, state_bytes(module().stack)
    monkeypatch.setattr(memory, "_CACHED_BYTES", each)
    monkeypatch.setattr(memory, "step_bytes", lambda *arguments: each)
    monkeypatch.setattr(memory, "free_bytes", lambda device: int(2 * (fit + 0.5 + models) * each))
    assert at_once(models) == expected


@pytest.mark.parametrize(("fit", "expected"), [(0, 1), (1, 1), (4, 4), (12, 10), (50, 20)])
def test_many_models_are_as_many_as_fit_in_equal_parts(
    fit: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, each = 20, 10**7
    monkeypatch.setattr(memory, "_CACHED_BYTES", 2**50)
    needed = (fit + 0.5) * each + models * state_bytes(module().stack)
    monkeypatch.setattr(memory, "step_bytes", lambda *arguments: each)
    monkeypatch.setattr(memory, "free_bytes", lambda device: int(2 * needed))  # half of what is free
    assert at_once(models) == expected


def test_a_cpu_trains_no_more_than_its_cache_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2**50)
    monkeypatch.setattr(memory, "step_bytes", lambda *arguments: 1000)
    monkeypatch.setattr(memory, "_CACHED_BYTES", 25 * (1000 + state_bytes(module().stack)))
    for models in range(9, 100):
        most, taken = min(models, 25), at_once(models)
        assert most / 2 < taken <= most
        equal = [size for size in range(1, most + 1) if models % size == 0 and size > most / 2]
        assert taken == max(equal, default=most)


def test_the_number_is_told_with_what_it_was_chosen_by(monkeypatch: pytest.MonkeyPatch) -> None:
    own, state = module(), state_bytes(module().stack)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 700 * 2**20)
    monkeypatch.setattr(memory, "step_bytes", lambda *arguments: 5 * 2**20 - state)

    def told(models: int) -> str | None:
        need = models_at_once(own.stack, own.data, own.parts[0].config, models, compute())[1]
        return None if need is None else str(need)

    assert [told(1), told(9)] == [None, "about 5 MiB each, 700 MiB free"]
    bound = re.fullmatch("less than ([0-9]+) MiB each, 700 MiB free", told(8) or "")
    assert bound is not None
    assert int(bound[1]) == -(-(state + step_bound(own.stack, own.data)) // 2**20)


@pytest.mark.parametrize(
    "model",
    ["ivae_icebeem data=tcl_icebeem", "rvqvae data=digits model.encoder.channels=4 model.latent_dim=2"],
)
def test_a_step_needs_less_than_the_bound_however_small_the_model(model: str) -> None:
    own = make_module(make_run(*f"model={model}".split(), "seed=0"))
    assert step_bytes(own.stack, own.data, own.parts[0].config) < step_bound(own.stack, own.data)


def test_one_line_says_how_many_models_one_call_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    def said(seeds: str, at_once: str = "auto") -> str | None:
        return group.at_once_in_words(
            make_module(make_run(*SMALL, "model=vae", f"seed={seeds}", f"compute.at_once={at_once}"))
        )

    monkeypatch.setattr(memory, "free_bytes", lambda device: 2**30)
    assert re.fullmatch(r"3 models at once: less than \d+ MiB each, 1024 MiB free", said("[0,1,2]") or "")
    assert said("0") is None
    assert said("[0,1,2]", "3") is None
    assert said("[0,1,2]", "1") == "3 models take turns in 3 parts"
    monkeypatch.setattr(group, "models_at_once", lambda *arguments: (1, MemoryNeed(2**21, traced=True, free=2**23)))
    assert said("[0,1,2]") == "3 models take turns in 3 parts: about 2 MiB each, 8 MiB free"


def test_the_free_memory_is_part_of_all() -> None:
    assert 0 < free_bytes(torch.device("cpu")) <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_a_control_group_may_leave_less_than_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "room", lambda: 7)
    assert free_bytes(torch.device("cpu")) == 7
    monkeypatch.setattr(cgroup, "room", lambda: 2**60)
    assert 7 < free_bytes(torch.device("cpu")) < 2**60


class TestControlGroups:
    """Of files made by hand, as Slurm's and a container's."""

    @staticmethod
    def group(folder: Path, limit: str, used: int, cache: int, version: int = 2) -> None:
        names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        folder.mkdir(parents=True)
        (folder / names[0]).write_text(f"{limit}\n")
        (folder / names[1]).write_text(f"{used}\n")
        kept = "inactive_file" if version == 2 else "total_inactive_file"
        (folder / "memory.stat").write_text(f"anon 5\n{kept} {cache}\nactive_file 3\n")

    @staticmethod
    def room(tmp_path: Path, *lines: str) -> int | None:
        (tmp_path / "cgroup").write_text("".join(f"{line}\n" for line in lines))
        return cgroup.room(tmp_path / "cgroup", tmp_path / "mounted")

    def test_of_version_2_the_limit_of_a_job_holds_for_its_steps(self, tmp_path: Path) -> None:
        job = tmp_path / "mounted/slurm/job_7"
        self.group(job, "1000", 700, 50)
        self.group(job / "step_0", "max", 600, 40)
        assert self.room(tmp_path, "0::/slurm/job_7/step_0/task_0") == 350
        self.group(job / "step_0/task_0", "400", 300, 0)
        assert self.room(tmp_path, "0::/slurm/job_7/step_0/task_0") == 100
        assert self.room(tmp_path, "0::/slurm/other") is None

    def test_of_version_1(self, tmp_path: Path) -> None:
        self.group(tmp_path / "mounted/memory/slurm/job_7", "1000", 900, 30, version=1)
        lines = ("11:cpuset:/elsewhere", "4:memory,hugetlb:/slurm/job_7/step_0", "0::/")
        assert self.room(tmp_path, *lines) == 130

    def test_a_container_has_its_limit_at_the_top(self, tmp_path: Path) -> None:
        self.group(tmp_path / "mounted", "1000", 1200, 100)
        assert self.room(tmp_path, "0::/") == 0
        assert self.room(tmp_path, "0::/not/seen/from/inside") == 0

    def test_without_a_limit_or_control_groups_there_is_none(self, tmp_path: Path) -> None:
        self.group(tmp_path / "mounted/all", "max", 10, 0)
        assert self.room(tmp_path, "0::/all") is None
        assert cgroup.room(tmp_path / "nothing", tmp_path / "mounted") is None
