"""Track the matrix L (models/identifiability.py) of each seed's prior, and restore its rank if configured."""

from __future__ import annotations

import torch
from torch import Tensor

from ivae_lab.engine.random_streams import normals
from ivae_lab.engine.stack import Stack
from ivae_lab.models.base import Model
from ivae_lab.models.identifiability import Noise, Penalty, applies, rank, rank_and_condition


def check_device(model: Model, device: torch.device) -> None:
    """Refuse a model that cannot be trained on the device.

    Raises
    ------
    ValueError
        For a penalty on a GPU, whose steps are recorded as CUDA graphs: a decomposition waits for the host.
    """
    if isinstance(model.identifiability, Penalty) and device.type == "cuda":
        raise ValueError("expected compute.device=cpu for model.identifiability=penalty, got cuda")


def shortfall(model: Model) -> str | None:
    """Return one line of explanation if the theory does not apply to a prior with a matrix L, else None."""
    differences = model.natural_differences()
    if differences is None or applies(differences):
        return None
    rows, columns = differences.shape
    return (
        f"the identifiability theory needs {rows + 1} values of u for {rows} natural parameters, the prior has "
        f"{columns + 1}: L of {rows} x {columns} is tracked, but cannot be invertible"
    )


def measured(stack: Stack) -> list[dict[str, float]]:
    """`l_rank` and `l_condition` of L for each seed; NaN where there is no L, or the seed diverged."""
    differences = _differences(stack)
    if differences is None:
        return [{"l_rank": float("nan"), "l_condition": float("nan")} for _ in stack.seeds]
    ranks, conditions = (measure.tolist() for measure in rank_and_condition(differences))
    return [{"l_rank": full, "l_condition": condition} for full, condition in zip(ranks, conditions, strict=True)]


def restore_ranks(stack: Stack, step: int) -> list[int]:
    """Add noise, from the stream of seed and step, where L lacks rank; return the seeds that got noise."""
    measure = stack.template.identifiability
    if not isinstance(measure, Noise):
        return []
    differences = _differences(stack)
    assert differences is not None  # the model has checked it
    rows, columns = differences.shape[1:]
    lacking = (rank(differences) < min(rows, columns)).nonzero().flatten().tolist()
    for position in lacking:
        (noise,) = normals([stack.seeds[position]], "identifiability noise", step, (columns + 1, rows))
        model = stack.model(position)
        model.add_noise(measure.noise_std * noise.to(differences.device))
        stack.replace(position, model)
    return [stack.seeds[position] for position in lacking]


def _differences(stack: Stack) -> Tensor | None:
    """L of each seed: (S, n k, M - 1)."""
    if stack.template.natural_differences() is None:
        return None
    differences: Tensor = stack.map("natural_differences", None)
    return differences.double()
