import numpy as np
import pytest
from scipy import stats

from meljax.evaluation.groups import Groups
from meljax.evaluation.statistics import Paired, mcnemar, paired_test, wilson


def answers(both: int, only_first: int, only_second: int, neither: int):
    first = [True] * (both + only_first) + [False] * (only_second + neither)
    second = [True] * both + [False] * only_first + [True] * only_second + [False] * neither
    return np.array(first), np.array(second)


def test_mcnemar_equals_a_calculation_by_hand():
    for counts, p in (((20, 7, 2, 3), 2 * 46 / 2**9), ((0, 0, 6, 1), 2 / 2**6)):
        alone = Groups(("",) * sum(counts))
        expected = Paired(*counts, pytest.approx(p), "McNemar’s test")
        assert paired_test(*answers(*counts), alone) == expected


@pytest.mark.parametrize("counts", [(5, 3, 12, 2), (0, 30, 31, 0), (9, 1, 0, 0)])
def test_mcnemar_equals_scipys_binomial_test_and_is_symmetric(counts):
    first, second = answers(*counts)
    p = mcnemar(first, second)
    assert p == pytest.approx(stats.binomtest(counts[2], counts[1] + counts[2]).pvalue)
    assert mcnemar(second, first) == pytest.approx(p)


def test_identical_predictions_have_p_one():
    assert mcnemar(*answers(3, 0, 0, 2)) == 1


@pytest.mark.parametrize(("right", "total"), [(0, 9), (1, 9), (210, 247), (999_999, 1_000_000)])
def test_wilsons_bounds_solve_its_equation(right, total):
    z = stats.norm.ppf(0.975)
    for bound in wilson(right, total):
        assert (right / total - bound) ** 2 == pytest.approx(
            z**2 * bound * (1 - bound) / total, rel=1e-6, abs=1e-30
        )
