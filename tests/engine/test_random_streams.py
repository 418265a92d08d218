"""Random streams, the rows that a seed sees, and the plan of a training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import nn

from ivae_lab.core.data import Batch, DataSpec, Splits
from ivae_lab.engine.datamodule import DataModule
from ivae_lab.engine.evaluate import encode
from ivae_lab.engine.options import Plan, Training
from ivae_lab.engine.random_streams import generator, normals, permutations
from ivae_lab.engine.shuffling import Shuffled
from ivae_lab.engine.stack import Stack
from ivae_lab.inference.trained_model import Trained
from ivae_lab.models.base import Model
from ivae_lab.tabular.preprocessing import Preprocessing
from tests.profiles import examples
from tests.running import TRAINING

CPU = torch.device("cpu")


def numbers(seed: int = 0, stream: str = "a", counter: int = 0) -> tuple[float, ...]:
    return tuple(torch.randn(4, generator=generator(seed, stream, counter)).tolist())


def test_a_stream_starts_from_seed_name_and_counter_alone() -> None:
    torch.manual_seed(5)
    before = numbers()
    torch.manual_seed(6)
    assert numbers() == before


def test_seeds_names_and_counters_have_streams_of_their_own() -> None:
    names = ("weights", "shuffling", "training noise", "posterior sample, train", "posterior sample, test")
    drawn = {numbers(s, name, c) for s in (0, 1, 2, 2**32 - 1) for name in names for c in (0, 1, 50)}
    assert len(drawn) == 4 * len(names) * 3


def test_seed_zero_is_a_seed() -> None:
    assert numbers(0) == numbers(0) != numbers(1)


def test_asking_draws_nothing_from_the_global_generator() -> None:
    state = torch.get_rng_state()
    normals([0, 1], "a", 0, (3,))
    permutations([0, 1], "a", 0, 3)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", ["normals", "permutations"])
def test_a_seed_draws_the_same_whoever_is_beside_it(kind: str) -> None:
    def draw(seeds: list[int]) -> torch.Tensor:
        return normals(seeds, "a", 3, (5, 2)) if kind == "normals" else permutations(seeds, "a", 3, 20)

    many = draw([7, 3, 0])
    assert torch.equal(draw([3])[0], many[1])
    assert torch.equal(draw([0, 3]), many[[2, 1]])
    assert not torch.equal(many[0], many[1])


def test_normals_are_standard() -> None:
    drawn = normals([0, 1], "a", 0, (20_000,))
    assert drawn.shape == (2, 20_000)
    assert drawn.mean(1).abs().max() < 0.03
    assert (drawn.std(1) - 1).abs().max() < 0.03
    assert abs(torch.corrcoef(drawn)[0, 1].item()) < 0.03


class Echo(Model):
    """Its sample is the noise that it is given."""

    latent_dim, noise_dim, u_dim = 2, 2, 0

    def __init__(self) -> None:
        super().__init__()
        self.prior = nn.Linear(1, 1)

    def bound(self, batch: Batch, noise: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"mean": 0 * noise, "sample": noise, "elbo": noise[:, 0]}

    def latents(self, batch: Batch, noise: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.bound(batch, noise)


def test_every_row_of_every_split_and_seed_has_a_posterior_sample_of_its_own() -> None:
    part = splits(30).train
    encoded = encode(Stack(Echo, [0, 1], CPU), Splits(part, part, part, splits(30).spec), CPU)
    drawn = np.concatenate([each.latents["sample"] for each in encoded], 1)
    assert drawn.shape == (2, 90, 2)
    assert len(np.unique(drawn)) == drawn.size


def test_every_block_of_new_rows_has_posterior_samples_of_its_own() -> None:
    trained = Trained(Echo(), splits(30).spec, Preprocessing(), seed=3)
    drawn = np.stack([trained.encode(splits(30).train, number)["sample"] for number in range(3)])
    assert len(np.unique(drawn)) == drawn.size
    assert np.array_equal(drawn[1], trained.encode(splits(30).train, 1)["sample"])


@pytest.mark.parametrize("rows", [1, 2, 17])
def test_permutations_are_permutations(rows: int) -> None:
    drawn = permutations([0, 1, 2], "a", 0, rows)
    assert torch.equal(drawn.sort(1).values, torch.arange(rows).expand(3, rows))


def splits(rows: int, first: float = 0.0) -> Splits:
    """Rows of x that count from `first`."""
    whole = Batch(torch.arange(first, first + rows).unsqueeze(1), None, None, torch.arange(rows))
    nothing = whole[:0]
    return Splits(whole, nothing, nothing, DataSpec(1, 0, None, rows, False))


def shuffled(rows: int, batch_size: int, seeds: list[int], first_row: int = 0) -> Shuffled:
    return Shuffled(seeds, torch.full((len(seeds),), first_row), rows, batch_size)


def epoch_rows(data: Shuffled, epoch: int) -> torch.Tensor:
    """All rows of an epoch, (S, steps, B)."""
    per_epoch = data.rows // data.batch_size
    return torch.stack([data.at(step) for step in range(epoch * per_epoch, (epoch + 1) * per_epoch)], 1)


@hypothesis_settings(max_examples=examples(30))
@given(rows=st.integers(1, 60), batch_size=st.integers(1, 60))
def test_an_epoch_visits_a_row_at_most_once_and_leaves_out_the_partial_batch(rows: int, batch_size: int) -> None:
    batch_size = min(batch_size, rows)
    data = shuffled(rows, batch_size, [0, 1])
    visited = epoch_rows(data, 1)
    assert visited.shape == (2, rows // batch_size, batch_size)
    for own in visited.flatten(1).tolist():
        assert len(set(own)) == len(own)
        assert set(own) <= set(range(rows))


def test_every_epoch_and_seed_has_an_order_of_its_own() -> None:
    data = shuffled(40, 8, [0, 1])
    orders = {tuple(order) for epoch in range(4) for order in epoch_rows(data, epoch).flatten(1).tolist()}
    assert len(orders) == 8


def test_what_is_left_out_differs_by_epoch() -> None:
    data = shuffled(11, 5, [0])
    assert {row for epoch in range(20) for row in epoch_rows(data, epoch).flatten().tolist()} == set(range(11))


def test_rows_do_not_depend_on_what_was_asked_before() -> None:
    data, again = shuffled(40, 8, [0, 1]), shuffled(40, 8, [0, 1])
    forwards = [data.at(step) for step in range(15)]
    backwards = [again.at(step) for step in reversed(range(15))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(forwards, backwards, strict=True))


def test_a_seed_sees_its_order_of_whichever_data_set_is_its_own() -> None:
    beside = Shuffled([0, 1, 0], torch.tensor([0, 40, 40]), 40, 8)
    for step in (0, 4, 7):
        alone = shuffled(40, 8, [0, 1]).at(step)
        assert torch.equal(beside.at(step), torch.stack([alone[0], alone[1] + 40, alone[0] + 40]))


def test_a_table_holds_each_data_set_once_in_its_order() -> None:
    one, other = splits(10), splits(10, first=100.0)
    data = DataModule([one, other, one, other], Plan(0, 100, 10, 10), 3, CPU)
    assert (data.rows, data.steps_per_epoch, data.first_rows) == (10, 3, [0, 10, 0, 10])
    assert torch.equal(data.table.x, torch.cat([one.train.x, other.train.x]))
    assert torch.equal(data.table.index, torch.arange(10).repeat(2))
    assert data.table.u is None


PLANS = st.builds(
    Plan,
    pretrain_steps=st.integers(0, 120),
    steps=st.integers(1, 300),
    chunk=st.integers(1, 90),
    history_points=st.integers(1, 50),
)


@hypothesis_settings(max_examples=examples(100))
@given(PLANS)
def test_chunks_cover_every_step_once_and_keep_phases_apart(plan: Plan) -> None:
    chunks = list(plan.chunks())
    assert [step for chunk in chunks for step in range(chunk.start, chunk.stop)] == list(range(plan.total))
    for chunk in chunks:
        assert 0 < chunk.stop - chunk.start <= plan.chunk
        assert chunk.pretraining == (chunk.stop <= plan.pretrain_steps)
        assert chunk.pretraining or chunk.start >= plan.pretrain_steps
    assert list(plan.chunks()) == chunks


@hypothesis_settings(max_examples=examples(100))
@given(PLANS)
def test_the_history_has_about_as_many_points_as_asked_for(plan: Plan) -> None:
    chunks = list(plan.chunks())
    recorded = [chunk.stop for chunk in chunks if chunk.record]
    assert recorded[-1] == plan.total
    assert not plan.pretrain_steps or plan.pretrain_steps in recorded
    assert len(recorded) <= min(len(chunks), 2 * plan.history_points + 2)
    # Chunks are whole, so points can lie up to 1.5 times as far apart as asked for; fewer only if chunks are fewer.
    assert len(recorded) >= min(len(chunks), plan.history_points) * 0.6 - 1


def test_what_remains_after_a_stop_is_the_end_of_the_same_plan() -> None:
    data = DataModule([splits(40)], Plan(0, 100, 10, 10), 8, CPU)
    whole = list(data.train_dataloader())
    data.first_step = whole[3].stop
    assert list(data.train_dataloader()) == whole[4:]
    assert len(data.train_dataloader()) == len(whole) - 4


def make_training(steps: int | None, epochs: int | None, batch_size: int = 10) -> Training:
    return replace(TRAINING, steps=steps, epochs=epochs, batch_size=batch_size)


def test_the_length_is_steps_or_epochs_of_full_batches() -> None:
    assert make_training(7, None).total_steps(25) == 7
    assert make_training(None, 3).total_steps(25) == 6
    assert make_training(None, 3).steps_per_epoch(29) == 2
    for steps, epochs in ((None, None), (1, 1)):
        with pytest.raises(ValueError, match=f"exactly one of steps and epochs, got steps={steps}, epochs={epochs}"):
            make_training(steps, epochs)
    with pytest.raises(ValueError, match="batch_size of at most the 9 rows of the training data, got 10"):
        make_training(1, None).total_steps(9)
