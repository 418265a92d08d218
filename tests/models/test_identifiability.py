"""The matrix L of a prior: by hand, against NumPy, when it lacks rank, and the two measures that keep it invertible."""

from __future__ import annotations

import copy
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.func import grad, vmap

from ivae_lab.config.build import ConfigError
from ivae_lab.engine.module import SeedsModule
from ivae_lab.engine.options import Compute
from ivae_lab.engine.prior_rank import check_device, measured, restore_ranks, shortfall
from ivae_lab.models.base import Model
from ivae_lab.models.identifiability import Penalty, condition_number, natural_differences, rank, singular_values
from ivae_lab.priors.conditional import TablePrior
from ivae_lab.priors.mixture import GaussianMixture
from ivae_lab.runs.folder import read_status
from ivae_lab.training.group import execute
from ivae_lab.training.run import prepare
from tests.running import SMALL, advance, difference, make_module, make_run, trained

N, M = 2, 6
KINDS: list[dict[str, Any]] = [
    {"family": family, "mean": mean, "scale": scale}
    for family, mean, scale in (
        ("gaussian", "learned", "learned"),
        ("gaussian", "zero", "learned"),
        ("gaussian", "learned", "one"),
        ("laplace", "zero", "learned"),
    )
]
VADE = (*SMALL, "model=vade", "prior.components=4", "trainer.steps=60")
NOISE = (*VADE, "model/identifiability=noise")
PENALTY = (*VADE, "model/identifiability=penalty", "model.identifiability.alpha=0.05")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def table(**kind: Any) -> TablePrior:
    """A prior whose tables are filled with random numbers, in double precision."""
    prior = TablePrior(N, M, **kind, init="torch").double()
    for seed, rows in enumerate(prior.parameters()):
        rows.data.copy_(drawn(M, N, seed=seed))
    return prior


def mixture(mean: Tensor, variance: Tensor) -> GaussianMixture:
    prior = GaussianMixture(mean.shape[1], 0, components=len(mean), init="xavier_uniform").to(mean.dtype)
    prior.mean.data.copy_(mean)
    prior.log_var.data.copy_(variance.log())
    return prior


def matrix(prior: nn.Module) -> Tensor:
    return natural_differences(prior.natural_parameters()).detach()  # type: ignore[operator]


class TestMatrix:
    def test_by_hand(self) -> None:
        """One latent: N(1, 1), N(4, 2), N(0, 1/2)."""
        prior = mixture(torch.tensor([[1.0], [4.0], [0.0]]), torch.tensor([[1.0], [2.0], [0.5]]))
        torch.testing.assert_close(prior.natural_parameters(), torch.tensor([[1, -0.5], [2, -0.25], [0, -1]]))
        torch.testing.assert_close(matrix(prior), torch.tensor([[1.0, -1.0], [0.25, -0.5]]))

    @pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(kind.values()))
    def test_log_densities_differ_by_natural_parameters_times_statistics(self, kind: dict[str, Any]) -> None:
        """In an exponential family log p(z given u_j) - log p(z given u_0) - sum_i L_ij T_i(z) is the same at all z."""
        prior, z = table(**kind), drawn(50, N, seed=9)
        statistics = {"mean": [z], "scale": [z.square() if kind["family"] == "gaussian" else z.abs()]}
        t = torch.cat([part for name in prior.learned for part in statistics[name]], 1)
        columns = matrix(prior).T
        assert columns.shape == (M - 1, t.shape[1])
        log_prob = [prior(torch.full((50,), label)).log_prob(z).detach() for label in range(M)]
        for label, column in enumerate(columns, 1):
            left = log_prob[label] - log_prob[0] - t @ column
            torch.testing.assert_close(left, left[:1].expand(50))

    def test_a_laplace_family_of_learned_means_has_none(self) -> None:
        assert table(family="laplace", mean="learned", scale="learned").natural_parameters() is None

    @pytest.mark.parametrize("shape", [(4, 9), (6, 6), (9, 4), (3, 1)])
    def test_rank_and_condition_number_are_numpys(self, shape: tuple[int, int]) -> None:
        for inner in range(1, min(shape) + 1):
            product = drawn(shape[0], inner) @ drawn(inner, shape[1], seed=1)
            assert rank(product) == np.linalg.matrix_rank(product.numpy()) == inner
        torch.testing.assert_close(condition_number(product).item(), np.linalg.cond(product.numpy()))

    def test_what_float32_cannot_tell_apart_does_not_count(self) -> None:
        assert rank(torch.diag(torch.tensor([1.0, 1e-5])).double()) == 2
        assert rank(torch.diag(torch.tensor([1.0, 1e-7])).double()) == 1

    def test_a_seed_that_is_not_finite_is_nan_and_spoils_no_other(self) -> None:
        both = drawn(2, 3, 4)
        expected = condition_number(both[1])
        both[0, 1, 2] = torch.inf
        assert rank(both).isnan().tolist() == [True, False]
        assert condition_number(both)[0].isnan()
        assert condition_number(both)[1] == expected
        gradient = vmap(grad(Penalty(1.0)))(both)
        assert torch.equal(gradient[1], grad(Penalty(1.0))(both[1]))

    def test_two_equal_components_or_a_dead_latent_cost_rank(self) -> None:
        mean, variance = drawn(M, N), drawn(M, N, seed=1).exp()
        assert rank(matrix(mixture(mean, variance))) == 2 * N
        dead_mean, dead_variance = mean.clone(), variance.clone()
        dead_mean[:, 0], dead_variance[:, 0] = 0.3, 1.0
        assert rank(matrix(mixture(dead_mean, dead_variance))) == 2 * N - 2
        few = mixture(mean[[0, 1, 1]], variance[[0, 1, 1]])  # fewer than n k + 1: at most rank M - 1
        assert rank(matrix(few)) == 1
        few.add_noise(0.01 * drawn(3, 2 * N, seed=2))
        assert rank(matrix(few)) == 2


