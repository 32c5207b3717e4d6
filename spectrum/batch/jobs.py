"""From what a file says to jobs: checked against their models, numbered, named, and known by an id.

An id is the hash of all that decides a job's pixels: its request with every value settled, the
content of its preset and of the files that it names, and this version. The same job has the same
id in any process, on any machine, on any day.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from spectrum import __version__
from spectrum.batch.names import Names, asked_name, values_of
from spectrum.batch.reading import Problem, Raw
from spectrum.batch.values import SEEDS, validated
from spectrum.errors import SpectrumError, UsageError
from spectrum.pipeline import beforehand, known
from spectrum.pipeline.discover import parameters, pipeline_class
from spectrum.pipeline.formats import check as check_format
from spectrum.pipeline.formats import endings
from spectrum.pipeline.inputs import ImageFile
from spectrum.pipeline.loading import Options
from spectrum.pipeline.preset import Preset
from spectrum.pipeline.request import Request, resolve

_LONGEST = 600  # characters of what is wrong with a line
_NOT_OF_A_REQUEST = ("model", "seed", "output")


class JobErrors(UsageError):
    """All that is wrong with a file of jobs: what, and in which lines."""

    def __init__(self) -> None:
        super().__init__("no such jobs can be made")
        self._lines: dict[str, list[int]] = {}

    def add(self, line: int, problem: str) -> None:
        """What is wrong with one line."""
        self._lines.setdefault(problem, []).append(line)

    def raise_any(self) -> None:
        """Raise itself, if anything is wrong."""
        if self._lines:
            raise self

    @property
    def problems(self) -> list[str]:
        """A sentence each, in the order of their first lines."""
        ordered = sorted(self._lines.items(), key=lambda item: item[1])
        return [f"{_lines(numbers)}: {text}" for text, numbers in ordered]

    def __str__(self) -> str:
        return "; ".join(self.problems)


@dataclass(frozen=True)
class Job:
    """One output that is asked for. `name` is its file's, if nothing else has that by then."""

    index: int  # from 1, over all of the batch
    line: int
    id: str
    name: str
    seed: int
    request: Request
    options: Options

    @property
    def model(self) -> tuple[object, ...]:
        """What one loaded pipeline serves: jobs that agree in this share it."""
        preset, request = self.request.preset, self.request
        own = (preset.path, preset.name, preset.weights, request.pipeline)
        return (*own, request.loras, request.scheduler, self.options)


def check_jobs(raws: Iterable[Raw | Problem], checker: Checker) -> list[Job]:
    """All jobs of a file. Raises JobErrors with everything that is wrong, in the file's order."""
    jobs: list[Job] = []
    wrong = JobErrors()
    for raw in raws:
        try:
            if isinstance(raw, Problem):
                wrong.add(raw.line, raw.text)
            else:
                jobs += checker.jobs(raw)
        except SpectrumError as error:
            wrong.add(raw.line, told(error))
    wrong.raise_any()
    return jobs


def check_calls(jobs: Iterable[Job], device: str) -> None:
    """What is known to fail once the models are loaded. Raises JobErrors."""
    wrong = JobErrors()
    models: dict[object, str | None] = {}  # what is wrong with each
    for job in jobs:
        try:
            check_call(job.request)
            if job.model not in models:
                models[job.model] = _wrong_with(job, device)
            if problem := models[job.model]:
                wrong.add(job.line, problem)
        except SpectrumError as error:
            wrong.add(job.line, str(error))
    wrong.raise_any()


def check_call(request: Request) -> None:
    """Raise UsageError for an argument that the pipeline's call does not take; no image is read."""
    taken = known.pipeline_parameters(request.pipeline)
    if taken is None:
        taken = parameters(pipeline_class(request.pipeline, request.preset.path))
    beforehand.call_arguments(request.pipeline, taken, request)


def _wrong_with(job: Job, device: str) -> str | None:
    try:
        beforehand.check(job.request, device, job.options)
    except SpectrumError as error:
        return str(error)
    return None


def told(error: SpectrumError) -> str:
    """Its words; of very many, as where a value of thousands of letters is named, the ends."""
    text = str(error)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 100]} … {text[-90:]}"


def _words_of(error: Exception) -> str:
    """Those for people: no number, and no name that only a programmer knows."""
    return getattr(error, "strerror", None) or str(error)


def _lines(numbers: Sequence[int]) -> str:
    """The lines of one mistake, those beside each other as a range."""
    ranges: list[list[int]] = []
    for number in dict.fromkeys(numbers):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    texts = [str(a) if a == b else f"{a}-{b}" for a, b in ranges]
    return f"line{'s' * (len(set(numbers)) > 1)} {', '.join(texts)}"


