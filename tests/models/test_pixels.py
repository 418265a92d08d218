"""From bytes to observations, and the likelihood of colour images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from ivae_lab.core.data import DataSpec, Image
from ivae_lab.models.likelihoods import BernoulliLikelihood, DiscretisedLogistic, VaryingPixels, image_likelihood
from ivae_lab.models.pixels import Pixels

reference: Any = torch.distributions  # its methods have no types
END = torch.tensor(1.0)
BYTES = torch.arange(256, dtype=torch.uint8)
COLOUR = DataSpec(256, 0, None, 100, binary=False, image=Image(1, 16, 16))
GREY = DataSpec(256, 0, None, 100, binary=True, image=Image(1, 16, 16))


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def levels(dtype: torch.dtype = torch.float64) -> Tensor:
    """The 256 values that a colour may have."""
    return (torch.arange(256, dtype=torch.float64) / 255 - 0.5).to(dtype)


class TestPixels:
    def test_values_of_grey_and_colour_images(self) -> None:
        grey, colour = (Pixels(Image(1, 16, 16), binary)(BYTES, None) for binary in (True, False))
        torch.testing.assert_close(grey, torch.linspace(0, 1, 256))
        torch.testing.assert_close(colour, torch.linspace(-0.5, 0.5, 256))

    @pytest.mark.parametrize("binary", [True, False])
    def test_what_is_shown_is_the_picture(self, binary: bool) -> None:
        pixels = Pixels(Image(1, 16, 16), binary)
        torch.testing.assert_close(pixels.shown(pixels(BYTES, None)), BYTES / 255)
        assert pixels.shown(torch.tensor([-9.0, 9.0])).tolist() == [0, 1]

    def test_fresh_binarisation_has_the_probabilities_of_the_bytes(self) -> None:
        pixels = Pixels(Image(1, 16, 16, redrawn=True), binary=True)
        assert pixels.noise_dim == 256
        drawn = pixels(BYTES.expand(20_000, 256), normals(20_000, 256))
        assert set(drawn.flatten().tolist()) == {0, 1}
        torch.testing.assert_close(drawn.mean(0), BYTES / 255, atol=0.016, rtol=0)  # 4.5 standard errors
        assert (drawn.mean(0) - BYTES / 255).mean().abs() < 4 * 0.5 / drawn.numel() ** 0.5

    def test_black_and_white_are_no_matter_of_chance(self) -> None:
        pixels = Pixels(Image(1, 16, 16, redrawn=True), binary=True)
        x = torch.tensor([0, 255], dtype=torch.uint8).repeat(128)
        for extreme in (-40.0, 0.0, 40.0):
            assert torch.equal(pixels(x, torch.full((256,), extreme)), x / 255)

    def test_without_noise_come_the_probabilities(self) -> None:
        redrawn, plain = (Pixels(Image(1, 16, 16, redrawn=each), binary=True) for each in (True, False))
        assert torch.equal(redrawn(BYTES, None), plain(BYTES, None))
        assert plain.noise_dim == 0
        assert torch.equal(plain(BYTES, normals(0)), plain(BYTES, None))


@pytest.fixture(params=[1e-4, 0.01, 0.1, 3.0])
def scale(request: pytest.FixtureRequest) -> float:
    return float(request.param)


class TestDiscretisedLogistic:
    @pytest.mark.parametrize("spread", [0.3, 3.0])  # many of the wide ones lie far outside
    def test_the_256_probabilities_sum_to_1(self, scale: float, spread: float) -> None:
        centre = spread * normals(200, 1).double()
        likelihood = DiscretisedLogistic(COLOUR, scale=scale).double()
        each = torch.stack([likelihood.log_prob(x.reshape(1, 1), centre, END) for x in levels()])
        torch.testing.assert_close(each.exp().sum(0), torch.ones(200, dtype=torch.float64), atol=1e-9, rtol=0)

    def test_they_sum_to_1_in_float32_too(self) -> None:
        likelihood, centre = DiscretisedLogistic(COLOUR, scale=0.02), normals(200, 1)
        each = torch.stack([likelihood.log_prob(x.reshape(1, 1), centre, END) for x in levels(torch.float32)])
        torch.testing.assert_close(each.exp().sum(0), torch.ones(200), atol=1e-4, rtol=0)

    def test_is_the_logistic_of_scipy_between_the_edges_of_the_bytes(self, scale: float) -> None:
        centre = 0.6 * normals(256).double()
        edges = np.concatenate([[-np.inf], (np.arange(255) + 0.5) / 255 - 0.5, [np.inf]])
        likelihood = DiscretisedLogistic(COLOUR, scale=scale).double()
        law = stats.logistic(centre.numpy(), likelihood.log_scale.exp().item())  # rounded to float32
        lower, upper = edges[:-1], edges[1:]
        # Of the two differences that are the same number, the one without cancellation.
        chance = np.where(lower > centre.numpy(), law.sf(lower) - law.sf(upper), law.cdf(upper) - law.cdf(lower))
        got = likelihood.log_prob(levels().unsqueeze(-1), centre.unsqueeze(-1), END).exp().detach()
        np.testing.assert_allclose(got, chance, rtol=1e-6, atol=1e-300)
        assert (chance > 1e-6).sum() > (0 if scale < 1e-3 else 10)

    @pytest.mark.parametrize("tiny", [1e-2, 1e-6, 1e-12])
    @pytest.mark.parametrize("centre", [0.0, -0.5, 0.5, 100.0, -100.0])
    def test_stays_finite_with_its_gradients(self, tiny: float, centre: float) -> None:
        likelihood = DiscretisedLogistic(COLOUR, scale=tiny)
        output = torch.full((1, 256), centre, requires_grad=True)
        log_prob = likelihood.log_prob(levels(torch.float32).unsqueeze(0), output, END)
        gradients = torch.autograd.grad(log_prob.sum(), [output, likelihood.log_scale])
        assert log_prob.isfinite().all()
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert (gradients[0] != 0).any()  # there is a way back from far away

    def test_gradients_are_those_of_finite_differences(self) -> None:
        likelihood = DiscretisedLogistic(COLOUR, scale=0.05).double()
        output = (0.4 * normals(1, 256).double()).requires_grad_()

        def of(log_scale: Tensor, output: Tensor) -> Any:
            return torch.func.functional_call(_LogProb(likelihood), {"likelihood.log_scale": log_scale}, output)

        assert torch.autograd.gradcheck(of, (likelihood.log_scale, output))

    def test_samples_have_its_frequencies(self) -> None:
        likelihood = DiscretisedLogistic(COLOUR, scale=0.1)
        drawn = likelihood.sample(torch.full((400, 500), 0.3), torch.Generator().manual_seed(0))
        counts = torch.bincount(((drawn + 0.5) * 255).round().long().flatten(), minlength=256) / drawn.numel()
        each = [likelihood.log_prob(x.reshape(1, 1), torch.tensor([[0.3]]), END).exp().item() for x in levels()]
        np.testing.assert_allclose(counts, each, atol=2e-3)  # the highest value holds .12
        assert each[-1] > 0.1
        nearest = (drawn.flatten()[:1000].unsqueeze(-1) - levels()).abs().amin(-1)
        assert nearest.max() < 1e-6

    def test_the_scale_that_fits_has_no_gradient(self) -> None:
        likelihood = DiscretisedLogistic(COLOUR, scale=0.05)
        output = torch.zeros(400, 500)
        x = likelihood.sample(output, torch.Generator().manual_seed(0))

        def slope(scale: float) -> float:
            other = DiscretisedLogistic(COLOUR, scale=scale)
            (gradient,) = torch.autograd.grad(other.log_prob(x, output, END).mean() / 500, [other.log_scale])
            return float(gradient)

        assert abs(slope(0.05)) < 0.01
        assert slope(0.03) > 0.1
        assert slope(0.08) < -0.1

    def test_the_mean_stays_within_the_range_of_x(self) -> None:
        got = DiscretisedLogistic(COLOUR, scale=0.1).mean(torch.tensor([-3.0, 0.2, 3.0]))
        torch.testing.assert_close(got, torch.tensor([-0.5, 0.2, 0.5]))

    @pytest.mark.parametrize(
        ("spec", "got"), [(GREY, "binary images"), (DataSpec(3, 0, 2, 9, binary=False), "data that are no images")]
    )
    def test_needs_colour_images(self, spec: DataSpec, got: str) -> None:
        with pytest.raises(ValueError, match=f"expected colour images for a discretised logistic.* got {got}"):
            DiscretisedLogistic(spec, scale=0.1)

    def test_the_likelihood_of_images_goes_by_their_kind(self) -> None:
        assert isinstance(image_likelihood(GREY, scale=0.1), BernoulliLikelihood)
        colour = image_likelihood(COLOUR, scale=0.2)
        assert isinstance(colour, DiscretisedLogistic)
        assert colour.log_scale.exp().item() == pytest.approx(0.2)


class TestVaryingPixels:
    """The terms of pixels that hardly vary are left out, and no others."""

    spec = replace(GREY, image=Image(1, 16, 16, deviation=torch.linspace(0, 0.5, 256)))

    def test_is_the_bernoulli_of_the_pixels_that_vary(self) -> None:
        x, output = (normals(3, 256) > 0).float(), normals(3, 256, seed=1).requires_grad_()
        kept = torch.linspace(0, 0.5, 256) >= 0.2
        got = VaryingPixels(self.spec, least_deviation=0.2).log_prob(x, output, END)
        expected = reference.Bernoulli(logits=output).log_prob(x)[:, kept].sum(-1)
        torch.testing.assert_close(got, expected)
        torch.autograd.backward(got.sum())
        assert output.grad is not None
        assert torch.equal(output.grad != 0, kept.expand(3, -1))

    def test_needs_grey_images_with_such_pixels(self) -> None:
        with pytest.raises(ValueError, match="expected grey images for a likelihood of the pixels that vary"):
            VaryingPixels(GREY, least_deviation=0.1)
        with pytest.raises(ValueError, match=r"expected least_deviation at most 0\.5, .* got 0\.6"):
            VaryingPixels(self.spec, least_deviation=0.6)


class _LogProb(torch.nn.Module):
    """A likelihood as a function of its scale."""

    def __init__(self, likelihood: DiscretisedLogistic) -> None:
        super().__init__()
        self.likelihood = likelihood

    def forward(self, output: Tensor) -> Tensor:
        return self.likelihood.log_prob(levels().unsqueeze(0), output, END)