class TestNoise:
    @pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(kind.values()))
    def test_is_what_the_natural_parameters_move_by(self, kind: dict[str, Any]) -> None:
        prior = table(**kind)
        before = prior.natural_parameters()
        assert before is not None
        noise = 0.01 * drawn(*before.shape, seed=5)
        before = before.detach().clone()
        prior.add_noise(noise)
        torch.testing.assert_close(prior.natural_parameters(), before + noise)

    def test_leaves_precisions_positive(self) -> None:
        prior = mixture(drawn(M, N), torch.full((M, N), 100.0, dtype=torch.float64))
        prior.add_noise(drawn(M, 2 * N, seed=3))
        assert prior.mean.isfinite().all()
        assert prior.log_var.exp().max().item() == pytest.approx(200)  # half the precision, at the least

    @pytest.mark.slow
    def test_restores_the_rank_of_the_seed_that_lost_it_alone(self) -> None:
        module, reference = lacking("[0,1,3]"), whole(*VADE, "seed=[0,1,3]")
        assert module.members[0].noised == {1: [20]}
        assert [row["l_rank"] for row in measured(module.stack)] == [3, 3, 3]
        for name, value in reference.stack.parameters.items():
            for position in (0, 2):
                assert torch.equal(value[position], module.stack.parameters[name][position]), name

    @pytest.mark.slow
    def test_without_it_the_rank_stays_lost(self) -> None:
        module = advance(double_component(make_module(make_run(*VADE, "seed=[0,1]"))))
        assert [row["l_rank"] for row in measured(module.stack)] == [3, 2]
        assert module.members[0].noised == {}

    @pytest.mark.slow
    def test_is_a_seeds_own(self) -> None:
        many, alone = lacking("[0,1,3]"), lacking("1")
        own = {name: value[1:2] for name, value in many.stack.parameters.items()}
        assert difference(own, alone.stack.parameters) <= 1e-5
        assert alone.members[0].noised == {1: [20]}

    def test_seeds_and_steps_have_noise_of_their_own(self) -> None:
        found = []
        for step in (20, 40):
            stack = make_run(*NOISE, "seed=[0,1]").stack
            for name in ("prior.mean", "prior.log_var"):
                stack.parameters[name][:] = stack.parameters[name][0, :1]  # of both seeds, and of all components
            assert restore_ranks(stack, step) == [0, 1]
            found += [*stack.parameters["prior.mean"]]
        for one, other in combinations(found, 2):
            assert (one != other).all()

    @pytest.mark.slow
    def test_continues_bit_for_bit(self) -> None:
        begun = advance(double_component(make_module(make_run(*NOISE, "seed=[0,1,3]"))), 40)
        snapshot = copy.deepcopy(begun.snapshot(begun.members[0]))
        continued = make_module(make_run(*NOISE, "seed=[0,1,3]"))
        continued.restore(continued.members[0], snapshot)
        advance(continued)
        assert difference(continued.stack.parameters, lacking("[0,1,3]").stack.parameters) == 0
        assert continued.members[0].noised == {1: [20]}

    @pytest.mark.slow
    def test_a_diverged_seed_gets_none(self) -> None:
        module = make_module(make_run(*NOISE, "seed=[0,1]"))
        module.stack.parameters["prior.mean"][0] = torch.nan
        advance(module)
        assert module.members[0].noised == {}
        assert module.members[0].diverged == {0: 20}
        assert [np.isnan(row["l_rank"]) for row in measured(module.stack)] == [True, False]


