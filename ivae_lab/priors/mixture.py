"""The mixture prior: u is learned as the component of a Gaussian mixture (VaDE)."""

from __future__ import annotations

import math
import warnings
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from ivae_lab.config.numbers import PositiveFloat, PositiveInt
from ivae_lab.core.exponential_family import ExponentialFamily
from ivae_lab.distributions.densities import CorrelatedMixture, NormalMixture
from ivae_lab.distributions.natural_parameters import Tables, add_noise_, exponential_family, natural_parameters

_LEAST_WEIGHT = 1e-8  # keeps the logit finite, so that a component that the fit left empty can still be learned


class GaussianMixture(nn.Module):
    """p(z) = sum_k w_k N(z; m_k, diag s_k^2), with learned weights, means and log-variances.

    Jiang et al. 2017; Willetts and Paige 2021, Section 3. Weights are a softmax of free logits, so that they
    cannot leave the simplex.

    Parameters
    ----------
    components
        K.
    init
        How means and log-variances start: `xavier_uniform` (Willetts and Paige 2021, Section 4.1), `xavier_normal`
        (their code), or `gmm`: fitted to the encoder's output when training starts, after pretraining where
        there is one (Jiang et al. 2017).
    covariance
        Covariance of the components: `diagonal`, or `full`, whose correlations start at 0.
    variance
        If given, all variances start at it and all weights are equal: `init` then sets the means only.
    """

    def __init__(
        self,
        latent_dim: int,
        u_dim: int,
        *,
        components: PositiveInt,
        init: Literal["xavier_uniform", "xavier_normal", "gmm"],
        covariance: Literal["diagonal", "full"] = "diagonal",
        variance: PositiveFloat | None = None,
    ) -> None:
        super().__init__()
        self.starts_from_data = init == "gmm"
        self.components, self.variance = components, variance
        draw = nn.init.xavier_normal_ if init == "xavier_normal" else nn.init.xavier_uniform_
        self.logits = nn.Parameter(torch.zeros(components))
        self.mean = nn.Parameter(draw(torch.empty(components, latent_dim)))
        self.log_var = nn.Parameter(draw(torch.empty(components, latent_dim)))
        if variance is not None:
            nn.init.constant_(self.log_var, math.log(variance))
        shape = components, latent_dim, latent_dim
        self.lower = nn.Parameter(torch.zeros(shape)) if covariance == "full" else None

    def forward(self, u: Tensor | None) -> NormalMixture:
        """The same density whatever u."""
        log_weights = torch.log_softmax(self.logits, -1)
        if self.lower is None:
            return NormalMixture(log_weights, self.mean, self.log_var)
        return CorrelatedMixture(log_weights, self.mean, self.log_var, self.lower.tril(-1))

    def natural_parameters(self) -> Tensor | None:
        """Natural parameters of each component, whatever its weight: (K, 2 n); None for a full covariance."""
        return natural_parameters(self._tables(), "gaussian") if self.lower is None else None

    def exponential_family(self) -> ExponentialFamily | None:
        """The components as plain numbers; None for a full covariance."""
        return exponential_family(self._tables(), "gaussian", hidden=True) if self.lower is None else None

    def add_noise(self, noise: Tensor) -> None:
        """Add noise, (K, 2 n), to the natural parameters."""
        add_noise_(self._tables(), "gaussian", noise)

    def _tables(self) -> Tables:
        return {"mean": self.mean, "scale": self.log_var}

    def fit(self, z: Tensor, seed: int) -> None:
        """Set the mixture to scikit-learn's maximum-likelihood fit of the rows of z, (N, n): see `variance`."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture as Fit

        fit = Fit(self.components, covariance_type="diag", random_state=seed, reg_covar=1e-4)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a start, not a result
            fit.fit(z.double().cpu().numpy())
        fitted = [(self.mean, fit.means_)]
        if self.variance is None:
            fitted += [(self.logits, np.log(fit.weights_ + _LEAST_WEIGHT)), (self.log_var, np.log(fit.covariances_))]
        with torch.no_grad():
            for parameter, value in fitted:
                parameter.copy_(torch.as_tensor(value))
