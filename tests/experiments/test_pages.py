"""The pages that sum up say what the committed results say, and no more."""

import re
from dataclasses import replace

import jax
import pytest

from experiments import publish, which
from experiments.questions import RESULTS, ROOT, notes, questions
from normlab.configs.build import outline
from normlab.configs.experiment import load_experiment
from normlab.configs.overrides import read
from normlab.measures.claims import Claim
from normlab.reports.publishing import PAGE
from normlab.reports.publishing import page as results_page
from normlab.reports.publishing import publish as publish_runs
from normlab.reports.superseded import superseded
from tests.shared.simulated import simulate
from tests.shared.thorough import mostly_thorough

COMMITTED = questions()
LARGE = {"catalogue", "depth", "medical", "regularisation"}
QUICK = [question for question in COMMITTED if question.name not in LARGE]
AGAIN = "make it again: python -m experiments.publish"
CLAIM = Claim("a beats c", "final(test_accuracy)", "a", "c", "difference > 0")
GOOD, NEAR = [0.81, 0.82, 0.83, 0.815, 0.825], [0.8, 0.815, 0.835, 0.81, 0.825]
BAD = [0.5, 0.52, 0.51, 0.505, 0.515]


def results(folder, arms, name="speech"):
    publish_runs(simulate(folder / "runs" / name, arms, [CLAIM]), folder / "results" / name)
    return questions(folder / "results", {})


@pytest.mark.parametrize("question", COMMITTED, ids=lambda question: question.name)
def test_a_committed_page_is_that_of_the_committed_numbers(question):
    assert (RESULTS / question.name / PAGE).read_text("utf-8") == results_page(
        question.runs, superseded(RESULTS / question.name)
    ), AGAIN


@pytest.mark.parametrize("question", COMMITTED, ids=lambda question: question.name)
def test_an_answer_was_written_for_the_verdicts_that_are_committed(question):
    if "answer" in question.notes:
        assert question.notes.get("if") == question.outcomes, (
            f"experiments/questions.yaml: the answer of {question.name} was written for "
            f"{question.notes.get('if')}; the verdicts are {question.outcomes}: read it again"
        )


def test_the_readme_and_the_page_that_sums_up_are_those_of_the_committed_results():
    assert publish.README.read_text("utf-8") == publish.readme(COMMITTED), AGAIN
    assert which.PAGE.read_text("utf-8") == which.page(COMMITTED), AGAIN


def test_what_is_written_by_hand_is_of_known_questions_and_keys():
    for name, own in notes().items():
        assert set(own) <= {"show", "answer", "if"}, name
        assert ("answer" in own) == ("if" in own), name


def speech(text):
    """The page's part about speech."""
    return text.split("## Speech", 1)[1].split("\n## ", 1)[0]


def test_a_situation_without_results_is_not_known(tmp_path):
    text = which.page(questions(tmp_path, {}))
    assert text.count(which.NOTHING) == len(which.SITUATIONS) + 1
    assert "| GPUs and TPUs | not known |" in text


def test_the_best_are_those_that_intervals_do_not_tell_apart(tmp_path):
    found = results(tmp_path, {"a": GOOD, "b": NEAR, "c": BAD})
    text = speech(which.page(found))
    assert "| all | a (0.820), b (0.817) | c (0.510) |" in text
    assert "- supported: a beats c" in text and "n = 5" in text


def test_arms_that_cannot_be_told_apart_are_not_known(tmp_path):
    text = speech(
        which.page(results(tmp_path, {"a": GOOD, "b": NEAR, "c": [0.79, 0.83, 0.8, 0.84, 0.81]}))
    )
    assert "not known: none of the 3 was shown to be worse" in text and "- undecided" in text


def test_few_seeds_rank_nothing(tmp_path):
    text = speech(which.page(results(tmp_path, {"a": GOOD[:4], "b": NEAR[:4], "c": BAD[:4]})))
    assert "| all | not known: 4 seeds an arm are too few to rank 3 | - |" in text
    assert "- supported: a beats c" in text


def test_one_run_an_arm_says_nothing(tmp_path):
    text = speech(which.page(results(tmp_path, {"a": [0.9], "c": [0.1]})))
    assert "| all | not known | - |" in text


def test_other_numbers_make_another_page(tmp_path):
    text = speech(which.page(results(tmp_path, {"a": BAD, "b": NEAR, "c": GOOD})))
    assert "| all | c (0.820), b (0.817) | a (0.510) |" in text and "- refuted: a beats c" in text


