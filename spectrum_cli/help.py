"""How commands explain themselves, and what all of them refuse of a command line."""

from __future__ import annotations

import re
from copy import copy
from typing import Any

from typer.core import TyperCommand, TyperGroup, TyperOption
from typer.exceptions import TyperException

# Parameters by the panel of the help that they stand in.
PANELS = {
    "What": "model model_named prompt prompts seed seeds num_images width height frames fps"
    " guidance negative_prompt image strength loras extras sweep",
    "How fast": "speedup speedups steps quality method target blend scheduler alpha window warmup"
    " minutes",
    "How it fits": "weights device dtype offload quantize vae_tiling compile attention history"
    " batch_size gpus workers ray",
    "Output": "output force name dry_run preview progress shard retry_failed quiet as_json help",
}
# Options that take their value from SPECTRUM_MODEL and so on, or from the user's config.yaml, where
# they are not given. Not for rerun, which goes by the file.
ENVIRONMENT = ("model", "device", "dtype", "offload", "quantize", "attention", "method", "quiet")
_PANEL_OF = {name: panel for panel, names in PANELS.items() for name in names.split()}


class Command(TyperCommand):
    """Its help has panels and names the methods, whose catalogue is not imported for less."""

    def get_params(self, ctx: Any) -> list[Any]:
        found = super().get_params(ctx)
        for option in found:
            several = getattr(option, "multiple", False)  # as compare's methods: all, if not told
            if option.name in ENVIRONMENT and self.name != "rerun" and not several:
                option.envvar = f"SPECTRUM_{option.name.upper()}"
        return found

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if any(option.name == "width" for option in self.params):
            args = _with_sides(args)
        if not ctx.resilient_parsing:  # as for completion
            self._check_once(ctx, args)
        rest = super().parse_args(ctx, args)
        # A model by --model comes before the usual one, which stands where MODEL does.
        source = ctx.get_parameter_source("model")
        if ctx.params.get("model_named") is not None and source and source.name != "COMMANDLINE":
            ctx.params["model"] = None
        return rest

    def _check_once(self, ctx: Any, args: list[str]) -> None:
        """Raise UsageError for an option that is given twice, of which one would be ignored."""
        parser = self.make_parser(ctx)
        options = [one for one in self.get_params(ctx) if isinstance(one, TyperOption)]
        single = [option for option in options if not option.multiple]
        for option in single:
            all_kept = copy(option)
            all_kept.multiple = True
            all_kept.add_to_parser(parser, ctx)  # in the place of the option
        try:
            given = parser.parse_args(list(args))[0]
        except TyperException as raised:
            problem: Any = raised
            problem.ctx = problem.ctx or ctx  # whose help lists the options
            raise
        for option in single:
            if len(values := given.get(option.name, [])) > 1:
                _refuse_another(option, values)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from spectrum_cli.options import method_names

        for option in _tidy(self, ctx):
            option.rich_help_panel = _PANEL_OF.get(option.name or "", option.rich_help_panel)
            if option.name == "method" and option.help:
                option.help = option.help.format(methods=method_names())
        super().format_help(ctx, formatter)


def _with_sides(args: list[str]) -> list[str]:
    """With --width and --height for --size."""
    from spectrum.errors import UsageError

    found: list[str] = []
    words = iter(args)
    for word in words:
        flag, equals, value = word.partition("=")
        if word == "--":
            return [*found, word, *words]
        if flag != "--size":
            found.append(word)
            continue
        value = value if equals else next(words, "")
        sides = re.fullmatch(r"(\d+)[x×*](\d+)", value.lower())
        if not sides:
            raise UsageError(f"--size is width and height, such as 832x480, not {value!r}")
        found += ["--width", sides[1], "--height", sides[2]]
    return found


class Group(TyperGroup):
    def format_help(self, ctx: Any, formatter: Any) -> None:
        _tidy(self, ctx)
        super().format_help(ctx, formatter)


def _tidy(command: Any, ctx: Any) -> list[TyperOption]:
    """The options; a flag's has no type beside it."""
    options = [one for one in command.get_params(ctx) if isinstance(one, TyperOption)]
    for option in options:
        if option.is_flag:
            option.metavar = ""
    return options


def _refuse_another(option: TyperOption, values: list[Any]) -> None:
    """Raise UsageError, but not for a flag that says the same again."""
    from spectrum.errors import UsageError

    flag = option.opts[0]
    if option.is_flag:
        if len(set(values)) > 1:
            raise UsageError(f"{flag} and {option.secondary_opts[0]} are both given; give one")
        return
    times = "twice" if len(values) == 2 else f"{len(values)} times"
    told = f"{flag} is given {times}: {' and '.join(values)}; give it once"
    if option.name in ("width", "height"):
        told += " (--size sets it too)"
    if option.name == "seed" and option.metavar == "N":
        told += ", several as --seed 1,2 or by `-n`"
    raise UsageError(told)
