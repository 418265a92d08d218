"""Trained models for new rows: from a finished run folder, or from a training that has just ended.

All inputs and outputs are in the units of the table's columns: `Preprocessing` is applied on the way in, and inverted
on the way out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from ivae_lab.config.build import ConfigError
from ivae_lab.config.digests import run_digest, run_digest_by_paths
from ivae_lab.core.data import Batch, DataSpec
from ivae_lab.distributions.densities import Facets, NormalMixture
from ivae_lab.engine.building import build_model
from ivae_lab.engine.checkpoint_files import SETTLED, load_checkpoint
from ivae_lab.engine.random_streams import generator, normals
from ivae_lab.engine.spec_json import from_plain
from ivae_lab.engine.stack import ENCODE_IMAGES, ENCODE_ROWS
from ivae_lab.models.base import Model
from ivae_lab.runs.folder import check_seal, read_status, unfinished_reason
from ivae_lab.tabular.columns import LabelColumn
from ivae_lab.tabular.preprocessing import Preprocessing
from ivae_lab.terminal.messages import listed, one_line

Array = NDArray[Any]
_LARGEST_BYTE = 255


@dataclass(frozen=True)
class Trained:
    """One model after its training, in evaluation mode.

    Attributes
    ----------
    model, spec, recipe
        The model, the description of its data, and the map from a table's columns to its x and u.
    seed
        Its seed, from which the streams of random numbers start.
    """

    model: Model
    spec: DataSpec
    recipe: Preprocessing
    seed: int

    @property
    def labels(self) -> list[Any]:
        """The M labels of u, in the model's order; empty without u."""
        return self._labels.values

    @property
    def _labels(self) -> LabelColumn:
        """Labels of the training data; positions are labels if u is computed from x, or was given by position."""
        known, made = self.recipe.u, getattr(self.model, "auxiliary", None) is not None
        return known if isinstance(known, LabelColumn) and not made else LabelColumn([*range(self.u_dim)])

    @property
    def u_dim(self) -> int:
        """M, for the data's u or one that the model computes from x."""
        return int(getattr(self.model, "u_dim", self.spec.u_dim))

    @property
    def prior_needs_u(self) -> bool:
        """True if the prior is conditional on u."""
        try:
            self.model.prior(None)
        except ValueError:
            return True
        return False

    def codes(self, u: Sequence[Any] | Array) -> Tensor:
        """Convert labels to their positions, int64 (N,).

        Raises
        ------
        ValueError
            For a label that the training did not have.
        """
        codes = self._labels.places(np.asarray(u))
        if (codes < 0).any():
            unknown = np.asarray(u)[codes < 0][0]
            raise ValueError(f"expected u one of {listed(self.labels)}, got {unknown}")
        return torch.from_numpy(codes)

    def batch(self, x: Array, u: Sequence[Any] | Array | None = None) -> Batch:
        """Convert rows (N, d) (one-hot columns for codes), and u, (N,) or (N, k), to the model's input.

        Raises
        ------
        ValueError
            For another number of columns, an unknown label, or images that are no bytes.
        """
        if x.shape[1] != self.spec.x_dim:
            raise ValueError(f"expected {self.spec.x_dim} columns of x, as in training, got {x.shape[1]}")
        seen = _bytes(x) if self.spec.image is not None else torch.from_numpy(self.recipe.apply(x)).to(self.dtype)
        return Batch(seen, None if u is None else self.u(u), None, torch.arange(len(x)))

    def u(self, u: Sequence[Any] | Array) -> Tensor:
        """Convert labels (N,) to their positions, or columns (N,) or (N, k) of a table to numbers (N, k').

        Raises
        ------
        ValueError
            For a value that the training did not have.
        """
        if self.spec.u_kind == "labels":
            return self.codes(u)
        columns = np.asarray(u, dtype=object).reshape(len(u), -1)
        if columns.shape[1] != len(self.recipe.u_columns or [*range(self.spec.u_dim)]):
            expected = listed(self.recipe.u_columns or [f"{self.spec.u_dim} columns"])
            raise ValueError(f"expected u of the columns {expected}, got {columns.shape[1]}")
        numbers = columns if self.recipe.u is None else self.recipe.apply_u([*columns.T])
        return torch.from_numpy(np.asarray(numbers, np.float32)).to(self.dtype)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the model's parameters."""
        return next(chain(self.model.parameters(), self.model.buffers())).dtype  # a fitted model has buffers only

    def encode(self, rows: Batch, number: int = 0) -> dict[str, Array]:
        """Compute the posterior of each row: `mean`, `sd` (N, n), a `sample`, `probabilities` (N, ...) of components.

        See `Model.latents`. The sample comes from the stream of the seed and the `number` of these rows' block.
        """
        width = self.model.noise_dim + self.model.live_dim
        noise = normals([self.seed], "posterior sample, new rows", number, (len(rows), width))[0].to(self.dtype)
        return self._mapped("latents", rows, noise)

    def bound(self, rows: Batch) -> dict[str, Array]:
        """Evaluate `Model.bound` on each row; densities are those of the model's preprocessed x."""
        width = self.model.noise_dim + self.model.live_dim
        noise = normals([self.seed], "bound, new rows", 0, (len(rows), width))[0].to(self.dtype)
        return self._mapped("bound", rows, noise)

    @torch.no_grad()
    def _mapped(self, method: str, rows: Batch, noise: Tensor) -> dict[str, Array]:
        step = ENCODE_IMAGES if self.spec.image is not None else ENCODE_ROWS
        cuts = [slice(start, start + step) for start in range(0, len(rows), step)]
        blocks = [getattr(self.model, method)(rows[cut], noise[cut]) for cut in cuts]
        return {name: torch.cat([block[name] for block in blocks]).numpy() for name in blocks[0]}

    @torch.no_grad()
    def decode(self, z: Array) -> Array:
        """Return the expected x given z, (N, n) to (N, d); for images in [0, 1]."""
        return self.recipe.invert(self.model.expected(torch.from_numpy(z).to(self.dtype)).numpy())

    @torch.no_grad()
    def sample(self, rows: int, codes: Array | None, draw: tuple[int, int] = (0, 0)) -> Array:
        """Draw new x (N, d) from z of the prior, given u at the positions `codes` (N,) of its labels.

        Images are in [0, 1]. The draw depends on the model's seed and on `draw`, two numbers.

        Raises
        ------
        ValueError
            If the prior needs u and there is none.
        """
        numbers = generator(self.seed, f"new rows, draw {draw[0]}", draw[1])
        drawn = self.model.sample(rows, None if codes is None else torch.from_numpy(codes), numbers)
        pixels = getattr(self.model, "pixels", None)
        return self.recipe.invert((drawn if pixels is None else pixels.shown(drawn)).numpy())

    @torch.no_grad()
    def prior_at(self, codes: Array | None) -> tuple[Array, Array]:
        """Mean and standard deviation of the prior, (n,) each, at one u, or of the heaviest component of a mixture."""
        prior = self.model.prior_of_z(None if codes is None else torch.from_numpy(codes))
        parameters = self.model.prior_parameters(prior)
        # The row of a component of the first facet has the heaviest components of the other facets.
        mixture = prior.mixtures[0] if isinstance(prior, Facets) else prior
        place = int(mixture.log_weights.argmax()) if isinstance(mixture, NormalMixture) else 0
        mean, std = (parameters[name][place].tile(self.model.positions).numpy() for name in ("prior_mean", "prior_std"))
        return mean, std


