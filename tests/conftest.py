"""Fixtures that compose a configuration as the command line would, at sizes that train in milliseconds."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: the tests' matrices are tiny

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.config_repository import ConfigRepository
from omegaconf import DictConfig, OmegaConf

from ivae_lab.config.paths import CONFIG
from tests import warm
from tests.images import SHARED
from tests.own import own_file
from tests.profiles import THOROUGH

_read = ConfigRepository.load_config
_CONFIG_FILES: dict[tuple[str, ...], Any] = {}


def _read_once(repository: ConfigRepository, config_path: str) -> Any:
    """What Hydra reads of a file: half of the time that composing takes goes there, and the files do not change."""
    key = config_path, *(source.path for source in repository.sources)
    if key not in _CONFIG_FILES:
        _CONFIG_FILES[key] = _read(repository, config_path)
    return copy.deepcopy(_CONFIG_FILES[key])


ConfigRepository.load_config = _read_once  # type: ignore[assignment,method-assign]


def pytest_configure(config: pytest.Config) -> None:
    """Give the session a folder for the parent of warm commands (tests/warm.py)."""
    if not hasattr(config, "workerinput"):
        home = Path(tempfile.mkdtemp(prefix="ivae_lab-warm-"))
        (home / "owner").write_text(str(os.getpid()))
        os.environ[warm.HOME] = str(home)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Let that parent end."""
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop(warm.HOME), ignore_errors=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the command that runs each test that failed again."""
    bad = [each for kind in ("failed", "error") for each in terminalreporter.stats.get(kind, [])]
    for name in dict.fromkeys(each.nodeid for each in bad):
        terminalreporter.write_line(f"again: OMP_NUM_THREADS=1 {sys.executable} -m pytest {shlex.quote(name)}")


# Files that take minutes come first, so that no worker is left with one of them when the others are done.
LONGEST = {
    "test_slurm.py",
    "test_tour.py",
    "test_stack.py",
    "test_sweeps.py",
    "test_resume.py",
    "test_local_launcher.py",
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the files, and leave the order within each; leave out what `make test-thorough` repeats with more."""
    if not THOROUGH and (left_out := [item for item in items if item.get_closest_marker("thorough")]):
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("thorough")]
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_collection_finish() -> None:
    """Spare the collector of garbage what the imports left: it would look at all of it, again and again."""
    gc.collect()
    gc.freeze()


# Keys that say how large something is. A component that has one of them gets the small value.
TINY: dict[str, dict[str, Any]] = {
    "data": {
        **{"segments": 4, "samples_per_segment": 24, "condition_draws": 50, "points": 96},
        **{"root": str(SHARED), "batches": [1, 2], "train_rows": 96, "valid_rows": 8, "test_rows": 16},  # of images
        **{"path": str(own_file()), "block_rows": 8},  # of a user's own rows
    },
    "prior": {"components": 3},
    "trainer": {"steps": 3, "epochs": None, "batch_size": 16, "chunk": 3},
}


@cache
def _composed_once(*overrides: str) -> bytes:
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        return pickle.dumps(compose("config", overrides=list(overrides)))


def _composed(*overrides: str) -> DictConfig:
    config: DictConfig = pickle.loads(_composed_once(*overrides))  # a test may change what it is given
    return config


def _tiny(*overrides: str) -> DictConfig:
    config: DictConfig = pickle.loads(_tiny_once(*overrides))
    return config


@cache
def _tiny_once(*overrides: str) -> bytes:
    config, data_is_chosen = _composed(*overrides), any(each.startswith("data=") for each in overrides)
    if not data_is_chosen and (fitting := _fitting_data(config, overrides)):
        chosen = _composed(*fitting, *(each for each in overrides if each.startswith("data.")))
        config.data, config.metric = chosen.data, chosen.metric
        if fitting[0] == "data=digits" and not any(each.startswith("model.latent_dim=") for each in overrides):
            config.model.update({"latent_dim": 2} if "latent_dim" in config.model else {})
    for group, sizes in TINY.items():
        for key in sizes.keys() & config[group].keys():
            config[group][key] = sizes[key]
    if config.prior["_target_"].endswith("ClassStatistics"):
        # Shifts of z cost nothing, so some gradients are rounding alone, which is not to decide which way Adam goes.
        config.trainer.eps = 0.01
    if config.model.get("pretrain_steps"):
        config.model.pretrain_steps = 2
    if "conv_blocks" in config.model.get("transform", {}):
        config.model.transform.update({"conv_blocks": [1, 1], "conv_hidden": [4, 4], "blocks": 1, "hidden": 16})
    return pickle.dumps(config)


