"""Advantages: how much better a completion was than the others of its group.

With r_if the reward of completion i by function f, w_f its weight, and mean and std over the G completions of a group
(the deviation of a sample: divided by G - 1):

    sum_then_normalize   r_i = sum_f w_f r_if;  A_i = (r_i - mean r) / (std r + e)    Shao et al. 2024, arXiv 2402.03300
    normalize_then_sum   z_if = (r_if - mean_f) / (std_f + e);  r_i = sum_f w_f z_if;
                         A_i = (r_i - mean of the round) / (std of the round + e)   Liu et al. 2026, arXiv 2601.05242

with e = 1e-4. `scale`: `group` as above, `batch` with the std of all completions of a round (Liu et al. 2025, arXiv
2508.08221), `none` without dividing (Liu et al. 2025, arXiv 2503.20783). Rewards that are NaN count nothing; a
completion that no function judged has the advantage 0 and is no part of any mean, as in TRL.

Shapes: N completions of whole groups, one behind the other; F functions.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tunemill.stages.training.online.policy_keys import Aggregation, Scale

Floats = npt.NDArray[np.float64]
EPSILON = 1e-4


@dataclass(frozen=True)
class Advantages:
    """Of N completions: `values_n`, `rewards_n` (NaN where there is none), `spread_n` (deviation of its group's)."""

    values_n: Floats
    rewards_n: Floats
    spread_n: Floats


def as_numbers(values_nf: Sequence[Sequence[float | None]]) -> Floats:
    """[n, f] of rewards, not a number where one does not apply."""
    return np.array([[np.nan if value is None else value for value in row] for row in values_nf], np.float64)


def comparable(values_nf: Sequence[Sequence[float | None]], size: int, failed: Iterable[int]) -> Floats:
    """The same, and not a number in whole groups of `size` in which a reward has failed: they count nothing."""
    found_nf = as_numbers(values_nf)
    for group in failed:
        found_nf[group * size : (group + 1) * size] = np.nan
    return found_nf


def advantages(
    rewards_nf: Floats,
    weights_f: Floats,
    num_generations: int,
    *,
    scale: Scale = "group",
    aggregation: Aggregation = "sum_then_normalize",
) -> Advantages:
    """Of whole groups of `num_generations` completions each."""
    judged_n = ~np.isnan(rewards_nf).all(axis=1)
    summed_n = np.where(judged_n, np.nansum(rewards_nf * weights_f, axis=1), np.nan)
    groups = len(rewards_nf) // num_generations
    spread_n = np.repeat(deviation(summed_n.reshape(groups, -1)), num_generations)
    if aggregation == "sum_then_normalize":
        mean_n = np.repeat(mean(summed_n.reshape(groups, -1)), num_generations)
        divisor_n = {
            "group": spread_n + EPSILON,
            "batch": np.full(len(summed_n), deviation(summed_n) + EPSILON),
            "none": np.ones(len(summed_n)),
        }[scale]
        values_n = (summed_n - mean_n) / divisor_n
    else:
        grouped_gkf = rewards_nf.reshape(groups, num_generations, -1)
        centred_gkf = grouped_gkf - mean(grouped_gkf, axis=1)[:, None]
        each_nf = (centred_gkf / (deviation(grouped_gkf, axis=1)[:, None] + EPSILON)).reshape(
            rewards_nf.shape
        )
        total_n = np.where(judged_n, np.nansum(each_nf * weights_f, axis=1), np.nan)
        values_n = (total_n - mean(total_n)) / (deviation(total_n) + EPSILON)
    return Advantages(np.where(judged_n, np.nan_to_num(values_n), 0.0), summed_n, np.nan_to_num(spread_n))


def mean(values: Floats, axis: int = -1) -> Floats:
    """Of what is no NaN; NaN where all is."""
    count = (~np.isnan(values)).sum(axis=axis)
    found: Floats = np.where(count > 0, np.nansum(values, axis=axis) / np.maximum(count, 1), np.nan)
    return found


def deviation(values: Floats, axis: int = -1) -> Floats:
    """Of a sample, of what is no NaN; 0 of one value."""
    count = (~np.isnan(values)).sum(axis=axis)
    squares = (values - np.expand_dims(mean(values, axis), axis)) ** 2
    found: Floats = np.sqrt(np.nansum(squares, axis=axis) / np.maximum(count - 1, 1))
    return found
