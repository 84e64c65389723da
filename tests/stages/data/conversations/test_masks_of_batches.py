"""Labels and roles of a batch are those of its conversations, each looked at by itself, one token after the other."""

import random
from itertools import pairwise

import numpy as np
import pytest

from tunemill.stages.data.conversations.example import Conversation, Ends, Part, Ranges, Turn
from tunemill.stages.data.conversations.masks import END_DISTANCE, label, tokens_of_parts
from tunemill.stages.data.engines.encoded import Spanned, offsets_of_lengths
from tunemill.stages.data.rows.labels import IGNORED

BATCHES = 300
RULES = ("all", "turn", "last", "none")


class OneByOne:
    """A conversation's labels and runs, as the docstrings of `masks` say it."""

    def __init__(self, ids, characters, conversation, ends):
        self.ids, self.characters, self.ends = ids, characters, ends
        self.turns = [(turn, *self.placed(turn)) for turn in conversation.turns]

    def tokens(self, start, end):
        count = len(self.ids)
        first = next((i for i, (_, last) in enumerate(self.characters) if last > start), count)
        return first, next((i for i, (begin, _) in enumerate(self.characters) if begin >= end), count)

    def placed(self, turn):
        first, end = self.tokens(turn.start, turn.end)
        end = end if turn.start < turn.end else first
        near = range(end, min(end + END_DISTANCE + 1, len(self.ids)))
        kinds = (self.ends.eot_ids, self.ends.eos_ids)
        return first, end, *(next((i for i in near if self.ids[i] in kind), -1) for kind in kinds)

    def ends_something(self, index):
        return self.ids[index] in self.ends.eot_ids | self.ends.eos_ids

    def trained_ends(self):
        rules = (self.ends.train_on_eot, self.ends.train_on_eos)
        full = [
            (turn.trained, closing)
            for turn, first, end, *closing in self.turns
            if first < end and (turn.trained or "all" in rules)
        ]
        found = set()
        for kind, rule in enumerate(rules):
            those = [(trained, closing[kind]) for trained, closing in full if closing[kind] >= 0]
            chosen = {"last": those[-1:], "none": [], "all": those}.get(
                rule, [one for one in those if one[0]]
            )
            found |= {index for _, index in chosen}
        return found

    def labels(self):
        closing = self.trained_ends()
        found = set(closing)
        for turn, first, end, eot, eos in self.turns:
            if not turn.trained:
                continue
            for ranges in turn.details:
                begin, stop = self.tokens(ranges.start, ranges.end)
                found |= {
                    begin + i
                    for i in tokens_of_parts(ranges, [start for start, _ in self.characters[begin:stop]])
                }
            if not turn.details:
                last = max({eot, eos} & closing, default=end)
                found |= {*range(first, end), *(i for i in range(end, last) if not self.ends_something(i))}
        return [token if index in found else IGNORED for index, token in enumerate(self.ids)]

    def roles(self):
        """Of each token the role."""
        roles, role = [], "template"
        for turn, first, end, eot, eos in sorted(self.turns, key=lambda placed: placed[1]):
            behind = [i + 1 for i in range(len(roles), first) if self.ends_something(i)]
            if behind:
                roles += ["template"] * (behind[-1] - len(roles))
            closed = max(end, eot + 1, eos + 1)
            roles += [turn.role] * (closed - len(roles))
            role = roles[-1] if roles else role
        return roles + [role] * (len(self.ids) - len(roles))


def some_turn(rng, start, end):
    details = []
    for _ in range(rng.choice((0, 0, 1, 2)) if start < end else 0):
        cuts = sorted(rng.randint(start, end) for _ in range(4))
        details.append(
            Ranges(
                cuts[0], cuts[-1], tuple(Part(*p, rng.random() < 0.5) for p in pairwise(cuts) if p[0] < p[1])
            )
        )
    role = rng.choice(("user", "assistant", "template"))
    return Turn(role, start, end, rng.random() < 0.5, tuple(details))


def some_row(rng):
    """Tokens, their characters, and turns in or out of order: tokens may share a character, or leave some out."""
    characters, reached = [], 0
    for _ in range(rng.randint(0, 14)):
        kind = rng.random()
        start = characters[-1][0] if characters and kind < 0.1 else reached + (kind > 0.95)
        end = characters[-1][1] if characters and kind < 0.1 else start + rng.choice((1, 1, 3))
        characters.append((start, end))
        reached = max(reached, end)
    ids = [rng.choice((1, 2, 3, 50, 51, 52)) for _ in characters]
    bounds = [sorted(rng.randint(0, reached) for _ in range(2)) for _ in range(rng.randint(0, 5))]
    turns = [some_turn(rng, *pair) for pair in (sorted(bounds) if rng.random() < 0.5 else bounds)]
    return ids, characters, Conversation("x" * reached, tuple(turns))


@pytest.mark.parametrize("seed", range(4))
def test_labels_and_roles_are_those_of_each_conversation_by_itself(seed):
    rng = random.Random(seed)
    for _ in range(BATCHES):
        rows = [some_row(rng) for _ in range(rng.choice((0, 1, 2, 5)))]
        kinds = [frozenset(rng.sample((1, 2, 3), rng.randint(0, 2))) for _ in range(2)]
        ends = Ends(kinds[0], rng.choice(RULES), kinds[1], rng.choice(RULES))
        ids = np.array([token for row in rows for token in row[0]], np.int32)
        spans = np.array([span for row in rows for span in row[1]], np.int32).reshape(-1, 2)
        offsets = offsets_of_lengths([len(row[0]) for row in rows])
        made = label(Spanned(ids, offsets, spans[:, 0], spans[:, 1]), [row[2] for row in rows], ends)
        assert len(made) == len(rows)
        for sample, row in zip(made, rows, strict=True):
            known = OneByOne(*row, ends)
            assert (sample.ids, sample.labels) == (row[0], known.labels())
            assert [run.role for run in sample.runs for _ in range(run.end - run.start)] == known.roles()
            assert all(one.role != other.role for one, other in pairwise(sample.runs))


@pytest.mark.parametrize("count", [127, 128, 256, 300])
def test_a_token_that_many_turns_share_is_trained_on(count):
    turns = tuple(Turn("assistant", place, place + 1, trained=True) for place in range(count))
    spanned = Spanned(*(np.array(values, np.int32) for values in ([7], [0, 1], [0], [count])))
    (sample,) = label(
        spanned, [Conversation(" " * count, turns)], Ends(frozenset(), "turn", frozenset(), "turn")
    )
    assert sample.labels == [7]
