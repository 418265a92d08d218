"""Many seeds at once are the same as one at a time: parameters, numbers, and what happens when one of them fails."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from functools import cache
from pathlib import Path

import pytest
import torch
from rich.console import Console

from ivae_lab.config.paths import CONFIG
from ivae_lab.core.data import Splits
from ivae_lab.engine.building import build_model
from ivae_lab.engine.datamodule import DataModule
from ivae_lab.engine.evaluate import encode, posterior_means
from ivae_lab.engine.module import SeedsModule
from ivae_lab.engine.options import Compute, Plan
from ivae_lab.engine.shuffling import Shuffled
from ivae_lab.engine.stack import Parameters, Stack
from ivae_lab.runs.arrays import read_latents
from ivae_lab.runs.folder import read_status
from ivae_lab.runs.results_csv import COLUMNS, read_results
from ivae_lab.training.group import execute
from ivae_lab.training.run import TrainingRun, prepare
from tests.profiles import THOROUGH
from tests.running import FITTED, SMALL, advance, difference, doubles, make_module, make_run, scores, trained

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
# Of those that are fitted contracts/test_configurations.py holds every bit.
MODELS = sorted({path.stem for path in (CONFIG / "model").glob("*.yaml")} - {*FITTED})
QUICK = (*SMALL, "model=ivae_paper", "trainer.steps=40", "trainer.chunk=10", "model.encoder.hidden=16")
PRETRAINED = (*SMALL, "model=vade_pretrained", "model.pretrain_steps=60", "trainer.steps=60", "prior.components=4")


@cache
def quick(seeds: str) -> SeedsModule:
    return trained(*QUICK, f"seed={seeds}")


def of_seed(module: SeedsModule, seed: int) -> Parameters:
    position = module.stack.seeds.index(seed)
    return {name: value[position] for name, value in module.stack.parameters.items()}


def test_a_seed_is_the_same_alone_and_beside_others() -> None:
    assert difference(of_seed(quick("[0,1,2,3,4]"), 3), of_seed(quick("3"), 3)) <= 1e-5


def test_the_order_of_the_seeds_does_not_matter() -> None:
    for seed in (0, 1, 3):
        assert difference(of_seed(quick("[0,1,3]"), seed), of_seed(quick("[3,0,1]"), seed)) <= 1e-5


def test_seeds_really_differ() -> None:
    start, end = make_module(make_run(*QUICK, "seed=[0,1,2]")), quick("[0,1,3]")
    for name, value in start.stack.parameters.items():
        assert not torch.equal(value[0], value[1]), name
        assert not torch.equal(value[1], value[2]), name
    assert difference(of_seed(end, 0), of_seed(end, 1)) > 0.01


def test_training_moves_every_parameter() -> None:
    start, end = make_module(make_run(*QUICK, "seed=[0,1,3]")), quick("[0,1,3]")
    for name, value in start.stack.parameters.items():
        moved = (value - end.stack.parameters[name]).abs().flatten(1).amax(1)
        assert (moved > 1e-4).all(), name


def test_building_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    made = make_run(*QUICK, "seed=[0,1]")
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(9)
    again = make_run(*QUICK, "seed=[0,1]")
    assert all(torch.equal(value, again.stack.parameters[name]) for name, value in made.stack.parameters.items())


def test_noise_and_history_are_a_seeds_own() -> None:
    """Rounding apart, the recorded loss of seed 3 is the same: it saw the same rows and noise."""
    recorded = []
    for module in (make_module(make_run(*QUICK, "seed=[0,3]")), make_module(make_run(*QUICK, "seed=3"))):
        advance(module, 20)
        (rows,) = module.record([[None] * len(module.stack.seeds)])
        recorded += [next(row for row in rows if row["seed"] == 3)]
    assert recorded[0]["loss"] == pytest.approx(recorded[1]["loss"], rel=1e-6)
    assert recorded[0]["epoch"] == pytest.approx(20 / 12)


def test_a_scalar_parameter_trains_with_clipping() -> None:
    module = trained(*QUICK, "seed=[0,1]", "model.likelihood.learned=true", "trainer.clip_norm=1.0", "trainer.steps=50")
    learned = module.stack.parameters["likelihood.log_variance"]
    assert learned.shape == (2,)
    assert (learned != torch.log(torch.tensor(0.01))).all()
    assert not module.members[0].diverged


@cache
def poisoned() -> SeedsModule:
    """Seed 1 of 0, 1, 3 is poisoned after 20 of 40 steps."""
    module = advance(make_module(make_run(*QUICK, "seed=[0,1,3]")), 20)
    next(iter(module.stack.parameters.values()))[1] = torch.nan
    return advance(module)


def test_a_diverged_seed_leaves_the_others_bit_identical() -> None:
    for seed in (0, 3):
        for name, value in of_seed(quick("[0,1,3]"), seed).items():
            assert torch.equal(value, of_seed(poisoned(), seed)[name])


def test_divergence_is_noted_with_the_step() -> None:
    assert quick("[0,1,3]").members[0].diverged == {}
    assert poisoned().members[0].diverged == {1: 30}


def run_poisoned(folder: Path) -> TrainingRun:
    """A run whose checkpoint, half way, holds a seed that is not a number any more."""
    from ivae_lab.training.callbacks import Checkpoints

    prepare(Compute("cpu", 1, False, 0))
    arguments = (*QUICK, "seed=[0,1]", f"outputs={folder}", "data.split=[.8,0,.2]")
    begun = make_run(*arguments)
    module = advance(make_module(begun), 20)
    for value in module.stack.parameters.values():
        value[1] = torch.nan
    begun.checkpoint.parent.mkdir(parents=True)
    Checkpoints([(module.members[0], begun.checkpoint, begun.settings.fingerprint, 0.0)], 0).write(module)
    return make_run(*arguments)


def test_a_diverged_seed_stays_in_every_file(tmp_path: Path) -> None:
    run = run_poisoned(tmp_path)
    assert execute([run], Console(quiet=True)) == ["diverged"]
    folder = run.settings.folder
    status, rows, latents = read_status(folder), read_results(folder), read_latents(folder)
    assert (status["state"], status["diverged"]) == ("diverged", {"1": 30})
    assert "seed 1 by step 30" in status["error"]
    bad, good = rows[rows["seed"] == 1], rows[rows["seed"] == 0]
    assert (bad["state"] == "diverged").all()
    assert bad["value"].isna().all()
    assert (good["state"] == "done").all()
    assert good["value"].notna().all()
    assert len(bad) == len(good) > 0
    assert set(rows["split"]) == {"train", "test"}
    assert tuple(rows.columns) == COLUMNS
    assert "nan" not in (folder / "results.csv").read_text().lower()  # empty, not a word
    assert torch.isnan(torch.from_numpy(latents["mean"][1])).all()
    assert torch.isfinite(torch.from_numpy(latents["mean"][0])).all()


def test_data_without_u_train_and_score() -> None:
    """TCL always has u, so it is taken away here."""
    run = make_run(*SMALL, "model=vade", "trainer.steps=40", "prior.components=3", "seed=[0,1]")

    def without(splits: Splits) -> Splits:
        train, valid, test = (dataclasses.replace(part, u=None) for part in (splits.train, splits.valid, splits.test))
        return Splits(train, valid, test, dataclasses.replace(splits.spec, u_dim=0))

    run.splits = without(run.splits)
    run.stack = Stack(lambda: build_model(run.settings.config, run.splits.spec), [0, 1], CPU)
    module = advance(make_module(run))
    (encoded,) = encode(run.stack, run.splits, CPU)
    assert encoded.estimate(0).u is None
    assert not module.members[0].diverged
    reference = trained(*SMALL, "model=vade", "trainer.steps=40", "prior.components=3", "seed=[0,1]")
    assert difference(of_seed(module, 1), of_seed(reference, 1)) == 0  # VaDE does not read u


class TestPretraining:
    def test_every_seed_fits_its_own_mixture(self) -> None:
        module = advance(make_module(make_run(*PRETRAINED, "seed=[0,1]")), 60)
        before = {name: value.clone() for name, value in module.stack.parameters.items()}
        codes = posterior_means(module.stack, module.data.table, torch.arange(module.data.rows))
        module._begin_main_phase()
        means, weights = module.stack.parameters["prior.mean"], module.stack.parameters["prior.logits"].exp()
        assert (means[0] - means[1]).abs().max() > 0.01
        assert weights.sum(1).tolist() == pytest.approx([1, 1], abs=1e-5)
        # The maximum-likelihood mixture has the mean of what it was fitted to.
        assert torch.allclose((weights.unsqueeze(-1) * means).sum(1), codes.mean(1), atol=1e-3)
        for name, value in before.items():
            assert torch.equal(value, module.stack.parameters[name]) == (not name.startswith("prior.")), name
        assert not any(value.any() for kind in ("first", "second") for value in module.state[kind].values())

    @pytest.mark.parametrize("stop", [20, 60, 80])
    def test_continues_bit_for_bit_in_and_between_the_phases(self, stop: int) -> None:
        import copy

        whole = self.whole()
        begun = advance(make_module(make_run(*PRETRAINED, "seed=[0,1]")), stop)
        snapshot = copy.deepcopy(begun.snapshot(begun.members[0]))
        continued = make_module(make_run(*PRETRAINED, "seed=[0,1]"))
        continued.restore(continued.members[0], snapshot)
        assert continued.step == stop
        advance(continued)
        for name, value in whole.stack.parameters.items():
            assert torch.equal(value, continued.stack.parameters[name]), name

    @staticmethod
    @cache
    def whole() -> SeedsModule:
        return trained(*PRETRAINED, "seed=[0,1]")

    def test_a_seed_that_diverges_before_the_fit_stays_nan_and_the_others_go_on(self) -> None:
        module = advance(make_module(make_run(*PRETRAINED, "seed=[0,1]")), 40)
        for value in module.stack.parameters.values():
            value[0] = torch.nan
        advance(module)
        assert module.members[0].diverged == {0: 60}
        for name, value in of_seed(self.whole(), 1).items():
            assert torch.equal(value, of_seed(module, 1)[name])


STEPS, ALONE = (100, (1, 4)) if THOROUGH else (14, (3,))  # an epoch has 12; of 5 seeds, those trained alone too
IMAGES = (
    "data=digits",
    "data.train_rows=128",
    "data.test_rows=50",
    "trainer.batch_size=16",
    f"trainer.steps={max(4, STEPS // 5)}",
)
# Where a gradient is nothing but rounding, Adam makes a step of it, unless eps is above rounding: convolutions of one
# model and of many are rounded differently.
CALM = ("trainer.epochs=null", "trainer.chunk=5", "trainer.eps=0.01")


def family(model: str) -> tuple[str, ...]:
    """Some steps of a model as its YAML has it, on small data; of images fewer (networks/test_images.py: more)."""
    if model.startswith(("gin_images", "glow_images")):
        grey = ("data.binarisation=none", "data.test_binarisation=none")
        return (f"model={model}", *IMAGES, *grey, *CALM, "model.transform.hidden=32")
    if model.removesuffix("_released").endswith("_images"):
        return (f"model={model}", *IMAGES, *CALM, "model/networks=mlp")
    if model == "mfcvae":
        return (f"model={model}", *IMAGES, *CALM, "model.encoder.widths=[24,32]", "prior.components=5")
    if model in ("rvqvae", "ae"):
        return (f"model={model}", *IMAGES, *CALM, "model.encoder.channels=8")
    if model == "exact":
        return (
            f"model={model}",
            "data=gmm_relu",
            "data.points=500",
            "trainer.batch_size=64",
            f"trainer.steps={STEPS // 2}",
            *CALM,
        )
    if model == "ivae_counts":
        sizes = ("data.points=800", "trainer.batch_size=64", f"trainer.steps={STEPS // 2}", "metric=[mcc,elbo]")
        return (f"model={model}", "data=spikes", *sizes, *CALM)
    steps = (f"trainer.steps={STEPS}", "trainer.epochs=null", f"trainer.chunk={STEPS // 2}")
    cheap = tuple(f"metric.{name}.chance_draws=1" for name in ("mcc", "mcc_weak", "linear_r2"))
    half = (f"model.pretrain_steps={STEPS // 2}", f"trainer.steps={STEPS // 2}")
    pretraining = half if model == "vade_pretrained" else ()
    return (f"model={model}", *SMALL, *steps, *cheap, *pretraining)


@pytest.mark.parametrize("model", MODELS)
def test_every_model_is_the_same_stacked_and_alone(model: str) -> None:
    """Parameters within 1e-5 and metrics within 1e-4, seeds 0 to 4 together against some of them alone.

    Deep networks of images in doubles, the others as they are trained. 14 steps, in `make test-thorough` 100.
    """
    with doubles() if set(IMAGES) <= set(family(model)) else nullcontext():
        compare_with_alone(model)


def compare_with_alone(model: str) -> None:
    together = make_run(*family(model), "seed=[0,1,2,3,4]")
    many = advance(make_module(together))
    values = scores(together)
    for seed in ALONE:
        alone = make_run(*family(model), f"seed={seed}")
        one = advance(make_module(alone))
        assert difference(of_seed(many, seed), of_seed(one, seed)) <= 1e-5
        own = scores(alone)
        assert {key: values[key] for key in own} == pytest.approx(own, abs=1e-4)
    assert difference(of_seed(many, 0), of_seed(many, 1)) > 1e-3


def test_the_data_module_of_a_run_is_its_own() -> None:
    """The partial batch is dropped: 800 rows are 12 batches of 64."""
    run = make_run(*QUICK, "seed=0")
    data = DataModule([run.splits], Plan(0, 10, 5, 1), 64, CPU)
    shuffled = Shuffled([0], torch.tensor(data.first_rows), data.rows, data.batch_size)
    assert (data.steps_per_epoch, shuffled.at(11).shape) == (12, (1, 64))
    assert not set(shuffled.at(11)[0].tolist()) & set(shuffled.at(10)[0].tolist())
