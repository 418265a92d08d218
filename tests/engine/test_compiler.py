"""The compiled, rewritten and recorded step does what the plain one does."""

from __future__ import annotations

import copy
import dataclasses
import shutil
import signal
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ivae_lab.core.data import Splits
from ivae_lab.engine.building import build_model
from ivae_lab.engine.compiler import Recorded, traced
from ivae_lab.engine.options import Compute
from ivae_lab.engine.stack import Stack
from ivae_lab.runs.folder import read_status
from ivae_lab.training.run import TrainingRun, prepare
from tests.commands.test_resume import interrupted
from tests.profiles import examples
from tests.running import SMALL, advance, command, difference, make_module, make_run, numbers, run_folder

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
QUICK = (*SMALL, "model.encoder.hidden=8", "model.encoder.layers=2", "trainer.steps=20", "trainer.chunk=10")
VADE = (*QUICK, "model=vade", "prior.components=4", "seed=[0,1]")
BMM = torch.ops.aten.bmm.default

needs_a_compiler = pytest.mark.skipif(not shutil.which("g++") and not shutil.which("clang++"), reason="no C++ compiler")
needs_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.mark.parametrize(
    ("steps", "weights", "pays"), [(70_000, 1000, True), (100, 100_000_000, True), (1000, 1000, False)]
)
def test_long_trainings_and_large_models_are_compiled(
    steps: int, weights: int, pays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for there in (True, False):
        monkeypatch.setattr(Compute, "_compiler", lambda self, there=there: there)
        assert Compute("cpu", 1, "auto", 0).compiles(steps, weights) == (pays and there)
        assert not Compute("cpu", 1, False, 0).compiles(steps, weights)


def without_u(run: TrainingRun) -> TrainingRun:
    whole = run.splits
    train, valid, test = (dataclasses.replace(part, u=None) for part in (whole.train, whole.valid, whole.test))
    run.splits = Splits(train, valid, test, dataclasses.replace(whole.spec, u_dim=0))
    run.stack = Stack(lambda: build_model(run.settings.config, run.splits.spec), run.settings.seeds, CPU)
    return run


def two_ivaes(model: str = "ivae_paper") -> list[TrainingRun]:
    own = (*QUICK, f"model={model}", "trainer.clip_norm=1.0")
    return [make_run(*own, "seed=[0,1]"), make_run(*own, "seed=0", "data.seed=2", "model.beta=4", "trainer.lr=0.01")]


def two_ivaes_of_full_covariance() -> list[TrainingRun]:
    return two_ivaes("ivae")


def vade_without_u() -> list[TrainingRun]:
    return [without_u(make_run(*VADE))]


def vade() -> list[TrainingRun]:
    return [make_run(*VADE)]


@pytest.mark.usefixtures("traced_only")
@pytest.mark.parametrize("runs", [two_ivaes, two_ivaes_of_full_covariance, vade_without_u])
def test_a_traced_training_is_the_plain_one(runs: Callable[[], list[TrainingRun]]) -> None:
    compare_with_plain(runs)


@needs_a_compiler
@pytest.mark.parametrize(
    "runs",
    [
        two_ivaes_of_full_covariance,
        vade,
        pytest.param(two_ivaes, marks=pytest.mark.thorough("a compiler's program more; traced, it is always compared")),
        pytest.param(
            vade_without_u, marks=pytest.mark.thorough("a compiler's program more; traced, it is always compared")
        ),
    ],
)
def test_a_compiled_training_is_the_plain_one(runs: Callable[[], list[TrainingRun]]) -> None:
    compare_with_plain(runs)


def compare_with_plain(runs: Callable[[], list[TrainingRun]]) -> None:
    prepare(runs()[0].settings.compute)  # as in a command, which then finds its program in the cache
    start, plain = make_module(*runs()), advance(make_module(*runs()))
    compiled = advance(make_module(*runs(), compiled=True))
    assert compiled.compiled
    assert difference(start.stack.parameters, plain.stack.parameters) > 1e-3
    for kind in ("parameters", "first", "second"):
        assert difference(plain.state[kind], compiled.state[kind]) <= 1e-4, kind
    scores: list[list[float | None]] = [[None] * len(member.stack.seeds) for member in plain.members]
    for rows, own in zip(plain.record(scores), compiled.record(scores), strict=True):
        for row, other in zip(rows, own, strict=True):
            assert row == pytest.approx(other, rel=1e-3, abs=1e-3, nan_ok=True)


@needs_a_compiler
def test_a_compiled_training_goes_on_from_a_snapshot_bit_for_bit() -> None:
    prepare(make_run(*VADE).settings.compute)
    whole = advance(make_module(*vade(), compiled=True))
    begun, continued = (make_module(*vade(), compiled=True) for _ in range(2))
    for module in (begun, continued):
        module.parts[0].programs = whole.parts[0].programs  # compiled once
    advance(begun, 10)
    continued.restore(continued.members[0], copy.deepcopy(begun.snapshot(begun.members[0])))
    assert continued.step == 10
    assert difference(advance(continued).stack.parameters, whole.stack.parameters) == 0


@needs_a_compiler
@pytest.mark.thorough("three commands that import the compiler; a snapshot of a compiled training is always continued")
def test_a_compiled_run_continues_bit_for_bit(tmp_path: Path) -> None:
    """By the real command, with the program of `vade`."""
    more = ("trainer.steps=600", "compute.compile=true", "compute.threads=1", "compute.checkpoint_seconds=0")
    arguments = (*VADE, *more, "show=false")
    alone = tmp_path / "alone"
    alone.mkdir()
    step, outcome = interrupted(signal.SIGTERM, 10, tmp_path, *arguments, total=600)
    assert outcome.code == 143, outcome.err
    again, reference = (command(*arguments, cwd=cwd) for cwd in (tmp_path, alone))
    assert (again.code, reference.code) == (0, 0)
    assert f"continuing at step {step} of 600" in again.out
    folder = run_folder(tmp_path / "outputs")
    assert read_status(folder)["compiled"] is True
    assert numbers(folder) == numbers(run_folder(alone / "outputs"))


@pytest.mark.usefixtures("traced_only")
def test_parts_of_one_size_share_a_program() -> None:
    arguments = (*QUICK, "model=vae", "model.encoder.layers=1", "seed=[0,1,2,3,4]", "compute.at_once=2")
    plain = advance(make_module(make_run(*arguments)))
    compiled = advance(make_module(make_run(*arguments), compiled=True))
    assert [len(part.stack.seeds) for part in compiled.parts] == [1, 2, 2]
    assert set(compiled.parts[0].programs or {}) == {("loss", 1), ("loss", 2)}
    assert difference(plain.stack.parameters, compiled.stack.parameters) <= 1e-4


@settings(max_examples=examples(20))
@given(
    sizes=st.lists(st.integers(1, 40), min_size=3, max_size=5),
    models=st.integers(1, 3),
    seed=st.integers(0, 100),
    turned=st.booleans(),
)
def test_turning_narrow_products_keeps_what_is_computed(sizes: list[int], models: int, seed: int, turned: bool) -> None:
    """A chain of products, from either end, of matrices that may be views."""
    generator = torch.Generator().manual_seed(seed)
    matrices = [
        torch.randn(models, b, a, generator=generator, dtype=torch.float64).mT
        if turned
        else torch.randn(models, a, b, generator=generator, dtype=torch.float64)
        for a, b in pairwise(sizes)
    ]

    def products(*factors: Tensor) -> Tensor:
        forwards, backwards = factors[0], factors[-1]
        for factor in factors[1:]:
            forwards = torch.bmm(forwards, factor)
        for factor in factors[-2::-1]:
            backwards = torch.bmm(factor, backwards)
        return torch.cat([forwards, 2 * backwards], 2)

    graph = traced(products, matrices)
    torch.testing.assert_close(graph(*matrices), products(*matrices))
    assert sum(node.target is BMM for node in graph.graph.nodes) == 2 * (len(matrices) - 1)


@pytest.mark.parametrize(
    ("rows", "columns", "turned"), [(16, 15, True), (100, 5, True), (15, 5, False), (16, 16, False)]
)
def test_products_of_many_rows_and_few_columns_are_turned(rows: int, columns: int, turned: bool) -> None:
    graph = traced(torch.bmm, [torch.zeros(2, rows, 7), torch.zeros(2, 7, columns)])
    (product,) = (node for node in graph.graph.nodes if node.target is BMM)
    assert all(operand.op == ("call_function" if turned else "placeholder") for operand in product.args)


def test_a_traced_function_takes_nested_arguments_and_changes_them_in_place() -> None:
    def step(state: dict[str, Tensor], data: dict[str, Tensor], by: Tensor) -> Tensor:
        state["a"].add_(data["x"] * by)
        return state["a"].sum() + state["b"]

    state, again = ({"a": torch.ones(3), "b": torch.tensor(5.0)} for _ in range(2))
    graph = traced(step, (state, {"x": torch.arange(3.0)}, torch.tensor(2.0)))
    assert torch.equal(state["a"], torch.ones(3))  # nothing is computed
    for by in (2.0, -1.0):
        got = graph(state["a"], state["b"], torch.arange(3.0), torch.tensor(by))
        assert torch.equal(got, step(again, {"x": torch.arange(3.0)}, torch.tensor(by)))
        assert torch.equal(state["a"], again["a"])


class TestRecorded:
    """A step that adds x to a state, and returns their product."""

    @staticmethod
    def kept(call: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        """Record as a CUDA graph does: the call is done once, and its result stays where it is."""
        result = call()

        def replay() -> None:
            result.copy_(call())

        return replay, result

    @staticmethod
    def step_of(state: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        def step(x: Tensor, scale: Tensor) -> Tensor:
            state.add_(x * scale)
            return state * 2

        return step

    def test_recording_leaves_the_state_and_the_inputs(self) -> None:
        state, x, scale = torch.ones(3), torch.arange(3.0), torch.tensor(2.0)
        recorded = Recorded(self.step_of(state), [state], [x, scale], self.kept)
        assert torch.equal(state, torch.ones(3))
        recorded(torch.full((3,), 7.0), torch.tensor(3.0))
        assert (x.tolist(), scale.item()) == ([0, 1, 2], 2)

    def test_inputs_are_copied(self) -> None:
        state, x, scale = torch.ones(3), torch.arange(3.0), torch.tensor(2.0)
        recorded = Recorded(self.step_of(state), [state], [x, scale], self.kept)
        x.fill_(torch.nan)
        assert recorded(torch.zeros(3), torch.tensor(1.0)).tolist() == [2, 2, 2]

    @given(calls=st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=1, max_size=6))
    def test_replays_are_the_step(self, calls: list[tuple[int, int]]) -> None:
        state, plain = torch.ones(3), torch.ones(3)
        recorded = Recorded(self.step_of(state), [state], [torch.zeros(3), torch.tensor(0.0)], self.kept)
        step = self.step_of(plain)
        for value, factor in calls:
            x, scale = torch.full((3,), float(value)), torch.tensor(float(factor))
            assert torch.equal(recorded(x, scale), step(x, scale))
            assert torch.equal(state, plain)

    @needs_a_gpu
    def test_a_cuda_graph_replays_the_step(self) -> None:
        state, plain = torch.ones(3, device="cuda"), torch.ones(3, device="cuda")
        step = self.step_of(plain)
        recorded = Recorded(self.step_of(state), [state], [torch.zeros(3).cuda(), torch.tensor(0.0).cuda()])
        assert torch.equal(state, plain)
        for value in (1.0, -3.0, 5.0):
            arguments = torch.full((3,), value).cuda(), torch.tensor(2.0).cuda()
            assert torch.equal(recorded(*arguments), step(*arguments))
            assert torch.equal(state, plain)


@needs_a_gpu
@pytest.mark.parametrize("model", ["ivae", "vade_pretrained"])
def test_a_training_by_recorded_steps_is_the_plain_one(model: str) -> None:
    def run() -> TrainingRun:
        pretraining = ("model.pretrain_steps=10", "prior.components=4") * (model == "vade_pretrained")
        return make_run(*QUICK, f"model={model}", *pretraining, "seed=[0,1,2]", "compute.device=cuda")

    plain, recorded = advance(make_module(run())), advance(make_module(run(), compiled=True))
    for kind in ("parameters", "first", "second"):
        assert difference(plain.state[kind], recorded.state[kind]) <= 1e-4, kind


@needs_a_gpu
def test_recorded_steps_go_on_from_a_snapshot() -> None:
    def run() -> TrainingRun:
        return make_run(*QUICK, "model=ivae", "seed=[0,1,2]", "compute.device=cuda")

    whole = advance(make_module(run(), compiled=True))
    begun = advance(make_module(run(), compiled=True), 10)
    continued = make_module(run(), compiled=True)
    continued.restore(continued.members[0], copy.deepcopy(begun.snapshot(begun.members[0])))
    assert difference(advance(continued).stack.parameters, whole.stack.parameters) <= 1e-6
