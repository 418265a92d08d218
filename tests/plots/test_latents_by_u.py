"""The figure of latents coloured by u: labels and numbers, one latent, and a seed that diverged."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from ivae_lab.plots.latents_by_u import latents_by_u


@pytest.mark.parametrize(("kind", "latents"), [("labels", 5), ("many", 1), ("many", 2), ("columns", 1), ("columns", 5)])
@pytest.mark.slow
def test_it_is_drawn(tmp_path: Path, kind: str, latents: int) -> None:
    rng = np.random.default_rng(0)
    u = {"labels": np.arange(60) % 3, "many": np.arange(60) % 40, "columns": rng.normal(size=(60, 2))}[kind]
    mean = rng.normal(size=(2, 60, latents)) + (u if u.ndim == 1 else u[:, 0])[:, None]
    mean[1, 0, 0] = np.nan
    np.savez(tmp_path / "latents.npz", mean=mean, sample=mean, u=u, index=np.arange(60), seed=np.array([3, 4]))
    latents_by_u(tmp_path, tmp_path / "latents", "ivae on file")
    picture = matplotlib.image.imread(tmp_path / "latents.png")
    assert picture[..., :3].std() > 0.01
    assert (tmp_path / "latents.pdf").exists()