@cache
def whole(*overrides: str) -> SeedsModule:
    """A training that several tests compare with, and none changes."""
    return trained(*overrides)


def double_component(module: SeedsModule) -> SeedsModule:
    """Make two components of seed 1 equal: their gradients are, so they stay so."""
    position = module.stack.seeds.index(1)
    for name in ("prior.mean", "prior.log_var"):
        module.stack.parameters[name][position, 2] = module.stack.parameters[name][position, 1]
    return module


@cache
def lacking(seeds: str) -> SeedsModule:
    """A whole training with noise, in which seed 1 begins with two equal components."""
    return advance(double_component(make_module(make_run(*NOISE, f"seed={seeds}"))))


def conditioned(ratio: float) -> Tensor:
    """L of 4 x 9 whose least singular value is `ratio` times its largest, 2."""
    (u, _, v), values = torch.linalg.svd(drawn(4, 9), full_matrices=False), torch.tensor([2, 1.9, 1.8, 2 * ratio])
    product: Tensor = u @ torch.diag(values.double()) @ v
    return product


class TestPenalty:
    @pytest.mark.parametrize("shape", [(4, 9), (5, 5), (9, 4)])
    def test_is_alpha_times_the_condition_number_with_its_gradient(self, shape: tuple[int, int]) -> None:
        differences = drawn(*shape).requires_grad_()
        torch.testing.assert_close(Penalty(0.3)(differences), 0.3 * condition_number(differences))
        assert torch.autograd.gradcheck(Penalty(0.3), differences)

    def test_stays_finite_where_rank_is_lost_and_leads_back(self) -> None:
        lost = drawn(4, 5)
        lost[:, 1:] = lost[:, :1]
        for differences in (lost, torch.zeros(4, 5, dtype=torch.float64)):
            slope = grad(Penalty(1.0))(differences)
            assert Penalty(1.0)(differences).isfinite()
            assert slope.isfinite().all()
        slope = grad(Penalty(1.0))(lost)
        moved = lost - 0.1 * slope / slope.norm()
        assert singular_values(moved)[-1] > 1e3 * singular_values(lost)[-1]

    @pytest.mark.parametrize("condition", [2.0, 130.0, 2800.0])
    def test_is_the_papers_up_to_its_edge(self, condition: float) -> None:
        differences = conditioned(1 / condition)
        torch.testing.assert_close(Penalty(0.3)(differences).item(), 0.3 * condition)
        slope = grad(Penalty(0.3))(differences).norm().item()
        assert slope == pytest.approx(0.3 * np.hypot(condition, condition**2) / 2)  # by s_1 = 2, and by s_r

    @pytest.mark.parametrize("ratio", [1e-4, 1e-6, 1e-9, 0.0])
    def test_is_bounded_with_its_slope_beyond_it(self, ratio: float) -> None:
        """With float32 of weights too: no step is so large that Adam would remember it for the rest of a training."""
        eps = torch.finfo(torch.float32).eps
        for differences in (conditioned(ratio), conditioned(ratio).float()):
            largest = singular_values(differences)[0]
            assert Penalty(0.3)(differences).item() == pytest.approx(0.3 * eps**-0.5, rel=1e-4)
            slope = grad(Penalty(0.3))(differences).norm() * largest
            assert slope.item() == pytest.approx(0.3 / eps, rel=1e-4)

    @pytest.mark.slow
    def test_lowers_the_condition_number(self) -> None:
        faster = ("trainer.lr=0.01", "seed=[0,1]")
        without, with_penalty = (measured(trained(*each, *faster).stack) for each in (VADE, PENALTY))
        for plain, penalised in zip(without, with_penalty, strict=True):
            assert penalised["l_condition"] < 0.7 * plain["l_condition"]

    @pytest.mark.slow
    def test_a_seed_is_the_same_alone_and_beside_others(self) -> None:
        many, alone = whole(*PENALTY, "seed=[0,1,3]"), trained(*PENALTY, "seed=3")
        own = {name: value[2:] for name, value in many.stack.parameters.items()}
        assert difference(own, alone.stack.parameters) <= 1e-5

    @pytest.mark.slow
    def test_a_diverged_seed_does_not_end_the_training_of_the_others(self) -> None:
        module, reference = make_module(make_run(*PENALTY, "seed=[0,1,3]")), whole(*PENALTY, "seed=[0,1,3]")
        module.stack.parameters["prior.mean"][0] = torch.nan
        advance(module)
        for name, value in reference.stack.parameters.items():
            assert torch.equal(value[1:], module.stack.parameters[name][1:]), name

    @pytest.mark.usefixtures("traced_only")
    @pytest.mark.slow
    def test_traced_it_is_the_same(self) -> None:
        self.compare_compiled_with_plain()

    @pytest.mark.slow
    @pytest.mark.thorough("a compiler's program more; traced, it is always compared")
    def test_compiled_it_is_the_same(self) -> None:
        if not Compute("cpu", 1, False, 0)._compiler():
            pytest.skip("expected a C++ compiler, got none")
        self.compare_compiled_with_plain()

    @staticmethod
    def compare_compiled_with_plain() -> None:
        plain = trained(*PENALTY, "seed=[0,1]")
        module = advance(make_module(make_run(*PENALTY, "seed=[0,1]"), compiled=True))
        assert difference(plain.stack.parameters, module.stack.parameters) <= 1e-4

    def test_is_refused_on_a_gpu(self) -> None:
        model = make_run(*PENALTY, "seed=0").stack.template
        check_device(model, torch.device("cpu"))
        with pytest.raises(ValueError, match=r"expected compute\.device=cpu"):
            check_device(model, torch.device("cuda"))


