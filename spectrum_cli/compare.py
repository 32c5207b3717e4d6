"""`spectrum compare`: the plain run against any set of methods, and a folder to look at."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectrum_cli import machine, options
from spectrum_cli.flags import with_flags
from spectrum_cli.loaded import Loaded, find_model
from spectrum_cli.output import (
    columns,
    console,
    emit,
    emit_json,
    error,
    human_bytes,
    human_seconds,
    say,
    terminal_width,
)

if TYPE_CHECKING:
    import rich.progress

    from spectrum.compare.comparison import Comparison
    from spectrum.compare.figures import Outcome
    from spectrum.compare.rivals import Case, Rival
    from spectrum.methods import HistoryPlace
    from spectrum.pipeline.preset import Preset
    from spectrum.pipeline.request import Request
    from spectrum.report import Report, Step


BUSY = 1.5  # the slowest plain steps over the fastest, above which the clock is not trusted


def compare(
    prompt: Annotated[str | None, typer.Argument(help="What to show.")] = None,
    prompts: options.Prompts = None,
    seeds: options.Seeds = 1,
    model: options.Model = "demo-image",
    speedup: options.Speedup = None,
    steps: options.Steps = None,
    method: options.Methods = None,
    seed: options.FirstSeed = 0,
    width: options.Width = None,
    height: options.Height = None,
    frames: options.Frames = None,
    guidance: options.Guidance = None,
    negative_prompt: options.NegativePrompt = None,
    image: options.Image = None,
    output: options.OutputFolder = None,
    force: options.Force = False,
    weights: machine.Weights = None,
    device: machine.Device = "auto",
    dtype: machine.Dtype = None,
    offload: machine.Offload = "none",
    quantize: machine.Quantize = None,
    vae_tiling: machine.VaeTiling = None,
    compile: machine.Compile = False,
    attention: machine.Attention = None,
    history: machine.History = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Set methods against the plain run: pictures, a table, a page to send to a colleague."""
    began = time.perf_counter()
    from spectrum.compare.rivals import Case, find_rivals
    from spectrum.methods import HistoryPlace
    from spectrum.pipeline.beforehand import check
    from spectrum.pipeline.request import resolve

    texts = _prompts(prompt, prompts, seeds)
    preset = find_model(model, quiet)
    ask = partial(
        resolve, preset, texts[0], negative_prompt=negative_prompt, width=width, height=height,
        frames=frames, steps=steps, guidance=guidance, image=image,
    )  # fmt: skip
    speedup = _speedup(preset, ask, speedup)
    layout = machine.options(
        preset, weights, dtype, offload, quantize, vae_tiling, compile, attention
    )
    folder = _folder(output, preset.name, prompts.stem if prompts else texts[0], force)
    plain = ask(speedup=1.0)
    loaded = Loaded(plain, device, layout, quiet)
    rivals = find_rivals(method or [], ask, speedup)
    rivals = _keeping(rivals, options.one_of("--history", history, HistoryPlace))
    for rival in rivals:
        if rival.request is not None:
            check(rival.request, device, layout)
    loaded.largest = max(
        (rival.request for rival in rivals if rival.request is not None),
        key=lambda request: request.history_bytes(layout.dtype or preset.dtype),
    )
    pipe = loaded.pipe
    from spectrum.compare.comparison import Comparison

    if not quiet:
        say(f"load: {human_seconds(loaded.seconds)}")
    cases = [Case(text, (seed + k) % options.SEEDS) for k, text in enumerate(texts)]
    comparison = Comparison(pipe, plain, rivals, cases, speedup, loaded.device, layout)
    try:
        with _Display(comparison, quiet):
            written = comparison.write(folder, force)
    except OSError as problem:
        if not comparison.result:
            raise
        _print(comparison.result, as_json)
        _keep(comparison.result, folder, problem)
        raise typer.Exit(1) from problem
    _print(comparison.result, as_json)
    if not quiet:
        _tell(comparison.result, written, began)
    code = 1 if comparison.result["missing"] else 0
    if code:
        error(_missing(comparison.result, written))
    if written.resolve() != folder.resolve():
        error(f"{folder} was taken by something else meanwhile: this one is {written}")
        code = 1 if output else code
    raise typer.Exit(code)


def _keeping(rivals: list[Rival], place: HistoryPlace | None) -> list[Rival]:
    """Those that forecast features, with these there; the others as they are."""
    from spectrum.errors import UsageError

    if place is None:
        return rivals
    found = [
        replace(one, request=replace(one.request, history=place))
        if one.kind == "method" and one.request and one.request.method.target == "feature"
        else one
        for one in rivals
    ]
    if found == rivals:
        raise UsageError("--history is of features, which none of these methods keeps; leave it")
    return found


def _keep(document: dict[str, Any], folder: Path, problem: OSError) -> None:
    """Put the figures of a folder that could not be written among temporary files, for they took
    long to measure."""
    from spectrum.pipeline.files import write

    told = f"{folder} could not be written: {problem.strerror or problem}"
    place = Path(tempfile.gettempdir(), "spectrum-saved.json")
    text = json.dumps(document, ensure_ascii=False, indent=1)
    with suppress(OSError):  # they have been printed
        kept = write(place, lambda partial: partial.write_text(f"{text}\n", encoding="utf-8"))
        told += f"; its pictures are lost, its figures were saved as {kept}"
    error(told)


