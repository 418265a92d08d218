"""Groups, choices and keys of the configuration, which overrides of `ivae-lab train` may name. No PyTorch here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ivae_lab.config.paths import CONFIG
from ivae_lab.terminal.command_line import TRUTH


def groups(further: Sequence[Path] = ()) -> dict[str, list[str]]:
    """List the choices of each group: names of files in `conf/` and in further folders of configuration."""
    choices: dict[str, set[str]] = {}
    for root in (CONFIG, *further):
        for path in root.glob("*/**/*.yaml"):
            choices.setdefault(path.parent.relative_to(root).as_posix(), set()).add(path.stem)
    return {name: sorted(choices[name]) for name in sorted(choices)}


def composed(overrides: Sequence[str]) -> DictConfig:
    """Compose the configuration, with Hydra's own part.

    Raises
    ------
    HydraException
        If an override has wrong syntax, or names an unknown group, choice or key.
    """
    import hydra  # takes a while

    with hydra.initialize_config_dir(config_dir=str(CONFIG), version_base="1.3"):
        return hydra.compose("config", list(overrides), return_hydra_config=True)


def without_hydra(config: DictConfig) -> DictConfig:
    """Return a composed configuration without Hydra's part."""
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


def run_config(*overrides: str) -> DictConfig:
    """Compose the configuration of a run, as the command does; errors as of `composed`."""
    return without_hydra(composed(overrides))


def keys(config: DictConfig) -> dict[str, Any]:
    """Flatten a configuration: values by dotted keys such as `model.latent_dim`; a list is one value."""
    return dict(_leaves(OmegaConf.to_container(config, resolve=False), ""))


def _leaves(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(node, dict):
        yield path, node
        return
    for key, value in node.items():
        if not str(key).startswith("_"):
            yield from _leaves(value, f"{path}.{key}" if path else str(key))


def completed(given: Sequence[str], word: str) -> Iterable[str]:
    """List the overrides that complete `word`, given the words before it: a group's choices, or a key and its value.

    Dotted names are completed a part at a time.
    """
    sign, word = (match[1], match[2]) if (match := re.fullmatch(r"([+~]*)(.*)", word)) else ("", word)
    key, equals, value = word.partition("=")
    known = groups(_folders(given))
    if equals and key in known:
        start = re.match(r"\[?(?:[^,]*,)*", value)  # the text before the last of several choices
        return (f"{sign}{key}={start[0] if start else ''}{choice}" for choice in known[key])
    if equals:
        return (f"{sign}{key}={text}" for text in _values(_chosen_keys(given, known).get(key)))
    names = [f"{name}=" for name in (*known, *({} if "/" in word else _chosen_keys(given, known)))]
    return (sign + _step(name, word) for name in names if name.startswith(word))


def _step(name: str, word: str) -> str:
    """Cut a name at its first dot or slash after `word`: `model.lik` is completed to `model.likelihood.` alone."""
    further = re.match(r"[^./=]*[./=]", name[len(word) :])
    return word + further[0] if further else name


def _values(value: Any) -> Iterable[str]:
    """List values to suggest for a key: both truth values for one of them, otherwise the present value."""
    if isinstance(value, bool):
        return TRUTH
    return [] if value is None or isinstance(value, list | dict) else [str(value)]


def _chosen_keys(given: Sequence[str], known: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return keys and values of the configuration that the words so far choose, or of the default if they are wrong."""
    from hydra.errors import HydraException

    paths = ",".join(f"file://{folder.resolve()}" for folder in _folders(given))
    search = [f"hydra.searchpath=[{paths}]"] if paths else []
    chosen = [_first(word) for word in given if word.partition("=")[0] in known]
    for overrides in (chosen, []):
        try:
            return keys(composed([*search, *overrides]))
        except HydraException:
            continue
    return {}


def _first(override: str) -> str:
    """Reduce an override with several choices of a sweep (`model=ivae,vade`) to the first."""
    key, _, value = override.partition("=")
    return override if value.startswith("[") else f"{key}={value.partition(',')[0]}"


def _folders(given: Sequence[str]) -> list[Path]:
    """List the further folders of configuration that the words name."""
    words = " ".join(given)
    names = re.findall(r"(?:--config-dir|-cd)[= ](\S+)", words) + re.findall(r"file://([^],\s]+)", words)
    return [Path(name) for name in names]
