"""What GIN's artificial data allow before anything is trained: how close to linear they are, and a ceiling.

    python scripts/gin_floor.py

Prints, for each variant and ten data seeds, the MCC of the ten columns of x and of their principal components with the
two sources (Pearson, permutation only; 20,000 points), and the medians; how wide x is; and the log-likelihood, in nats
a row, of the true density where the mixing keeps volumes (data.mixing=gin_mean), which a GIN could reach. Nothing is
trained.
"""

from __future__ import annotations

import numpy as np
from sklearn.decomposition import PCA

from ivae_lab.config.overrides import run_config
from ivae_lab.core.data import Batch
from ivae_lab.engine.building import draw_data
from ivae_lab.metrics.mcc import mean_correlation


def _log_likelihood(rows: Batch, noise_dim: int, noise_std: float) -> float:
    """Mean of log p(z | u) and log p(noise): of x, too, where its mixing has a log-determinant of 0."""
    assert rows.z is not None
    assert rows.u is not None
    variances = np.stack([rows.z[rows.u == u].double().var(0).numpy() for u in range(int(rows.u.max()) + 1)])  # (M, n)
    shares = np.bincount(rows.u) / len(rows)
    entropy = shares @ np.log(2 * np.pi * np.e * variances).sum(1) + noise_dim * np.log(2 * np.pi * np.e * noise_std**2)
    return float(-entropy / 2)


def main() -> None:
    """Print the table."""
    for name in ("gin10d", "gin10d_released"):
        scores, widths = [], []
        for seed in range(1, 11):
            config = run_config(f"data={name}", f"data.seed={seed}", "data.points=20000")
            rows = draw_data(config).train
            assert rows.z is not None
            x, sources = rows.x.double().numpy(), rows.z.double().numpy()
            widths.append(x.std(0))
            components = PCA(x.shape[1]).fit_transform(x)
            scores.append((mean_correlation(x, sources), mean_correlation(components, sources)))
            ceiling = _log_likelihood(rows, config.data.noise_dim, config.data.noise_std)
            print(f"{name}, data seed {seed}: x {scores[-1][0]:.2f}, PCA {scores[-1][1]:.2f}, ceiling {ceiling:.2f}")
        median = np.median(scores, 0)
        wide = f"standard deviations of the columns: median {np.median(widths):.1f}, largest {np.max(widths):.0f}"
        print(f"{name}, median: x {median[0]:.2f}, PCA {median[1]:.2f}; {wide}")


if __name__ == "__main__":
    main()
