"""How far any model can get on a synthetic data set, computed from its true sources: a diagnosis, never a choice.

`python scripts/ceiling.py data=tcl_khemakhem` prints, for noise-free data with as many dimensions as sources, the mean
true log p(x given u) of the whitened training rows in nats (change of variables through the mixing): what the
`elbo` of a run on whitened x falls short of. For two sources with noise it prints the MCC that the true posterior's
mean and sample reach, without u and with it, summed over a grid of z: what no estimator's mean can be expected to pass.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from hydra.errors import HydraException
from numpy.typing import NDArray
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from scipy.stats import norm

from ivae_lab.config.build import ConfigError, build
from ivae_lab.config.overrides import run_config
from ivae_lab.data.mixing import leaky_relu, xtanh
from ivae_lab.data.tcl import SegmentedSources, Truth
from ivae_lab.metrics.mcc import mean_correlation
from ivae_lab.tabular.preprocessing import fit_preprocess

Array = NDArray[np.float64]
ROWS, SIDE = 2000, 400  # rows of the posterior that are summed over, points along each side of the grid of z


def main() -> None:
    """Print what holds for the data of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="+", help="data=... and keys of data, as of ivae_lab.train")
    try:
        data, seed = read(parser.parse_args().overrides)
    except (HydraException, OmegaConfBaseException, ConfigError) as error:
        parser.error(" ".join(str(error).split()))
    if data.source_family == "gaussian" and data.source_dim == data.x_dim and not data.noise_std:
        print(f"true log p(x given u) of whitened x: {log_likelihood(data, seed):.3f} nats a row")
    elif data.source_family == "gaussian" and data.source_dim == 2 and data.noise_std:
        for name, mcc in posterior_mcc(data, seed).items():
            print(f"MCC of {name}: {mcc:.3f}")
    else:
        parser.error("expected Gaussian sources, and either d = n without noise or n = 2 with noise")


def read(overrides: list[str]) -> tuple[SegmentedSources, int]:
    """The data set of a command line, not preprocessed, and its data seed."""
    config = run_config(*overrides)
    OmegaConf.set_struct(config, False)
    seed = int(config.data.pop("seed"))
    config.data.preprocess = "none"
    return build(config.data, "data"), seed


def log_likelihood(data: SegmentedSources, seed: int) -> float:
    """Mean over rows of log p(z given u) - log |det J(z)| - log |det W|, with W the whitening of x."""
    truth = data.truth(seed)
    signal = truth.z.astype(np.float64)
    log_det = np.zeros(len(signal))
    bend: Callable[[Array, float], Array] = xtanh if data.activation == "xtanh" else leaky_relu  # type: ignore[assignment]
    for layer, matrix in enumerate(truth.matrices):
        if layer or data.nonlinearity_first:
            log_det += np.log(slope_at(data, signal)).sum(1)
            signal = bend(signal, data.slope)
        signal = signal @ matrix.astype(np.float64)
        log_det += np.linalg.slogdet(matrix.astype(np.float64))[1]
    whitening = np.array(fit_preprocess(signal.astype(np.float32), "whiten", data.source_dim).scale)
    log_det += np.linalg.slogdet(whitening)[1]
    u = np.repeat(np.arange(data.segments), data.samples_per_segment)
    return float((log_prior(truth, truth.z.astype(np.float64), u) - log_det).mean())


def posterior_mcc(data: SegmentedSources, seed: int) -> dict[str, float]:
    """MCC of the true posterior's mean and of one sample, given x and given (x, u), on rows drawn at random."""
    rng = np.random.default_rng(0)
    splits, truth = data(seed), data.truth(seed)
    rows = rng.choice(len(splits.train), min(ROWS, len(splits.train)), replace=False)
    x, u, z = (part.numpy()[rows] for part in (splits.train.x, splits.train.u, splits.train.z) if part is not None)
    reach = np.abs(truth.z).max() * 1.1
    axis = np.linspace(-reach, reach, SIDE)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)  # (G, 2)
    signal = data.mix(grid.astype(np.float32), truth.matrices).astype(np.float64)  # (G, d)
    prior = np.stack([log_prior(truth, grid, np.full(len(grid), m)) for m in range(data.segments)])  # (M, G)
    marginal = np.logaddexp.reduce(prior, 0)
    found: dict[str, list[Array]] = {}
    for row, label in zip(x, u, strict=True):
        fit = -((row - signal) ** 2).sum(1) / (2 * data.noise_std**2)  # (G,)
        for given, log_p in (("x", fit + marginal), ("x and u", fit + prior[label])):
            weight = np.exp(log_p - log_p.max())
            weight /= weight.sum()
            drawn = grid[rng.choice(len(grid), p=weight)]
            found.setdefault(f"the true posterior's mean given {given}", []).append(weight @ grid)
            found.setdefault(f"the true posterior's sample given {given}", []).append(drawn)
    return {name: mean_correlation(np.stack(values), z) for name, values in found.items()}


def log_prior(truth: Truth, z: Array, u: NDArray[np.int64]) -> Array:
    """Log p(z given u), (N,)."""
    return np.sum(norm.logpdf(z, truth.mean[u], truth.std[u]), 1)  # type: ignore[no-any-return]


def slope_at(data: SegmentedSources, h: Array) -> Array:
    """Derivative of the mixing's nonlinearity."""
    return 1 - np.tanh(h) ** 2 + data.slope if data.activation == "xtanh" else np.where(h > 0, 1.0, data.slope)


if __name__ == "__main__":
    main()
