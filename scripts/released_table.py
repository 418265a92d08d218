"""Hold our `*_released` variants against the numbers that khemakhem2020's released code gives.

`python scripts/released_table.py collect OUTPUTS` takes the rows from finished run folders of

    python -m ivae_lab.train -m model=ivae_released,vae_released,beta_vae_released,beta_tcvae_released \\
        data=tcl_khemakhem_released 'seed=[0,1,2,3,4,5,6,7,8,9]'

into experiments/khemakhem2020/results/released.csv, with the commit and versions of each run;
`python scripts/released_table.py show` prints the table of README.md from that file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from ivae_lab.results import interval, is_finished, read_results, read_status

RESULTS = Path(__file__).resolve().parents[1] / "experiments/khemakhem2020/results/released.csv"
DATA = "tcl_khemakhem_released"
# Three model seeds of the released code on its data seed 1, run by us (see experiments/khemakhem2020/README.md).
RELEASED_CODE = {
    "ivae_released": "0.921 to 0.927",
    "vae_released": "0.640 to 0.696",
    "beta_vae_released": "0.580 to 0.605",
    "beta_tcvae_released": "0.574 to 0.628",
}


def collect(outputs: Path) -> pd.DataFrame:
    """Rows of the MCC that the released code reports: posterior sample, Pearson, strong, full training data."""
    parts = []
    for model in RELEASED_CODE:
        folders = [folder for folder in sorted(outputs.glob(f"{DATA}-{model}-*")) if is_finished(folder)]
        for folder in folders:
            status, rows = read_status(folder), read_results(folder)
            chosen = (rows["metric"] == "mcc") & (rows["latents"] == "sample") & (rows["coefficient"] == "pearson")
            rows = rows[chosen & (rows["alignment"] == "strong") & (rows["split"] == "train")]
            part = rows[["seed", "data_seed", "points", "value", "chance", "state"]].copy()
            part.insert(0, "model", model)
            part["run"], part["commit"], part["written"] = folder.name, status["commit"], status["written"]
            part["torch"], part["seconds"] = status["versions"]["torch"], status["seconds"]
            parts.append(part)
    if not parts:
        raise SystemExit(f"released_table: expected finished runs on {DATA} in {outputs}, got none")
    return pd.concat(parts)


def table() -> str:
    """Lay the committed rows out as the Markdown table of README.md."""
    rows = pd.read_csv(RESULTS)
    lines = [
        "| model | released code, 3 seeds | ours: mean | 95% interval | lowest to highest | seeds | chance |",
        "|---|---|---|---|---|---|---|",
    ]
    for model, theirs in RELEASED_CODE.items():
        own = rows[rows["model"] == model]
        values, (low, high) = own["value"], interval(own["value"])
        lines.append(
            f"| `{model}` | {theirs} | {values.mean():.3f} | {low:.3f} to {high:.3f} "
            f"| {values.min():.3f} to {values.max():.3f} | {values.notna().sum()} | {own['chance'].mean():.3f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Parse the arguments and do what they say."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["collect", "show"])
    parser.add_argument("outputs", type=Path, nargs="?", default=Path("outputs"))
    given = parser.parse_args()
    if given.what == "collect":
        collect(given.outputs).to_csv(RESULTS, index=False)
    print(table())


if __name__ == "__main__":
    main()
