"""Pipelines that denoise several times in one call: chunks, windows, sizes of a pyramid."""

import pytest
import torch
from tiny_videos_more import (
    FORCED,
    HELIOS,
    SHORT,
    tiny_helios_pyramid,
    tiny_ltx_long,
    tiny_skyreels_v2_forcing,
)

from spectrum import SpectralCache
from spectrum.pipeline.catalog import find_preset
from spectrum.pipeline.generate import generate
from spectrum.pipeline.request import resolve
from spectrum.tune.bench import Bench
from spectrum.tune.bench import Case as BenchCase
from spectrum.tune.candidates import Planned

CASES = {
    # copies of its scheduler are made for each run, when the one before has ended
    "skyreels": (tiny_skyreels_v2_forcing, FORCED | {"num_inference_steps": 4}, [4, 4, 4]),
    # its progress bar is that of a chunk, in which the scheduler is set for each size
    "helios": (
        tiny_helios_pyramid,
        HELIOS | {"pyramid_num_inference_steps_list": [4, 5]},
        [4, 5, 4, 5],
    ),
    # its progress bar goes over all timesteps but the last
    "ltx": (
        tiny_ltx_long,
        SHORT | {"num_frames": 41, "temporal_tile_size": 24, "temporal_overlap": 8,
                 "num_inference_steps": 5},
        [4, 4, 4],
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:__array_wrap__ must:DeprecationWarning")  # Helios, numpy 2.4
@pytest.mark.parametrize("name", CASES)
def test_each_run_has_a_report_of_its_own(name):
    build, call, runs = CASES[name]
    pipe = build()

    def sample():
        generator = torch.Generator().manual_seed(1)
        return pipe(**call, generator=generator, output_type="latent", return_dict=False)[0]

    plain = sample()
    for speedup, share in ((1, 1), (2, 0.5)):
        with SpectralCache(pipe, speedup) as cache:
            fast = sample()
        assert [report.num_steps for report in cache.reports] == runs
        assert all(report.finished for report in cache.reports)
        counts = [len(report.computed_steps) for report in cache.reports]
        assert counts == [int(share * steps) for steps in runs]
        assert torch.equal(fast, plain) == (speedup == 1)
    assert torch.equal(sample(), plain)


def test_of_all_runs_of_a_call_the_steps_are_told(tmp_path):
    build, call, runs = CASES["skyreels"]
    pipe = build()
    pipe.save_pretrained(tmp_path)
    extras = [f"{k}={call[k]}" for k in ("base_num_frames", "overlap_history")]
    request = resolve(
        find_preset(str(tmp_path)), "a cat", width=32, height=32, frames=17, steps=4, speedup=2,
        extras=[*extras, "max_sequence_length=16"],
    )  # fmt: skip
    begun = []
    made = generate(pipe, request, 1, lambda report, step: begun.append(step is None))
    assert sum(begun) == len(runs)
    report = made.report
    assert (report.num_steps, len(report.computed_steps)) == (12, 6)
    assert [step.index for step in report.steps] == list(range(12))
    assert report.computed_steps == report.planned_steps
    assert report.computed_steps[2:4] == [4 + step for step in report.computed_steps[:2]]
    assert report.finished
    assert report.planned_speedup == 2


def test_tuning_looks_at_the_first_run_of_a_call(tmp_path):
    build, call, runs = CASES["skyreels"]
    pipe = build()
    pipe.save_pretrained(tmp_path / "weights")
    extras = [f"{k}={call[k]}" for k in ("base_num_frames", "overlap_history")]
    base = resolve(
        find_preset(str(tmp_path / "weights")), "x", width=32, height=32, frames=17, steps=4,
        extras=[*extras, "max_sequence_length=16"],
    )  # fmt: skip
    bench = Bench(lambda: pipe, base, [BenchCase("a cat", 1)], tmp_path / "bench", {})
    bench.plain(0)
    assert len(bench.observed()) == runs[0] - 1
    assert len(bench.known(Planned(2, 8.0)).steps) == 2
