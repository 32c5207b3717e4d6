"""The benchmark at full size: its models' sizes, and the same code at a tiny scale to its end."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))

import full_size
import growth
import overhead
from big_models import configs, make_denoiser

from spectrum.pipeline.catalog import find_preset

# diffusers turns tensors into arrays in an old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")

PUBLISHED = {
    "flux.1-dev": 11.9e9,
    "wan2.1-14b": 14.3e9,
    "sd3.5-large": 8.1e9,
    "sdxl": 2.57e9,
    "hunyuanvideo": 12.8e9,
}
CACHES = {"TaylorSeer", "FirstBlockCache", "MagCache"}
TINY = ["--scale", "tiny", "--steps", "9", "--plain-steps", "3", "--device", "cpu"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_denoisers_are_as_large_as_the_published_ones(name):
    denoiser = make_denoiser(name, "full", torch.device("meta"), torch.bfloat16)
    count = sum(weight.numel() for weight in denoiser.state_dict().values())
    assert count == pytest.approx(PUBLISHED[name], rel=0.01)
    parameters = find_preset(name).parameters[configs()[name]["component"]]
    assert count == pytest.approx(parameters, rel=0.005)


def test_weights_that_diffusers_keeps_in_float32_are_kept():
    denoiser = make_denoiser("wan2.1-14b", "tiny", torch.device("cpu"), torch.bfloat16)
    dtypes = {name: weight.dtype for name, weight in denoiser.named_parameters()}
    assert dtypes["scale_shift_table"] == torch.float32
    assert dtypes["patch_embedding.weight"] == torch.bfloat16


def test_every_model_runs_to_its_end(tmp_path, capsys):
    assert set(configs()) == set(PUBLISHED)
    full_size.main([*TINY, "--out", str(tmp_path)])
    rows = json.loads((tmp_path / "full_size.json").read_text())
    expected = {contender.name: contender for contender in full_size.contenders(9)}
    assert len(rows) == len(configs()) * len(expected)
    for row in rows:
        if "reason" in row:
            assert row["contender"] in CACHES
            assert "takes none" in row["reason"]
            continue
        assert len(row["computed_steps"]) == len(expected[row["contender"]].steps)
        assert 0 < row["forecast_step_seconds"] < row["seconds"]
        if "spectrum" in row["contender"]:
            assert row["forecast_step_seconds"] < row["computed_step_seconds"]
        assert (row["stored_bytes"] is None) == (row["contender"] in CACHES)
    measured = {row["model"] for row in rows if row["contender"] in CACHES and "reason" not in row}
    assert measured == {"flux.1-dev", "wan2.1-14b", "hunyuanvideo"}
    table = (tmp_path / "full_size.md").read_text()
    assert table.count("\n| ") == 1 + sum("reason" not in row for row in rows)
    assert "- sdxl without TaylorSeer, FirstBlockCache, MagCache: UNet2D" in table
    assert table.strip() == capsys.readouterr().out.strip()


def test_it_goes_on_where_it_stopped(tmp_path, capsys):
    some = [*TINY, "--models", "flux.1-dev", "--out", str(tmp_path)]
    full_size.main([*some, "--minutes", "0"])
    assert not (tmp_path / "full_size.json").exists()
    full_size.main(some)
    first = json.loads((tmp_path / "full_size.json").read_text())
    capsys.readouterr()
    full_size.main(some)
    assert capsys.readouterr().err == ""  # nothing was run again
    full_size.main([*some, "--pairs", "2"])
    rows = json.loads((tmp_path / "full_size.json").read_text())
    assert rows[: len(first)] == first
    assert [row["pair"] for row in rows] == [0] * len(first) + [1] * len(first)
    assert "2 pairs" in (tmp_path / "full_size.md").read_text()


def test_the_median_of_the_pairs_counts():
    row = {
        "model": "a", "scale": "full", "steps": 10, "on": "a GPU", "contender": "spectrum",
        "date": "2026-01-02", "plain_step_seconds": 1.0, "computed_steps": [0, 5],
        "computed_step_seconds": 1.0, "forecast_step_seconds": 0.01, "peak_bytes": 2**31,
        "stored_bytes": 2**20,
    }  # fmt: skip
    rows = [row | {"pair": n, "seconds": seconds} for n, seconds in enumerate([2.5, 2.0, 9.0])]
    lines = list(full_size.table(rows))
    assert lines[0] == "full size, 10 steps, 3 pairs; a GPU; 2026-01-02"
    assert lines[-2] == (
        "| a | spectrum | 2 | 1 s | 10 ms | 4.00 of 5.00 | 80.0% | 2.0 GiB | 1.00 MiB |"
    )


def test_overhead_is_measured_in_pairs(capsys):
    overhead.main(["--pairs", "3", "--pixels", "32", "--device", "cpu"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("; 3 pairs of 28 steps")
    for line, target in zip(lines[1:], overhead.TARGETS, strict=True):
        assert re.fullmatch(
            rf"32 pixels, {target}: plain step [\d.]+ ms, under the cache -?\d+ ± \d+ µs more,"
            r" -?[\d.]+ ± [\d.]+ %",
            line,
        )
    assert overhead.spread([1.0, 2.0, 4.0], 0.5, 2) == "4.00 ± 2.20"


def test_growth_is_measured_and_drawn(tmp_path, capsys):
    growth.main(["--times", "0.25", "--out", str(tmp_path / "growth.png"), "--device", "cpu"])
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if ": " in line[:20]]
    costs = {cells[1].strip(): float(cells[2]) for cells in rows if len(cells) > 2}
    assert set(costs) == {f"{target}: {what}" for target, what in growth.SERIES}
    assert costs["denoised: tokens"] < costs["feature: tokens"]
    assert (tmp_path / "growth.png").stat().st_size > 10_000
