"""Every option but those of the machine, declared once.

Parameters are called as the library calls its arguments: its errors name them, and
`spectrum_cli.flags` finds the flag by that name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from spectrum.pipeline import bounds

MODEL_HELP = "A name that `spectrum models` lists, a preset's YAML file, a folder or a hub id."
SEEDS = 2**32


def complete_model(incomplete: str) -> list[str]:
    from spectrum.pipeline.catalog import preset_paths
    from spectrum_cli.output import printable

    names = [name for name in preset_paths() if name.startswith(incomplete)]
    return [name for name in names if name == printable(name)]


def completing(values: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """The completion of an option that takes one of these, which are found when they are asked
    for."""

    def complete(incomplete: str) -> list[str]:
        return [value for value in values() if value.startswith(incomplete)]

    return complete


def _methods() -> Iterable[str]:
    from spectrum.methods import METHODS

    return METHODS


def _rivals() -> Iterable[str]:
    from spectrum.compare.rivals import DEFAULT_RIVALS

    return DEFAULT_RIVALS


def _targets() -> Iterable[str]:
    from spectrum.methods import Target

    return get_args(Target)


def _qualities() -> Iterable[str]:
    from spectrum.pipeline.request import QUALITIES

    return QUALITIES


def _schedulers() -> Iterable[str]:
    from spectrum.pipeline.known import scheduler_names
    from spectrum.pipeline.sampler import SCHEDULERS

    return [*SCHEDULERS, *sorted(scheduler_names())]


def method_names() -> str:
    """For help, where it stands in for {methods}; not at import, as the catalogue needs numpy."""
    from spectrum.methods import METHODS

    return ", ".join(name + " (the paper's)" * (name == "published") for name in METHODS)


# -- what is asked of a model --------------------------------------------------------------------

Model = Annotated[
    str, typer.Option("--model", "-m", autocompletion=complete_model, help=MODEL_HELP)
]
ModelArgument = Annotated[
    str | None, typer.Argument(autocompletion=complete_model, help=MODEL_HELP)
]
ModelToo = Annotated[
    str | None,
    typer.Option("--model", "-m", autocompletion=complete_model, help="The same as MODEL."),
]
Prompts = Annotated[Path | None, typer.Option(help="A file of prompts, one a line.")]
Steps = Annotated[
    int | None, typer.Option(help=f"Solver steps, computed and forecast; at most {bounds.STEPS:,}.")
]
Seed = Annotated[
    str | None,
    typer.Option(
        metavar="N", help="Of the noise; random, and reported, if not given; several as 1-4,9."
    ),
]
FirstSeed = Annotated[
    int, typer.Option("--seed", min=0, max=SEEDS - 1, help="The first; one more for each prompt.")
]
Seeds = Annotated[int, typer.Option(min=1, max=1000, help="How many, consecutive, for one prompt.")]
NumImages = Annotated[
    int,
    typer.Option(
        "--num-images", "-n", min=1, max=bounds.IMAGES, help="How many, with consecutive seeds."
    ),
]
Width = Annotated[
    int | None,
    typer.Option(help=f"Pixels, at most {bounds.SIDE:,}; --size 832x480 sets both sides."),
]
Height = Annotated[int | None, typer.Option(help=f"Pixels, at most {bounds.SIDE:,}.")]
Frames = Annotated[
    int | None, typer.Option(help=f"Length of a video, at most {bounds.FRAMES:,} frames.")
]
Fps = Annotated[
    int | None, typer.Option(help=f"Frames a second of a video, at most {bounds.FPS:,}.")
]
Guidance = Annotated[float | None, typer.Option(help="Guidance scale.")]
NegativePrompt = Annotated[str | None, typer.Option(help="What not to show.")]
Image = Annotated[Path | None, typer.Option(help="To edit, to animate or to start from.")]
Strength = Annotated[
    float | None,
    typer.Option(help="How far to leave the image; 1 ignores it."),
]
Loras = Annotated[
    list[str] | None,
    typer.Option("--lora", metavar="PATH_OR_ID[:SCALE]", help="Repeatable."),
]
Extras = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any other argument of the model's pipeline; repeatable.",
    ),
]

# -- many jobs -----------------------------------------------------------------------------------

Jobs = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="Prompts, a line each, JSON Lines, CSV or a YAML job file; - reads standard input.",
    ),
]
JobSeed = Annotated[
    int,
    typer.Option(
        "--seed",
        min=0,
        max=SEEDS - 1,
        help="Of jobs that name none; the same job once more takes the next.",
    ),
]
SeedRange = Annotated[
    str | None,
    typer.Option("--seeds", help="Each job with all of these, as 1-8 or 1,3,5.", metavar="A-B"),
]
Sweep = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=A,B", help="Each job with all of these; several: combinations."),
]
Name = Annotated[
    str,
    typer.Option(
        help="Of the files: {index}, {seed}, {prompt:40}, {model}, {date}, {speedup}, {steps}."
    ),
]
Shard = Annotated[
    str | None, typer.Option(metavar="I/N", help="Only the I-th of N shares of the jobs.")
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Try those again that failed before.")
]
BatchSize = Annotated[
    int,
    typer.Option(
        "--batch-size",
        min=1,
        metavar="K",
        help="Sample up to K jobs in one call that differ in prompts and seed alone.",
    ),
]

# -- how it is sampled ---------------------------------------------------------------------------

Speedup = Annotated[
    float | None,
    typer.Option("--speedup", "-s", help="Steps over computed steps; 1 turns Spectrum off."),
]
Method = Annotated[
    str | None,
    typer.Option(
        autocompletion=completing(_methods), help="How steps are chosen and forecast: {methods}."
    ),
]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        metavar="NAME[:BLEND]",
        autocompletion=completing(_rivals),
        help="{methods}; fewer-steps[:SCHEDULER], diffusers-taylorseer or diffusers-firstblock;"
        " repeatable, all of them if not given.",
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        autocompletion=completing(_targets),
        help="What is forecast: feature or denoised; the method's if not given.",
    ),
]
Quality = Annotated[
    str | None,
    typer.Option(
        autocompletion=completing(_qualities),
        help="draft, good, high or an error: compute as few steps as that takes.",
    ),
]
Blend = Annotated[
    float | None,
    typer.Option(help="Of published and affine: ridge against straight line."),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        autocompletion=completing(_schedulers),
        help="euler, heun, unipc, dpm++ or a class of diffusers, as far as the pipeline takes it.",
    ),
]
Alpha = Annotated[
    float | None, typer.Option(min=0, max=1000, help="Growth of the published schedule's windows.")
]
Window = Annotated[
    int | None, typer.Option(min=1, max=bounds.STEPS, help="Its first window; 2 if not given.")
]
Warmup = Annotated[
    int | None,
    typer.Option(min=1, max=bounds.STEPS, help="Steps it computes at the start; 5 if not given."),
]
Speedups = Annotated[str, typer.Option(help="To tune for, with commas between them.")]
Minutes = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=100_000,
        help="For everything; else what it takes, at most 10, or as many times 10 as a step"
        " takes seconds.",
    ),
]

# -- where it goes -------------------------------------------------------------------------------

OutputFile = Annotated[  # text: an ending / means a folder
    str | None,
    typer.Option(
        "--output",
        "-o",
        help="Existing folder, or file: .png, .jpg, .webp; .mp4, .webm, .gif, .webp. With {seed},"
        " {index}, {prompt:40}, {model} in its name; - is standard output.",
    ),
]
OutputFolder = Annotated[Path | None, typer.Option("--output", "-o", help="Folder to create.")]
BatchFolder = Annotated[
    Path, typer.Option("--output", "-o", help="Folder; made if need be, and gone on with.")
]
OutputPreset = Annotated[
    Path | None, typer.Option("--output", "-o", help="Preset to write; else <model>-tuned.yaml.")
]
Preview = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Show the state in a small picture beside the output, every N steps until it is"
        " written.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there already.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be made, and where, and load nothing.")
]
ProgressAs = Annotated[
    str,
    typer.Option(
        "--progress",
        help="auto, or json: an object a line on standard error for each stage and step.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Nothing on standard error but errors.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]

JobJson = Annotated[
    bool, typer.Option("--json", help="One JSON object a job on standard output, as it ends.")
]


def the_model(argument: str | None, option: str | None, usual: str | None) -> str:
    """By whichever way it is named. Raises UsageError for two of them, and for none where there is
    no usual one."""
    from spectrum.errors import UsageError

    if argument is not None and option is not None:
        raise UsageError("the model is given twice, as MODEL and as --model; leave one")
    name = option if argument is None else argument
    name = usual if name is None else name
    if name is None:
        raise UsageError("which MODEL? `spectrum models` lists them")
    return name


def one_of(option: str, value: str | None, literal: Any) -> Any:
    """The value, if it is None or one of the literal's. Raises UsageError, with all of them."""
    from spectrum.errors import UsageError

    if value is not None and value not in get_args(literal):
        raise UsageError(f"no {option} {value!r}; there are {', '.join(get_args(literal))}")
    return value
