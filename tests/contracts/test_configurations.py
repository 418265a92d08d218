"""What every component holds, found by globbing the configuration: a new YAML is tested without touching a test."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from ivae_lab.config.build import ConfigError, build, check
from ivae_lab.config.overrides import run_config
from ivae_lab.config.paths import CONFIG
from ivae_lab.core.data import Batch, DataSpec, Splits
from ivae_lab.core.exponential_family import ExponentialFamily
from ivae_lab.core.mixture_generator import Generator, ReluNetwork
from ivae_lab.engine.evaluate import settle
from ivae_lab.engine.module import SeedsModule
from ivae_lab.engine.random_streams import generator
from ivae_lab.engine.stack import Stack
from ivae_lab.metrics.resampling import CheckingMetric, Estimate, PairMetric
from ivae_lab.models.base import Model
from ivae_lab.models.contrastive import Contrastive
from ivae_lab.runs.agreement_csv import read_pairs, write_pairs
from ivae_lab.runs.results_csv import COLUMNS, read_results, write_results
from tests.own import own_file
from tests.running import FITTED, advance, doubles

pytestmark = pytest.mark.slow

Compose = Callable[..., DictConfig]
SplitsOf = Callable[[DictConfig], Splits]
ModelOf = Callable[[DictConfig, DataSpec], Model]
Train = Callable[[DictConfig, list[int]], SeedsModule]
Begun = Train

GROUPS = ("data", "model", "prior", "trainer", "metric")
PARTS = ("model/objective", "model/likelihood", "model/auxiliary")
SEEDS = [0, 1, 2]
CPU = torch.device("cpu")
END = torch.tensor(1.0)


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIG / group).glob("*.yaml"))


def selection(group: str, name: str) -> list[str]:
    """The overrides that choose a YAML, beside a plain VAE but for data and models; all metrics at once."""
    own = f"{group}=[{','.join(choices(group))}]" if group == "metric" else f"{group}={name}"
    return ["model=vae"] * (group not in ("data", "model", "metric")) + [own]


EVERYTHING = [(group, name) for group in (*GROUPS, *PARTS) for name in choices(group)]


def fitting_model(config: DictConfig, splits_of: SplitsOf, model_of: ModelOf, seed: int) -> tuple[Model, Splits]:
    """A model of real-valued data; where it refuses these, `config` is changed to binary data, counts or codes."""
    splits = splits_of(config)
    torch.manual_seed(seed)
    try:
        return model_of(config, splits.spec), splits
    except ConfigError as error:
        kind = re.search(r"expected (\w+) (?:as )?observations", str(error))[1]  # type: ignore[index]
        if kind == "binary":
            config.data.observation = kind
        else:
            config.data = own_data(kind)
        splits = splits_of(config)
        torch.manual_seed(seed)
        return model_of(config, splits.spec), splits


def own_data(kind: str) -> DictConfig:
    """Of a user's own file."""
    config = run_config(*["data=file", f"data.path={own_file(kind)}", f"data.observation={kind}"])
    own: DictConfig = OmegaConf.create(resolved(config.data))
    return own


def model_and_batch(
    config: DictConfig, splits_of: SplitsOf, model_of: ModelOf, seed: int = 0
) -> tuple[Model, Batch, torch.Tensor]:
    model, splits = fitting_model(config, splits_of, model_of, seed)
    batch = splits.train[:32]
    with torch.no_grad():
        for parameter in model.parameters():  # what starts at zero hides what stands before it
            if not parameter.any():
                parameter.normal_(0, 0.01)
    noise = torch.randn(32, model.noise_dim + model.live_dim, generator=torch.Generator().manual_seed(0))
    return model, batch, noise


def resolved(node: DictConfig) -> Any:
    return OmegaConf.to_container(node, resolve=True)