def _fitting_data(config: DictConfig, overrides: tuple[str, ...]) -> list[str]:
    """The overrides that choose data for a model that is not for the default's."""
    if config.model["_target_"].endswith("Exact"):
        return ["data=gmm_relu"]
    if "model=ivae_counts" in overrides:
        return ["data=spikes"]
    if _is_for_images(config):
        grey = ["data.binarisation=none", "data.test_binarisation=none"]
        return ["data=digits", *grey * ("transform" in config.model)]  # of flows
    return []


def _is_for_images(config: DictConfig) -> bool:
    parts = [part["_target_"] for name in ("likelihood", "transform") if (part := config.model.get(name))]
    return any(part.endswith(("image_likelihood", "VaryingPixels", "ImageCouplings")) for part in parts)


_DRAWN: dict[tuple[Any, ...], Any] = {}  # data sets that were drawn already, by configuration and dtype


def _splits(config: DictConfig) -> Any:
    import torch

    key = OmegaConf.to_yaml(config.data, resolve=True), torch.get_default_dtype()
    if key not in _DRAWN:
        _DRAWN[key] = _fresh_splits(config)
    return _DRAWN[key]


def _fresh_splits(config: DictConfig) -> Any:
    from ivae_lab.config.build import ConfigError
    from ivae_lab.data.images.catalogue import MissingDataError
    from ivae_lab.engine.building import draw_data
    from tests.running import in_default_dtype

    try:
        return in_default_dtype(draw_data(config))
    except ConfigError as error:
        if isinstance(error.__cause__, MissingDataError):
            pytest.skip(f"no real data: {error}")
        raise


def _model(config: DictConfig, spec: Any) -> Any:
    from ivae_lab.engine.building import build_model

    return build_model(config, spec)


def _begun(config: DictConfig, seeds: list[int]) -> Any:
    import torch

    from ivae_lab.config.build import build
    from ivae_lab.engine.datamodule import DataModule
    from ivae_lab.engine.member import RunMember
    from ivae_lab.engine.module import SeedsModule
    from ivae_lab.engine.stack import Stack
    from ivae_lab.training.run import plan_of

    cpu, splits, training = torch.device("cpu"), _splits(config), build(config.trainer, "trainer")
    stack = Stack(lambda: _model(config, splits.spec), seeds, cpu)
    plan = plan_of(stack, training, len(splits.train))
    data = DataModule([splits], plan, training.batch_size, cpu)
    return SeedsModule([RunMember(stack, splits, training.lr)], data, training, compiled=False)


def _train(config: DictConfig, seeds: list[int]) -> Any:
    from tests.running import advance

    return advance(_begun(config, seeds))


@pytest.fixture(scope="session")
def composed() -> Callable[..., DictConfig]:
    """(*overrides) to the configuration that the command line would compose from them."""
    return _composed


@pytest.fixture(scope="session")
def tiny() -> Callable[..., DictConfig]:
    """As `composed`, with tiny data, three steps of training, and small mixtures; images for a model of images."""
    return _tiny


@pytest.fixture(scope="session")
def splits_of() -> Callable[[DictConfig], Any]:
    """A configuration to its data set (`Splits`), drawn once; the test is skipped where its files are not there."""
    return _splits


@pytest.fixture(scope="session")
def fresh_splits() -> Callable[[DictConfig], Any]:
    """As `splits_of`, drawn anew at each call."""
    return _fresh_splits


@pytest.fixture(scope="session")
def model_of() -> Callable[[DictConfig, Any], Any]:
    """(configuration, DataSpec) to one `Model`."""
    return _model


@pytest.fixture
def inside(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """(*arguments, cwd=...) to the `Outcome` of `ivae_lab.train` in this process, for what needs none of its own."""
    from tests.running import here

    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str, cwd: Path) -> Any:
        monkeypatch.chdir(cwd)
        return here(arguments, capsys, monkeypatch)

    return run


@pytest.fixture
def traced_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiled training runs the traced and rewritten graph itself: all of ours, without a C++ compiler's seconds."""
    from ivae_lab.engine import steps as part
    from ivae_lab.engine.compiler import traced

    monkeypatch.setattr(part, "compiled", traced)


@pytest.fixture
def in_doubles() -> Iterator[None]:
    """What a test builds is in double precision."""
    from tests.running import doubles

    with doubles():
        yield


@pytest.fixture(scope="session")
def begun() -> Callable[[DictConfig, list[int]], Any]:
    """(configuration, seeds) to the `SeedsModule` before its training, as `train`."""
    return _begun


@pytest.fixture(scope="session")
def train() -> Callable[[DictConfig, list[int]], Any]:
    """(configuration, seeds) to the `SeedsModule` after its training, uncompiled, without Lightning's loop."""
    return _train
