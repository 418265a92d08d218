"""`from ivae_lab import fit`: scikit-learn's own checks, pipelines, labels of any kind, the training of the command."""

from __future__ import annotations

import inspect
import pickle
import pydoc
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import ivae_lab
from ivae_lab.estimator import fit
from ivae_lab.training.estimators import IVAE
from tests.running import trained

SMALL = ("model.encoder.hidden=4", "trainer.batch_size=16", "trainer.chunk=5")
RNG = np.random.default_rng(0)
U = RNG.integers(3, size=120)
X = (RNG.normal(size=(120, 2)) * (1 + U[:, None])) @ np.array([[1.0, 2.0], [0.0, 1.0]]) + 5


def tiny(model: str, **options: Any) -> IVAE:
    return IVAE(**{"latent_dim": 2, "model": model, "steps": 5, "overrides": SMALL, **options})


def test_fit_is_seen_and_says_what_its_options_are() -> None:
    assert {"fit", "IVAE", "__version__"} <= {*dir(ivae_lab)}
    told, options = inspect.signature(ivae_lab.fit).parameters, inspect.signature(IVAE).parameters
    assert [*told][:3] == ["x", "u", "model"]
    assert {name: told[name].default for name in options} == {name: each.default for name, each in options.items()}
    shown = pydoc.render_doc(ivae_lab.fit)
    assert [name for name in told if f"{name}\n" not in shown and f"{name}," not in shown] == []


def test_fit_hands_its_options_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(IVAE, "fit", lambda self, x, u: self)
    given = {"model": "vae", "latent_dim": 3, "steps": 7, "seed": 4, "observation": "counts", "overrides": ["a=1"]}
    assert fit(X, U, **given).get_params() == given  # type: ignore[arg-type]


@parametrize_with_checks([tiny("ivae", steps=2)])  # type: ignore[untyped-decorator]
@pytest.mark.slow
def test_it_is_an_estimator_by_scikit_learns_own_checks(estimator: IVAE, check: Any) -> None:
    check(estimator)


@pytest.mark.thorough("scikit-learn's checks of a model without u, of the class whose checks always run")
@parametrize_with_checks([tiny("vade", steps=2, overrides=(*SMALL, "prior.components=2"))])  # type: ignore[untyped-decorator]
def test_so_is_one_of_a_model_without_u(estimator: IVAE, check: Any) -> None:
    check(estimator)


def test_importing_the_package_loads_no_torch() -> None:
    code = "import sys, ivae_lab; assert not {'torch', 'sklearn', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    import ivae_lab

    assert ivae_lab.fit is fit
    with pytest.raises(AttributeError, match="fitt"):
        _ = ivae_lab.fitt


def test_it_trains_as_the_command_does() -> None:
    """The same rows through `data=tcl` and through arrays: the same weights to the last bit."""
    overrides = ("data=tcl", "data.segments=4", "data.samples_per_segment=30", "data.preprocess=none", *SMALL)
    module = trained(*overrides, "model=vade", "trainer.steps=5", "seed=[7]", "compute.threads=1")
    batch = module.members[0].splits.train
    found = tiny("vade", latent_dim=5, seed=7).fit(batch.x.numpy(), batch.u.numpy())  # type: ignore[union-attr]
    weights = dict(found.trained_.model.named_parameters())
    for name, value in module.stack.parameters.items():
        assert np.array_equal(value[0].double().numpy(), weights[name].numpy()), name


@pytest.mark.parametrize(("rows", "batch"), [(120, 16), (16, 16), (10, 10)])
def test_fewer_rows_than_a_batch_are_one_batch(rows: int, batch: int) -> None:
    assert tiny("ivae")._config(rows, 2).trainer.batch_size == batch


