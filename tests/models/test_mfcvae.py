"""MFCVAE: its loss by a sum over the clusters of each facet, how facets fade in, and what is said of each."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import DictConfig
from rich.console import Console
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal, kl_divergence
from torch.nn import functional as F

from ivae_lab.config.build import ConfigError
from ivae_lab.core.data import Batch
from ivae_lab.distributions.densities import CorrelatedMixture, Facets, NormalMixture, tempered
from ivae_lab.engine.options import Compute
from ivae_lab.metrics.agreement import Agreement
from ivae_lab.metrics.clustering import Clustering, nmi
from ivae_lab.metrics.resampling import Estimate
from ivae_lab.models.mfcvae import MFCVAE
from ivae_lab.networks.ladder import LadderDecoder
from ivae_lab.runs.agreement_csv import pairs_of
from ivae_lab.runs.arrays import read_latents
from ivae_lab.runs.results_csv import read_results
from ivae_lab.runs.show import show
from ivae_lab.training.group import execute
from ivae_lab.training.run import prepare
from tests.running import make_run

Compose = Callable[..., DictConfig]
SMALL = ("model=mfcvae", "data=digits", "model.latent_dim=5", "model.encoder.widths=[12,20]", "prior.components=3")
ROWS = 16
Built = Callable[..., tuple[Any, Batch]]


@pytest.fixture
def built(tiny: Compose, splits_of: Callable[..., Any], model_of: Callable[..., Any]) -> Built:
    """(*overrides) to a model with a prior whose numbers all differ, and a batch of digits."""

    def build(*overrides: str) -> tuple[Any, Batch]:
        config = tiny(*SMALL, *overrides)
        splits = splits_of(config)
        torch.manual_seed(0)
        model = model_of(config, splits.spec)
        with torch.no_grad():
            for parameter in model.prior.parameters():
                parameter.normal_(0, 0.5)
        return model, splits.train[:ROWS]

    return build


def noise_for(model: MFCVAE) -> Tensor:
    return torch.randn(ROWS, model.noise_dim + model.live_dim, generator=torch.Generator().manual_seed(1))


def at(progress: float) -> Tensor:
    return torch.tensor(progress)


def mixture(components: int = 3, n: int = 2, seed: int = 0) -> CorrelatedMixture:
    generator = torch.Generator().manual_seed(seed)
    logits, mean, log_var, lower = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((components,), (components, n), (components, n), (components, n, n))
    )
    return CorrelatedMixture(torch.log_softmax(logits, -1), mean, log_var, lower.tril(-1))


def components_of(each: NormalMixture) -> Any:
    """The components by PyTorch's own densities, from covariances that are inverted here."""
    n = each.mean.shape[-1]
    lower = each.lower if isinstance(each, CorrelatedMixture) else torch.zeros(1, n, n, dtype=each.mean.dtype)
    factor = (torch.eye(n, dtype=each.mean.dtype) + lower) / each.log_var.mul(0.5).exp().unsqueeze(-2)
    return MultivariateNormal(each.mean, torch.linalg.inv(factor.mT @ factor))


class TestDensities:
    def test_a_correlated_mixture_is_that_of_its_covariances(self) -> None:
        each, z = mixture(), torch.randn(50, 2, dtype=torch.float64)
        reference: Any = MixtureSameFamily(Categorical(logits=each.log_weights), components_of(each))
        torch.testing.assert_close(each.log_prob(z), reference.log_prob(z))
        torch.testing.assert_close(each.std, components_of(each).variance.sqrt())
        drawn = each.sample(200_000, torch.Generator().manual_seed(0))
        expected = (each.log_weights.exp().view(-1, 1, 1) * components_of(each).covariance_matrix).sum(0)
        centred = each.mean - reference.mean
        expected = expected + (each.log_weights.exp().unsqueeze(-1) * centred).mT @ centred
        torch.testing.assert_close(torch.cov(drawn.T), expected, rtol=0.03, atol=0.03)

    def test_draws_of_a_correlated_mixture_are_the_generators(self) -> None:
        def drawn(seed: int) -> Tensor:
            return mixture().sample(9, torch.Generator().manual_seed(seed))

        before = torch.get_rng_state()
        assert torch.equal(drawn(5), drawn(5))
        assert not torch.isclose(drawn(5), drawn(6)).any()
        assert torch.equal(torch.get_rng_state(), before)

    def test_facets_are_independent(self) -> None:
        one, other = mixture(3, 2, seed=1), mixture(3, 1, seed=2)
        facets, z = Facets((one, other)), torch.randn(20, 3, dtype=torch.float64)
        torch.testing.assert_close(facets.log_prob(z), one.log_prob(z[:, :2]) + other.log_prob(z[:, 2:]))
        assert facets.log_joint(z).shape == (20, 2, 3)
        drawn = facets.sample(100_000, torch.Generator().manual_seed(0))
        assert torch.corrcoef(drawn.T)[2, :2].abs().max() < 0.02
        torch.testing.assert_close(drawn[:, 2].mean(), (other.log_weights.exp() @ other.mean)[0], atol=0.03, rtol=0)
        narrow = tempered(facets, 0.5)
        torch.testing.assert_close(narrow.std, facets.std / 2)
        assert facets.mean.shape == (6, 3)
        torch.testing.assert_close(facets.mean[:3, :2], one.mean)
        torch.testing.assert_close(facets.mean[4], torch.cat([one.mean[one.log_weights.argmax()], other.mean[1]]))


