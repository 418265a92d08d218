"""How exactly trained flows are inverted: the largest |x - f(g(x))| in float32 and in float64.

    python scripts/gin_inverse.py RUN...

RUN is a run folder of a flow. Takes the trained weights of the first seed from its checkpoint, and the first 1,000 rows
of its data (of the split that is scored last); prints a line for each run and the largest errors of each model.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import torch
from omegaconf import DictConfig, OmegaConf

from ivae_lab.engine.building import build_model, draw_data
from ivae_lab.models.flow import Flow

ROWS = 1000


def errors(folder: Path) -> dict[str, float]:
    """The largest error over the rows, in each precision."""
    config = OmegaConf.load(folder / "config.yaml")
    assert isinstance(config, DictConfig)
    splits = draw_data(config)
    model = build_model(config, splits.spec)
    if not isinstance(model, Flow):
        raise SystemExit(f"expected the run folder of a flow, got one of {type(model).__name__} in {folder}")
    path = folder / "checkpoints" / "last.ckpt"
    state = torch.load(path, map_location="cpu", weights_only=True)["state"]
    model.load_state_dict({name: value[0] for kind in ("parameters", "buffers") for name, value in state[kind].items()})
    rows = [part for name, part in splits.items() if name in splits.scored][-1][torch.arange(ROWS)]
    found = {}
    with torch.no_grad():
        for dtype in (torch.float32, torch.float64):
            flow, x = model.to(dtype), model.observed(rows).to(dtype)
            z, _ = flow.transform(x)
            found[str(dtype).removeprefix("torch.")] = (flow.transform.inverse(z) - x).abs().max().item()
    return found


def main() -> None:
    """Print the table."""
    if not sys.argv[1:]:
        raise SystemExit(__doc__)
    records = []
    for folder in map(Path, sys.argv[1:]):
        records.append({"run": folder.name, "model": folder.name.rsplit("-", 2)[1], **errors(folder)})
        print("{run}: float32 {float32:.1e}, float64 {float64:.1e}".format_map(records[-1]), flush=True)
    print(pd.DataFrame(records).groupby("model")[["float32", "float64"]].max().map("{:.1e}".format))


if __name__ == "__main__":
    main()
