"""From a preset to a pipeline on a device: the package's own weights, a folder, or the hub."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spectrum.errors import SpectrumError, UsageError
from spectrum.pipeline.beforehand import check
from spectrum.pipeline.discover import pipeline_class
from spectrum.pipeline.inputs import Lora
from spectrum.pipeline.onefile import holds_all, is_file, load_all, load_denoiser
from spectrum.pipeline.preset import Dtype, Preset
from spectrum.pipeline.request import Request
from spectrum.pipeline.sampler import set_scheduler
from spectrum.pipeline.weights import (
    check_complete,
    component_names,
    hub_answers,
    not_here,
    on_this_machine,
    weights_folder,
)

if TYPE_CHECKING:
    import torch

Offload = Literal["none", "model", "group", "sequential"]
Quantize = Literal["int8", "int4", "fp8"]


def choose_device(name: str = "auto") -> torch.device:
    """The named torch device; `auto` is cuda, else mps, else cpu. Raises UsageError if absent."""
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cuda", "mps", "cpu"):
        raise UsageError(f"no device {name!r}; there are auto, cuda, cuda:N, mps and cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        have = torch.cuda.device_count()
        raise UsageError(f"{name}: this machine has {have or 'no'} CUDA device; try `device` cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("mps: this machine has no Apple GPU; try `device` cpu")
    return device


@dataclass(frozen=True)
class Options:
    """How to load a model and lay it out on the machine.

    `dtype` replaces the preset's, but not those that it gives single components. `weights` is a
    folder written by `save_pretrained`, taken instead of the hub, or a file of weights, for what it
    holds (`spectrum.pipeline.onefile`). `quantize` stores the weights of
    denoisers and large text encoders in fewer bits. `vae_tiling` None leaves it to the preset.
    """

    dtype: Dtype | None = None
    weights: Path | None = None
    offload: Offload = "none"
    quantize: Quantize | None = None
    vae_tiling: bool | None = None
    compile: bool = False
    attention: str | None = None

    @property
    def pixels(self) -> dict[str, Any]:
        """What else than weights and dtype decides pixels, if only their last digits."""
        names = ("quantize", "vae_tiling", "compile", "attention")
        return {name: getattr(self, name) for name in names}


def load_pipeline(request: Request, device: torch.device, options: Options | None = None) -> Any:
    """The request's diffusers pipeline, ready on `device`, with its LoRAs and its scheduler.

    Safetensors only. Raises UsageError for what can't be had of this model, and SpectrumError for
    weights that can't be had.
    """
    import torch

    from spectrum.denoiser import find_denoisers

    options = options or Options()
    check(request, str(device), options)
    preset = request.preset
    folder = weights_folder(preset, options.weights)
    cls = pipeline_class(request.pipeline, preset.path)
    default = options.dtype or preset.dtype
    names = {"default": default, **preset.dtypes}
    offline = _needs_hub(request, folder) and not hub_answers(preset.weights)
    settings: dict[str, Any] = {
        "local_files_only": offline,
        "dtype": {component: getattr(torch, name) for component, name in names.items()},
        "use_safetensors": True,
        "trust_remote_code": False,
    }
    if folder is None and preset.variant:
        settings["variant"] = preset.variant
    if options.quantize:
        settings["quantization_config"] = _quantization(options.quantize, preset, folder)
    try:
        settings |= _from_elsewhere(preset, folder, settings["dtype"]["default"], offline)
        pipe, own = _load(cls, options.weights, str(folder or preset.weights), settings)
    except (UsageError, SpectrumError):
        raise
    except Exception as error:
        # Whatever diffusers, transformers, safetensors and the hub raise: their kinds differ
        # between releases, the user's remedy does not.
        raise SpectrumError(_loading_failed(preset, folder, error, offline)) from error
    pipe.set_progress_bar_config(disable=True)
    if folder is not None:
        for name, part in pipe.components.items():
            if isinstance(part, torch.nn.Module) and name not in own:
                check_complete(name, part, folder)
    set_scheduler(pipe, preset, request.scheduler)
    _load_loras(pipe, request.loras, offline)
    _set_tiling(pipe, preset, options.vae_tiling)
    for denoiser in find_denoisers(pipe).values():
        if options.attention:
            _set_attention(denoiser, options.attention)
        if options.compile:
            _compile(denoiser, preset)
    return _place(pipe, device, options.offload)


def _load(
    cls: Any, weights: Path | None, place: str, settings: dict[str, Any]
) -> tuple[Any, Sequence[str]]:
    """The pipeline, and which of its components came from a file."""
    if weights is None or not is_file(weights):
        return cls.from_pretrained(place, **settings), ()
    if holds_all(weights):
        pipe = load_all(weights, cls, place, settings)
        return pipe, list(pipe.components)
    denoiser = load_denoiser(weights, cls, place, settings)
    return cls.from_pretrained(place, **settings, **denoiser), list(denoiser)


def _needs_hub(request: Request, folder: Path | None) -> bool:
    """Whether anything is looked for there, or in its cache."""
    parts = folder is None or any(
        not (folder / name).is_dir() for name in request.preset.components
    )
    return parts or not all(os.path.exists(lora.source) for lora in request.loras)


def _from_elsewhere(
    preset: Preset, folder: Path | None, dtype: torch.dtype, offline: bool
) -> dict[str, Any]:
    """The components that the weights leave out; a folder may have them all the same."""
    import transformers

    loaded = {}
    for name, component in preset.components.items():
        if folder is None or not (folder / name).is_dir():
            kind: Any = getattr(transformers, component.cls, None)
            if not hasattr(kind, "from_pretrained"):
                raise UsageError(
                    f"{preset.path}: components.{name}: transformers has no {component.cls}"
                )
            settings = component.settings.model_dump(exclude_none=True)
            if hasattr(kind, "forward"):  # a model; other files than safetensors can run code
                settings |= {"dtype": dtype, "use_safetensors": True}
            loaded[name] = kind.from_pretrained(
                component.weights, trust_remote_code=False, local_files_only=offline, **settings
            )
    return loaded


def _load_loras(pipe: Any, loras: Sequence[Lora], offline: bool) -> None:
    names = []
    for number, lora in enumerate(loras):
        if not hasattr(pipe, "load_lora_weights"):
            raise UsageError(f"{type(pipe).__name__} takes no LoRA; leave `loras`")
        name = f"lora{number}"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what is wrong is said below, in one line
                pipe.load_lora_weights(
                    lora.source, adapter_name=name, use_safetensors=True, local_files_only=offline
                )
        except Exception as error:  # peft, safetensors and the hub raise what they like
            if offline and not os.path.exists(lora.source):
                raise SpectrumError(
                    f"`loras` {lora.source}: not on this machine, and the hub can't be reached; get"
                    f" it where it can by `hf download {lora.source}`, and give its file"
                ) from error
            reason = " ".join(str(error).split())[:200]
            raise SpectrumError(
                f"`loras` {lora.source}: can't be loaded into {type(pipe).__name__}"
                f" (is it for another model?): {reason}"
            ) from error
        if not any(name in adapters for adapters in pipe.get_list_adapters().values()):
            raise SpectrumError(
                f"`loras` {lora.source}: none of its layers is in {type(pipe).__name__};"
                " it is for another model"
            )
        names.append(name)
    if names:
        pipe.set_adapters(names, [lora.scale for lora in loras])


def _set_tiling(pipe: Any, preset: Preset, asked: bool | None) -> None:
    if not (preset.tiling if asked is None else asked):
        return
    vae: Any = getattr(pipe, "vae", None)
    if not hasattr(vae, "enable_tiling"):
        raise UsageError(f"the VAE of {preset.name} can't be tiled; leave `vae_tiling`")
    vae.enable_tiling()
    if hasattr(vae, "enable_slicing"):
        vae.enable_slicing()


def _set_attention(denoiser: Any, backend: str) -> None:
    try:
        denoiser.set_attention_backend(backend)
    except Exception as error:  # a missing package, or a device that it doesn't run on
        reason = " ".join(str(error).split())
        raise UsageError(f"`attention` {backend} can't be used here: {reason}") from error


def _compile(denoiser: Any, preset: Preset) -> None:
    if not getattr(denoiser, "_repeated_blocks", None):
        raise UsageError(
            f"diffusers names no repeated blocks of {preset.name}'s {type(denoiser).__name__}"
            " to compile; leave `compile`"
        )
    denoiser.compile_repeated_blocks(fullgraph=True)


def _quantization(bits: Quantize, preset: Preset, folder: Path | None) -> Any:
    """torchao's weight-only formats, for denoisers and text encoders of the transformer kind."""
    from diffusers import PipelineQuantizationConfig
    from diffusers import TorchAoConfig as DenoiserConfig
    from torchao import quantization
    from transformers import TorchAoConfig as EncoderConfig

    from spectrum.denoiser import DENOISERS

    kinds = {
        "int8": quantization.Int8WeightOnlyConfig,
        "int4": quantization.Int4WeightOnlyConfig,
        "fp8": quantization.Float8WeightOnlyConfig,
    }
    names = component_names(preset, folder)
    chosen: dict[str, Any] = {
        name: DenoiserConfig(kinds[bits]()) for name in names if name in DENOISERS
    }
    chosen |= {
        name: EncoderConfig(kinds[bits]()) for name in names
        if name.startswith("text_encoder") and names[name] != "CLIPTextModel"
        and names[name] != "CLIPTextModelWithProjection"
    }  # fmt: skip
    return PipelineQuantizationConfig(quant_mapping=chosen)


def _place(pipe: Any, device: torch.device, offload: Offload) -> Any:
    """On the device whole, or in parts that come and go."""
    if offload == "none":
        return pipe.to(device)
    offload_to(pipe, device, offload)
    return pipe


def offload_to(pipe: Any, device: torch.device, offload: Offload) -> None:
    """Keep the weights in memory: whole components, groups of layers or single layers visit."""
    if offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    elif offload == "sequential":
        pipe.enable_sequential_cpu_offload(device=device)
    elif offload == "group":
        pipe.enable_group_offload(
            onload_device=device, offload_type="leaf_level", use_stream=device.type == "cuda"
        )


def _loading_failed(preset: Preset, folder: Path | None, error: Exception, offline: bool) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    if folder is not None:
        return f"{folder}: the weights can't be loaded: {reason}"
    if on_this_machine(preset):
        return f"{preset.weights}: the weights on this machine can't be loaded: {reason}"
    hub = "can't be reached" if offline else f"gave none ({type(error).__name__})"
    return not_here(preset, hub)