class TestOff:
    """Configurations have no key of it then: contracts/test_configurations.py."""

    @pytest.mark.slow
    def test_training_is_the_same_to_the_bit_where_rank_is_never_lost(self) -> None:
        plain, watched = whole(*VADE, "seed=[0,1,3]"), trained(*NOISE, "seed=[0,1,3]")
        assert watched.members[0].noised == {}
        assert difference(plain.stack.parameters, watched.stack.parameters) == 0

    @pytest.mark.slow
    def test_recording_changes_nothing(self) -> None:
        plain, recorded = whole(*VADE, "seed=[0,1,3]"), make_module(make_run(*VADE, "seed=[0,1,3]"))
        for until in (20, 40, 60):
            advance(recorded, until).record([[None, None, None]])
        assert difference(plain.stack.parameters, recorded.stack.parameters) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("model=vae", "model/identifiability=penalty"), "natural parameters .* got StandardNormal"),
        (("model=vae", "prior=conditional_laplace", "prior.mean=learned"), "natural parameters .* got MLPPrior"),
        (("model=vade", "prior.components=1"), "two or more values of u .* got GaussianMixture"),
        (("model=ivae_paper", "model/identifiability=noise"), "free, a table or a mixture, .* got MLPPrior"),
        (("model=vade", "model.identifiability.alpha=0"), "alpha: .* greater than 0, got 0"),
    ],
)
@pytest.mark.slow
def test_what_does_not_fit_is_refused_in_one_line(arguments: tuple[str, ...], message: str) -> None:
    measure = () if "model/identifiability=noise" in arguments else ("model/identifiability=penalty",)
    with pytest.raises(ConfigError, match=message) as error:
        make_run(*SMALL, *dict.fromkeys((*measure, *arguments)), "seed=0")
    assert "\n" not in str(error.value)


def template(*arguments: str) -> Model:
    return make_run(*SMALL, *arguments, "seed=0").stack.template


def test_too_few_values_of_u_are_said_to_be_too_few() -> None:
    assert shortfall(template("model=vae")) is None
    assert shortfall(template("model=vade", "prior.components=11")) is None  # 2 x 5 + 1
    assert str(shortfall(template("model=vade", "prior.components=10"))).startswith(
        "the identifiability theory needs 11 values of u for 10 natural parameters, the prior has 10"
    )


def test_a_prior_without_natural_parameters_is_tracked_as_not_a_number() -> None:
    (row,) = measured(make_run(*SMALL, "model=vae", "seed=0").stack)
    assert np.isnan(list(row.values())).all()


@pytest.mark.slow
def test_a_run_leaves_rank_condition_and_noise_in_its_folder(tmp_path: Path) -> None:
    prepare(Compute("cpu", 1, False, 0))
    run = make_run(*NOISE, "seed=[0,1]", f"outputs={tmp_path}")
    mean, log_var = run.stack.parameters["prior.mean"], run.stack.parameters["prior.log_var"]
    mean[1, 2], log_var[1, 2] = mean[1, 1], log_var[1, 1]
    assert execute([run], Console(quiet=True)) == ["done"]
    history = pd.read_csv(run.settings.folder / "history.csv")
    assert (history["l_rank"] == 3).all()
    assert (history["l_condition"] > 1).all()
    said = read_status(run.settings.folder)["identifiability"]
    assert said["noised"] == {"1": [20]}
    assert "needs 11 values of u" in said["shortfall"]
