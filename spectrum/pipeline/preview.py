"""A small picture of a run under way: the denoised sample's colours, without decoding it.

A latent's channels say the mean colour of its pixels nearly linearly, so a matrix makes a picture
of them. It is fitted when a run begins, to a few soft colour fields and what the model's own
encoder makes of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import Conv3d
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from spectrum.errors import SpectrumError, UsageError
from spectrum.pipeline.files import whole
from spectrum.pipeline.media import Frames, to_uint8
from spectrum.report import Report, Step

Size = tuple[int | None, int | None]  # width and height in pixels, where they are known

PNG_KEY = "spectrum-preview"  # marks those that may be replaced

_SIDE = 8  # of a fitted picture, in latent pixels
_CELLS = (2, 3, 4, 6)  # colours along it
_RIDGE = 1e-3
_SHOWN = 256  # pixels of a preview's longer side, at least


@dataclass(frozen=True)
class Projection:
    """The way from a pipeline's samples to colours.

    weights: on the VAE's channels and on 1.  # [C + 1, 3]
    ratio: pixels along a latent pixel.
    """

    pipe: Any
    weights: torch.Tensor
    ratio: int

    def picture(self, sample: torch.Tensor, size: Size) -> Frames:
        """The middle frame's colours, a pixel for each latent pixel.  # [h, w, 3]

        sample: of the sampler, packed or not, the first of its batch being shown.
        size: width and height of the picture that is made, where they are known.

        Raises SpectrumError for a sample that can't be unpacked.
        """
        latent = self.latent(sample, size).permute(1, 2, 0)
        colours = latent @ self.weights[:-1] + self.weights[-1]
        return to_uint8(colours.clamp(0, 1).numpy())

    def latent(self, sample: torch.Tensor, size: Size) -> torch.Tensor:
        """What the VAE would be given for the middle frame.  # [C, h, w]"""
        one = sample[0].float().cpu()
        if one.ndim == 2:
            one = _normal_of_tokens(self.pipe.vae, one)
            one = self._unpacked(one, size)
        elif one.ndim == 4:
            one = self._middle(one, size)
        if one.ndim != 3 or len(one) != len(self.weights) - 1:
            raise SpectrumError(f"a sample of {tuple(sample.shape)} can't be told into pixels")
        return _as_decoded(self.pipe.vae, one)

    def _unpacked(self, tokens: torch.Tensor, size: Size) -> torch.Tensor:
        """Of [tokens, C·p·p], as FLUX and its kind pack them, the middle frame.  # [C, h, w]"""
        channels = len(self.weights) - 1
        patch = isqrt(tokens.shape[1] // channels)
        if channels * patch * patch != tokens.shape[1]:
            raise SpectrumError(f"tokens of {tokens.shape[1]} channels can't be unpacked")
        side = isqrt(len(tokens))
        columns, rows = (pixels // (self.ratio * patch) if pixels else side for pixels in size)
        if not rows * columns or len(tokens) % (rows * columns):
            raise SpectrumError(f"{len(tokens)} tokens are no frames of {rows} x {columns}")
        film = tokens.view(-1, rows, columns, channels, patch, patch)
        frame = film[len(film) // 2].permute(2, 0, 3, 1, 4)
        return frame.reshape(channels, rows * patch, columns * patch)

    def _middle(self, film: torch.Tensor, size: Size) -> torch.Tensor:
        """Of [C, F, h, w], or of another order with such sizes.  # [C, h, w]"""
        channels = len(self.weights) - 1
        columns, rows = (side // self.ratio if side else 0 for side in size)
        orders = [(0, 1, 2, 3), (3, 0, 1, 2), (1, 0, 2, 3)]  # where C, F, h and w are
        fits = [order for order in orders if film.shape[order[0]] == channels]
        exact = [o for o in fits if (film.shape[o[2]], film.shape[o[3]]) == (rows, columns)]
        if not fits:
            raise SpectrumError(f"a sample of {tuple(film.shape)} has not {channels} channels")
        film = film.permute((exact or fits)[0])
        return film[:, film.shape[1] // 2]


def fit(pipe: Any) -> Projection:
    """Fit a pipeline's projection. No random numbers are drawn from torch's own generator.

    Raises SpectrumError where the pipeline has no VAE that encodes pictures.
    """
    vae: Any = getattr(pipe, "vae", None)
    if not hasattr(vae, "encode"):
        raise SpectrumError(f"{type(pipe).__name__} has no VAE that encodes pictures")
    ratio = _ratio(pipe)
    fields = _colour_fields(_SIDE * ratio)
    try:
        with torch.no_grad():
            latents = torch.cat([_encoded(pipe, vae, one[None]) for one in fields])
    except Exception as error:  # a VAE raises what it likes of a size that it is not made for
        reason = " ".join(str(error).split())[:120]
        raise SpectrumError(f"{type(vae).__name__} encodes no colour fields: {reason}") from error
    pipe.maybe_free_model_hooks()  # where parts wait outside the GPU, the VAE goes back there
    if not latents.isfinite().all():
        raise SpectrumError(f"{type(vae).__name__} in {vae.dtype} encodes no colour fields")
    means = adaptive_avg_pool2d(fields, (latents.shape[-2], latents.shape[-1]))
    return Projection(pipe, _regression(_rows(latents), _rows(means)), ratio)


def _encoded(pipe: Any, vae: Any, picture: torch.Tensor) -> torch.Tensor:
    """[1, 3, H, W] in [0, 1] to [1, C, h, w]."""
    given = (picture * 2 - 1).to(pipe._execution_device, vae.dtype)
    films = any(isinstance(module, Conv3d) for module in vae.encoder.modules())
    latent = vae.encode(given[:, :, None] if films else given, return_dict=False)[0]
    if not isinstance(latent, torch.Tensor):
        latent = latent.mode()  # of a distribution
    latent = latent[:, :, 0] if films else latent
    return torch.as_tensor(latent.float().cpu())


def _ratio(pipe: Any) -> int:
    names = ("vae_scale_factor", "vae_scale_factor_spatial", "vae_spatial_compression_ratio")
    found = (getattr(pipe, name, None) for name in (*names, "vae_spatial_scale_factor"))
    return next((int(ratio) for ratio in found if ratio), 8)


def _colour_fields(side: int) -> torch.Tensor:
    """Random colours with soft borders.  # [B, 3, side, side] in [0, 1]"""
    generator = torch.Generator().manual_seed(0)
    grids = [torch.rand(1, 3, cells, cells, generator=generator) for cells in _CELLS]
    soft = [interpolate(grid, (side, side), mode="bilinear") for grid in grids]
    return torch.cat(soft)


def _rows(pictures: torch.Tensor) -> torch.Tensor:
    """[B, C, h, w] to [B·h·w, C]."""
    return pictures.movedim(1, -1).flatten(0, 2)


def _regression(latents: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
    """Ridge regression of colours on latents of unit size and on 1.  # [C + 1, 3]"""
    known = torch.cat([latents, torch.ones(len(latents), 1)], 1).double()
    sizes = known.square().mean(0).sqrt().clamp_min(1e-12)
    known = known / sizes
    penalty = _RIDGE * len(known) * torch.eye(known.shape[1], dtype=torch.float64)
    penalty[-1, -1] = 0
    solution = torch.linalg.solve(known.T @ known + penalty, known.T @ colours.double())
    weights: torch.Tensor = solution / sizes[:, None]
    return weights.float()


def _normal_of_tokens(vae: Any, tokens: torch.Tensor) -> torch.Tensor:
    """FLUX.2 normalizes what it has packed."""
    norm = getattr(vae, "bn", None)
    if norm is None:
        return tokens
    moments = torch.stack([norm.running_mean, norm.running_var]).float().cpu()
    return tokens * (moments[1] + float(vae.config.batch_norm_eps)).sqrt() + moments[0]


def _as_decoded(vae: Any, latent: torch.Tensor) -> torch.Tensor:
    """With the scale and shift that the sampler does without.  # [C, h, w]"""
    mean, deviation = (_channels(vae, name) for name in ("latents_mean", "latents_std"))
    scaled = latent / (vae.config.get("scaling_factor") or 1.0)
    if mean is not None and deviation is not None:
        return scaled * deviation + mean
    return scaled + (vae.config.get("shift_factor") or 0.0)


def _channels(vae: Any, name: str) -> torch.Tensor | None:
    values = dict(vae.named_buffers(recurse=False)).get(name)
    values = vae.config.get(name) if values is None else values
    return None if values is None else torch.as_tensor(values).float().cpu().view(-1, 1, 1)


class Preview:
    """A picture beside an output, after every `every`-th step, of the newest computed x₀; gone when
    the block is left. Not more than that happens in the run: its pixels are what they are without.

    What keeps it from being made is told in one line, and the run goes on.
    """

    def __init__(
        self,
        pipe: Any,
        output: Path,
        every: int,
        size: Size,
        tell: Callable[[str], None],
    ) -> None:
        """Raises UsageError where another file has the preview's name."""
        self.path, self._output = place_beside(output), output
        self._every, self._size, self._tell = every, size, tell
        self._newest: torch.Tensor | None = None
        self._projection: Projection | None = None
        try:
            self._projection = fit(pipe)
        except SpectrumError as error:
            tell(f"no preview: {error}")

    def __enter__(self) -> Preview:
        return self

    def __exit__(self, *_: object) -> None:
        if _is_preview(self.path):
            self.path.unlink(missing_ok=True)

    def observe(self, _step: int, denoised: torch.Tensor) -> None:
        """The cache's observer: see `spectrum.SpectralCache`."""
        self._newest = denoised

    def on_step(self, _report: Report, step: Step | None) -> None:
        """The cache's listener."""
        if step is None or self._projection is None or (step.index + 1) % self._every:
            return
        try:
            if self._newest is None:
                raise SpectrumError(
                    "only a run with `target` denoised, and a scheduler that tells it, has a"
                    " denoised sample to show"
                )
            place_beside(self._output)  # raises, if another program has taken the name
            write_preview(self.path, self._projection.picture(self._newest, self._size))
        except (SpectrumError, OSError) as error:
            self._projection = None
            self._tell(f"no preview: {error}")


def write_preview(path: Path, picture: Frames) -> None:
    """Put a small picture there at once, enlarged.  # [h, w, 3]"""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text(PNG_KEY, "1")
    image = Image.fromarray(np.ascontiguousarray(picture))
    times = max(1, _SHOWN // max(image.size))
    image = image.resize((image.width * times, image.height * times), Image.Resampling.BICUBIC)
    with whole(path) as partial:
        image.save(partial, "PNG", pnginfo=info, compress_level=1)  # four times as fast


def place_beside(output: Path) -> Path:
    """The preview's name for an output. Raises UsageError where a file that is no preview has it,
    as it will be gone at the end."""
    place = output.with_name(f"{output.stem}.preview.png")
    if os.path.lexists(place) and not _is_preview(place):
        raise UsageError(f"{place}: the preview's name is taken; move it, or leave `preview`")
    return place


def _is_preview(path: Path) -> bool:
    from PIL import Image

    try:
        if path.is_symlink():
            return False
        with Image.open(path, formats=["PNG"]) as picture:
            return PNG_KEY in picture.info
    except (OSError, SyntaxError, ValueError):
        return False
