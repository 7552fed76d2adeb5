"""The replay of committed questions, in small."""

from experiments.questions import questions
from experiments.replay import replay
from normlab.evidence.verdicts import judge


def test_arms_of_decided_claims_are_not_made_again():
    question = next(one for one in questions() if one.name == "depth")
    whole = [verdict.outcome for verdict in judge(question.runs)]
    at_once = replay(question, (5,), [0, 1, 2, 3, 4], whole)
    assert (at_once.decided, at_once.undone) == (5, 0)
    assert at_once.runs < len(question.records)  # no claim is about some arms
    one = replay(question, (2, 3, 4, 5), [4, 3, 2, 1, 0], whole)
    assert one.decided >= 4 and one.undone <= 1 and one.runs < at_once.runs
