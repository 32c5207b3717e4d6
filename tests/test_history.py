import pytest
import torch

from spectrum.history import FeatureHistory
from spectrum.parallel import own_norm
from spectrum.storage import Storage


def history_of(capacity, dtype):
    return FeatureHistory(capacity, dtype, Storage("device"), own_norm)


def test_a_forecast_is_the_weighted_sum():
    history = history_of(3, torch.float32)
    features = [torch.randn(2, 5, 4) for _ in range(3)]
    for step, feature in enumerate(features):
        history.append(step, feature)
    expected = 0.5 * features[0] - 2 * features[1] + 2.5 * features[2]
    torch.testing.assert_close(history.forecast([0.5, -2, 2.5]), expected)


def test_the_oldest_makes_room():
    history = history_of(2, torch.float32)
    for step in range(5):
        history.append(step, torch.full((3,), float(step)))
    assert history.steps == [3, 4]
    assert history.forecast([1, 0]).tolist() == [3, 3, 3]
    assert history.forecast([0, 1]).tolist() == [4, 4, 4]
    assert history.nbytes == 2 * 3 * 4


def test_bfloat16_is_summed_in_float32():
    history = history_of(2, torch.bfloat16)
    history.append(0, torch.tensor([1.0, 256.0]))
    history.append(1, torch.tensor([1.0, 256.0]))
    total = history.forecast([1.001, -1.0])  # 1.001 is 1.0 in bfloat16
    assert total.dtype == torch.float32
    torch.testing.assert_close(total, torch.tensor([0.001, 0.256]), rtol=1e-3, atol=0)


def test_it_stores_a_copy():
    history = history_of(1, torch.float32)
    feature = torch.ones(3)
    history.append(0, feature)
    feature.zero_()
    assert history.forecast([1.0]).tolist() == [1, 1, 1]


def test_an_infinite_feature_of_weight_zero_does_no_harm():
    history = history_of(2, torch.float32)
    history.append(0, torch.full((2,), torch.inf))
    history.append(1, torch.ones(2))
    assert history.forecast([0.0, 1.0]).tolist() == [1, 1]


def test_each_sample_by_weights_of_its_own():
    history = history_of(2, torch.float32)
    for step in range(3):
        history.append(step, torch.randn(3, 5, 4))
    rows = [[0.5, 0.3], [0.0, 1.0], [-1.0, 2.0]]
    expected = [history.forecast(row)[n] for n, row in enumerate(rows)]
    assert torch.equal(history.forecast_each(rows), torch.stack(expected))


def test_memory_is_taken_as_features_come():
    history = history_of(50, torch.float32)
    for step in range(3):
        history.append(step, torch.ones(5))
    assert history.nbytes == 3 * 5 * 4


def test_weights_must_match():
    with pytest.raises(ValueError, match="2 weights for 0"):
        history_of(1, torch.float32).forecast([1.0, 2.0])