def nodes(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every mapping with a `_target_`, with its path."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield path, node
        for key, child in node.items():
            yield from nodes(child, f"{path}.{key}" if path else str(key))


def check_group(group: str, node: dict[str, Any]) -> None:
    """Hold a group of a composed configuration against the constructors that it names."""
    if group == "data":
        node = {key: value for key, value in node.items() if key != "seed"}  # the run reads it, not the data set
    check(node, group, frozenset({"spec", "prior"}) if group == "model" else frozenset())


class TestConfiguration:
    def test_there_is_something_to_choose(self) -> None:
        assert all(choices(group) for group in (*GROUPS, *PARTS))

    @pytest.mark.parametrize(("group", "name"), EVERYTHING)
    def test_its_constructors_take_all_its_keys_and_a_superfluous_one_anywhere_is_caught(
        self, composed: Compose, group: str, name: str
    ) -> None:
        config, top = composed(*selection(group, name)), group.split("/")[0]
        assert set(config) == {*GROUPS, "seed", "outputs", "force", "logger", "show", "compute"}
        for each in (*GROUPS, "compute"):
            check_group(each, resolved(config[each]))
        node = resolved(config[top])
        if group == "metric":
            node = {name: node[name]}
        if group == "model":
            assert "identifiability" not in node  # a key more would be another run's
        found = list(nodes(node, top))
        assert found
        for path, spoilt in found:
            spoilt["that_nothing_reads"] = 1
            with pytest.raises(ConfigError, match=rf"^{path}\.that_nothing_reads: expected (one of|no keys)"):
                check_group(top, node)
            del spoilt["that_nothing_reads"]

    def test_a_prior_on_the_command_line_wins_over_the_models_own(self, composed: Compose) -> None:
        """Every model's prior is one of the group, chosen and not written out; of one model for each, it gives way."""
        known = {name: composed("model=vae", f"prior={name}").prior for name in choices("prior")}
        owners = {}
        for name in choices("model"):
            own = [prior for prior in known if known[prior] == composed(f"model={name}").prior]
            assert own, name
            owners[own[0]] = name
        for prior, name in owners.items():
            other = next(each for each in known if known[each] != known[prior])
            assert composed(f"prior={other}", f"model={name}").prior == known[other], name

    def test_vade_picks_its_mixture_and_gives_way(self, composed: Compose) -> None:
        mixture, normal = "ivae_lab.priors.GaussianMixture", "ivae_lab.priors.StandardNormal"
        assert composed("model=vade").prior["_target_"] == mixture
        for overrides in (["model=vade", "prior=normal"], ["prior=normal", "model=vade"]):
            assert composed(*overrides).prior["_target_"] == normal
        assert composed("model=vae").prior["_target_"] == normal

    def test_images_pick_their_metrics_and_give_way(self, composed: Compose) -> None:
        known = {"mcc", "mcc_weak", "linear_r2", "elbo"}
        assert set(composed("data=dsprites").metric) >= set(composed().metric) == known
        for name in ("digits", "emnist", "cifar10", "svhn"):
            assert "mcc" not in composed(f"data={name}").metric, name  # there is no truth to hold the latents against
        for overrides in (["metric=[mcc]", "data=digits"], ["data=digits", "metric=[mcc]"]):
            assert set(composed(*overrides).metric) == {"mcc"}

    @pytest.mark.parametrize("name", ["vae", "vade_images"])
    def test_a_vae_takes_a_u_made_of_x(self, composed: Compose, name: str) -> None:
        own = resolved(composed(f"model={name}").model)
        made = resolved(composed("model/auxiliary=rademacher", f"model={name}", "model.auxiliary.projections=3").model)
        assert made.pop("auxiliary")["projections"] == 3
        assert made == own

    def test_the_released_ivae_picks_its_trainer_and_gives_way(self, composed: Compose) -> None:
        released = composed("model=ivae_released").trainer
        assert released == composed("trainer=khemakhem_released").trainer
        assert (released.steps, released.epochs, released.batch_size, released.lr) == (None, 20, 64, 0.01)
        default = composed("model=ivae_released", "trainer=default").trainer
        assert default == composed("model=vae").trainer
        assert default != released


@pytest.fixture(scope="module", params=sorted({*choices("model")} - {*FITTED}))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@dataclass(frozen=True)
class Trained:
    """Three seeds of a model after three steps, in doubles, and the parameters that they began with."""

    module: SeedsModule
    start: dict[str, torch.Tensor]


def trained_from(begun: Begun, config: DictConfig, seeds: list[int]) -> Trained:
    module = begun(config, seeds)
    start = {key: value.clone() for key, value in module.stack.parameters.items()}
    return Trained(advance(module), start)


@pytest.fixture(scope="module")
def together(name: str, tiny: Compose, begun: Begun) -> Trained:
    with doubles():
        return trained_from(begun, tiny(f"model={name}"), SEEDS)


@pytest.fixture(scope="module")
def made(
    name: str, tiny: Compose, splits_of: SplitsOf, model_of: ModelOf
) -> tuple[Model, Batch, torch.Tensor, DictConfig]:
    """A model that no test trains, with a batch and noise, in floats."""
    config = tiny(f"model={name}")
    if "latent_dim" in config.model:
        config.model.latent_dim = 2 if name == "exact" else 3  # whose integrals are over two latents at most
    return *model_and_batch(config, splits_of, model_of), config


Made = tuple[Model, Batch, torch.Tensor, DictConfig]


class TestModels:
    @pytest.mark.usefixtures("in_doubles")
    def test_trains_every_parameter_of_every_seed_to_finite_numbers(self, together: Trained) -> None:
        module = together.module
        assert module.step == module.data.plan.total
        assert module.data.plan.steps == 3
        assert not module.members[0].diverged
        (rows,) = module.record([[None] * len(SEEDS)])
        assert all(np.isfinite([row["loss"] for row in rows]))
        for key, value in module.stack.parameters.items():
            assert value.isfinite().all(), key
            assert (value != together.start[key]).reshape(len(value), -1).any(1).all(), key

    @pytest.mark.usefixtures("in_doubles")
    def test_a_seed_among_others_is_the_seed_alone(
        self, together: Trained, name: str, tiny: Compose, train: Train
    ) -> None:
        position = len(SEEDS) - 1
        alone = train(tiny(f"model={name}"), [SEEDS[position]])
        stacked = {key: value[position] for key, value in together.module.stack.parameters.items()}
        expected = {key: value[0] for key, value in alone.stack.parameters.items()}
        torch.testing.assert_close(stacked, expected, atol=1e-5, rtol=1e-5)
        rates = together.module.state["rates"]["rate"]
        torch.testing.assert_close(rates[position], alone.state["rates"]["rate"][0])

    @pytest.mark.usefixtures("in_doubles")
    def test_a_seeds_weights_are_its_own_whatever_stands_beside_it(
        self, together: Trained, name: str, tiny: Compose, model_of: ModelOf
    ) -> None:
        weights = {key: value for key, value in together.start.items() if value.dim() >= 3}
        matrices = {key: each for key, each in weights.items() if each.max() > each.min()}  # some start at one number
        assert matrices
        for key, values in matrices.items():
            assert (values[0] != values[2]).all(), key
        config, spec = tiny(f"model={name}"), together.module.members[0].splits.spec
        torch.manual_seed(2)
        state = torch.get_rng_state()
        beside = Stack(lambda: model_of(config, spec), [7, 0], CPU)  # seed 0 is a seed
        assert torch.equal(torch.get_rng_state(), state)
        taken_out = dict(beside.model(1).named_parameters())
        assert taken_out.keys() == together.start.keys()
        for key, value in together.start.items():
            assert torch.equal(value[0], beside.parameters[key][1]), key
            assert torch.equal(value[0], taken_out[key]), key

    def test_every_parameter_gets_a_gradient_without_randomness_of_its_own(self, made: Made) -> None:
        model, batch, noise, _ = made
        before = torch.get_rng_state()
        losses = [model.loss(batch, noise, END)["loss"] for _ in range(2)]
        assert torch.equal(*losses)
        own = dict(model.named_parameters())
        for key, slope in zip(own, torch.autograd.grad(losses[0], list(own.values()), allow_unused=True), strict=True):
            assert slope is not None, key
            assert slope.isfinite().all(), key
            assert slope.any(), key
        assert torch.equal(torch.get_rng_state(), before)

    def test_the_priors_parameters_are_the_models(self, made: Made, splits_of: SplitsOf) -> None:
        model, _, _, config = made
        spec = splits_of(config).spec
        alone = build(config.prior, "prior")(model.latent_dim, spec.u_dim)
        if hasattr(alone, "attach"):  # its parameters are inputs of the encoder
            alone.attach(model.encode, spec.x_dim, None)
        own = {key: value.shape for key, value in alone.named_parameters()}
        in_model = {key: value.shape for key, value in model.named_parameters() if key.startswith("prior.")}
        assert in_model == {f"prior.{key}": shape for key, shape in own.items()}

    def test_a_saved_state_loads_to_the_same_loss(
        self, made: Made, splits_of: SplitsOf, model_of: ModelOf, tmp_path: Path
    ) -> None:
        model, batch, noise, config = made
        other, _, _ = model_and_batch(config, splits_of, model_of, seed=1)
        loss = model.loss(batch, noise, END)["loss"]
        assert other.loss(batch, noise, END)["loss"] != loss
        torch.save(model.state_dict(), tmp_path / "model.pt")
        other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
        assert torch.equal(other.loss(batch, noise, END)["loss"], loss)

    def test_latents_bounds_and_samples_have_their_shapes(self, made: Made, name: str) -> None:
        model, batch, noise, config = made
        asked = 2 if name == "exact" else 3
        n = model.latent_dim
        assert n == (asked if "latent_dim" in config.model else batch.x.shape[1])
        wide = (32, model.positions * n)
        assert model.encode(batch).mean.shape == model.posterior_mean(batch).shape == wide
        bound = model.bound(batch, noise)
        assert bound["mean"].shape == bound["sample"].shape == wide
        assert model.loss(batch, noise, END)["loss"].shape == ()
        if isinstance(model, Contrastive):  # it has no density of x
            return
        assert bound["log_likelihood"].shape == (32,)
        for temperature in (1.0, 0.5):
            drawn = model.sample(32, batch.u, torch.Generator().manual_seed(0), temperature)
            assert drawn.shape == batch.x.shape


@pytest.mark.parametrize("name", FITTED)
class TestFittedModels:
    def test_takes_no_steps_and_is_fitted_when_they_would_be_over(self, name: str, tiny: Compose, train: Train) -> None:
        module = train(tiny(f"model={name}", "model.latent_dim=3"), SEEDS)
        stack, batch = module.stack, module.members[0].splits.train
        assert (module.data.plan.total, stack.parameters) == (0, {})
        settle(stack, batch)
        found = stack.map("bound", batch, torch.zeros(len(SEEDS), len(batch), 0))
        assert found["mean"].shape == found["sample"].shape == (len(SEEDS), len(batch), 3)
        assert all(value.isfinite().all() for value in found.values())
        drawn = stack.model(0).sample(32, None, torch.Generator().manual_seed(0))
        assert drawn.shape == (32, batch.x.shape[1])
        shown = stack.map("examples", batch, torch.zeros(len(SEEDS), 8, 3))
        assert shown["reconstruction"].shape == (len(SEEDS), *batch.x.shape)

    def test_a_seed_among_others_is_the_seed_alone(self, name: str, tiny: Compose, train: Train) -> None:
        together, alone = (train(tiny(f"model={name}"), seeds) for seeds in (SEEDS, SEEDS[1:2]))
        for module in (together, alone):
            settle(module.stack, module.members[0].splits.train)
        for key, value in together.stack.buffers.items():
            assert torch.equal(value[1], alone.stack.buffers[key][0]), key


@given(seeds=st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)), counter=st.integers(0, 10**6))
def test_streams_of_different_seeds_names_and_counters_differ(seeds: tuple[int, int], counter: int) -> None:
    one, other = seeds
    start = generator(one, "weights", counter).initial_seed()
    assert start == generator(one, "weights", counter).initial_seed()
    assert start != generator(one, "shuffling", counter).initial_seed()
    assert start != generator(one, "weights", counter + 1).initial_seed()
    if one != other:
        assert start != generator(other, "weights", counter).initial_seed()


