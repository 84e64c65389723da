"""What the report tells of completions that a training has kept."""

from support.kept_rollouts import ROWS, keep

from tunemill.pipelines.report.rollouts_part import means, rollouts_part
from tunemill.resources.store import Published
from tunemill.stages.training.online.browsed import read_kept


def test_worst_best_and_changed_prompts_with_rewards_by_round(tmp_path):
    (tmp_path / "logs").mkdir()
    keep(tmp_path / "logs")
    found = rollouts_part("trained", Published(tmp_path, {}))
    assert found is not None and found.words == "8 completions of 2 rounds kept"
    worst, best, changed = found.tables
    assert worst.columns == ["round", "worth", "correct", "short", "ended", "prompt", "completion"]
    assert worst.rows[0] == ["1", "0", "0", "", "stop", "user: prompt 8", "ccc"]
    assert [row[-1] for row in best.rows[:3]] == ["right", "right", "bb"]
    assert changed.rows[0] == ["user: prompt 7", "1", "1", "2", "1.5", "0.5"]
    assert means(read_kept(tmp_path)) == {
        "correct": [(1.0, 0.25), (2.0, 0.75)],
        "short": [(1.0, 1.0), (2.0, 1.0)],
        "weighted sum": [(1.0, 0.625), (2.0, 1.0)],
    }
    assert "mean reward by round" in found.svg


def test_of_a_training_without_completions_nothing_is_told(tmp_path):
    assert rollouts_part("trained", Published(tmp_path, {})) is None
    (tmp_path / "logs").mkdir()
    keep(tmp_path / "logs", ROWS[:0])
    assert rollouts_part("trained", Published(tmp_path, {})) is None
