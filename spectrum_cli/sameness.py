"""Whether what is made again is what there was: a file, or a whole folder of frames."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spectrum.pipeline.document import Document
    from spectrum.pipeline.generate import Generation
    from spectrum.pipeline.media import Frames
    from spectrum_cli.paths import Target

# Pictures by the name of their file; None for one that has another size than it says.
Pictures = dict[str, "Frames | None"]

_MOST = 5  # names in a sentence


def before(files: list[Path], told: Document) -> Pictures:
    """What there is: of one file, or of each of a folder's frames."""
    from spectrum.errors import UsageError
    from spectrum.pipeline.media import read_frames

    if told.width is None or told.height is None:
        return {file.name: None for file in files}
    size = (1 if told.frame is not None else told.frames, told.height, told.width)
    found: Pictures = {}
    for file in files:
        try:
            found[file.name] = read_frames(file, size, told.fps)
        except UsageError:  # no picture any more
            if len(files) == 1:
                raise
            found[file.name] = None
    return found


def now(
    made: Generation, file: Target, fps: int | None, told: Document, path: Path, whole: bool
) -> Pictures:
    """What corresponds to that, after encoding where it is encoded.

    whole: it is a folder of frames that is made again, of which `path` is one.
    """
    from spectrum.pipeline.media import read_frames

    count, height, width = made.frames.shape[:3]
    frames: Frames | None = made.frames
    if file.is_stdout:
        frames = _as_written(made, file.path.suffix, fps)
    if not (file.is_folder or file.is_stdout or file.path.suffix.lower() == ".png"):
        frames = read_frames(file.path, (count, height, width), fps)
    if frames is not None and whole:
        return {f"{k:04d}.png": frames[k : k + 1] for k in range(count)}
    if frames is not None and told.frame is not None:
        frames = frames[told.frame : told.frame + 1]
    return {path.name: frames}


def _as_written(made: Generation, ending: str, fps: int | None) -> Frames | None:
    """As they were put out in this format, which is read by somebody else."""
    from spectrum.pipeline.media import encode, read_frames

    with tempfile.TemporaryDirectory() as folder:
        encode(file := Path(folder, f"again{ending}"), ending, made.frames, {}, fps)
        count, height, width = made.frames.shape[:3]
        return read_frames(file, (count, height, width))


@dataclass(frozen=True)
class Verdict:
    """`same` is None where there is nothing to compare, `psnr` also where all is equal; it is of
    what differs. The rest are names of a folder's frames."""

    same: bool | None
    psnr: float | None
    missing: list[str]
    differing: list[str]
    foreign: list[str]  # numbered as frames, and more than there are

    def document(self, whole: bool) -> dict[str, Any]:
        told: dict[str, Any] = {"same": self.same, "psnr": self.psnr}
        if whole:
            told |= {"missing": self.missing, "differing": self.differing, "foreign": self.foreign}
        return told

    def sentence(self, path: Path, what: str, whole: bool, steps: str) -> str:
        if self.same:
            return f"the same {what} as {path}{steps}"
        if self.same is None:
            return f"{path} has another size than it says, so it was changed and is not compared"
        reasons = [] if self.psnr is None else [f"PSNR {self.psnr:.1f} dB"]
        if whole:
            reasons += [
                f"{word} {', '.join(names[:_MOST])}{', …' * (len(names) > _MOST)} ({len(names)})"
                for word, names in (
                    ("missing", self.missing), ("differing", self.differing),
                    ("not of it", self.foreign),
                )
                if names
            ]  # fmt: skip
        if not reasons:
            return f"not the same size as {path}"
        return f"not the same {what} as {path}: {'; '.join(reasons)}{steps}"


def judge(old: Pictures, new: Pictures) -> Verdict:
    """Of what there was and what there is now."""
    import numpy as np

    differing, pairs = [], []
    for name in [name for name in new if name in old]:
        a, b = old[name], new[name]
        if a is not None and b is not None and np.array_equal(a, b):
            continue
        differing.append(name)
        if a is not None and b is not None and a.shape == b.shape:
            pairs.append((b, a))
    missing = [name for name in new if name not in old]
    foreign = [name for name in old if name not in new]
    if not (missing or differing or foreign):
        return Verdict(True, None, [], [], [])
    if all(pictures is None for pictures in old.values()):
        return Verdict(None, None, missing, differing, foreign)
    return Verdict(False, _psnr(pairs) if pairs else None, missing, differing, foreign)


def _psnr(pairs: list[tuple[Frames, Frames]]) -> float:
    """In dB, a mean over all of their frames."""
    import numpy as np

    from spectrum.compare.metrics import psnr

    ours, theirs = (
        np.divide(np.concatenate(part), 255, dtype=np.float32) for part in zip(*pairs, strict=True)
    )
    return psnr(ours, theirs)
