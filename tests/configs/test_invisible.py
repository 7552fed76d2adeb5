"""Invisible characters in a config are named, and the rest of it is judged as if they were gone."""

import pytest

from normlab.configs.experiment import load_experiment

from .mistakes import problems_of, text

HIDDEN = {
    "\ufeff": "U+FEFF in it, a byte order mark: delete it",
    "\u200b": "U+200B in it, a zero-width space: delete it",
    "\u00ad": "U+00AD in it, a soft hyphen: delete it",
    "\u200e": "U+200E in it, a left-to-right mark: delete it",
    "\u202e": "U+202E in it, a right-to-left override: delete it",
    "\u2066": "U+2066 in it, a left-to-right isolate: delete it",
    "\u00a0": "U+00A0 in it, a no-break space: put a plain space in its place",
}


@pytest.mark.parametrize("hidden", HIDDEN, ids=lambda c: f"U+{ord(c):04X}")
def test_one_in_a_value_or_a_key_is_named_at_its_place(config, hidden):
    escaped = f"\\u{ord(hidden):04x}"
    (line,) = problems_of(config(text(norm=f"batch_norm{hidden}"))).splitlines()
    assert line == f"{{file}}:3:7: 'batch_norm{escaped}' has {HIDDEN[hidden]}"
    (line,) = problems_of(config(text(train=f"{{epochs{hidden}: 1, batch_size: 20}}"))).splitlines()
    assert line == f"{{file}}:5:9: 'epochs{escaped}' has {HIDDEN[hidden]}"


def test_one_before_a_key_or_in_an_override_is_named(config):
    (line,) = problems_of(config("---\n\ufeff" + text())).splitlines()
    assert line == f"{{file}}:2:1: '\\ufeffdata' has {HIDDEN[chr(0xFEFF)]}"
    found = problems_of(config(text()), "norm=layer\u200b_norm")
    assert "'layer\\u200b_norm' has U+200B in it" in found


def test_what_scripts_and_typography_need_is_no_mistake(config):
    joined, family = "\u0645\u06cc\u200c\u0631\u0648\u0645", "\U0001f468\u200d\U0001f469"
    file = config(
        text(
            question="'pourquoi\u00a0?'",
            sweep=f"{{norm: {{'{joined}': batch_norm, '{family}': rms_norm}}}}",
        )
    )
    experiment = load_experiment(file)
    assert [run.arm for run in experiment.runs] == [joined, family]
    assert experiment.question == "pourquoi\u00a0?"
