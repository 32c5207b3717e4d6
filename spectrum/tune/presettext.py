"""What was found, as the section `cache` of a preset's text; all else stays as it is written.

The text is edited by the places that PyYAML tells of its top keys. ruamel.yaml would keep comments,
order and quotes too, but not the line breaks of lists and mappings in brackets, which 16 of our own
presets have, nor `null`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from spectrum.methods import DEFAULT_METHOD
from spectrum.pipeline.files import write
from spectrum.pipeline.preset import Preset, Tuned, read_preset, trust_word
from spectrum.tune.judging import mean, spread_text
from spectrum.tune.scale import FittedScale
from spectrum.tune.search import Found, Tuning
from spectrum.words import counted


def preset_text(preset: Preset) -> str:
    """Its file's, or its values as YAML where it has none."""
    if preset.path != Path():
        return preset.path.read_text(encoding="utf-8")
    content = preset.model_dump(
        mode="json", by_alias=True, exclude_defaults=True, exclude={"name", "path"}
    )
    if Path(preset.weights).is_dir():
        content["weights"] = str(Path(preset.weights).resolve())
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def tuned_yaml(
    preset: Preset, tuning: Tuning, record: Sequence[str], text: str | None = None
) -> str:
    """The preset's text with what is better than the default, after `record` as comments.

    What was tuned before for other numbers of steps is kept. `text` is `preset_text`, where it was
    taken before.
    """
    text = preset_text(preset) if text is None else text
    if preset.weights == "embedded":
        text = _with_value(text, "weights", f"embedded:{preset.name}")
    header = "".join(f"# {line}".rstrip() + "\n" for line in record)
    section = "\n".join(_cache_section(preset, tuning)) + "\n"
    return header + "#\n" + _with_section(text, "cache", section)


def write_preset(path: Path, text: str, replace: bool = False) -> Path:
    """Only if it can be read again; where it is now: see `spectrum.pipeline.files.write`."""

    def make(partial: Path) -> None:
        partial.write_text(text, encoding="utf-8")
        read_preset(partial)

    return write(path, make, replace)


# -- the section ---------------------------------------------------------------------------------


def _cache_section(preset: Preset, tuning: Tuning) -> list[str]:
    lines = ["cache:", f"  speedup: {preset.cache.speedup:g}", f"  method: {DEFAULT_METHOD}"]
    if tuning.scale.better:
        lines += [f"  # {line}" for line in _scale_comments(tuning)]
        lines.append(f"  scale: {tuning.scale.chosen:g}")
    entries = [line for one in tuning.found if one.better for line in _found_entry(one)]
    looked_at = {(one.num_steps, one.count) for one in tuning.found}
    for tuned in preset.cache.tuned:
        if (tuned.num_steps, len(tuned.steps)) not in looked_at:
            entries += [*_entry(tuned), "      # as it was"]
    return [*lines, "  tuned:", *entries] if entries else lines


def _scale_comments(tuning: Tuning) -> Iterator[str]:
    scale: FittedScale = tuning.scale
    counts = ", ".join(str(one.count) for one in tuning.found)
    first = tuning.found[0]
    yield f"{spread_text(scale.gain)} over the default, which is {scale.default:.3g}; mean of"
    yield f"{counts} of {first.num_steps} computed, {_prompts(first)}"


def _found_entry(one: Found) -> Iterator[str]:
    best = one.best
    yield from _entry(
        Tuned(num_steps=one.num_steps, steps=list(best.steps), length=best.length, trust=best.trust)
    )
    quality = f"{one.count} of {one.num_steps} computed, {mean(one.tuned_psnr):.1f} dB"
    yield f"      # {quality}: {spread_text(one.gain)} over the default,"
    if one.scaled != one.default:
        yield f"      # {spread_text(one.gain_over_scaled)} over the plan by this scale,"
    yield f"      # {spread_text(one.gain_over_fewer)} over fewer steps; {_prompts(one)}"


def _prompts(one: Found) -> str:
    return counted(len(one.tuned_psnr), "prompt")


def _entry(entry: Tuned) -> list[str]:
    trust = yaml.safe_dump(trust_word(entry.trust)).split("\n")[0]
    steps = ", ".join(map(str, entry.steps))
    return [
        f"    - {{num_steps: {entry.num_steps}, length: {entry.length:g}, trust: {trust},",
        f"       steps: [{steps}]}}",
    ]


# -- its place in the text -----------------------------------------------------------------------


def _with_value(text: str, key: str, value: str) -> str:
    """The YAML text with another scalar at a key of its top."""
    _, node = _top(text)[key]
    return text[: node.start_mark.index] + value + text[node.end_mark.index :]


def _with_section(text: str, key: str, section: str) -> str:
    """The YAML text with these lines instead of a key of its top, or at the end."""
    if key not in _top(text):
        return text + ("" if text.endswith("\n") else "\n") + section
    found, node = _top(text)[key]
    lines = text.splitlines(keepends=True)
    first, end = found.start_mark.line, node.end_mark.line
    if node.end_mark.column:
        end += 1
    while end > first + 1 and not lines[end - 1].startswith((" ", "\t", "}")):
        end -= 1  # blank lines and comments belong to what follows
    return "".join([*lines[:first], section, *lines[end:]])


def _top(text: str) -> dict[str, tuple[yaml.Node, yaml.Node]]:
    """Keys and values with their places."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(node, yaml.MappingNode)
    return {key.value: (key, value) for key, value in node.value}
