"""Models as estimators of scikit-learn: fit to arrays, then transform, sample and score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from hydra.errors import HydraException
from numpy.typing import ArrayLike, NDArray
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from ivae_lab.config.build import build
from ivae_lab.config.digests import digest
from ivae_lab.config.overrides import composed, without_hydra
from ivae_lab.core.data import Batch, DataSpec, Splits
from ivae_lab.inference.sampling import sampled
from ivae_lab.inference.trained_model import Trained, evaluated
from ivae_lab.tabular.columns import Column, LabelColumn, columns_of
from ivae_lab.tabular.preprocessing import Preprocessing, fit_preprocess
from ivae_lab.terminal.messages import one_line
from ivae_lab.training.group import train_here
from ivae_lab.training.job import read_settings
from ivae_lab.training.run import TrainingRun

Floats = NDArray[np.floating[Any]]
Observation = Literal["real", "binary", "counts"]
_DTYPES = ["float64", "float32"]


class IVAE(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A model of x with one seed: `fit` with x and u, `transform` to the posterior's means and back.

    scikit-learn calls u the target y. u is needed if the prior is conditional on u (`model=ivae`), and not if it is a
    mixture (`vade`) or normal (`vae`). Its labels may be numbers or text, in sorted order. Inference after the training
    is in double precision.

    Parameters
    ----------
    latent_dim
        n; None: the number of columns of x.
    model
        A choice of the group `model`; it brings its prior, trainer and preprocessing.
    steps
        Optimiser steps; None: the trainer's.
    seed
        Seed of initial weights, shuffling and noise.
    observation
        The kind of x: `real`, `binary` (0 and 1) or `counts` (0, 1, 2, ...), with a likelihood for it.
    overrides
        Further overrides, as on the command line: ["prior=normal", "trainer.lr=0.01"].

    Attributes
    ----------
    trained_
        The model with its preprocessing.
    labels_
        Labels of u, in sorted order; empty without u, and if u is numbers.
    latent_dim_
        n.
    """

    def __init__(
        self,
        latent_dim: int | None = None,
        *,
        model: str = "ivae",
        steps: int | None = None,
        seed: int = 0,
        observation: Observation = "real",
        overrides: Sequence[str] = (),
    ) -> None:
        self.latent_dim, self.model, self.steps = latent_dim, model, steps
        self.seed, self.observation, self.overrides = seed, observation, overrides

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = _needs_u(self.model, tuple(self.overrides))
        tags.transformer_tags.preserves_dtype = _DTYPES
        return tags

    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> IVAE:  # noqa: N803
        """Train on rows X (N, d), with labels y (N,), which are u.

        Raises
        ------
        ValueError
            For wrong rows or labels, or a configuration that cannot be built.
        RuntimeError
            If the training diverged.
        """
        x = validate_data(self, X, dtype=_DTYPES, ensure_min_samples=2)
        self.labels_, u_columns = self._read_u(X, y)
        config = self._config(*x.shape)
        splits = _splits(x, u_columns, config, self.labels_)
        settings = read_settings(config, {"data": "rows", "model": self.model})
        with _deterministic():
            run = TrainingRun(settings, Console(quiet=True), {digest(settings.plain()["data"]): splits})
            diverged = train_here(run).diverged
        if diverged:
            raise RuntimeError(f"expected a training that converges, got one not finite by step {diverged[self.seed]}")
        model = evaluated(run.stack.model(0)).double()
        self.trained_ = Trained(model, splits.spec, splits.recipe, self.seed)
        self.latent_dim_ = model.latent_dim
        return self

    def _read_u(self, X: ArrayLike, y: ArrayLike | None) -> tuple[NDArray[Any], list[Column]]:  # noqa: N803
        """The labels, if u is labels, and the columns of u, (N,) each; none without u."""
        if y is None and not _needs_u(self.model, tuple(self.overrides)):
            return np.array([]), []
        several = y is not None and np.asarray(y).ndim > 1
        _, u = validate_data(self, X, y, reset=False, dtype=_DTYPES, multi_output=several)
        if u.ndim == 1 and (u.dtype.kind != "f" or (u == np.round(u)).all()):
            return np.unique(u), [u]
        return np.array([]), [*u.reshape(len(u), -1).T]

    def _config(self, rows: int, columns: int) -> DictConfig:
        given = [f"model={self.model}", f"seed={self.seed}", *self.overrides]
        if self.latent_dim is not None:
            given.append(f"model.latent_dim={self.latent_dim}")
        if self.steps is not None:
            given += [f"trainer.steps={self.steps}", "trainer.epochs=null"]
        config = deepcopy(_composed(tuple(given)))
        if config.model.get("latent_dim", columns) is None:
            config.model.latent_dim = columns
        config.trainer.batch_size = min(config.trainer.batch_size, rows)
        preprocess = config.data.get("preprocess", "none")
        config.data = {"seed": 0, "preprocess": preprocess, "observation": self.observation}
        config.metric = {}
        return config

    def transform(self, X: ArrayLike, u: ArrayLike | None = None) -> Floats:  # noqa: N803
        """Return the posterior's means, (N, n); u is read if the encoder sees it.

        Raises
        ------
        ValueError
            For wrong rows, a label that the training did not have, or no u for an encoder that sees it.
        """
        check_is_fitted(self)
        x = validate_data(self, X, reset=False, dtype=_DTYPES)
        sees_u = self.trained_.model.encoder_sees_u
        if sees_u and u is None:
            raise ValueError(f"expected u for the encoder of model={self.model}, which sees it, got none")
        mean = self.trained_.encode(self.trained_.batch(x, np.asarray(u) if sees_u else None))["mean"]
        return mean.astype(x.dtype)

    def fit_transform(self, X: ArrayLike, y: ArrayLike | None = None) -> Floats:  # noqa: N803
        """Call `fit`, then `transform`, with the same rows and labels."""
        return self.fit(X, y).transform(X, y)

    def inverse_transform(self, X: ArrayLike) -> Floats:  # noqa: N803
        """Return the expected x given latents: (N, n) to (N, d)."""
        check_is_fitted(self)
        z = check_array(X, dtype=_DTYPES)
        if z.shape[1] != self.latent_dim_:
            raise ValueError(f"expected {self.latent_dim_} latents, got {z.shape[1]}")
        return self.trained_.decode(z).astype(z.dtype)

    def sample(self, rows: int = 1, u: Any = None, draw: int = 0) -> NDArray[np.float64]:
        """Draw new x (rows, d) at the label u; without u at all labels in turn, or from a prior that needs no u.

        Another number `draw` gives other rows.
        """
        check_is_fitted(self)
        blocks = sampled(self.trained_, rows, u, draw)
        return np.concatenate([block["x"] for block in blocks]).astype(np.float64)

    def score(self, X: ArrayLike, y: ArrayLike | None = None) -> float:  # noqa: N803
        """Return the mean ELBO of rows, in nats per row: a bound of the log-density of X before preprocessing.

        It uses one posterior sample per row, the same in every call. The labels y are u, and read if the model needs
        them.
        """
        check_is_fitted(self)
        x, trained = validate_data(self, X, reset=False, dtype=_DTYPES), self.trained_
        needs_u = trained.model.encoder_sees_u or trained.prior_needs_u
        if needs_u and y is None:
            raise ValueError(f"expected u for model={self.model}, got none")
        evaluation = trained.bound(trained.batch(x, np.asarray(y) if needs_u else None))
        return float(evaluation["elbo"].mean()) + trained.recipe.log_volume

    @property
    def _n_features_out(self) -> int:
        return self.latent_dim_


