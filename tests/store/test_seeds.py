"""Seeds that are split into streams are kept as numbers, and read back."""

import json

import pytest

from normlab.errors import FieldError
from normlab.store.names import hash_in
from normlab.store.seeds import (
    MOST,
    STREAMS,
    is_seed,
    is_split,
    seed_id,
    seed_of,
    setting_of,
    shared,
    split_seed,
    streams_of,
    varying,
)

CORNERS = [(0, 0, 0, 0), (MOST - 1,) * 4, (1, 2, 3, 4), (0, 0, 0, 1), (MOST - 1, 0, 0, 0)]


@pytest.mark.parametrize("numbers", CORNERS)
def test_a_split_seed_is_read_back_and_is_like_no_plain_seed(numbers):
    seed = split_seed(*numbers)
    assert tuple(streams_of(seed).values()) == numbers
    assert seed_of(setting_of(seed)) == seed
    assert is_split(seed) and is_seed(seed) and seed >= 2**32
    assert json.loads(json.dumps(seed)) == seed < 2**53  # other programs' numbers hold it
    assert hash_in(f"batch_norm-s{seed_id(seed)}-0123456789") == "0123456789"


@pytest.mark.parametrize("seed", [0, 3, 2**32 - 1])
def test_a_plain_seed_stays_as_it_is(seed):
    assert setting_of(seed) == seed == seed_of(seed)
    assert streams_of(seed) == dict.fromkeys(STREAMS, seed)
    assert not is_split(seed) and is_seed(seed)


@pytest.mark.parametrize("seed", [-1, 2**32, split_seed(0) - 1, 2 * split_seed(0)])
def test_no_other_number_is_a_seed(seed):
    assert not is_seed(seed)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"int": 1}, "a seed has no stream 'int'; did you mean 'init'?"),
        ({"init": MOST}, "the stream 'init' must be a whole number from 0 to 4095, found 4096"),
        ({"init": -1}, "the stream 'init' must be a whole number from 0 to 4095, found -1"),
        ({"order": True}, "the stream 'order' must be a whole number from 0 to 4095, found True"),
    ],
)
def test_a_wrong_stream_is_told(setting, words):
    with pytest.raises(FieldError) as error:
        seed_of(setting)
    assert str(error.value) == words


def test_what_runs_share_is_found():
    crossed = [split_seed(init, 0, augment) for init in (0, 1) for augment in (0, 5)]
    assert varying(crossed) == shared(crossed) == ("init", "augment")
    alone = [split_seed(init) for init in range(4)]
    assert (varying(alone), shared(alone)) == (("init",), ())
    nested = [split_seed(0, 0), split_seed(0, 1), split_seed(1, 2), split_seed(1, 3)]
    assert (varying(nested), shared(nested)) == (("init", "order"), ("init",))
    assert shared(range(5)) == ()
