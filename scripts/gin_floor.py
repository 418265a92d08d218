"""How close to linear the random mixings of GIN's artificial data are: MCC of x itself with the sources.

    python scripts/gin_floor.py

Prints, for each variant and ten data seeds, the MCC of the ten columns of x and of their principal components with the
two sources (Pearson, permutation only; 20,000 points), and the medians; and how wide x is. Nothing is trained.
"""

from __future__ import annotations

import numpy as np
from hydra import compose, initialize_config_dir
from sklearn.decomposition import PCA

from ivae_lab.engine.run import draw_data
from ivae_lab.metrics.mcc import mean_correlation
from ivae_lab.places import CONFIG


def main() -> None:
    """Print the table."""
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        for name in ("gin10d", "gin10d_released"):
            scores, widths = [], []
            for seed in range(1, 11):
                rows = draw_data(compose("config", [f"data={name}", f"data.seed={seed}", "data.points=20000"])).train
                assert rows.z is not None
                x, sources = rows.x.double().numpy(), rows.z.double().numpy()
                widths.append(x.std(0))
                components = PCA(x.shape[1]).fit_transform(x)
                scores.append((mean_correlation(x, sources), mean_correlation(components, sources)))
                print(f"{name}, data seed {seed}: x {scores[-1][0]:.2f}, PCA {scores[-1][1]:.2f}")
            median = np.median(scores, 0)
            wide = f"standard deviations of the columns: median {np.median(widths):.1f}, largest {np.max(widths):.0f}"
            print(f"{name}, median: x {median[0]:.2f}, PCA {median[1]:.2f}; {wide}")


if __name__ == "__main__":
    main()
