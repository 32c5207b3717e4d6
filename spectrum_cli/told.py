"""What is told of images and films: a line each, a summary, an object for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spectrum.words import counted
from spectrum_cli.flags import with_flags
from spectrum_cli.loaded import Loaded
from spectrum_cli.output import emit_as_it_is, emit_json, human_seconds, say

if TYPE_CHECKING:
    from spectrum.pipeline.generate import Generation
    from spectrum.pipeline.request import Request
    from spectrum_cli.paths import Target


def say_plan(
    request: Request, seeds: list[int], files: list[Target], as_json: bool, quiet: bool
) -> None:
    """What a run would do, on standard output; its paths alone where that is not JSON."""
    plan = request.plan
    computed = None if plan.adaptive else list(plan.computed_steps)
    if as_json:
        emit_json({
            "outputs": [str(file.path) for file in files], "model": request.preset.name,
            "prompt": request.prompt, "seeds": seeds, "width": request.width,
            "height": request.height, "frames": request.frames, "steps": request.steps,
            "computed_steps": computed, "dry_run": True,
        })  # fmt: skip
        return
    for file in files:
        emit_as_it_is(str(file.path))
    if quiet:
        return
    count = "as many steps as it takes" if computed is None else counted(len(computed), "step")
    say(f"{request.preset.name} would compute {count} of {request.run_steps}; nothing was loaded")


def document(
    loaded: Loaded, seeds: list[int], files: list[Target], made: list[Generation], total: float
) -> dict[str, Any]:
    """The object that --json prints. Seconds are sums over all images."""
    from spectrum import __version__
    from spectrum.pipeline.generate import peak_memory_bytes

    request, report = loaded.request, made[0].report
    estimates = [m.report.estimated_speedup or 1.0 for m in made]
    return {
        "outputs": [str(file.path) for file in files],
        "model": request.preset.name,
        "prompt": request.prompt,
        "seeds": seeds,
        "steps": request.steps,
        "computed_steps": report.computed_steps,
        "forecast_steps": report.forecast_steps,
        "forecast_errors": {str(s.index): s.error for s in report.steps if s.error is not None},
        "notes": [
            note
            for one, file in zip(made, files, strict=True)
            for note in one.notes(file.path.suffix)
        ],
        "speedup": {
            "requested": None if report.adaptive else request.speedup,
            "planned": report.planned_speedup,
            "denoise_estimated": sum(estimates) / len(estimates),
        },
        "seconds": {
            "load": loaded.seconds,
            "encode": sum(m.encode_seconds for m in made),
            "denoise": sum(m.denoise_seconds for m in made),
            "decode": sum(m.decode_seconds for m in made),
            "total": total,
        },
        "images": [_about(*one) for one in zip(seeds, files, made, strict=True)],
        "peak_memory_bytes": peak_memory_bytes(loaded.device),
        "version": __version__,
    }


def _about(seed: int, file: Target, made: Generation) -> dict[str, Any]:
    """What --json says of one image or film."""
    report = made.report
    return {
        "output": str(file.path),
        "seed": seed,
        "computed_steps": report.computed_steps,
        "forecast_errors": {str(s.index): s.error for s in report.steps if s.error is not None},
        "notes": made.notes(file.path.suffix),
        "denoise_estimated": report.estimated_speedup,
        "seconds": {
            "encode": made.encode_seconds,
            "denoise": made.denoise_seconds,
            "decode": made.decode_seconds,
        },
    }


def say_written(request: Request, seed: int, file: Target, one: Generation) -> None:
    frames, height, width = one.frames.shape[:3]
    size = f"{width}×{height}"
    if request.fps and frames > 1:
        size += f", {frames} frames at {request.fps} fps"
    if file.path != file.asked and not file.by_user:
        say(f"{file.asked.name} exists already and was kept; --force overwrites it")
    where = f"a {file.path.suffix} to standard output" if file.is_stdout else file.path
    say(f"wrote {where}  ({size}, seed {seed})", style="bold")
    for note in one.notes(file.path.suffix):
        say(f"note: {with_flags(note)}")


def summary(made: list[Generation], total: float) -> None:
    """How it went, on standard error, once for all that were made."""
    steps = made[0].report.num_steps
    counts = sorted({len(one.report.computed_steps) for one in made})
    computed = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    others = {steps: "", steps - 1: ", the other one forecast"}.get(
        counts[0], ", the others forecast"
    )
    seconds = sum(one.denoise_seconds for one in made)
    say(
        f"{computed} of {counted(steps, 'step')} computed{others};"
        f" denoised in {human_seconds(seconds)}"
        + (f", {human_seconds(seconds / len(made))} each" if len(made) > 1 else "")
    )
    if any(one.report.forecast_steps for one in made):
        say(_speedup(made))
    say(f"{human_seconds(total)} in all")


def _speedup(made: list[Generation]) -> str:
    """No plain run was timed here, so it is estimated from what the computed steps took."""
    found = [one.report.estimated_speedup or 1.0 for one in made]
    text = f"about {sum(found) / len(found):.2f}× faster than computing every step"
    if made[0].report.adaptive:
        return text
    return f"{text} ({made[0].report.planned_speedup:.2f}× if forecasts took no time)"
