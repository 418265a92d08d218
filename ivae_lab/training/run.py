"""One run: builds its data and models from a configuration, and writes trained models and results to its folder."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from ivae_lab.config.build import ConfigError
from ivae_lab.config.digests import cell_digest, digest, run_digest
from ivae_lab.core.data import Splits
from ivae_lab.engine.building import build_model, draw_data, named
from ivae_lab.engine.checkpoint_files import SETTLED, forget_checkpoints, load_checkpoint
from ivae_lab.engine.evaluate import Encoded, encode, examples, settle
from ivae_lab.engine.member import HISTORY, RunMember
from ivae_lab.engine.options import Compute, Plan, Training
from ivae_lab.engine.prior_rank import check_device, shortfall
from ivae_lab.engine.spec_json import to_plain
from ivae_lab.engine.stack import Stack
from ivae_lab.metrics.check import Check
from ivae_lab.metrics.resampling import CheckingMetric, Estimate, LimitedMetric, PairMetric
from ivae_lab.runs.agreement_csv import FILE, score_pairs, write_pairs
from ivae_lab.runs.folder import CHECKS, read_status, seal, write_status
from ivae_lab.runs.results_csv import Row, write_results
from ivae_lab.storage.atomic import atomic
from ivae_lab.terminal.lazy import Later
from ivae_lab.training.provenance import environment, restarts

if TYPE_CHECKING:  # a run that is refused needs neither, and Lightning takes seconds
    import pandas as pd
    from lightning.pytorch.loggers import Logger
else:
    pd = Later("pandas")

State = Literal["done", "diverged"]
SingleMetric = Callable[[Estimate], list[Row]] | CheckingMetric
_TRIED_ROWS = 500


@dataclass(frozen=True)
class Settings:
    """The checked settings of a run."""

    config: DictConfig  # the composed configuration, without Hydra's own part
    seeds: list[int]
    data_seed: int
    folder: Path
    title: str  # "<data> <model>", for figures
    logger: Literal["csv", "wandb"]
    compute: Compute
    training: Training
    metrics: dict[str, SingleMetric | PairMetric]

    def plain(self) -> dict[str, Any]:
        """The resolved configuration as plain values."""
        return OmegaConf.to_container(self.config, resolve=True)  # type: ignore[return-value]

    @property
    def fingerprint(self) -> str:
        """Digest of all settings that change numbers."""
        return run_digest(self.plain(), self.seeds)


def plan_of(stack: Stack, training: Training, train_rows: int) -> Plan:
    """Plan the optimiser steps of a run; models without parameters, which only `settle`, take none."""
    steps = training.total_steps(train_rows) if stack.parameters else 0
    return Plan(stack.template.pretrain_steps, steps, training.chunk, training.history_points)


@dataclass
class TrainingRun:
    """One run: its data, its models, and its folder.

    Building the parts finds every error of the configuration, before the folder exists.
    """

    settings: Settings
    console: Console
    drawn: dict[str, Splits] = field(default_factory=dict)  # data sets that other runs have drawn, by their digest
    splits: Splits = field(init=False)
    stack: Stack = field(init=False)
    plan: Plan = field(init=False)
    resumed: int = field(default=0, init=False)  # times that it was continued from a checkpoint

    def __post_init__(self) -> None:
        settings, training = self.settings, self.settings.training
        data = digest(settings.plain()["data"])
        if data not in self.drawn:
            self.drawn[data] = draw_data(settings.config)
        self.splits = self.drawn[data]
        device = settings.compute.torch_device()
        resolved = OmegaConf.create(settings.plain())  # once, not for each seed
        self.stack = Stack(lambda: build_model(resolved, self.splits.spec), settings.seeds, device)
        with named("model.identifiability"):
            check_device(self.stack.template, device)
        with named("trainer"):
            self.plan = plan_of(self.stack, training, len(self.splits.train))
        self._try_metrics()

    def _try_metrics(self) -> None:
        """Score made-up latents of the right dimensions, so that an impossible metric is found before training."""
        generator = np.random.default_rng(0)
        limited: Mapping[str, object] = self.settings.metrics
        for name, each in limited.items():
            if isinstance(each, LimitedMetric):  # first, as scoring imports SciPy
                with named(f"metric.{name}"):
                    each.check_dimensions(self.stack.template.latent_dim, self.splits.spec.source_dim)
        for _, part in self.splits.items():
            rows = min(len(part), _TRIED_ROWS)
            latents = generator.normal(size=(rows, self.stack.template.latent_dim))
            sources = None if part.z is None else generator.normal(size=(rows, part.z.shape[1]))
            estimate = Estimate(latents, latents, sources, None, np.arange(rows), {})
            for name, metric in self.settings.metrics.items():
                with named(f"metric.{name}"):
                    if isinstance(metric, PairMetric):
                        metric.pairs({0: estimate, 1: estimate})
                    else:
                        _answer(metric, estimate)

    @property
    def checkpoint(self) -> Path:
        """Path of its checkpoint, which need not exist."""
        return self.settings.folder / "checkpoints" / "last.ckpt"

    def begin(self) -> dict[str, Any] | None:
        """Write the files that are known before the training; return the checkpoint to continue from, or None.

        With `force` there is no checkpoint, except where a scheduler restarts the same job; earlier results stay until
        the new ones are written.
        """
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        with atomic(self.settings.folder / "config.yaml") as temporary:
            temporary.write_text(OmegaConf.to_yaml(self.settings.config, resolve=True))
        with atomic(self.settings.folder / "network.csv") as temporary:
            pd.DataFrame(self.stack.shapes()).to_csv(temporary, index=False)
        with atomic(self.settings.folder / "spec.json") as temporary:
            temporary.write_text(json.dumps(to_plain(self.splits.spec)) + "\n")
        with atomic(self.settings.folder / "recipe.json") as temporary:
            temporary.write_text(self.splits.recipe.to_json())
        if self.settings.config.force and not restarts():
            forget_checkpoints(self.checkpoint)
        snapshot, damaged = load_checkpoint(self.checkpoint, self.settings.fingerprint, ConfigError)
        for line in damaged:
            self.console.print(line, soft_wrap=True, highlight=False)
        if snapshot is not None:
            with suppress(OSError, ValueError):
                self.resumed = int(read_status(self.settings.folder).get("resumed", 0)) + 1
        self.write_status("running")
        return snapshot

    def loggers(self) -> list[Logger]:
        """Loggers that get its history beside history.csv."""
        if self.settings.logger == "csv":
            return []
        from ivae_lab.training.wandb_logger import wandb_logger

        return [wandb_logger(self.settings.folder, self.settings.plain())]

    def finish(self, member: RunMember, seconds: float, compiled: bool, together: int) -> State:
        """Encode, score, and write all results; return the final state.

        `seconds` is the run's part of the time if `together` models were trained at once.
        """
        path, seeds = self.settings.folder, self.settings.seeds
        settle(self.stack, self.splits.train)
        if self.stack.template.settles:
            self._save_settled()
        encoded = encode(self.stack, self.splits, self.settings.compute.torch_device())
        for position, seed in enumerate(seeds):
            if not all(np.isfinite(part.latents["mean"][position]).all() for part in encoded):
                member.diverged.setdefault(seed, self.plan.total)
        _write_arrays(path / "latents.npz", _latents(encoded, seeds))
        image, device = self.splits.spec.image, self.settings.compute.torch_device()
        shown = examples(self.stack, encoded[-1].rows, image, device)
        _write_arrays(path / "examples.npz", {"seed": np.array(seeds), **shown})
        with atomic(path / "history.csv") as temporary:
            pd.DataFrame(member.history, columns=HISTORY).to_csv(temporary, index=False)
        rows, checks = self._score(encoded, member.diverged)
        write_results(path / "results.csv", rows)
        if checks:
            with atomic(path / CHECKS) as temporary:
                temporary.write_text(json.dumps(checks, indent=1) + "\n")
        if pairs := self._score_pairs(encoded, member.diverged):
            write_pairs(path / FILE, pairs)
        if not rows and not pairs:
            note = f"no scores: metric=[{','.join(self.settings.metrics)}] has nothing to say of this model and data"
            self.console.print(note, soft_wrap=True, highlight=False)
        if self.splits.train.z is not None:
            from ivae_lab.plots.recovered import recovered

            recovered(path, path / "recovered", self.settings.title)
        elif self.splits.train.u is not None and image is None:
            from ivae_lab.plots.latents_by_u import latents_by_u

            latents_by_u(path, path / "latents", self.settings.title)
        if image is not None:
            from ivae_lab.plots.image_examples import image_examples

            image_examples(path, path / "examples", self.settings.title)
        state: State = "diverged" if member.diverged else "done"
        self.write_status(
            state,
            seconds=round(seconds, 2),
            compiled=compiled,
            trained_together=together,
            identifiability={"shortfall": shortfall(self.stack.template), "noised": member.noised},
            files=seal(path),
            diverged={str(seed): step for seed, step in member.diverged.items()},
            error=_divergence(member.diverged) if member.diverged else None,
        )
        forget_checkpoints(self.checkpoint, but_last=True)
        return state

    def _save_settled(self) -> None:
        """Save fitted models separately: last.ckpt still holds the state before `settle`, for a run killed here."""
        kinds = {"parameters": self.stack.parameters, "buffers": self.stack.buffers}
        state = {kind: {name: value.clone() for name, value in values.items()} for kind, values in kinds.items()}
        with atomic(self.checkpoint.with_name(SETTLED)) as temporary:
            torch.save({"fingerprint": self.settings.fingerprint, "state": state}, temporary)

    def _score(self, encoded: list[Encoded], diverged: dict[int, int]) -> tuple[list[Row], list[Row]]:
        """Rows of results.csv, and the checks, in words and numbers, of the last split that is scored."""
        rows: list[Row] = []
        checked: list[Row] = []
        for position, seed in enumerate(self.settings.seeds):
            fixed: Row = {"seed": seed, "data_seed": self.settings.data_seed}
            if seed in diverged:
                fixed["state"] = "diverged"
            for part in encoded:
                estimate = part.estimate(position)
                for metric in self.settings.metrics.values():
                    if isinstance(metric, PairMetric):
                        continue
                    scores, checks = _answer(metric, estimate)
                    rows += [{**row, **fixed, "split": part.split} for row in scores]
                    if part is encoded[-1]:
                        checked += [{"seed": seed, "split": part.split, **check.as_row()} for check in checks]
        return rows, checked

    def _score_pairs(self, encoded: list[Encoded], diverged: dict[int, int]) -> list[Row]:
        """Rows of the metrics of pairs; a single seed has none."""
        rows, seeds = [], self.settings.seeds
        for part in encoded:
            estimates = {seed: part.estimate(position) for position, seed in enumerate(seeds)}
            fixed: Row = {"data_seed": self.settings.data_seed, "split": part.split}
            for metric in self.settings.metrics.values():
                if isinstance(metric, PairMetric):
                    rows += score_pairs(metric, estimates, diverged, fixed)
        return rows

    def write_status(self, state: str, **more: Any) -> None:
        """Write status.json."""
        settings, plain = self.settings, self.settings.plain()
        status = {
            "state": state,
            "error": None,
            "seeds": settings.seeds,
            "data_seed": settings.data_seed,
            "run": settings.fingerprint,
            "cell": cell_digest(plain),
            "device": str(settings.compute.torch_device()),
            "threads": torch.get_num_threads(),
            "resumed": self.resumed,
            "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            **environment(),
            **more,
        }
        write_status(settings.folder, status)


def _answer(metric: SingleMetric, estimate: Estimate) -> tuple[list[Row], list[Check]]:
    """Compute a metric for one seed and split: its rows, and the checks behind them, if it is a checking metric."""
    if isinstance(metric, CheckingMetric):
        checks = metric.checks(estimate)
        return estimate.rows_of(checks), checks
    return metric(estimate), []


def _divergence(diverged: dict[int, int]) -> str:
    named = ", ".join(f"seed {seed} by step {step}" for seed, step in diverged.items())
    return f"not finite any more: {named}"


def _latents(encoded: list[Encoded], seeds: list[int]) -> dict[str, np.ndarray[Any, Any]]:
    arrays = {
        name: np.concatenate([part.latents[name] for part in encoded], 1) for name in encoded[0].latents
    }  # (S, N, ...)
    for name, key in (("sources", "z"), ("u", "u"), ("index", "index")):
        values = [getattr(part.rows, key) for part in encoded]
        if values[0] is not None:
            arrays[name] = torch.cat(values).cpu().numpy()
    for name in ("positions", "facets"):
        if (count := getattr(encoded[0], name)) > 1:
            arrays[name] = np.array(count)
    if encoded[0].facets > 1 and encoded[0].rows.x.dtype == torch.uint8:  # so that plots show the images of clusters
        arrays["x"] = torch.cat([part.rows.x for part in encoded]).cpu().numpy()
    arrays["split"] = np.concatenate([np.full(len(part.rows), part.split) for part in encoded])
    return arrays | {"seed": np.array(seeds)}


def _write_arrays(path: Path, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
    with atomic(path) as temporary, temporary.open("wb") as handle:
        np.savez(handle, **arrays)  # type: ignore[arg-type]


def prepare(compute: Compute) -> None:
    """Set threads and determinism of PyTorch in this process."""
    if compute.threads is not None:
        torch.set_num_threads(compute.threads)
    # Sums whose order depends on the threads would not be bit-identical after a resume.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_deterministic_debug_mode("warn" if compute.torch_device().type == "cuda" else "error")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # nothing here reads what it has not written
