"""What can't be had of a model on a machine, told before anything heavy is imported."""

from __future__ import annotations

import re
from difflib import get_close_matches
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from spectrum.errors import UsageError
from spectrum.pipeline import known
from spectrum.pipeline.inputs import check_arguments
from spectrum.pipeline.onefile import is_gguf
from spectrum.pipeline.request import Request
from spectrum.pipeline.sampler import check_scheduler
from spectrum.pipeline.weights import weights_here

if TYPE_CHECKING:
    from spectrum.pipeline.loading import Options


def check(request: Request, device: str, options: Options) -> None:
    """Raise UsageError for what is known to fail. What needs torch to be told, such as whether
    this machine has the device, is told later."""
    if not re.fullmatch(r"auto|cpu|mps|meta|cuda(:\d{1,3})?", device):
        raise UsageError(f"no device {device!r}; there are auto, cuda, cuda:N, mps and cpu")
    if options.offload != "none" and device == "cpu":
        raise UsageError("`offload` moves weights between a GPU and memory; leave it on the CPU")
    _check_history(request, device)
    if options.quantize and is_gguf(options.weights):
        raise UsageError(f"{options.weights}: in few bits already; leave `quantize`")
    if options.quantize and find_spec("torchao") is None:
        raise UsageError("`quantize` needs torchao; `pip install 'spectrum-diffusion[quantize]'`")
    if options.attention is not None:
        _check_attention(options.attention)
    folder = weights_here(request.preset, options.weights)
    taken = known.pipeline_parameters(request.pipeline)
    if taken is not None:
        call_arguments(request.pipeline, taken, request)
    if request.scheduler is not None:
        check_scheduler(request.scheduler, request.pipeline, request.preset, folder)


def _check_history(request: Request, device: str) -> None:
    if request.history != "auto" and request.method.target == "denoised":
        raise UsageError(
            f"`history` is of features, and {request.method.name} keeps none but the denoised"
            " sample; leave it, or give `method` published"
        )
    if request.history == "host" and device == "cpu":
        raise UsageError("`history` host spares the memory of a GPU; leave it on the CPU")


def call_arguments(name: str, taken: known.Parameters, request: Request) -> dict[str, Any]:
    """The arguments of the pipeline's call, images not read. Raises UsageError for one that it
    doesn't take.

    taken: what the call of the pipeline class of this name takes.
    """
    if request.preset.image == "required" and request.image is None:
        raise UsageError(f"{request.preset.name} works from an image; give one as `image`")
    arguments = request.arguments()
    if request.image is not None and "width" not in taken:  # the image has that size already
        arguments = {k: v for k, v in arguments.items() if k not in ("width", "height")}
    if request.negative_prompt == request.preset.negative_prompt and "negative_prompt" not in taken:
        arguments.pop("negative_prompt", None)  # nobody asked for it
    check_arguments(name, taken, arguments, request.preset.name)
    return arguments


def _check_attention(backend: str) -> None:
    names = known.attention_backends()
    if names and backend not in names:
        nearest = get_close_matches(backend, names, n=1, cutoff=0)[0]
        raise UsageError(f"no attention backend {backend!r}; did you mean {nearest!r}?")