def test_what_one_chooses_is_ranked_within_what_one_is_given():
    class Fake:
        def __init__(self, **axes):
            self.axes = axes

    situation = which.Situation("", "", "final(test_accuracy)")
    runs = [Fake(model=m, norm=n, levels=2) for m in ("deep", "flat") for n in ("a", "b")]
    settings = which._by(runs, situation, of_choices=False, but=None)
    assert list(settings) == ["deep, levels=2", "flat, levels=2"]
    assert list(which._by(settings["deep, levels=2"], situation, of_choices=True, but=None)) == [
        "a",
        "b",
    ]


def test_what_is_withdrawn_is_not_known(tmp_path):
    (found,) = results(tmp_path, {"a": GOOD, "b": NEAR, "c": BAD})
    remarks = "beware: it is loudness\nwithdrawn: [{says: a beats c, why: It is loudness.}]"
    (found.runs.path / "remarks.yaml").write_text(remarks)
    found = questions(tmp_path / "results", {})
    text = speech(which.page(found))
    assert "**Beware.** it is loudness" in text and which.WITHDRAWN in text
    assert "a beats c" not in text and "0.820" not in text
    assert found[0].outcomes == ["withdrawn"]
    assert "| **Withdrawn**: a beats c. |" in publish.readme(found)


def test_where_a_claim_still_stands_so_does_the_table(tmp_path):
    other = replace(CLAIM, says="c beats a", left="c", right="a")
    arms = {"a": GOOD, "b": NEAR, "c": BAD}
    publish_runs(
        simulate(tmp_path / "runs" / "speech", arms, [CLAIM, other]),
        tmp_path / "results" / "speech",
    )
    remarks = "withdrawn: [{says: a beats c, why: It is loudness.}]"
    (tmp_path / "results" / "speech" / "remarks.yaml").write_text(remarks)
    text = speech(which.page(questions(tmp_path / "results", {})))
    assert "| all | a (0.820), b (0.817) | c (0.510) |" in text
    assert "- refuted: c beats a" in text and "a beats c" not in text


@pytest.mark.parametrize("question", COMMITTED, ids=lambda question: question.name)
def test_what_is_withdrawn_was_claimed(question):
    assert set(question.remarks.withdrawn) <= {v.claim.says for v in question.verdicts}


@pytest.mark.parametrize("question", COMMITTED, ids=lambda question: question.name)
def test_the_remarks_on_a_tuning_are_those_of_its_page(question):
    """A remark that counts the arms at an edge of the grid, or the tuning's seeds, is right."""
    tuning = question.runs.about.get("tuning")
    counted = re.search(r"(\d+) of (\d+) arms ended at an edge", question.remarks.beware)
    if counted:
        edges = [chosen["at_edge"] for chosen in tuning["chosen"].values()]
        assert tuple(map(int, counted.groups())) == (sum(edges), len(edges))
    if "chosen by one seed" in question.remarks.beware:
        assert len(tuning["seeds"]) == 1


def test_the_readme_gives_every_claim_its_verdict_or_the_sentence_written_for_them(tmp_path):
    (found,) = results(tmp_path, {"a": GOOD, "b": NEAR, "c": BAD})
    assert (
        "| **Supported**: a beats c. | 5 | under a minute on 2 CPU cores | `normlab run e.yaml` |"
        in (publish.readme([found]))
    )
    found.notes.update(answer="yes, it does.")
    assert "| yes, it does. (Claims: 1 supported.) |" in publish.readme([found])


def test_every_program_that_can_be_run_is_in_the_readme():
    commands = [command for command, _ in publish.programs()]
    assert "`python -m experiments.exactness`" in commands
    assert all(says for _, says in publish.programs())


@pytest.mark.parametrize(
    "question", mostly_thorough(COMMITTED, QUICK), ids=lambda question: question.name
)
def test_committed_results_are_those_of_the_committed_config(question):
    """The names of runs end in the hashes of their resolved configs."""
    about = question.runs.about
    file = ROOT / about["config"]
    with jax.numpy_dtype_promotion("standard"):  # optax's schedules mix dtypes
        # Claims change no run, and to check them takes a network's trace.
        experiment = load_experiment(file, (*about["overrides"], "claims=null"))
    tuning = experiment.tuning
    configs = [one.config for one in tuning.candidates] if tuning else experiment.runs
    used, here = question.records[0].data["train_examples"], outline(configs[0].sections)
    if here.train_examples != used:
        pytest.skip(f"the results are of a copy of the data with {used} training examples")
    published = {run.path.name for run in question.runs}
    assert published <= {config.id for config in configs}, f"{file} has changed: run it again"
    assert len(published) == len(experiment.runs)
    written = read(file, ()).value.get("claims") or []
    for claim, own in zip(about["claims"], written, strict=True):
        assert (claim["says"], claim["expect"]) == (own["says"], own["expect"])