@pytest.mark.parametrize("name", choices("prior"))
def test_a_prior_is_a_density_that_a_vae_learns_stacked_as_alone(
    name: str, tiny: Compose, splits_of: SplitsOf, model_of: ModelOf, begun: Begun, train: Train
) -> None:
    config = tiny("model=vae", f"prior={name}")
    model, batch, noise = model_and_batch(config, splits_of, model_of)
    prior: Any = model.prior
    density = prior(batch.u)
    log_prob = density.log_prob(noise)
    assert log_prob.shape == (32,)
    assert log_prob.isfinite().all()
    assert density.sample(32, torch.Generator().manual_seed(0)).shape == noise.shape
    loss = model.loss(batch, noise, END)["loss"]
    assert loss.isfinite()
    torch.autograd.backward(loss)
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.any(), key

    together, alone = trained_from(begun, config, SEEDS), train(config, [1])
    stack = together.module.stack
    stacked = {key: value[1] for key, value in stack.parameters.items()}
    expected = {key: value[0] for key, value in alone.stack.parameters.items()}
    torch.testing.assert_close(stacked, expected, atol=1e-5, rtol=1e-5)
    for position in range(len(SEEDS)):
        moves = [
            (value[position] - together.start[key][position]).abs().max().item()
            for key, value in stack.parameters.items()
            if key.startswith("prior.")
        ]
        # Three steps of Adam at .001 move no number by more than about .003: beyond that it jumped to the data.
        assert (max(moves, default=0.0) > 0.02) == stack.template.starts_from_data


