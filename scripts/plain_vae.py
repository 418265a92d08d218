"""A second opinion on `vae_released`: the same training as a plain program, one model after another.

`python scripts/plain_vae.py --models 10 --csv FILE` trains the VAE of khemakhem2020's released configuration (weights
1000/1/1/1, decoder variance .1, Adam at .01, ReduceLROnPlateau) on its data set with nothing of the engine: one
nn.Sequential each, a DataLoader, torch.optim.Adam, autograd. What it shows is the spread between seeds of a model that
is not identifiable; three runs of the released code, or of ours, are three draws from it.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import pandas as pd
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from ivae_lab.config.build import build
from ivae_lab.config.overrides import run_config
from ivae_lab.core.data import Splits
from ivae_lab.metrics.mcc import mean_correlation

LIKELIHOOD_WEIGHT, DECODER_VARIANCE, EPOCHS, BATCH = 1000.0, 0.1, 20, 64


class LeakyTanh(nn.Module):
    """tanh(h) + .1 h."""

    def forward(self, h: Tensor) -> Tensor:
        """Elementwise."""
        return h.tanh() + 0.1 * h


def network(n: int) -> nn.Sequential:
    """Three layers of width 100 from n to n."""
    return nn.Sequential(nn.Linear(n, 100), LeakyTanh(), nn.Linear(100, 100), LeakyTanh(), nn.Linear(100, n))


def log_normal(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Log-density of each dimension."""
    return -0.5 * (math.log(2 * math.pi) + variance.log() + (x - mean) ** 2 / variance)


def train(splits: Splits) -> tuple[nn.Module, nn.Module, float]:
    """Train one VAE; its mean network, its log-variance network, and the last epoch's mean loss."""
    x, n = splits.train.x, splits.spec.x_dim
    decoder, mean, log_variance = network(n), network(n), network(n)
    parameters = [*decoder.parameters(), *mean.parameters(), *log_variance.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=0.01)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=0)
    loader = DataLoader(TensorDataset(x), BATCH, shuffle=True, drop_last=True)
    epoch_loss = math.nan
    for _ in range(EPOCHS):
        total = 0.0
        for (batch,) in loader:
            optimizer.zero_grad()
            m, v = mean(batch), log_variance(batch).exp()
            z = m + v.sqrt() * torch.randn_like(m)
            log_likelihood = log_normal(batch, decoder(z), torch.tensor(DECODER_VARIANCE)).sum(-1)
            # With b = c = d = 1 the minibatch estimates of log q(z) cancel.
            kl = (log_normal(z, m, v) - log_normal(z, torch.zeros(()), torch.ones(()))).sum(-1)
            loss = -(LIKELIHOOD_WEIGHT * log_likelihood - kl).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.item()
        epoch_loss = total / len(loader)
        schedule.step(epoch_loss)
    return mean, log_variance, epoch_loss


def main() -> None:
    """Train the models one after another, as the released code does, and print the MCC of each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of PyTorch's generator, once at the start")
    parser.add_argument("--csv", type=Path, required=True)
    given = parser.parse_args()
    data = run_config("data=tcl_khemakhem_released").data
    # Not by the engine's own function: importing the engine changes how MKL rounds, and with it the digits.
    splits = build(OmegaConf.masked_copy(data, [key for key in data if key != "seed"]), "data")(data.seed)
    sources = splits.train.z
    assert sources is not None  # this data set knows them
    torch.set_num_threads(1)
    torch.manual_seed(given.seed)
    rows = []
    for number in range(given.models):
        mean, log_variance, loss = train(splits)
        with torch.no_grad():
            m, v = mean(splits.train.x), log_variance(splits.train.x).exp()
            z = m + v.sqrt() * torch.randn_like(m)
        mcc = mean_correlation(z.numpy(), sources.numpy())
        rows.append({"generator_seed": given.seed, "model": number, "mcc_sample_strong_pearson": mcc, "loss": loss})
        print(rows[-1], flush=True)
        pd.DataFrame(rows).to_csv(given.csv, index=False)


if __name__ == "__main__":
    main()
