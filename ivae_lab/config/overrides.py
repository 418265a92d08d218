"""Groups, choices and keys of the configuration: what an override of `ivae-lab train` may name. No PyTorch here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ivae_lab.config.paths import CONFIG
from ivae_lab.terminal.command_line import TRUTH


def groups(further: Sequence[Path] = ()) -> dict[str, list[str]]:
    """Choices of each group, by the names of the files in `conf/` and in further folders of configuration."""
    found: dict[str, set[str]] = {}
    for root in (CONFIG, *further):
        for path in root.glob("*/**/*.yaml"):
            found.setdefault(path.parent.relative_to(root).as_posix(), set()).add(path.stem)
    return {name: sorted(found[name]) for name in sorted(found)}


def composed(overrides: Sequence[str]) -> DictConfig:
    """Compose the configuration, with Hydra's own part.

    Raises
    ------
    HydraException
        If an override names no group, choice or key, or is not written as one.
    """
    import hydra  # takes a while

    with hydra.initialize_config_dir(config_dir=str(CONFIG), version_base="1.3"):
        return hydra.compose("config", list(overrides), return_hydra_config=True)


def without_hydra(config: DictConfig) -> DictConfig:
    """Leave out Hydra's part of a composed configuration."""
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


def run_config(*overrides: str) -> DictConfig:
    """Compose the configuration of a run, as the command does; errors as of `composed`."""
    return without_hydra(composed(overrides))


def keys(config: DictConfig) -> dict[str, Any]:
    """Values of a configuration by their dotted keys, as `model.latent_dim`; a list is one value."""
    return dict(_leaves(OmegaConf.to_container(config, resolve=False), ""))


def _leaves(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(node, dict):
        yield path, node
        return
    for key, value in node.items():
        if not str(key).startswith("_"):
            yield from _leaves(value, f"{path}.{key}" if path else str(key))


def completed(given: Sequence[str], word: str) -> Iterable[str]:
    """Overrides of the configuration: a group with its choices, or a key with its value, a step at a time."""
    sign, word = (match[1], match[2]) if (match := re.fullmatch(r"([+~]*)(.*)", word)) else ("", word)
    key, equals, value = word.partition("=")
    known = groups(_folders(given))
    if equals and key in known:
        start = re.match(r"\[?(?:[^,]*,)*", value)  # what stands before the last of several choices
        return (f"{sign}{key}={start[0] if start else ''}{each}" for each in known[key])
    if equals:
        return (f"{sign}{key}={each}" for each in _values(_chosen_keys(given, known).get(key)))
    names = [f"{each}=" for each in (*known, *({} if "/" in word else _chosen_keys(given, known)))]
    return (sign + _step(name, word) for name in names if name.startswith(word))


def _step(name: str, word: str) -> str:
    """A name as far as its next dot or slash: `model.lik` has one answer, `model.likelihood.`, and not one for each."""
    further = re.match(r"[^./=]*[./=]", name[len(word) :])
    return word + further[0] if further else name


def _values(value: Any) -> Iterable[str]:
    """What a key may be set to: of a truth value both, of another the one that it has."""
    if isinstance(value, bool):
        return TRUTH
    return [] if value is None or isinstance(value, list | dict) else [str(value)]


def _chosen_keys(given: Sequence[str], known: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Keys of the configuration that the words so far choose; of the default's where these are not right."""
    from hydra.errors import HydraException

    paths = ",".join(f"file://{folder.resolve()}" for folder in _folders(given))
    search = [f"hydra.searchpath=[{paths}]"] if paths else []
    chosen = [_first(each) for each in given if each.partition("=")[0] in known]
    for overrides in (chosen, []):
        try:
            return keys(composed([*search, *overrides]))
        except HydraException:
            continue
    return {}


def _first(override: str) -> str:
    """Of several choices of a sweep (`model=ivae,vade`) the first."""
    key, _, value = override.partition("=")
    return override if value.startswith("[") else f"{key}={value.partition(',')[0]}"


def _folders(given: Sequence[str]) -> list[Path]:
    """Further folders of configuration that the words name."""
    words = " ".join(given)
    named = re.findall(r"(?:--config-dir|-cd)[= ](\S+)", words) + re.findall(r"file://([^],\s]+)", words)
    return [Path(name) for name in named]
