"""`spectrum plan`: which steps would be computed, without loading any weights."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from spectrum.words import counted
from spectrum_cli import options
from spectrum_cli.loaded import find_model
from spectrum_cli.output import emit, emit_json, human_bytes, terminal_width

if TYPE_CHECKING:
    from spectrum.pipeline.request import Request
    from spectrum.plan import Plan


def plan(
    model: options.ModelArgument = None,
    model_named: options.ModelToo = None,
    steps: options.Steps = None,
    speedup: options.Speedup = None,
    method: options.Method = None,
    quality: options.Quality = None,
    scheduler: options.Scheduler = None,
    guidance: options.Guidance = None,
    alpha: options.Alpha = None,
    window: options.Window = None,
    warmup: options.Warmup = None,
    width: options.Width = None,
    height: options.Height = None,
    frames: options.Frames = None,
    as_json: options.Json = False,
) -> None:
    """Show which steps would be computed and which forecast, and the memory that takes."""
    from spectrum.errors import UsageError
    from spectrum.pipeline.request import resolve
    from spectrum.pipeline.sampler import check_scheduler
    from spectrum.pipeline.weights import weights_here
    from spectrum.plan import make_plan
    from spectrum.schedule import WindowSchedule

    explicit = alpha is not None or window is not None or warmup is not None
    if explicit and (speedup is not None or quality is not None):
        raise UsageError(
            "--speedup and --quality find the schedule that --alpha, --window and --warmup name;"
            " give one"
        )
    if explicit:
        method = method or "published"
        if method not in ("published", "affine"):
            raise UsageError(
                "--alpha, --window and --warmup are of the published schedule, which --method"
                f" {method} does not take; leave --method"
            )
    preset = find_model(options.the_model(model, model_named, "demo-image"))
    request = resolve(
        preset, "plan", steps=steps, speedup=1.0 if explicit else speedup, method=method,
        guidance=guidance, width=width, height=height, frames=frames, quality=quality,
        scheduler=scheduler,
    )  # fmt: skip
    if scheduler is not None:
        check_scheduler(scheduler, request.pipeline, preset, weights_here(preset, None))
    if explicit:
        schedule = WindowSchedule(warmup or 5, window or 2, 0.75 if alpha is None else alpha)
        chosen = make_plan(schedule, request.timeline)
    else:
        chosen = request.plan
    document = _document(request, chosen)
    if as_json:
        emit_json(document)
    else:
        _show(request, chosen, document)


def _document(request: Request, plan: Plan) -> dict[str, Any]:
    kept = plan.features_kept(request.method.keeps)
    preset, placed = request.preset, request.method.planner.family == "least"
    size = preset.feature_bytes(
        request.width or 0, request.height or 0, request.frames, preset.dtype
    )
    if request.method.target == "denoised":
        size = 0
    return {
        "model": preset.name,
        "steps": plan.num_steps,
        "method": request.method.name,
        "schedule": repr(plan.schedule),
        "computed_steps": list(plan.computed_steps),
        "forecast_steps": None if plan.adaptive else plan.forecast_steps,
        "ideal_speedup": None if plan.adaptive else plan.speedup,
        "scheduler": request.scheduler,
        "handover": plan.handover or None,
        "positions": request.positions or None,  # None: unknown
        "scale": request.timeline.scale if placed else None,
        "history": {
            "features": kept,
            "branches": request.branches,
            "target": request.method.target,
            "bytes": kept * size * request.branches or None,  # None: unknown
            "dtype": preset.dtype,
        },
    }


def _show(request: Request, plan: Plan, document: dict[str, Any]) -> None:
    from spectrum_cli.progress import marks

    mark = marks(sys.stdout.encoding or "ascii")
    computed = set(plan.computed_steps)
    other = mark.pending if plan.adaptive else mark.forecast
    emit(f"{request.preset.name}, {counted(plan.num_steps, 'step')}, method {request.method.name}")
    emit("")
    row = min(50, max(5, (terminal_width() or 50) // 5 * 5))  # steps that a terminal has room for
    for start in range(0, plan.num_steps, row):
        steps = range(start, min(start + row, plan.num_steps))
        emit("".join(f"{s:<5d}" for s in steps if s % 5 == 0).rstrip())
        emit("".join(mark.computed if s in computed else other for s in steps))
    emit("")
    numbers = " ".join(map(str, plan.computed_steps))
    emit(f"{mark.computed} {len(plan.computed_steps)} computed: {numbers}")
    if plan.adaptive:
        emit("the others as --quality needs them, which only the run shows")
    else:
        emit(f"{mark.forecast} {len(plan.forecast_steps)} forecast")
        emit(f"ideal speedup {plan.speedup:.2f}×")
    if not (plan.adaptive or plan.forecast_steps):
        return  # nothing is placed, and nothing kept
    if request.scheduler:
        emit(f"with the preset's noise levels, not yet those of {request.scheduler}")
    if plan.timeline.stochastic:
        emit("its scheduler adds noise at every step, so at most half of the steps are forecast")
    if plan.handover:
        emit(f"from step {plan.handover} on by the second denoiser, as far as the preset tells")
    if document["scale"]:
        known = counted(request.positions, "latent position")
        size = known if request.positions else "unknown size"
        emit(f"placed for pictures of {size}: scale {document['scale']:.3g}")
    history = document["history"]
    if history["target"] == "denoised":
        emit(
            f"history: {history['features']} x₀, as large as latents, and about six more to replay"
        )
        return
    if not history["bytes"]:
        return  # a model without a preset: `spectrum inspect` measures
    emit(
        f"history {human_bytes(history['bytes'])}: {counted(history['features'], 'feature')} of"
        f" {counted(history['branches'], 'guidance branch', 'guidance branches')}"
        f" in {history['dtype']}, at {_size(request)}"
    )


def _size(request: Request) -> str:
    size = f"{request.width}×{request.height}"
    return f"{size}×{request.frames}" if request.preset.video else size