def _print(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        emit_json(document)
    else:
        emit("\n".join(table(document, terminal_width())))


def _missing(document: dict[str, Any], folder: Path) -> str:
    files = document["missing"]
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""
    return (
        f"{document['problem']}; all was measured, and {folder} has the figures (result.json) and"
        f" what else could be written, but not {', '.join(files[:3])}{more}"
    )


def _tell(document: dict[str, Any], folder: Path, began: float) -> None:
    pace = document["plain_step_seconds"]
    if pace["most"] > BUSY * pace["least"]:
        say(
            f"warning: plain steps took from {human_seconds(pace['least'])} to"
            f" {human_seconds(pace['most'])} while this ran: the machine was busy with other"
            " things, so speedups are rough"
        )
    if not document["missing"]:
        size = human_bytes((folder / "index.html").stat().st_size)
        say(f"wrote {folder}; open {folder / 'index.html'} ({size})", style="bold")
    say(f"{human_seconds(time.perf_counter() - began)} in all")


def table(document: dict[str, Any], width: int | None = None) -> list[str]:
    """The figures in columns, the best method first; of a narrow terminal those that fit it."""
    from spectrum.compare.figures import headings, row

    heads = [heading.partition(",")[0].upper() for heading in headings(document)]
    rows, reasons = [["METHOD", *heads]], {}
    for method in document["methods"]:
        if method["runs"]:
            rows.append([method["name"], *row(method, document)])
        else:
            reasons[method["name"]] = method["unavailable"]
    wide = max(len(name) for name in (*(cells[0] for cells in rows), *reasons))
    rows = [[cells[0].ljust(wide), *cells[1:]] for cells in rows]
    fewer = [
        [[cells[0], *(cells[1 + heads.index(head)] for head in kept)] for cells in rows]
        for kept in (("COMPUTED", "DENOISING", "PSNR", "GAIN"), ("COMPUTED", "PSNR"), ("PSNR",))
    ]
    lines = columns([rows, *fewer], width)
    return lines + [f"{name.ljust(wide)}  {with_flags(reason)}" for name, reason in reasons.items()]


def _speedup(preset: Preset, ask: Callable[..., Request], given: float | None) -> float:
    """The one that is given, or the preset's. Raises UsageError where there is none to compare."""
    from spectrum.errors import UsageError

    if preset.distilled:
        raise UsageError(f"{preset.name} is made for few steps: there is nothing to compare")
    speedup = ask().speedup if given is None else given
    if not speedup > 1:
        raise UsageError(f"--speedup is above 1 (1 is the plain run), not {speedup:g}")
    return speedup


def _prompts(prompt: str | None, file: Path | None, seeds: int) -> list[str]:
    """One a case."""
    from spectrum.errors import UsageError

    if (prompt is None) == (file is None):
        raise UsageError('give one prompt, such as "a red circle", or --prompts FILE')
    if prompt is not None:
        return [prompt] * seeds
    assert file is not None
    if seeds > 1:
        raise UsageError("--seeds goes with one prompt; each line of --prompts has its own seed")
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise UsageError(f"--prompts {file}: can't be read: {reason}") from error
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise UsageError(f"--prompts {file}: there is no prompt in it; write one a line")
    return found


def _folder(output: Path | None, model: str, name: str, force: bool) -> Path:
    """Where to write. Raises for a folder that can't be created, or must not be replaced."""
    from spectrum.errors import SpectrumError
    from spectrum_cli.paths import check_free, slug

    folder = output or Path(f"compare-{model}-{slug(name)}")
    parent = folder.absolute().parent
    if not os.path.isdir(parent):
        raise SpectrumError(f"{parent}: no such folder; create it with `mkdir -p '{parent}'`")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise SpectrumError(f"{parent}: can't be written to; choose another place with --output")
    check_free(folder, True, force)
    return folder


class _Display:
    """A line for every run that has ended, and on a terminal a bar below them."""

    def __init__(self, comparison: Comparison, quiet: bool) -> None:
        comparison.watcher = self
        self._runs, self._quiet = comparison.runs, quiet
        self._several = len(comparison.cases) > 1
        self._ended = 0
        self._bar: rich.progress.Progress | None = None

    def __enter__(self) -> _Display:
        if not self._quiet and console().is_terminal and not console().is_dumb_terminal:
            from rich import progress

            self._bar = progress.Progress(
                progress.TextColumn("{task.description}", markup=False), progress.BarColumn(),
                progress.TextColumn("{task.percentage:>3.0f} %"), progress.TimeRemainingColumn(),
                console=console(), transient=True,
            )  # fmt: skip
            self._task = self._bar.add_task("warming up", total=self._runs)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begin(self, case: Case, name: str) -> None:
        if self._bar is not None:
            self._bar.update(self._task, description=self._of(case, name), completed=self._ended)

    def step(self, report: Report, step: Step | None) -> None:
        del step
        if self._bar is not None:
            done = len(report.steps) / report.num_steps
            self._bar.update(self._task, completed=self._ended + done)

    def end(self, case: Case, name: str, outcome: Outcome | str) -> None:
        self._ended += 1
        if self._quiet:
            return
        if isinstance(outcome, str):
            say(f"{self._of(case, name)}: left out: {with_flags(outcome)}")
            return
        text = f"{outcome.computed:g} computed, {human_seconds(outcome.denoise_seconds)}"
        if outcome.likeness is not None:
            text += f", {outcome.likeness.psnr:.2f} dB"
        say(f"{self._of(case, name)}: {text}")
        for note in dict.fromkeys(outcome.notes):
            say(f"  note: {with_flags(note)}")

    def _of(self, case: Case, name: str) -> str:
        return f"seed {case.seed}, {name}" if self._several else name
