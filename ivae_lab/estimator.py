"""Models as scikit-learn estimators: `from ivae_lab import fit`, or `IVAE(...)` in a pipeline.

>>> from ivae_lab import fit
>>> ivae = fit(x, u, latent_dim=2)  # doctest: +SKIP
>>> z = ivae.transform(x)  # doctest: +SKIP

The configuration is composed of the groups of `conf/` and trained by `engine/`, as the command does it, in this process
and without a run folder.
"""

from __future__ import annotations

from collections.abc import Sequence

from numpy.typing import ArrayLike

from ivae_lab.training.estimators import IVAE, Observation


def fit(
    x: ArrayLike,
    u: ArrayLike | None = None,
    model: str = "ivae",
    *,
    latent_dim: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    observation: Observation = "real",
    overrides: Sequence[str] = (),
) -> IVAE:
    """Train one model on rows x (N, d), with labels u (N,) where its prior or its encoder is told them.

    Parameters
    ----------
    x, u
        Numbers, and labels of one kind, or numbers (N,) or (N, k) that are not all whole (`model="ivae_counts"`, or
        another with `prior=conditional`).
    model
        A choice of the group `model` that is not for images, such as `ivae`, `vade`, `vae` or `gin`; it brings its
        prior, trainer and preprocessing.
    latent_dim
        n; None: as many as x has columns.
    steps
        Of the optimiser; None: the trainer's.
    seed
        Of initial weights, shuffling and noise.
    observation
        What x are: `real`, `binary` (0 and 1) or `counts` (0, 1, 2, ...), for a likelihood of these.
    overrides
        Further ones, as on the command line: ["prior=normal", "trainer.lr=0.01"].

    Examples
    --------
    >>> ivae = fit(x, u, model="ivae", latent_dim=5, steps=10_000)  # doctest: +SKIP
    >>> z = ivae.transform(x)  # doctest: +SKIP
    """
    made = IVAE(latent_dim, model=model, steps=steps, seed=seed, observation=observation, overrides=overrides)
    return made.fit(x, u)
