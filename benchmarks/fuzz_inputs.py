"""What `fuzz` feeds the command: hypothesis strategies for command lines and for the files beside
them, nearly sound or junk."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from spectrum.pipeline.catalog import find_preset, preset_paths

TEXTS = (
    "", " ", "-", "--", "nan", "inf", "-inf", "1e-320", "1e308", "0", "-1", "1", "0.5", "2",
    "99999999999999999999", "1,2", "true", "null", "~", ".", "..", "/", "a/b", "../../x", "x.png",
    "x.PNG", "x.mp4", "work/", "\x1b]0;owned\x07", "\x9b31m", "\u202egnp.exe", "\x85", "\ud800",
    "\0", "é" * 300, "{", "[", "[" * 60, "!!python/object/apply:os.system [id]", "&a [*a]",
    "a=b", "image=x.png", "sigmas=[nan]", "sigmas=3", "guidance_scale=3", "=", "{index}", "{x}",
    "spectrum", "published", "euler", "heun", "ddim", "good", "feature", "cpu", "float32", "fp16",
    "int8", "group", "native", "org/name", "https://host/x", "file:///etc/passwd", "1-8", "1/2",
)  # fmt: skip
FILES = (
    "x.png", "x.jpg", "x.mp4", "mine.yaml", "jobs.txt", "jobs.jsonl", "jobs.csv", "jobs.yaml",
    "prompts.txt", "manifest.jsonl", "manifest.jsonl:1", "weights", "empty", "a.safetensors",
    "gone", "loop", "demo-image-tuned.yaml",
)  # fmt: skip
TEXT = st.one_of(st.sampled_from(TEXTS), st.text(max_size=12))
VALUE: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
NUMBER = st.one_of(
    st.integers(-2, 60), st.integers(), st.sampled_from([0.5, 1.5, 3, float("nan"), float("inf")])
)
DOCUMENT = {
    "schema": 1, "generator": "spectrum 0.1.0", "model": "demo-image", "pipeline": "FluxPipeline",
    "weights": "embedded:demo-image", "prompt": "a red circle", "negative_prompt": "", "seed": 1,
    "width": 128, "height": 128, "frames": 1, "fps": None, "steps": 10, "guidance": 1.0,
    "speedup": 2.0, "image": None, "strength": None, "loras": [], "scheduler": None, "extras": {},
    "method": "spectrum", "target": "denoised", "quality": None, "blend": None,
    "forecaster": "Kriging()", "computed_steps": [0, 3, 5, 7, 9], "offload": "none",
    "quantize": None, "vae_tiling": None, "compile": False, "attention": None, "preset": "x",
    "device": "cpu", "machine": "x", "threads": 1, "dtype": "float32", "versions": {"torch": "2"},
}  # fmt: skip
INDEX = {
    "_class_name": "FluxPipeline", "_diffusers_version": "0.42.1",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "transformer": ["diffusers", "FluxTransformer2DModel"], "vae": ["diffusers", "AutoencoderKL"],
}  # fmt: skip
RESULTS = {"schema": 3, "settings": {}, "runs": {"plain #0": {"seconds": 1.0, "psnr": 30.0}}}
JOB = {"prompt": "a red circle", "seed": 1, "steps": 10, "extras": {"max_sequence_length": 8}}
HEADER = {"x.weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


@dataclass
class Input:
    """A command line, what comes on standard input, and files by their names."""

    args: list[str]
    stdin: bytes = b""
    files: dict[str, bytes] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        (folder / "empty").mkdir()
        (folder / "loop").symlink_to("loop")


_OFTEN = (
    "gen",
    "gen",
    "gen",
    "rerun",
    "rerun",
    "rerun",
    "show",
    "batch",
    "batch",
    "plan",
    "inspect",
)


@st.composite
def inputs(draw: st.DrawFn, commands: dict[str, list[Any]]) -> Input:
    """One command line of one of these commands, by the parameters that each has."""
    name = draw(st.sampled_from([*sorted(commands), *_OFTEN]))
    args = name.split()
    for parameter in commands[name]:
        if not parameter.opts[0].startswith("-"):
            args += draw(_argument(name, parameter.name))
    options = [p for p in commands[name] if p.opts[0].startswith("-") and p.name != "help"]
    some = st.lists(st.sampled_from(options), max_size=4, unique=True) if options else st.just([])
    chosen = draw(some)
    if name == "doctor":
        args.append("--junk")  # it examines the machine, which takes its time
    for option in chosen:
        args.append(draw(st.sampled_from([*option.opts, *option.secondary_opts])))
        if not option.is_flag:
            args.append(draw(_value(option.name)))
    if name == "batch":
        args += ["-o", "out"]
    if draw(st.integers(0, 19)) == 7:
        args.append(draw(TEXT))
    return Input([_typed(arg) for arg in args], draw(_LINES), draw(_files()))


def _typed(text: str) -> str:
    """As a shell can hand it over: without zero bytes, and of halves of pairs only those that
    stand for bytes that are not UTF-8."""
    return re.sub(r"[\0\ud800-\udc7f\udd00-\udfff]", "", text)


def _argument(command: str, name: str) -> st.SearchStrategy[list[str]]:
    if name == "model" or (command == "models show" and name == "name"):
        return _value("model").map(lambda text: [text])
    if name == "file":
        usual = [*["x.png"] * 9, "x.mp4"] if command in ("show", "rerun") else list(FILES[4:8])
        return st.sampled_from([*usual, *usual, *FILES]).map(lambda text: [text])
    return _mostly(st.just(["a red circle"]), TEXT.map(lambda text: [text]))


def _value(name: str) -> st.SearchStrategy[str]:
    """Of an option: one that fits, more often than not."""
    fitting = _FITTING.get(name)
    if fitting is None:
        return st.one_of(NUMBER.map(str), TEXT, st.sampled_from(FILES))
    usual = st.sampled_from(fitting)
    junk = st.one_of(NUMBER.map(str), TEXT, st.sampled_from(FILES))
    return _mostly(usual, junk)


_FITTING: dict[str, list[str]] = {
    "model": [*["demo-image"] * 20, *["mine", "mine.yaml", "weights"] * 5, "x",
              *sorted(preset_paths())],
    "output": ["new.png", "x.png", "new.yaml", "new/", "a.mp4", "empty"],
    "steps": ["1", "2", "10", "50", "120", "10000"], "speedup": ["1", "2", "4.5"],
    "width": ["128", "16", "16384"], "height": ["128", "144"], "frames": ["1", "5", "17"],
    "fps": ["8"], "guidance": ["0", "1", "3.5", "1e300"], "seed": ["0", "7", "4294967295"],
    "num_images": ["1", "2", "10000"], "image": ["x.png", "x.jpg", "mine.yaml"],
    "strength": ["0.5", "1"], "loras": ["a.safetensors", "a.safetensors:0.5", "org/name"],
    "extras": ["max_sequence_length=8", "sigmas=[1, 0.5]", "image=x.png", "foo=1"],
    "method": ["spectrum", "published", "taylor1", "hold", "fewer-steps", "published:0.5"],
    "target": ["feature", "denoised"], "quality": ["good", "draft", "0.03"], "blend": ["0.5", "1"],
    "scheduler": ["euler", "heun", "unipc", "dpm++", "DDIMScheduler"], "weights": ["weights"],
    "device": ["cpu", "auto", "cuda", "cuda:7"], "dtype": ["float32", "bfloat16", "bf16"],
    "offload": ["none", "model"], "quantize": ["int8"], "attention": ["native", "flash"],
    "alpha": ["0.75", "3"], "window": ["2"], "warmup": ["5"], "speedups": ["2,3"], "minutes": ["1"],
    "prompts": ["prompts.txt"], "seeds": ["2", "1-3"], "sweep": ["steps=5,6"], "shard": ["1/2"],
    "name": ["{index}-{seed}", "{prompt:40}"], "preview": ["5"], "prompt": ["a red circle"],
}  # fmt: skip


@st.composite
def _mutated(draw: st.DrawFn, base: Any) -> Any:
    """A document with up to three of its values gone, replaced or added, at any depth."""
    content = copy.deepcopy(base)
    for _ in range(draw(st.sampled_from([0, 1, 1, 2, 3]))):
        place = content
        while isinstance(place, dict) and place:
            key = draw(st.sampled_from(sorted(place)))
            if isinstance(place[key], dict) and place[key] and draw(st.booleans()):
                place = place[key]
                continue
            what = draw(st.sampled_from(["remove", "replace", "replace", "add"]))
            if what == "remove":
                del place[key]
            else:
                place[key if what == "replace" else draw(TEXT)] = draw(VALUE)
            break
    return draw(VALUE) if draw(st.integers(0, 19)) == 7 else content


def _mostly(usual: st.SearchStrategy[Any], *others: st.SearchStrategy[Any]) -> Any:
    """The first four times out of five."""
    return st.integers(0, 4).flatmap(lambda n: usual if n else st.one_of(*others))


def _json(base: Any) -> st.SearchStrategy[bytes]:
    deep = st.just(b"[" * 100_000)
    text = _mutated(base).map(lambda value: json.dumps(value).encode())
    return _mostly(text, st.binary(max_size=20), deep)


def _png(base: Any) -> st.SearchStrategy[bytes]:
    """A small picture that says so of itself."""

    def made(text: bytes) -> bytes:
        import io

        info, file = PngInfo(), io.BytesIO()
        info.add_itxt("spectrum", text.decode("utf-8", "replace"))
        Image.new("RGB", (8, 8)).save(file, "png", pnginfo=info)
        return file.getvalue()

    whole = _json(base).map(made)
    return _mostly(whole, whole.map(lambda data: data[:-20]), st.binary(max_size=30))


def _preset(name: str) -> st.SearchStrategy[bytes]:
    base = yaml.safe_load(find_preset(name).path.read_text(encoding="utf-8"))

    def made(value: Any) -> bytes:
        text: str = yaml.safe_dump(value, allow_unicode=True)
        return text.encode("utf-8", "replace")

    return _mostly(_mutated(base).map(made), st.binary(max_size=30))


def _safetensors() -> st.SearchStrategy[bytes]:
    def made(header: bytes, length: int | None) -> bytes:
        size = len(header) if length is None else length
        return size.to_bytes(8, "little") + header + bytes(8)

    lengths = st.one_of(st.none(), st.sampled_from([0, 7, 2**40, 2**63]))
    return st.builds(made, _json(HEADER), lengths) | st.binary(max_size=20)


_LINES = st.lists(st.one_of(TEXT, _mutated(JOB).map(json.dumps)), max_size=3).map(
    lambda lines: "\n".join(lines).encode("utf-8", "surrogatepass")
)


def _files() -> st.SearchStrategy[dict[str, bytes]]:
    made = {
        "x.png": _png(DOCUMENT), "x.jpg": st.binary(max_size=30), "x.mp4": st.binary(max_size=30),
        "mine.yaml": _preset("demo-image"), "presets/mine.yaml": _preset("wan2.1-14b"),
        "jobs.txt": _LINES, "prompts.txt": _LINES, "manifest.jsonl": _json(JOB),
        "jobs.jsonl": _LINES, "jobs.csv": _LINES.map(lambda lines: b"prompt,seed\n" + lines),
        "jobs.yaml": _mutated({"steps": 10, "jobs": [JOB]}).map(lambda v: json.dumps(v).encode()),
        "demo-image-tuned.tune/results.json": _json(RESULTS),
        "weights/model_index.json": _json(INDEX),
        "weights/scheduler/scheduler_config.json": _json({"_class_name": "EulerDiscreteScheduler"}),
        "weights/transformer/diffusion_pytorch_model.safetensors": _safetensors(),
        "weights/vae/config.json": _json({"_class_name": "AutoencoderKL"}),
        "a.safetensors": _safetensors(),
    }  # fmt: skip
    return st.fixed_dictionaries(made)
