"""Likelihoods of counts and codes: probabilities that sum to one, SciPy's values, and draws of the right moments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from ivae_lab.core.data import DataSpec
from ivae_lab.data.spikes import Spikes
from ivae_lab.models.likelihoods import CategoricalLikelihood, NegativeBinomialLikelihood, PoissonLikelihood

COUNTS = DataSpec(3, 0, None, 100, binary=False, counts=True)
CODES = DataSpec(5, 0, None, 100, binary=False, codes=(2, 3))
END = torch.tensor(1.0)
LOG_MEAN = torch.tensor([[-1.0, 0.5, 3.0]], dtype=torch.float64)
R = 4.0


def likelihoods() -> dict[str, PoissonLikelihood]:
    return {
        "poisson": PoissonLikelihood(COUNTS),
        "negative_binomial": NegativeBinomialLikelihood(COUNTS, successes=R).double(),
    }


def reference(name: str, mean: Any) -> Any:
    return stats.poisson(mean) if name == "poisson" else stats.nbinom(R, R / (R + mean))


@pytest.mark.parametrize("name", [*likelihoods()])
def test_counts_have_scipys_probabilities(name: str) -> None:
    likelihood, mean = likelihoods()[name], LOG_MEAN.exp().numpy()
    for x in ([0, 0, 0], [1, 5, 20], [7, 0, 90]):
        found = likelihood.log_prob(torch.tensor([x], dtype=torch.float64), LOG_MEAN, END)
        assert found.item() == pytest.approx(reference(name, mean).logpmf(x).sum(), abs=1e-5)
    np.testing.assert_allclose(likelihood.mean(LOG_MEAN), mean)


@pytest.mark.parametrize("name", [*likelihoods()])
def test_probabilities_of_counts_sum_to_one(name: str) -> None:
    values = torch.arange(400, dtype=torch.float64).unsqueeze(-1)
    spec = DataSpec(1, 0, None, 100, binary=False, counts=True)
    likelihood = PoissonLikelihood(spec) if name == "poisson" else NegativeBinomialLikelihood(spec, successes=R)
    total = likelihood.log_prob(values, torch.full((400, 1), 2.0, dtype=torch.float64), END).exp().sum()
    assert total.item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", [*likelihoods()])
def test_draws_of_counts_have_the_mean_and_the_variance(name: str) -> None:
    drawn = likelihoods()[name].sample(LOG_MEAN.expand(40_000, 3), torch.Generator().manual_seed(0)).numpy()
    assert (drawn == np.round(drawn)).all()
    mean, variance = reference(name, LOG_MEAN.exp().numpy()).stats("mv")
    np.testing.assert_allclose(drawn.mean(0), mean[0], rtol=0.05)
    np.testing.assert_allclose(drawn.var(0), variance[0], rtol=0.08)


def test_the_dispersion_is_learned() -> None:
    likelihood = NegativeBinomialLikelihood(COUNTS, successes=R)
    log_prob = likelihood.log_prob(torch.ones(2, 3), torch.zeros(2, 3), END).sum()
    (gradient,) = torch.autograd.grad(log_prob, list(likelihood.parameters()))
    assert gradient.ne(0).all()


def test_a_negative_binomial_of_many_successes_is_poisson() -> None:
    x, output = torch.tensor([[0.0, 3.0, 25.0]], dtype=torch.float64), LOG_MEAN
    wide = NegativeBinomialLikelihood(COUNTS, successes=1e7).double().log_prob(x, output, END)
    assert wide.item() == pytest.approx(PoissonLikelihood(COUNTS).log_prob(x, output, END).item(), abs=1e-4)


@pytest.mark.parametrize("bin_seconds", [0.01, 0.1])
def test_spikes_are_counted_in_bins_of_their_length(bin_seconds: float) -> None:
    """Neurons without a place fire 20 times a second everywhere."""
    lengths: dict[str, Any] = {"points": 2000, "neurons": 20, "bin_seconds": bin_seconds, "speed": 0.5, "width": 0.1}
    counts = Spikes(**lengths, peak_rate=1e-9, base_rate=20.0, split=[1.0, 0.0, 0.0], block_rows=None, gap=0)(1).train.x
    assert counts.mean().item() == pytest.approx(20 * bin_seconds, rel=0.05)


class TestCodes:
    likelihood = CategoricalLikelihood(CODES)
    logits = torch.tensor([[0.0, 1.0, -1.0, 0.5, 2.0]], dtype=torch.float64)

    def test_every_pair_of_values_has_the_product_of_its_softmaxes(self) -> None:
        first, second = torch.softmax(self.logits[:, :2], -1), torch.softmax(self.logits[:, 2:], -1)
        total = 0.0
        for a in range(2):
            for b in range(3):
                x = torch.zeros(1, 5, dtype=torch.float64)
                x[0, a] = x[0, 2 + b] = 1
                found = self.likelihood.log_prob(x, self.logits, END).exp().item()
                assert found == pytest.approx((first[0, a] * second[0, b]).item())
                total += found
        assert total == pytest.approx(1)

    def test_draws_are_one_value_of_each_code_as_often_as_it_is_probable(self) -> None:
        drawn = self.likelihood.sample(self.logits.expand(20_000, 5), torch.Generator().manual_seed(0))
        assert drawn[:, :2].sum(1).eq(1).all()
        assert drawn[:, 2:].sum(1).eq(1).all()
        torch.testing.assert_close(drawn.mean(0), self.likelihood.mean(self.logits)[0], atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (lambda: PoissonLikelihood(CODES), "expected counts as observations for a PoissonLikelihood, got codes "),
        (
            lambda: CategoricalLikelihood(COUNTS),
            "expected codes as observations for a CategoricalLikelihood, got counts ",
        ),
    ],
)
def test_data_of_another_kind_is_refused(made: object, expected: str) -> None:
    with pytest.raises(ValueError, match=expected + r"\(model/likelihood="):
        made()  # type: ignore[operator]