@pytest.mark.parametrize("part", [(group, name) for group in PARTS for name in choices(group)])
def test_a_part_of_a_model_trains_a_vae(
    part: tuple[str, str], tiny: Compose, splits_of: SplitsOf, model_of: ModelOf, train: Train
) -> None:
    config = tiny(*selection(*part))
    model, batch, noise = model_and_batch(config, splits_of, model_of)
    torch.autograd.backward(model.loss(batch, noise, END)["loss"])
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())
    module = train(config, [0])  # `config` has data that fit by now
    assert not module.members[0].diverged


@pytest.mark.parametrize("name", choices("data"))
class TestData:
    def test_a_data_set_has_its_shapes(self, name: str, tiny: Compose, splits_of: SplitsOf) -> None:
        splits = splits_of(tiny(f"data={name}"))
        spec = splits.spec
        parts = dict(splits.items())
        assert len(parts["train"]) == spec.train_rows
        for part in parts.values():
            rows = len(part)
            assert part.x.shape == (rows, spec.x_dim)
            assert part.x.dtype == (torch.float32 if spec.image is None else torch.uint8)
            assert part.x.isfinite().all()
            assert part.index.shape == (rows,)
            assert part.index.dtype == torch.int64
            if part.z is None:
                assert spec.source_dim is None
            else:
                assert part.z.shape == (rows, spec.source_dim)
            if part.u is None:
                assert spec.u_dim == 0
            elif spec.u_kind == "columns":
                assert part.u.dtype == torch.float32
                assert part.u.shape == (rows, spec.u_dim)
            else:
                assert part.u.dtype == torch.int64
                assert 0 <= part.u.min() <= part.u.max() < spec.u_dim
        if spec.image is None:
            assert spec.binary == (set(parts["train"].x.flatten().tolist()) <= {0.0, 1.0})
        else:
            assert spec.x_dim == math.prod(spec.image.shape)
            assert spec.binary == (spec.image.channels == 1)
            assert "train" not in splits.scored  # tens of thousands of rows
        everything = torch.cat([part.index for part in parts.values()])
        assert len(set(everything.tolist())) == len(everything)

    def test_the_data_seed_decides(self, name: str, tiny: Compose, splits_of: SplitsOf, fresh_splits: SplitsOf) -> None:
        config = tiny(f"data={name}")
        first, files = splits_of(config).train, config.data.get("root") is not None
        if not files or name == "emnist":  # the rows of all images are drawn by one function; files take long to read
            torch.manual_seed(1)
            assert torch.equal(fresh_splits(config).train.x, first.x)
        config.data.seed = 0
        assert not torch.equal(fresh_splits(config).train.x, first.x)

    def test_a_vae_trains_on_it(self, name: str, tiny: Compose, splits_of: SplitsOf, train: Train) -> None:
        config = tiny(f"data={name}")
        spec = splits_of(config).spec
        kinds = {"binary": "bernoulli", "counts": "poisson", "real": "gaussian"}
        likelihood = "images" if spec.image else kinds[spec.observation]
        vae = tiny("model=vae", f"model/likelihood={likelihood}", "model.latent_dim=2")
        config.model, config.prior = vae.model, vae.prior
        module = train(config, [0])
        assert not module.members[0].diverged


