import numpy as np
import pytest
from scipy import stats

from meljax.evaluation.statistics import Paired, mcnemar, wilson


def answers(both: int, only_first: int, only_second: int, neither: int):
    first = [True] * (both + only_first) + [False] * (only_second + neither)
    second = [True] * both + [False] * only_first + [True] * only_second + [False] * neither
    return np.array(first), np.array(second)


def test_mcnemar_equals_a_calculation_by_hand():
    assert mcnemar(*answers(20, 7, 2, 3)) == Paired(20, 7, 2, 3, pytest.approx(2 * 46 / 2**9))
    assert mcnemar(*answers(0, 0, 6, 1)) == Paired(0, 0, 6, 1, pytest.approx(2 / 2**6))


@pytest.mark.parametrize("counts", [(5, 3, 12, 2), (0, 30, 31, 0), (9, 1, 0, 0)])
def test_mcnemar_equals_scipys_binomial_test_and_is_symmetric(counts):
    first, second = answers(*counts)
    test = mcnemar(first, second)
    assert test[:4] == counts
    assert test.p == pytest.approx(stats.binomtest(counts[2], counts[1] + counts[2]).pvalue)
    assert mcnemar(second, first).p == pytest.approx(test.p)


def test_identical_predictions_have_p_one():
    assert mcnemar(*answers(3, 0, 0, 2)).p == 1


@pytest.mark.parametrize(("right", "total"), [(0, 9), (1, 9), (210, 247), (999_999, 1_000_000)])
def test_wilsons_bounds_solve_its_equation(right, total):
    z = stats.norm.ppf(0.975)
    for bound in wilson(right, total):
        assert (right / total - bound) ** 2 == pytest.approx(
            z**2 * bound * (1 - bound) / total, rel=1e-6, abs=1e-30
        )
