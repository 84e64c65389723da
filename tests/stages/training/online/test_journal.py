"""What the journal keeps, and what it makes of a run that was killed while it wrote."""

from tunemill.stages.training.online.engine import Completion, SamplingSettings
from tunemill.stages.training.online.journal import Journal, Taken
from tunemill.stages.training.online.kept import chosen_rounds
from tunemill.stages.training.online.rollouts import Rollout

SAMPLING = SamplingSettings(max_new_tokens=4)


def rollout(group, said):
    completion = Completion((5, 6, 7)[:said], (-0.5, -1.5, -2.5)[:said], "stop", 2**62 + group, "abc")
    return Rollout(3, group, 9, (1, 2), completion, "text", policy_log_p=(-0.25,) * said)


def test_rollouts_come_back_as_they_were(tmp_path):
    journal = Journal.among(tmp_path)
    kept = [rollout(4, 3), rollout(5, 1)]
    assert journal.rollouts(3, 4) is None and journal.scores(3) is None
    journal.keep_rollouts(kept, SAMPLING)
    journal.keep_scores(3, {"values": [[0.1, None]]})
    assert journal.rollouts(3, 4) == kept and journal.rollouts(3, 5) is None
    assert journal.scores(3) == {"values": [[0.1, None]]}


def test_what_was_half_written_was_not_kept(tmp_path):
    journal = Journal.among(tmp_path)
    journal.keep_step(Taken(1, 0, "a"))
    journal.keep_step(Taken(2, 0, "b"))
    steps = journal.folder / "steps.jsonl"
    steps.write_text(steps.read_text() + '{"step": 3, "ro')
    (journal.folder / "rollouts-000001-000.arrow.part").write_bytes(b"half")
    assert journal.steps().keys() == {1, 2}
    again = Journal.among(tmp_path)
    again.mend()
    assert not list(again.folder.glob("*.part"))
    again.keep_step(Taken(3, 1, "c"))
    assert [(one.step, one.policy) for one in again.steps().values()] == [(1, "a"), (2, "b"), (3, "c")]


def test_the_rounds_that_are_kept_are_spread_evenly():
    assert chosen_rounds(3, 10, 100) == [0, 1, 2]
    assert chosen_rounds(100, 10, 50) == [0, 25, 50, 74, 99]
    assert chosen_rounds(5, 10, 15) == [4]
    assert chosen_rounds(5, 10, 5) == [] == chosen_rounds(0, 10, 100)
