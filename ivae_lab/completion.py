"""Completes what is typed after `ivae-lab` by TAB: commands, figures, run folders, and groups and keys of `train`.

    eval "$(ivae-lab completion bash)"          in ~/.bashrc
    eval "$(ivae-lab completion zsh)"           in ~/.zshrc, after compinit

The shell asks `ivae-lab completion answer LINE`, which prints what may stand in place of the last word of LINE, a line
for each, with a space after what is whole. Choices are read from the files of conf/, and of folders that are given by
--config-dir or hydra.searchpath; keys are those of the model and data that the line names.

Exit codes: 0 done, 2 bad input.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module

from ivae_lab.terminal.command_line import COMMANDS, BadInputError, done

_FLAGS = ("--help", "--version")
_HYDRA_FLAGS = ("--multirun", "--cfg", "--info", "--resolve", "--config-dir", "--hydra-help")
_SCRIPTS = {
    # Bash takes what follows an = or : for a word of its own, unless COMP_WORDBREAKS says otherwise.
    "bash": r"""_ivae_lab() {
    local line=${COMP_LINE:0:COMP_POINT} breaks=${COMP_WORDBREAKS//[^=:]/} before= answer
    local word=${line##*[[:space:]]}
    [ -z "$breaks" ] || before=${word%"${word##*[$breaks]}"}
    COMPREPLY=()
    while IFS= read -r answer; do
        COMPREPLY+=("${answer#"$before"}")
    done < <("$1" completion answer "$line" 2>/dev/null)
}
complete -o default -o nospace -F _ivae_lab ivae-lab""",
    "zsh": r"""_ivae_lab() {
    local -a answers
    answers=("${(@f)$("$words[1]" completion answer "${(j: :)words[1,CURRENT-1]} $PREFIX" 2>/dev/null)}")
    if [[ -n $answers[1] ]]; then
        compadd -Q -S '' -- "${answers[@]}"
    else
        compset -P '*='
        _files
    fi
}
compdef _ivae_lab ivae-lab""",
}


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    return done("ivae_lab.completion", __doc__, arguments, _run)


def _run(arguments: Sequence[str]) -> None:
    if len(arguments) == 2 and arguments[0] == "answer":
        print("".join(f"{each}\n" for each in answers(arguments[1])), end="")
    elif len(arguments) == 1 and arguments[0] in _SCRIPTS:
        print(_SCRIPTS[arguments[0]])
    else:
        raise BadInputError(f"expected one of {', '.join(_SCRIPTS)}, got {' '.join(arguments) or 'nothing'}")


def answers(line: str) -> list[str]:
    """What may stand in place of the last word of a line that is typed, in order; a space ends what is whole."""
    before, word = _words(line)
    words = _answers(before[1:], word)
    return sorted({answer if _goes_on(answer) else f"{answer} " for answer in words if answer.startswith(word)})


def _goes_on(word: str) -> bool:
    """Whether more is to be typed of a word."""
    return word.endswith(("=", ".", "/")) or word.count("[") > word.count("]")


def _words(line: str) -> tuple[list[str], str]:
    """The words before the last, as the shell takes them, and the last as it is typed; empty after a space."""
    word = "" if not line or line[-1].isspace() else line.split()[-1]
    before = line[: len(line) - len(word)]
    try:
        return shlex.split(before), word
    except ValueError:  # a quote that is open
        return before.split(), word


def _answers(before: Sequence[str], word: str) -> Iterable[str]:
    if not before:
        return [*COMMANDS, *_FLAGS]
    command, *given = before
    if command not in COMMANDS:
        return []
    if command == "completion":
        return [*_SCRIPTS, *_FLAGS]
    if word.startswith("-"):
        return [*_FLAGS, *(_HYDRA_FLAGS if command == "train" else ["--list"] if command in _LISTING else ())]
    if command == "train":
        from ivae_lab.config.overrides import completed

        return completed(given, word)
    return [*_own(import_module(f"ivae_lab.{command}").KEYS, word), *_POSITIONAL.get(command, list)()]


def _own(keys: Mapping[str, Sequence[str]], word: str) -> Iterator[str]:
    """Keys of a command, or the choices of one."""
    key, equals, _ = word.partition("=")
    if not equals:
        yield from (f"{each}=" for each in keys)
    elif key in keys:
        yield from (f"{key}={each}" for each in (_runs() if key == "run" else keys[key]))


def _runs() -> list[str]:
    """Names of run folders."""
    from ivae_lab.runs.folder import LATEST, OUTPUTS, run_folders

    folders = run_folders(OUTPUTS)
    return [LATEST, *(folder.name for folder in folders)] if folders else []


def _figures() -> list[str]:
    from ivae_lab.reproduction.definition import names

    return ["all", *names(), *(name.partition("/")[0] for name in names())]


def _data_sets() -> list[str]:
    from ivae_lab.data.images.catalogue import CATALOGUE

    return [*CATALOGUE]


_POSITIONAL: dict[str, Callable[[], list[str]]] = {"reproduce": _figures, "fetch": _data_sets, "score": _runs}
_LISTING = ("reproduce", "fetch")  # commands with --list


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
