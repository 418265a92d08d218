"""Writes the two files of the tour, such as a user brings: spike counts with positions, and pixels with digits.

python experiments/tour/files.py [FOLDER, default outputs/tour]

spikes.parquet
    A row for each of 6,000 bins of 100 ms: counts neuron_0 .. neuron_39, and the position of the animal on the track
    (0 to 1). They are those of `data=spikes data.seed=1`: see `ivae_lab.data.spikes`.
digits.csv
    scikit-learn's 1,797 handwritten digits: pixels p_0 .. p_63 (0 to 16), and which digit it is.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from omegaconf import OmegaConf
from sklearn.datasets import load_digits

from ivae_lab.config.build import build
from ivae_lab.config.paths import CONFIG


def spikes() -> pd.DataFrame:
    """Counts and positions, in time."""
    described: dict[str, Any] = yaml.safe_load((CONFIG / "data" / "spikes.yaml").read_text())
    seed = described.pop("seed")
    parts = [part for _, part in build(OmegaConf.create(described), "data")(seed).items()]
    order = torch.argsort(torch.cat([part.index for part in parts]))
    x, position = (torch.cat([getattr(part, name) for part in parts])[order].numpy() for name in ("x", "z"))
    counts = {f"neuron_{i}": column for i, column in enumerate(x.astype(np.int64).T)}
    return pd.DataFrame(counts | {"position": position[:, 0]})


def digits() -> pd.DataFrame:
    """Pixels and digits."""
    x, u = load_digits(return_X_y=True)
    return pd.DataFrame(x, columns=[f"p_{i}" for i in range(x.shape[1])]).assign(digit=u)


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "outputs/tour")
    folder.mkdir(parents=True, exist_ok=True)
    spikes().to_parquet(folder / "spikes.parquet")
    digits().to_csv(folder / "digits.csv", index=False)
    print(f"{folder / 'spikes.parquet'}, {folder / 'digits.csv'}")