@dataclass
class Checker:
    """Makes jobs of what a file's lines say.

    `defaults` are values for jobs that name none, by the keys of `spectrum.batch.values`; `layout`
    is how a preset's model is laid out on the machine; `sweep` is what each line is made with, one
    after another. A job without a seed takes `seed`, or the next if an earlier job is the same.
    `repeated` counts jobs that ask for what an earlier one does; they are not made twice.
    """

    defaults: dict[str, Any]
    find: Callable[[str], Preset]
    layout: Callable[[Preset], Options]
    sweep: Sequence[dict[str, Any]] = ({},)
    names: Names = field(default_factory=Names)
    seed: int = 0
    repeated: int = 0
    _found: dict[str, tuple[Preset, Options, str] | SpectrumError] = field(default_factory=dict)
    _ids: dict[str, Job] = field(default_factory=dict)
    _asked: dict[str, int] = field(default_factory=dict)  # how often, by the id of the first seed

    def jobs(self, raw: Raw) -> list[Job]:
        """The new jobs of one line. Raises UsageError, or SpectrumError for a model that can't be
        had."""
        return [job for job, is_new in self.asked(raw) if is_new]

    def asked(self, raw: Raw) -> list[tuple[Job, bool]]:
        """All that one line asks for; False beside what an earlier one had asked for."""
        own = validated(raw.values)
        for key in {*own}.intersection(*self.sweep):
            raise UsageError(f"{key} is given here, and swept too; leave one")
        return [self._job(raw.line, {**self.defaults, **own, **swept}) for swept in self.sweep]

    def _job(self, line: int, values: dict[str, Any]) -> tuple[Job, bool]:
        if values.get("prompt") is None:
            raise UsageError("there is no prompt; give one")
        preset, options, digest = self._model(str(values["model"]))
        given = {k: v for k, v in values.items() if k not in _NOT_OF_A_REQUEST}
        try:
            request = resolve(preset, **given)
        except (OSError, ValueError, ArithmeticError) as error:
            if isinstance(error, SpectrumError):
                raise
            raise UsageError(f"these values can't be taken: {_words_of(error)}") from error
        if values.get("fps") is not None and request.frames == 1:
            raise UsageError("one frame is a picture, so `fps` means nothing to it; leave it")
        usual = endings(request.fps is not None, request.frames)
        asked = values.get("output")
        if asked is None:
            stem, ending = None, self.names.ending(usual)
        else:
            stem, ending = asked_name(asked, usual)
        check_format(ending, request)
        mark = digest if ending == usual[0] else digest + ending  # a JPEG's pixels are others
        seed, id = self._seed(request, options, mark, values.get("seed"))
        if id in self._ids:
            self.repeated += 1
            return self._ids[id], False
        index = len(self._ids) + 1
        if stem is None:
            name = self.names.of(values_of(request, seed, index), ending, line)
        else:
            name = self.names.asked(stem, ending, line)
        job = self._ids[id] = Job(index, line, id, name, seed, request, options)
        return job, True

    def _model(self, name: str) -> tuple[Preset, Options, str]:
        if name not in self._found:
            try:
                preset = self.find(name)
                self._found[name] = preset, self.layout(preset), preset.digest
            except SpectrumError as error:
                self._found[name] = error
            except (OSError, ValueError) as error:
                self._found[name] = UsageError(f"model {name[:60]!r}: {_words_of(error)}")
        found = self._found[name]
        if isinstance(found, SpectrumError):
            raise found
        return found

    def _seed(
        self, request: Request, options: Options, digest: str, seed: int | None
    ) -> tuple[int, str]:
        if seed is not None:
            return seed, job_id(request, seed, options, digest)
        key = job_id(request, self.seed, options, digest)
        while True:
            again = self._asked[key] = self._asked.get(key, -1) + 1
            seed = (self.seed + again) % SEEDS
            id = job_id(request, seed, options, digest)
            if id not in self._ids:
                return seed, id


# -- ids -----------------------------------------------------------------------------------------


def job_id(request: Request, seed: int, options: Options, preset: str) -> str:
    """What two jobs share exactly if they make the same pixels; `preset` is its digest, and the
    ending of a format that is not the usual."""
    document = {
        "spectrum": __version__,
        "preset": preset,
        "weights": str(options.weights.absolute()) if options.weights else request.preset.weights,
        "dtype": options.dtype or request.preset.dtype,
        **options.pixels,
        "seed": seed,
        "pipeline": request.pipeline,
        "loras": [(_source(lora.source), lora.scale) for lora in request.loras],
        "image": _mark_of(request.image),
        "extras": {key: _mark_of(value) for key, value in request.extras.items()},
        "method": repr(request.method),
        "schedule": repr(request.schedule),
        **{name: getattr(request, name) for name in _VALUES},
    }
    text = json.dumps(document, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


_VALUES = (
    "prompt", "negative_prompt", "width", "height", "frames", "fps", "steps", "guidance",
    "speedup", "strength", "scheduler",
)  # fmt: skip


def _mark_of(value: Any) -> Any:
    return (_file_mark(value.path), *value.size) if isinstance(value, ImageFile) else value


def _source(source: str) -> str:
    path = Path(source)
    return _file_mark(path) if path.is_file() else source


def _file_mark(path: Path) -> str:
    """The hash of a file's content, found once for as long as the file stays as it is."""
    found = path.stat()
    return _hash(path, found.st_size, found.st_mtime_ns)


@cache
def _hash(path: Path, size: int, changed: int) -> str:
    del size, changed
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# -- shares --------------------------------------------------------------------------------------


def parse_shard(text: str) -> tuple[int, int]:
    """`i/n`, from 1. Raises UsageError."""
    first, _, second = text.partition("/")
    if not (first.isdecimal() and second.isdecimal() and 1 <= int(first) <= int(second)):
        raise UsageError(f"`shard` is one of how many, such as 1/8 up to 8/8, not {text!r}")
    return int(first), int(second)


def in_shard(jobs: Iterable[Job], shard: tuple[int, int]) -> Iterator[Job]:
    """Every n-th job, beginning with the i-th."""
    number, count = shard
    return (job for job in jobs if (job.index - 1) % count == number - 1)


def grouped(jobs: Iterable[Job]) -> list[Job]:
    """The same, those of one model together, models in the order in which they come first."""
    groups: dict[tuple[object, ...], list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.model, []).append(job)
    return [job for group in groups.values() for job in group]
