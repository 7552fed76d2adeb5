"""The words for files that YAML readers stumble over, and numbers that are none."""

# ruff: noqa: E501, RUF001 (a golden text is easier to read whole, and one has a Cyrillic letter)

import os
import time

import pytest

from normlab.configs.document import ConfigError, parse
from normlab.configs.experiment import load_experiment
from normlab.errors import UserError

from .mistakes import EVERY_NORMALISER, problems_of, text

NOT_A_MAPPING = "an experiment is a mapping with keys such as data, model, norm, optimizer, train"
LAUGHS = "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)  # nine to the eighth values, if anyone wrote them out

MISTAKES = {
    # Layout.
    "a comment only": ("# nothing\n", "{file}: " + NOT_A_MAPPING),
    "a marker only": ("---\n", "{file}:2:1: " + NOT_A_MAPPING),
    "a word": ("batch_norm\n", "{file}:1:1: " + NOT_A_MAPPING),
    "tab within a block": (text(train=None) + "train:\n  epochs: 1\n\tbatch_size: 20\n", "{file}:7:1: this is not YAML: found character '\\t' that cannot start any token; indent with spaces, not tabs"),
    "uneven indentation": (text(train=None) + "train:\n  epochs: 1\n batch_size: 20\n", "{file}:7:2: this is not YAML: expected <block end>, but found '<block mapping start>' (while parsing a block mapping begun at 1:1)"),
    "no colon": (text(train=None) + "train\n  epochs: 1\n", "{file}:6:9: this is not YAML: could not find expected ':' (while scanning a simple key begun at 5:1)"),
    "no space after a colon": (text(train=None) + "train:\n  epochs:1\n", "{file}:6:3: 'train' must be a mapping, found the text 'epochs:1'; a space must follow the colon"),
    "a quote that is not closed": (text(norm='"batch'), "{file}:6:1: this is not YAML: found unexpected end of stream (while scanning a quoted scalar begun at 3:7)"),
    "a colon in a text": (text(question="why: because"), "{file}:6:14: this is not YAML: mapping values are not allowed here; a text with ': ' in it needs quotes"),
    "a text that begins with a sign": (text(question="@home"), "{file}:6:11: this is not YAML: found character '@' that cannot start any token; a text that begins with it needs quotes"),
    "an alias of nothing": (text(train="{<<: *base}"), "{file}:5:13: this is not YAML: found undefined alias 'base'"),
    "a merge key": (text(train="{<<: {epochs: 3}, batch_size: 20}"), "{file}:5:9: train has no key '<<'; allowed: accumulate, adaptive_clip, batch_size, clip, ema, ema_statistics, epochs, eval_batch_size, eval_every, fixed_statistics_after, label_smoothing, local_normalisers, local_steps, metrics, private, project, scalar_rate, seed, statistics"),
    "too deep": ("norm: " + "[" * 50 + "]" * 50, "{file}:1:27: lists and mappings lie in one another more than 20 deep"),
    "far too deep": ("norm: " + "[" * 5000 + "]" * 5000, "{file}: lists and mappings lie in one another more than 20 deep"),
    "aliases of aliases": (f"a: &a [x, x]\n{LAUGHS}", "{file}:1:4: there are more than 5000 values, aliases written out"),
    # Keys.
    "key twice in a section": (text(train="{epochs: 1, batch_size: 20, epochs: 2}"), "{file}:5:36: 'epochs' is given twice, first in line 5; keep one"),
    "a number as a key": (text(train="{3: 4}"), "{file}:5:9: train has no key 3; allowed: accumulate, adaptive_clip, batch_size, clip, ema, ema_statistics, epochs, eval_batch_size, eval_every, fixed_statistics_after, label_smoothing, local_normalisers, local_steps, metrics, private, project, scalar_rate, seed, statistics"),
    "null as a key": (text() + "~: 4\n", "{file}:6:1: an experiment has no key null; allowed: baseline, claims, data, decay, engine, evaluate, extends, kernel, looks, mesh, model, name, norm, optimizer, placement, probes, question, schedule, source, sweep, target, train, tune"),
    # Tags.
    "tag on a mapping": (text(train="!!python/object:os.system {epochs: 1, batch_size: 20}"), "{file}:5:8: the tag !!python/object:os.system is not supported; write a plain value"),
    "tag on a key": (text(train="{!mine epochs: 1, batch_size: 20}"), "{file}:5:9: the tag !mine is not supported; write a plain value"),
    "tag that the text denies": (text(train="{clip: !!float abc, batch_size: 20}"), "{file}:5:15: the tag !!float is not supported; write a plain value"),
    # Numbers.
    "not a number": (text(optimizer="{name: sgd, learning_rate: .nan}"), "{file}:4:39: optimizer sgd: 'learning_rate' must be a finite number or null, found nan"),
    "infinite eps": (text(norm="{name: batch_norm, eps: .inf}"), "{file}:3:31: norm batch_norm: 'eps' must be a finite number, found inf"),
    "infinite epochs": (text(train="{epochs: .inf}"), "{file}:5:17: train: 'epochs' must be a whole number, found inf"),
    "beyond float64": (text(optimizer="{name: sgd, learning_rate: 1e400}"), "{file}:4:39: the number 1e400 is too large"),
    "five thousand digits": (text(optimizer="{name: sgd, learning_rate: " + "9" * 5000 + "}"), "{file}:4:39: the number 99999999999999999999... is too large"),
    "more steps than can be counted": (text(train="{epochs: 1000000000, batch_size: 20}"), "{file}:5:17: train: 5000000000 steps are more than the 2147483647 that can be counted"),
    "a power for a whole number": (text(train="{epochs: 1e3}"), "{file}:5:17: train: 'epochs' must be a whole number, found 1000.0"),
    "a seed below zero": (text(train="{seed: -1}"), "{file}:5:15: train: seed must be between 0 and 2^32 - 1, got -1"),
    "a range where no sweep is": (text(train="{seed: 0..4}"), "{file}:5:15: train: 'seed' must be a whole number, found the text '0..4'; a range is an axis of the sweep"),
    # Letters.
    "a letter that looks Latin": (text(norm="bаtch_norm"), "{file}:3:7: no normaliser is called 'bаtch_norm'; did you mean 'batch_norm'?"),
    "columns are counted in letters": (text(question="'日本語'", train="{batch_size: 20, 'é日': 1}"), "{file}:5:25: train has no key 'é日'; allowed: accumulate, adaptive_clip, batch_size, clip, ema, ema_statistics, epochs, eval_batch_size, eval_every, fixed_statistics_after, label_smoothing, local_normalisers, local_steps, metrics, private, project, scalar_rate, seed, statistics"),
    "Windows line endings": (text(norm="x").replace("\n", "\r\n"), "{file}:3:7: no normaliser is called 'x'; allowed: " + EVERY_NORMALISER),
    "a byte order mark": ("\ufeff" + text(data="shape"), "{file}:1:7: no dataset is called 'shape'; did you mean 'shapes'?"),
    "UTF-16": (text().encode("utf-16"), "{file}:1:1: this is not UTF-8 text (invalid start byte): save it as UTF-8"),
    "Latin-1": (text(question="naïve").encode("latin-1"), "{file}:6:1: this is not UTF-8 text (invalid continuation byte): save it as UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_told_in_these_words_and_no_others(config, mistake):
    content, expected = MISTAKES[mistake]
    assert problems_of(config(content)) == expected


@pytest.mark.parametrize(
    "content",
    [text().replace("\n", "\r\n"), "\ufeff" + text(), f"---\n{text()}...\n", text() + "\n\n# end"],
    ids=["Windows line endings", "a byte order mark", "document markers", "a comment at the end"],
)
def test_what_editors_add_is_no_mistake(config, content):
    assert len(load_experiment(config(content)).runs) == 1


def test_an_alias_may_repeat_a_value(config):
    data = "{name: shapes, train_examples: &n 100, test_examples: *n, size: 8}"
    (run,) = load_experiment(config(text(data=data))).runs
    assert run.sections["data"]["test_examples"] == 100


@pytest.mark.parametrize("name", ["", "a_folder", "a" * 5000, "a\0b", "no_folder/file.yaml"])
def test_a_path_that_is_no_file_is_an_error_of_the_user(tmp_path, name):
    (tmp_path / "a_folder").mkdir()
    with pytest.raises(UserError, match=r"cannot be read|no such file"):
        load_experiment(tmp_path / name)


def test_a_pipe_is_not_waited_for_and_a_huge_file_not_parsed(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(UserError, match="cannot be read: it is no file"):
        load_experiment(tmp_path / "pipe.yaml")
    (tmp_path / "huge.yaml").write_text("a: b\n" * 300_000)
    with pytest.raises(UserError, match="1,500,000 bytes, and a config at most 1,000,000"):
        load_experiment(tmp_path / "huge.yaml")


def test_no_more_values_are_read_than_a_config_may_have(tmp_path):
    began = time.perf_counter()
    with pytest.raises(ConfigError, match="more than 5000 values"):
        parse("a: [" + "1, " * 300_000 + "1]", "a.yaml")
    assert time.perf_counter() - began < 10  # all of it takes far longer


@pytest.mark.parametrize("link", [False, True])
def test_nothing_but_a_config_is_extended(tmp_path, link):
    (tmp_path / "shadow").write_text("root:secret:1\n")
    named = "shadow"
    if link:
        (tmp_path / "p.yaml").symlink_to(tmp_path / "shadow")
        named = "p.yaml"
    (tmp_path / "c.yaml").write_text(f"extends: {named}\n")
    with pytest.raises(ConfigError, match="'extends' names a config") as error:
        load_experiment(tmp_path / "c.yaml")
    assert "secret" not in str(error.value)