class TestLoss:
    @pytest.mark.parametrize("covariance", ["diagonal", "full"])
    @pytest.mark.parametrize("networks", ["ladder", "shared"])
    @pytest.mark.parametrize("progress", [0.1, 0.6, 1.0])
    @pytest.mark.slow
    def test_it_is_the_sum_over_the_clusters_of_each_facet(
        self, covariance: str, networks: str, progress: float, built: Built
    ) -> None:
        """-log p(x | z) + sum_j g_j [log q(z_j | x) - E_q(c_j) log p(z_j | c_j) + KL(q(c_j) || p(c_j))]."""
        model, batch = built(f"prior.covariance={covariance}", f"model/networks={networks}", "model.beta=1.5")
        noise = noise_for(model)
        x = model.observed(batch, noise[:, model.noise_dim :])
        q = model.encoder(x, None)
        z = q.mean + q.std * noise[:, : model.noise_dim]
        total = torch.zeros(ROWS)
        share = min(max((progress - 0.5) / 0.319, 0), 1)
        for each, part, g in zip(model.prior(None).mixtures, (slice(0, 3), slice(3, 5)), (share, 1.0), strict=True):
            of_facet: Any = Independent(Normal(q.mean[:, part], q.std[:, part]), 1)
            log_q = of_facet.log_prob(z[:, part])
            given_c = components_of(each).log_prob(z[:, None, part])  # (B, K)
            prior_c: Any = Categorical(logits=each.log_weights)
            q_c = Categorical(probs=torch.softmax(given_c + prior_c.logits, -1))
            expected = (q_c.probs * given_c).sum(-1)
            total += g * (log_q - expected + kl_divergence(q_c, prior_c))
        fade = torch.tensor([share, 1.0])
        faded = z * fade.repeat_interleave(torch.tensor([3, 2]))
        logits = model.decoder(z, None, fade) if networks == "ladder" else model.decoder(faded)
        log_likelihood = -F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1)
        terms = model.loss(batch, noise, at(progress))
        torch.testing.assert_close(terms["loss"], (1.5 * total - log_likelihood).mean(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(terms["elbo"], (log_likelihood - total).mean(), rtol=1e-4, atol=1e-4)

    def test_after_the_training_all_facets_count(self, built: Built) -> None:
        model, batch = built()
        noise = noise_for(model)
        terms, found = model.loss(batch, noise, at(1.0)), model.bound(batch, noise)
        torch.testing.assert_close(found["elbo"].mean(), terms["elbo"])
        joint = model.prior(None).log_joint(found["mean"])
        assert torch.equal(found["cluster"], joint.argmax(-1))
        assert found["cluster"].shape == (ROWS, 2)


class TestFade:
    @pytest.mark.parametrize(
        ("progress", "first"), [(0.0, 0.0), (0.5, 0.0), (0.6, 0.5), (0.7, 1.0), (1.0, 1.0)], ids=str
    )
    def test_the_shallow_facet_fades_in_after_half_the_training(
        self, progress: float, first: float, built: Built
    ) -> None:
        model, _ = built("model.fade_in=0.2")
        torch.testing.assert_close(model.fade(at(progress)), torch.tensor([first, 1.0]))

    def test_each_of_three_facets_has_its_stage(self, built: Built) -> None:
        model, _ = built("model.encoder.widths=[8,8,8]", "prior.facets=3", "model.fade_in=0.1")
        stages = [model.fade(at(progress)).round().tolist() for progress in (0.2, 0.5, 0.9)]
        assert stages == [[0, 0, 1], [0, 1, 1], [1, 1, 1]]

    def test_without_fading_all_facets_are_there_from_the_start(self, built: Built) -> None:
        model, _ = built("model.fade_in=0.0")
        assert model.fade(at(0.0)).tolist() == [1.0, 1.0]

    @pytest.mark.parametrize("networks", ["ladder", "shared"])
    def test_before_it_nothing_of_the_facet_learns(self, networks: str, built: Built) -> None:
        model, batch = built(f"model/networks={networks}")
        of_first = [*model.prior.each[0].parameters()]
        if networks == "ladder":
            of_first += [*model.encoder.heads[0].parameters(), *model.decoder.rungs[0].parameters()]
        for progress, learns in ((0.3, False), (0.6, True)):
            model.zero_grad()
            torch.autograd.backward(model.loss(batch, noise_for(model), at(progress))["loss"])
            for parameter in of_first:
                assert parameter.grad is not None
                assert parameter.grad.any() == learns


class TestNetworks:
    def test_the_ladder_adds_a_rung_for_each_facet(self, built: Built) -> None:
        model, _ = built("model.encoder.slope=0.01")
        decoder, z = model.decoder, torch.randn(7, 5)
        assert isinstance(decoder, LadderDecoder)
        first, second = (
            F.leaky_relu(rung(part)) for rung, part in zip(decoder.rungs, (z[:, :3], z[:, 3:]), strict=True)
        )
        deep = F.leaky_relu(decoder.layers[1](second))
        expected = decoder.last(F.leaky_relu(decoder.layers[0](deep + 0.1 * first)))
        torch.testing.assert_close(decoder(z), expected)
        alone = decoder.last(F.leaky_relu(decoder.layers[0](deep)))
        torch.testing.assert_close(decoder(z, None, torch.tensor([0.0, 1.0])), alone)

    def test_a_facet_sees_no_layer_beyond_its_own(self, built: Built) -> None:
        model, batch = built("data.binarisation=none", "data.test_binarisation=none")
        before = model.posterior_mean(batch)
        with torch.no_grad():
            model.encoder.layers[1].weight.mul_(2)
        after = model.posterior_mean(batch)
        assert torch.equal(before[:, :3], after[:, :3])
        assert not torch.equal(before[:, 3:], after[:, 3:])

    @pytest.mark.parametrize(
        ("overrides", "told"),
        [
            (["prior=gmm"], r"expected a prior of facets \(prior=facets\), got GaussianMixture"),
            (["prior.facets=3"], r"expected a ladder with a rung for each of the 3 facets, got 2"),
            (["model.latent_dim=1"], r"expected at least as many latents as rungs of the ladder \(2\), got 1"),
            (["model.latent_dim=1", "model/networks=shared"], r"at least as many latents as facets \(2\), got 1"),
            (["model.encoder.widths=[]"], r"^model\.encoder\.widths: expected List should have at least 1 item"),
        ],
    )
    @pytest.mark.slow
    def test_what_does_not_fit_is_refused(self, overrides: list[str], told: str, built: Built) -> None:
        with pytest.raises(ConfigError, match=told):
            built(*overrides)


class TestStart:
    @pytest.mark.parametrize("covariance", ["diagonal", "full"])
    def test_means_are_fitted_and_variances_alike(self, covariance: str, built: Built) -> None:
        model, batch = built(f"prior.covariance={covariance}")
        centres = torch.tensor([[0.0], [5.0], [10.0]])
        z = torch.cat([centres + 0.01 * torch.randn(3, 3) for _ in range(50)])
        z = torch.cat([z, -z[:, :2]], -1)
        for each in model.prior.each:
            torch.nn.init.zeros_(each.logits)
            torch.nn.init.constant_(each.log_var, np.log(0.01))
        model.start(batch, z, seed=0)
        first, second = model.prior(None).mixtures
        for each, sign in ((first, 1), (second, -1)):
            assert np.allclose(np.sort(sign * each.mean.detach()[:, 0]), centres[:, 0], atol=0.02)
            assert torch.allclose(each.log_var.exp(), torch.tensor(0.01))
            assert torch.allclose(each.log_weights.exp(), torch.tensor(1 / 3))

    def test_it_starts_as_configured(self, tiny: Compose, splits_of: Any, model_of: Any) -> None:
        config = tiny(*SMALL)
        model = model_of(config, splits_of(config).spec)
        for each in model.prior(None).mixtures:
            assert torch.allclose(each.log_var.exp(), torch.tensor(0.01))
            assert each.log_weights.unique().numel() == 1
        assert model.starts_from_data


@pytest.mark.parametrize(
    "overrides", [("prior.covariance=full",), ("model/networks=shared", "prior.init=xavier_normal")]
)
def test_every_choice_trains_stacked_as_alone(overrides: tuple[str, ...], tiny: Compose, train: Any) -> None:
    config = tiny(*SMALL, *overrides)
    together, alone = train(config, [0, 1]), train(config, [1])
    stacked = {key: value[1] for key, value in together.stack.parameters.items()}
    expected = {key: value[0] for key, value in alone.stack.parameters.items()}
    torch.testing.assert_close(stacked, expected, atol=1e-5, rtol=1e-5)
    assert all(value.isfinite().all() for value in stacked.values())


class TestScores:
    @staticmethod
    def estimates() -> dict[int, Estimate]:
        """Seed 1 has the latents of seed 0 in another order, two of them in the other facet."""
        z = np.random.default_rng(0).normal(size=(400, 5))  # facets of 3 and 2
        tables = {0: z, 1: z[:, [3, 1, 2, 0, 4]], 2: np.random.default_rng(1).normal(size=(400, 5))}
        return {
            seed: Estimate(table, table, None, None, np.arange(400), {}, facets=2) for seed, table in tables.items()
        }

    def test_seeds_agree_by_facet_and_jointly(self) -> None:
        metric = Agreement(["mean"], ["pearson"], [None], 1, 0, 0)
        rows = pd.DataFrame(metric.pairs(self.estimates()))
        strong = rows[rows["alignment"] == "strong"].set_index(["seed_a", "seed_b", "latent_dim"])["value"]
        assert strong[0, 1, 5] == pytest.approx(1)
        assert strong[0, 1, 3] == pytest.approx(2 / 3, abs=0.05)
        assert strong[0, 1, 2] == pytest.approx(1 / 2, abs=0.05)
        assert strong[0, 2, 5] < 0.2
        assert rows.fillna(-1).groupby("latent_dim")["position"].unique().map(list).to_dict() == {
            2: [1],
            3: [0],
            5: [-1],
        }

    def test_a_grid_has_no_joint_rows(self) -> None:
        grid = {seed: replace(each, facets=1, positions=5) for seed, each in self.estimates().items()}
        rows = pd.DataFrame(Agreement(["mean"], ["pearson"], [None], 1, 0, 0).pairs(grid))
        assert set(rows["position"]) == set(range(5))

    def test_each_facets_clusters_are_held_against_u(self) -> None:
        rng = np.random.default_rng(0)
        u, clusters = rng.integers(3, size=300), rng.integers(4, size=(300, 2))
        clusters[:, 1] = u
        z = rng.normal(size=(300, 4))
        estimate = Estimate(z, z, None, u, np.arange(300), {}, clusters=clusters, facets=2)
        rows = {row["metric"]: row["value"] for row in Clustering(2, 0)(estimate)}
        assert rows["cluster_accuracy_facet_2"] == rows["nmi_facet_2"] == 1
        assert rows["nmi_facet_1"] == pytest.approx(nmi(clusters[:, 0], u))
        assert len(rows) == 6
        diverged = Clustering(2, 0)(replace(estimate, mean=np.full_like(z, np.nan)))
        assert {row["metric"] for row in diverged} == set(rows)
        assert all(np.isnan(row["value"]) for row in diverged)


@pytest.mark.slow
def test_a_run_folder_says_it_of_each_facet(tmp_path: Path) -> None:
    sizes = ("data.train_rows=128", "data.test_rows=60", "trainer.batch_size=32", "trainer.epochs=2")
    prepare(Compute("cpu", 1, False, 0))
    folders = []
    for seeds in ("[0,1]", "[2]"):
        run = make_run(*SMALL, *sizes, f"outputs={tmp_path}", f"seed={seeds}", "compute.threads=1")
        assert execute([run], Console(quiet=True)) == ["done"]
        folders.append(run.settings.folder)
    arrays = read_latents(folders[0])
    assert arrays["facets"] == 2
    assert arrays["cluster"].shape == (2, 60, 2)
    assert arrays["x"].shape == (60, 64)
    assert {"nmi_facet_1", "nmi_facet_2"} <= set(read_results(folders[0])["metric"])
    pairs = pairs_of({0: folders[0], 1: folders[0], 2: folders[1]})
    strong = pairs[pairs["alignment"] == "strong"]
    assert strong.groupby(["seed_a", "seed_b"])["position"].apply(list).map(len).tolist() == [3, 3, 3]
    assert strong["position"].isna().sum() == 3
    shown = Console(record=True, width=120, file=io.StringIO())
    show(folders[0], shown)
    text = shown.export_text()
    assert all(text.count(f"mean, pearson, {name} ") == 3 for name in ("facet 1", "facet 2", "all facets"))