def load(folder: Path, seed: int | None = None) -> Trained:
    """Load the model of one seed of a finished run.

    Parameters
    ----------
    folder
        The run folder.
    seed
        The model seed; None: the only one.

    Raises
    ------
    ValueError
        If there is no such run or seed, the run is unfinished or of before `spec.json` was written, the seed has
        diverged, or a file is damaged: one line.
    """
    if not (folder / "status.json").is_file():
        raise ValueError(f"expected a run folder, with a status.json, got {folder}")
    if what := unfinished_reason(folder):
        raise ValueError(f"expected a finished run in {folder}; {what}")
    status = read_status(folder)
    seeds: list[int] = status["seeds"]
    chosen = _chosen(seeds, seed, folder)
    if str(chosen) in status.get("diverged", {}):
        raise ValueError(f"expected a seed that has not diverged, got seed {chosen} of {folder}")
    try:
        spec, recipe, config = _described(folder, status)
        state = _state(folder, _fingerprint(config, status))
        with torch.random.fork_rng(devices=[]):  # the weights drawn here are overwritten
            model = build_model(config, spec)
        model.load_state_dict({name: value[seeds.index(chosen)] for name, value in state.items()})
    except FileNotFoundError as error:
        raise ValueError(f"expected {error.filename}, got none: force=true trains this run again") from None
    except (OSError, KeyError, TypeError, RuntimeError, ConfigError, OmegaConfBaseException) as error:
        raise ValueError(f"expected a run of this version in {folder}, got: {one_line(error)}") from None
    return Trained(evaluated(model), spec, recipe, chosen)


def evaluated(model: Model) -> Model:
    """Put the model on the CPU in evaluation mode, without gradients."""
    return model.cpu().eval().requires_grad_(False)


def _chosen(seeds: list[int], seed: int | None, folder: Path) -> int:
    if seed is None and len(seeds) == 1:
        return seeds[0]
    if seed not in seeds:
        raise ValueError(
            f"expected seed= one of {', '.join(map(str, seeds))} for {folder}, got {'none' if seed is None else seed}"
        )
    return seed


def _described(folder: Path, status: dict[str, Any]) -> tuple[DataSpec, Preprocessing, DictConfig]:
    for name in ("spec.json", "recipe.json"):
        check_seal(folder, name, status)
    spec: DataSpec = from_plain(json.loads((folder / "spec.json").read_text()))
    recipe = Preprocessing.from_json((folder / "recipe.json").read_text())
    config = OmegaConf.load(folder / "config.yaml")
    assert isinstance(config, DictConfig)
    return spec, recipe, config


def _fingerprint(config: DictConfig, status: dict[str, Any]) -> str:
    """The fingerprint that the run's checkpoint must have; older runs have one with the module paths of classes."""
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    by_paths = run_digest_by_paths(plain, status["seeds"])
    return by_paths if status.get("run") == by_paths else run_digest(plain, status["seeds"])


def _state(folder: Path, fingerprint: str) -> dict[str, Tensor]:
    """Parameters and buffers of all seeds, (S, ...) each."""
    settled = folder / "checkpoints" / SETTLED
    path = settled if settled.exists() else folder / "checkpoints" / "last.ckpt"
    snapshot, damaged = load_checkpoint(path, fingerprint, ValueError)
    if snapshot is None:
        raise ValueError(damaged[0] if damaged else f"expected {path}, got none: force=true trains this run again")
    return {**snapshot["state"]["parameters"], **snapshot["state"]["buffers"]}


def _bytes(x: Array) -> Tensor:
    """Convert images, (N, d), to bytes."""
    if not ((x == np.round(x)) & (x >= 0) & (x <= _LARGEST_BYTE)).all():
        raise ValueError("expected images of whole numbers from 0 to 255, got others")
    return torch.from_numpy(x.astype(np.uint8))
