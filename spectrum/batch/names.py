"""File names from what a job is, safe on every file system whatever a prompt holds."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING

from spectrum.errors import UsageError

if TYPE_CHECKING:
    from spectrum.pipeline.request import Request

TEMPLATE = "{index}-{prompt:40}-{seed}"
FIELDS = ("index", "seed", "prompt", "model", "date", "speedup", "steps")
MOST_BYTES = 255 - 16  # of a stem: an ending, and a number where the name is taken, come after it

_FIELD = re.compile(r"\{(\w+)(?::(\d{1,3}))?\}")
# What Windows takes for a device, with any ending.
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])\s*(\.|$)", re.I)


def safe(text: str) -> str:
    """The text as a stem: nothing that a file system or a shell takes for something else, composed
    letters, whole characters. A stem that is safe stays as it is."""
    text = unicodedata.normalize("NFC", text)
    text = "".join("-" if _is_odd(letter) else letter for letter in text)
    text = text.lstrip("-. ~")
    if _RESERVED.match(text):
        text = f"_{text}"
    return cut(text, MOST_BYTES).rstrip(". -") or "untitled"


def cut(text: str, size: int) -> str:
    """At most so many bytes of UTF-8, characters whole."""
    return text.encode("utf-8", "replace")[:size].decode("utf-8", "ignore")


def words(text: str, most: int | None = None) -> str:
    """The text's letters and numbers of any script in lower case, a dash between words; of more
    than `most` characters the words that fit."""
    text = unicodedata.normalize("NFC", text.lower())
    kept = (x if unicodedata.category(x)[0] in "LMN" else " " for x in text)
    found = "-".join("".join(kept).split())
    if most is None or len(found) <= most:
        return found
    head = found[: most + 1]
    return head.rpartition("-")[0] if "-" in head else head[:most]


def _is_odd(letter: str) -> bool:
    """Separators, wildcards, and all that is not seen: controls, line ends, half pairs."""
    return letter in '<>:"/\\|?*' or unicodedata.category(letter) in (
        "Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp",
    )  # fmt: skip


def check_fields(template: str, argument: str) -> bool:
    """Whether it has fields. Raises UsageError for one that there is not."""
    found = [name for name, _ in _FIELD.findall(template)]
    for name in found:
        if name not in FIELDS:
            told = ", ".join(f"{{{field}}}" for field in FIELDS)
            raise UsageError(f"`{argument}` has no field {{{name}}}; there are {told}")
    return bool(found)


def values_of(request: Request, seed: int, index: int) -> dict[str, object]:
    """What the fields say of a run."""
    return {
        "index": index,
        "seed": seed,
        "prompt": request.prompt,
        "model": request.preset.name,
        "date": date.today().isoformat(),
        "speedup": f"{request.speedup:g}",
        "steps": request.steps,
    }


def fill(template: str, values: Mapping[str, object], digits: int) -> str:
    """The template with values for its fields, the index with so many digits."""

    def one(match: re.Match[str]) -> str:
        name, most = match[1], int(match[2]) if match[2] else None
        if name == "index":
            return f"{values[name]:0{digits}}"
        text = str(values[name])
        return words(text, most) if name == "prompt" else text[:most]

    return re.sub("--+", "-", _FIELD.sub(one, template))  # a field may be empty


@dataclass
class Names:
    """The names of one batch, no two of them alike, to file systems that ignore case either.

    `template` has fields in braces; a number after a colon is how many characters are kept of one.
    Raises UsageError for a template that can't be filled in.
    """

    template: str = TEMPLATE
    digits: int = 4  # of the index
    _ending: str = field(default="", init=False)  # the template's own
    _taken: dict[str, int] = field(default_factory=dict)
    _lines: dict[str, int] = field(default_factory=dict)  # whose each is

    def __post_init__(self) -> None:
        check_fields(self.template, "name")
        self.template, self._ending = split_ending(self.template)
        rest = _FIELD.sub("", self.template)
        if any(letter in "{}/\\" for letter in rest) or not self.template.strip():
            raise UsageError(
                f"`name` is a file's name in the folder, such as {TEMPLATE}, not {self.template!r}"
            )

    def ending(self, endings: Sequence[str]) -> str:
        """The template's, or the first of these. Raises UsageError for none of these."""
        if self._ending and self._ending not in endings:
            raise UsageError(f"`name` in {self._ending}: this job writes {', '.join(endings)}")
        return self._ending or endings[0]

    def of(self, values: Mapping[str, object], ending: str, line: int) -> str:
        """The template filled in, with this ending, for a job of this line."""
        return self._unique(safe(fill(self.template, values, self.digits)), ending, line)

    def asked(self, stem: str, ending: str, line: int) -> str:
        """The name that a line asks for; several jobs of one line get numbers. Raises UsageError
        where it is another line's."""
        first = self._lines.get((stem + ending).casefold(), line)
        if first != line:
            raise UsageError(
                f"output {(stem + ending)[:60]!r} is what line {first} writes; give each its own"
            )
        return self._unique(stem, ending, line)

    def _unique(self, stem: str, ending: str, line: int) -> str:
        """The stem and the ending; with a number between them where that is taken."""
        while True:
            key = (stem + ending).casefold()
            number = self._taken[key] = self._taken.get(key, 0) + 1
            if number == 1:
                self._lines[key] = line
                return stem + ending
            numbered = f"{stem}-{number}"
            if (numbered + ending).casefold() not in self._taken:
                stem = numbered


def split_ending(text: str) -> tuple[str, str]:
    """Stem and ending, which is empty where it is no format's: as in v1.5."""
    found = re.search(r"\.[a-z][a-z0-9]{1,4}$", text, re.I)
    return (text[: found.start()], found[0].lower()) if found else (text, "")


def asked_name(output: str, endings: Sequence[str]) -> tuple[str, str]:
    """The stem and the ending that a job's own `output` names, which is one of these; the first
    where it names none. Raises UsageError for another one, and for what is no safe name."""
    stem, ending = split_ending(output.strip())
    ending = ending or endings[0]
    if ending not in endings:
        raise UsageError(f"output {output[:60]!r}: this job writes {', '.join(endings)}")
    good = safe(stem)
    if good != unicodedata.normalize("NFC", stem):
        raise UsageError(
            f"output {output[:60]!r} is no file name that every system takes;"
            f" try {good[:60] + ending!r}"
        )
    return good, ending