class TestLabels:
    def test_text_and_numbers_are_the_same_labels(self) -> None:
        named = np.array(["cold", "mild", "warm"])[U]  # sorted as the numbers are
        one, other = fit(X, U, steps=5, overrides=SMALL), fit(X, named, steps=5, overrides=SMALL)
        assert other.labels_.tolist() == ["cold", "mild", "warm"]
        assert np.array_equal(one.transform(X), other.transform(X))
        assert one.score(X, U) == other.score(X, named)
        assert np.array_equal(one.sample(9, u=1), other.sample(9, u="mild"))

    @pytest.mark.slow
    def test_an_unknown_one_is_named(self) -> None:
        seeing = fit(X, U, steps=5, model="ivae_paper", overrides=SMALL)
        assert seeing.transform(X, U).shape == X.shape
        with pytest.raises(ValueError, match="expected u one of 0, 1, 2, got 7"):
            seeing.transform(X, np.where(U == 2, 7, U))
        with pytest.raises(ValueError, match="expected u for the encoder of model=ivae_paper"):
            seeing.transform(X)
        assert np.array_equal(seeing.transform(X, U), tiny("ivae_paper").fit_transform(X, U))

    def test_without_u_where_the_prior_needs_it(self) -> None:
        with pytest.raises(ValueError, match="requires y to be passed"):
            fit(X)
        assert fit(X, model="vade", steps=5, overrides=SMALL).sample(5).shape == (5, 2)


def test_wrong_configurations_are_one_line() -> None:
    with pytest.raises(ValueError, match=r"expected a configuration of model=nonsense.*[^\n]+"):
        IVAE(model="nonsense").fit(X, U)
    with pytest.raises(ValueError, match=r"expected a configuration of .*no_such"):
        IVAE(overrides=["model.no_such=1"]).fit(X, U)


def test_in_a_pipeline_copied_and_pickled() -> None:
    line = make_pipeline(StandardScaler(), tiny("ivae"))
    z = line.fit(X, U).transform(X)
    assert z.shape == (120, 2)
    assert line[:-1].get_feature_names_out().tolist() == ["x0", "x1"]
    assert line.get_feature_names_out().tolist() == ["ivae0", "ivae1"]
    assert np.array_equal(pickle.loads(pickle.dumps(line)).transform(X), z)
    assert clone(line[-1]).get_params() == tiny("ivae").get_params()


def test_there_and_back_and_the_score_follow_the_units_of_x() -> None:
    """GIN is invertible; x times 10 is whitened to the same, and its density is lower by 2 log 10."""
    flow = IVAE(model="gin", steps=5, overrides=["trainer.batch_size=16", "data.preprocess=whiten"]).fit(X, U)
    np.testing.assert_allclose(flow.inverse_transform(flow.transform(X)), X, atol=1e-4)
    scaled = clone(flow).fit(10 * X, U)
    assert scaled.score(10 * X, U) == pytest.approx(flow.score(X, U) - 2 * np.log(10), abs=1e-3)


@pytest.mark.slow
def test_it_learns() -> None:
    """A longer training reconstructs unseen rows better than their mean does, and scores them above a short one."""
    vae = fit(
        X[:90],
        model="vae",
        steps=200,
        overrides=[*SMALL, "trainer.chunk=100", "trainer.lr=0.03", "data.preprocess=whiten"],
    )
    rebuilt = vae.inverse_transform(vae.transform(X[90:]))
    assert ((rebuilt - X[90:]) ** 2).sum() < 0.5 * ((X[90:] - X[90:].mean(0)) ** 2).sum()
    assert vae.score(X[90:]) > tiny("vae", overrides=(*SMALL, "data.preprocess=whiten")).fit(X[:90]).score(X[90:])


class TestNumbersAsU:
    POSITION = np.random.default_rng(3).uniform(-1, 1, 120)
    SPIKES = np.random.default_rng(4).poisson(np.exp(1 + POSITION[:, None] * [2.0, -2.0, 1.0])).astype(float)

    def fitted(self, **options: Any) -> IVAE:
        small = ("trainer.batch_size=16", "trainer.lr=0.02", "model.encoder.hidden=8", "model.decoder.hidden=8")
        given = {"latent_dim": 1, "steps": 80, "observation": "counts", "overrides": small, **options}
        return fit(self.SPIKES, self.POSITION, model="ivae_counts", **given)

    @pytest.mark.slow
    def test_a_position_is_found_in_counts_alone(self) -> None:
        model = self.fitted()
        assert model.labels_.size == 0
        z = model.transform(self.SPIKES)[:, 0]
        assert abs(np.corrcoef(z, self.POSITION)[0, 1]) > 0.8
        low, high = (model.sample(300, u=at).mean(0) for at in (-0.9, 0.9))
        assert low[0] < high[0]
        assert low[1] > high[1]
        assert np.isfinite(model.score(self.SPIKES, self.POSITION))

    def test_real_values_are_no_counts(self) -> None:
        with pytest.raises(ValueError, match="expected counts as observations"):
            self.fitted(observation="real")
