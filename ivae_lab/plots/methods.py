"""Methods by name: their colours, and the names that readers know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


# Okabe and Ito's colours, which colour-blind readers can tell apart, and Tol's for the rest. A method has the same
# colour in every figure.
PALETTE = {
    "ivae": "#0072B2",
    "vae": "#7F7F7F",
    "beta_vae": "#E69F00",
    "beta_tcvae": "#D55E00",
    "vade": "#009E73",
    "mfcvae": "#CC79A7",
    "vampprior": "#AA4499",
    "gmvae": "#88CCEE",
    "gin": "#56B4E9",
    "glow": "#661100",
    "nice": "#DDCC77",
    "iflow": "#44AA99",
    "gmm_flow": "#332288",
    "exact": "#B15928",
    "rademacher": "#882255",
    "rvqvae": "#117733",
    "ae": "#4D4D4D",
    "pca": "#999933",
    "fastica": "#AA7744",
    "segment_ica": "#6699CC",
    "tcl": "#994455",
    "gcl": "#EE99AA",
    "chance": "#BBBBBB",
}
NAMES = {
    "ivae": "iVAE",
    "vae": "VAE",
    "beta_vae": "β-VAE",
    "beta_tcvae": "β-TC-VAE",
    "vade": "VaDE",
    "mfcvae": "MFCVAE",
    "vampprior": "VampPrior",
    "gmvae": "GMVAE",
    "gin": "GIN",
    "glow": "GLOW",
    "nice": "NICE",
    "iflow": "identifiable flow",
    "gmm_flow": "GMM-flow",
    "exact": "exact likelihood",
    "pca": "PCA on x",
    "fastica": "FastICA on x",
    "segment_ica": "segment ICA on x",
    "tcl": "TCL",
    "gcl": "GCL",
}
SCORES = {"mcc_mean": "MCC of the posterior mean", "mcc_sample": "MCC of a posterior sample"}


def method_of(model: str) -> str:
    """Return the method of a choice of `model`: a key of PALETTE.

    Examples
    --------
    >>> method_of("beta_vae_released")
    'beta_vae'
    """
    fitting = [method for method in PALETTE if model == method or model.startswith(f"{method}_")]
    return max(fitting, key=len, default=model)


def name_of(model: str) -> str:
    """Return the name of a model's method for legends."""
    return NAMES.get(method_of(model), model)


def in_words(values: pd.Series[float]) -> str:
    """List the numbers of a series indexed by several columns in words, for readers who do not see the picture."""
    items: Any = values.to_dict().items()
    return "; ".join(f"{', '.join(str(part) for part in key)} {value:.3g}" for key, value in items)
