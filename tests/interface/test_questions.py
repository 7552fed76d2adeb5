"""What users ask most stands at the end of an entry's description, with the threads."""

import re

import pytest

from normlab.catalogue import KERNELS, NORMS
from normlab.interface.describe import describe_entry
from normlab.interface.questions import MOST, QUESTIONS, asked_about, told

KNOWN = {**NORMS.entries(), **KERNELS.entries()}


@pytest.mark.parametrize("one", QUESTIONS, ids=lambda one: one.threads[0])
def test_a_question_is_about_entries_and_has_an_answer_and_its_threads(one):
    assert set(one.about) <= set(KNOWN) and one.asked.endswith("?") and one.answer.endswith(".")
    assert all(re.fullmatch(r"[\w-]+/[\w-]+#\d+", thread) for thread in one.threads)


def test_a_description_ends_with_the_questions_about_it_and_their_threads():
    text = describe_entry("batch_norm")
    _, _, last = text.partition("What users ask most:\n")
    assert last.count("?\n") == MOST == len(asked_about("batch_norm"))
    assert "https://github.com/google/flax/issues/2279" in last
    assert "What users ask" not in describe_entry("taper_norm") and told("taper_norm") is None


def test_the_answers_name_what_there_is():
    from normlab.adapters import carry
    from normlab.training.recipe import Recipe

    assert carry and {"ema", "ema_statistics", "accumulate"} <= set(Recipe.__dataclass_fields__)
    assert {"r_rise", "d_rise"} <= set(NORMS.load("batch_renorm").__dataclass_fields__)
    assert "norm_batch" in NORMS.load("batch_norm").__dataclass_fields__
    assert "start" in KERNELS.load("weight_norm").__dataclass_fields__