def _splits(x: Floats, u_columns: list[Column], config: DictConfig, labels: NDArray[Any]) -> Splits:
    """All rows for training, preprocessed as the configuration says, with the columns of u."""
    rows, columns = x.shape
    leading = min(columns, config.model.get("latent_dim", columns))
    fitted = fit_preprocess(x.astype(np.float32), config.data.preprocess, leading)
    kinds = LabelColumn(labels.tolist()) if len(labels) else columns_of(u_columns) if u_columns else None
    names = [f"u_{i}" for i in range(len(u_columns))] if isinstance(kinds, list) else None
    recipe = Preprocessing(shift=fitted.shift, scale=fitted.scale, u_columns=names, u=kinds)
    u = recipe.apply_u(u_columns)
    observed_u = None if u is None else torch.from_numpy(u)
    train = Batch(torch.from_numpy(recipe.apply(x)), observed_u, None, torch.arange(rows))
    spec = DataSpec(
        columns,
        len(labels) or len(u_columns),
        None,
        rows,
        binary=config.data.observation == "binary",
        u_kind="columns" if isinstance(kinds, list) else "labels",
        counts=config.data.observation == "counts",
    )
    return Splits(train, train[:0], train[:0], spec, recipe=recipe)


@lru_cache
def _composed(overrides: tuple[str, ...]) -> DictConfig:
    """The composed configuration, without Hydra's own part.

    Raises
    ------
    ValueError
        If there is no such choice or key.
    """
    try:
        config = without_hydra(composed(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(f"expected a configuration of {' '.join(overrides)}, got: {one_line(error)}") from None
    OmegaConf.set_struct(config, False)
    return config


@lru_cache
def _needs_u(model: str, overrides: tuple[str, ...]) -> bool:
    """Return True if the model reads the data's u; False also if the configuration cannot be composed."""
    try:
        config = _composed((f"model={model}", *overrides))
    except ValueError:
        return False
    if config.model.get("auxiliary") is not None:
        return False
    if config.model.get("encoder", {}).get("sees_u", False):
        return True
    try:
        build(config.prior, "prior")(2, 0)  # for data without u
    except ValueError:
        return True
    return False


@contextmanager
def _deterministic() -> Iterator[None]:
    """Compute sums in one order, as in a run, and restore the caller's setting afterwards."""
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("warn")
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)