@pytest.mark.parametrize("name", choices("trainer"))
def test_a_trainer_trains(name: str, tiny: Compose, composed: Compose, train: Train) -> None:
    training = build(composed("model=vae", f"trainer={name}").trainer, "trainer")  # as it is, not tiny
    assert training.total_steps(40_000) > 0
    module = train(tiny("model=vae", f"trainer={name}"), [0, 1])
    assert not module.members[0].diverged
    assert module.step == 3


@pytest.mark.parametrize("name", choices("metric"))
@pytest.mark.parametrize("known", [True, False])
def test_a_metric_gives_rows_fit_for_the_results(name: str, known: bool, composed: Compose, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sources = rng.normal(size=(60, 2))
    mean = (sources @ rng.normal(size=(2, 2))).astype(np.float32)
    network = ReluNetwork((rng.normal(size=(3, 2)), rng.normal(size=(2, 3))), (np.zeros(3), np.zeros(2)))
    truth = Generator(np.full(2, 0.5), rng.normal(size=(2, 2)), np.stack([np.eye(2), np.diag([1.0, 2.0])]), network)
    estimate = Estimate(
        mean=mean,
        sample=mean + 0.1 * rng.normal(size=mean.shape).astype(np.float32),
        sources=sources if known else None,
        u=np.arange(60) % 4,
        index=np.arange(60),
        terms={"elbo": -2.0, "log_likelihood": -1.5, "kl": 0.5},
        clusters=np.arange(60) // 15 if known else None,
        log_density=-1.8 if known else None,
        generator=truth if known else None,
        truth=truth if known else None,
        prior=ExponentialFamily(-rng.uniform(1, 2, (4, 2)), ("z^2",)),
    )
    metric = build(composed(*selection("metric", name)).metric[name], f"metric.{name}")
    if isinstance(metric, PairMetric):
        pairs = [{**row, "data_seed": 1, "split": "train"} for row in metric.pairs({0: estimate, 7: estimate})]
        write_pairs(tmp_path / "agreement.csv", pairs)
        assert read_pairs(tmp_path)[["seed_a", "seed_b"]].drop_duplicates().to_numpy().tolist() == [[0, 7]]
        return
    found = estimate.rows_of(metric.checks(estimate)) if isinstance(metric, CheckingMetric) else metric(estimate)
    rows = [{**row, "seed": 0, "data_seed": 1, "split": "train"} for row in found]
    assert rows or not known
    assert all(np.isfinite(row["value"]) and row["state"] == "done" for row in rows)
    write_results(tmp_path / "results.csv", rows)
    table = read_results(tmp_path)
    assert list(table.columns) == list(COLUMNS)
    assert len(table) == len(rows)
