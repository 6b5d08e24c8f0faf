"""Find everything that is wrong with the overrides of a command line, at once."""

import difflib
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from src.utils.errors import ConfigErrors

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def explain(error: BaseException, arguments: Sequence[str], config_name: str | None = None) -> str:
    """Return what Hydra could not compose, with every other mistake of the command line.

    arguments: the words after the script's name. config_name: the script's name when None.
    """
    try:
        faults = find_faults(arguments, config_name or Path(sys.argv[0]).stem)
    except Exception:  # the base config itself is broken and nothing can be tried: Hydra's own text has to do
        faults = []
    return str(ConfigErrors(faults or [_flat(error)]))


def find_faults(arguments: Sequence[str], config_name: str) -> list[str]:
    """Return one line for each override that does not parse, names no key or option, or has a wrong value.

    Overrides are tried one after the other, groups first, on top of those that compose.

    Raises:
        HydraException: the config does not compose without any override.
    """
    from hydra._internal.utils import get_args_parser
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    args, _ = get_args_parser().parse_known_args(list(arguments))
    directory = str(Path(args.config_dir).resolve()) if args.config_dir else None
    attempt = _Attempt(args.config_name or config_name, directory)
    parser, parsed, faults, unread = OverridesParser.create(), [], [], []
    for word in args.overrides:
        try:
            parsed += parser.parse_overrides([word])
        except HydraException:
            unread.append(word.partition("=")[0].lstrip("+~"))
            faults.append(quoting_hint(word))
    parsed.sort(key=lambda override: not attempt.options(override.key_or_group))
    for override in parsed:
        for word in _single(override):
            try:
                attempt.add(word)
            except Exception as error:
                unread.append(str(override.key_or_group).replace("/", "."))
                faults.append(attempt.fault(override, word, error))
    # The value that an override would have replaced may be wrong as well, which is only a consequence.
    return faults + [line for line in attempt.wrong_values() if not line.startswith(tuple(unread or ["\0"]))]


def quoting_hint(argument: str) -> str:
    """Return the line about an override that Hydra cannot parse: the character, and the quoting that works."""
    key, equals, value = argument.partition("=")
    if not equals:
        return f"{argument} cannot be read; expected key=value; write {argument}=VALUE, or ~{argument} to remove it"
    special = next((char for char in value if char in " ,=()[]{}:~$\"'\\#&;<>!^`"), None)
    value = str(Path(value).expanduser()) if value.startswith("~/") else value
    quoted = value.replace("\\", "\\\\").replace("'", "\\'")
    inside = f"{key}='{quoted}'"
    outside = f'"{inside}"' if not set(inside) & set('"$`!\\') else shlex.quote(inside)
    found = f"the character {special!r}" if special else "the value"
    return f"{argument} cannot be read because of {found}; expected a quoted value; write {outside}"


class _Attempt:
    """The overrides that compose so far, and what they compose to."""

    def __init__(self, config_name: str, config_dir: str | None) -> None:
        self.name, self.directory = config_name, config_dir
        self.good: list[str] = [f"hydra.searchpath=[file://{config_dir}]"] if config_dir else []
        self.config = self._compose(self.good)

    def _compose(self, words: list[str]) -> Any:
        from hydra import compose, initialize_config_dir

        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            return compose(self.name, words, return_hydra_config=True)

    def add(self, word: str) -> None:
        self.config = self._compose([*self.good, word])
        self.good.append(word)

    def options(self, group: str) -> list[str]:
        """Return the options of a group, none where the key names no group."""
        folders = [CONFIGS, *([Path(self.directory)] if self.directory else [])]
        return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})

    def fault(self, override: Any, word: str, error: Exception) -> str:
        """Return the line about an override that did not compose."""
        key, options = override.key_or_group, self.options(override.key_or_group)
        value = word.partition("=")[2]
        if options and value.removesuffix(".yaml") not in options:
            near = difflib.get_close_matches(value.removesuffix(".yaml"), options, n=1)
            return f"{word}; expected one of {', '.join(options)}; " + (
                f"did you mean {key}={near[0]}?" if near else f"set {key} to one of them"
            )
        if not options and not override.is_add() and not override.is_delete() and not self._has(key):
            near_key = nearest(key, [*self._keys(), *self._groups()])
            hint = f"did you mean {near_key}? " if near_key else ""
            return f"{word}; expected a key of the config; {hint}+{word} adds a new one, --cfg job shows all"
        return f"{word}; {_flat(error)}"

    def _has(self, key: str) -> bool:
        return key in self._keys()

    def _keys(self) -> list[str]:
        from omegaconf import OmegaConf

        return list(flat_keys(OmegaConf.to_container(self.config, resolve=False)))

    @staticmethod
    def _groups() -> list[str]:
        return [path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*") if path.is_dir()]

    def wrong_values(self) -> list[str]:
        """Return what `check_config` finds in the overrides that did compose."""
        from src.utils.config_check import find_problems

        return find_problems(self.config)


def _single(override: Any) -> Iterator[str]:
    """Yield the override without a sweep: `seed=1,2` gives two."""
    if not override.is_sweep_override():
        yield override.input_line
    elif override.is_discrete_sweep():
        prefix = override.input_line.partition("=")[0]
        for value in override.sweep_string_iterator():
            yield f"{prefix}={value}"


def nearest(key: str, known: Sequence[str]) -> str | None:
    """Return the known key closest to `key`: the same last name first, then the closest spelling."""
    name = key.rpartition(".")[2]
    same = [word for word in known if word.rpartition(".")[2] == name]
    near = difflib.get_close_matches(key, same or known, n=1, cutoff=0 if same else 0.6)
    if near:
        return near[0]
    names = {word.rpartition(".")[2]: word for word in reversed(known)}
    like = difflib.get_close_matches(name, list(names), n=1, cutoff=0.75)
    return names[like[0]] if like else None


def flat_keys(node: Any, prefix: str = "") -> Iterator[str]:
    """Yield every key of nested dictionaries, dotted."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from flat_keys(value, f"{prefix}{key}.")


def _flat(error: BaseException) -> str:
    cause = f" {error.__cause__}" if error.__cause__ is not None else ""
    return " ".join(f"{error}{cause}".split())
