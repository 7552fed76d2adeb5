"""Files of weights: read whole, or refused in one sentence that names the file."""

import numpy as np
import pytest

from normlab.adapters.torch_weights import TorchWeights
from normlab.adapters.weight_files import as_array, load_state_dict, save_state_dict
from normlab.errors import UserError
from tests.norms.conftest import sample

ARRAYS = {
    "conv.weight": sample((4, 3, 3, 3)),
    "bn.weight": sample((4,), seed=1),
    "bn.running_mean": sample((4,), seed=2),
    "bn.num_batches_tracked": np.array(3),
    "fc.weight": sample((5, 4), seed=3),
}


def damaged(whole, seed):
    """The bytes of a file with a few bits turned over, or cut off, or both."""
    draw = np.random.default_rng(seed)
    bytes_ = np.frombuffer(whole, np.uint8).copy()
    where = draw.integers(0, min(len(whole), 1 + 400 * 10 ** int(draw.integers(4))), 4)
    bytes_[where[: draw.integers(1, 5)]] ^= np.uint8(1 << draw.integers(8))
    return (
        bytes_[: draw.integers(len(whole))].tobytes() if draw.random() < 0.3 else bytes_.tobytes()
    )


def assert_read_or_refused(path):
    """A damaged file gives the arrays, some with other numbers, or an error that names it."""
    try:
        state = load_state_dict(path)
    except UserError as error:
        assert str(error).startswith(f"{path}: ")
        return 1
    for unit in TorchWeights(state).units():
        for leaf in unit.leaves.values():
            assert leaf.common(TorchWeights(state).read(leaf)).shape == leaf.shape
    return 0


def test_a_damaged_safetensors_file_is_refused_by_its_name(tmp_path):
    pytest.importorskip("safetensors")
    path = tmp_path / "weights.safetensors"
    save_state_dict(ARRAYS, path)
    whole = path.read_bytes()
    count = 0
    for seed in range(150):
        path.write_bytes(damaged(whole, seed))
        count += assert_read_or_refused(path)
    assert 30 < count < 150
    path.write_bytes((2**40).to_bytes(8, "little") + whole[8:])  # a header of a terabyte
    assert assert_read_or_refused(path)


def test_a_damaged_file_of_torch_is_refused_by_its_name(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "weights.pth"
    tensors = {"fc.weight": torch.ones(5, 3), "fc.bias": torch.zeros(5)}
    for zipped in (True, False):
        torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
        whole, count = path.read_bytes(), 0
        for seed in range(150):
            path.write_bytes(damaged(whole, seed))
            count += assert_read_or_refused(path)
        assert 30 < count < 150


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"<!DOCTYPE html><html>404</html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"something", "fetch or write it again"),
    ],
)
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_what_stands_in_the_place_of_a_file_is_said(tmp_path, suffix, content, said):
    pytest.importorskip("torch" if suffix == "pth" else "safetensors")
    (tmp_path / f"weights.{suffix}").write_bytes(content)
    with pytest.raises(UserError, match=said):
        load_state_dict(tmp_path / f"weights.{suffix}")


def test_files_that_cannot_be_read_are_refused_with_the_reason(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_state_dict(tmp_path / "absent.pth")
    (tmp_path / "weights.h5").write_bytes(b"")
    with pytest.raises(UserError, match="ends in"):
        load_state_dict(tmp_path / "weights.h5")


def test_a_safetensors_file_is_known_by_its_start_whatever_its_name(tmp_path):
    pytest.importorskip("safetensors")
    save_state_dict(ARRAYS, tmp_path / "weights.safetensors")
    (tmp_path / "weights.safetensors").rename(tmp_path / "weights.bin")
    found = load_state_dict(tmp_path / "weights.bin")
    assert list(found) == list(ARRAYS)
    for name, values in ARRAYS.items():
        np.testing.assert_array_equal(found[name], values)


def test_prefixes_of_wrappers_go_in_safetensors_files_too(tmp_path):
    pytest.importorskip("safetensors")
    wrapped = {f"_orig_mod.{name}": values for name, values in ARRAYS.items()}
    save_state_dict(wrapped, tmp_path / "weights.safetensors")
    assert list(load_state_dict(tmp_path / "weights.safetensors")) == list(ARRAYS)


def test_bfloat16_is_widened_exactly(tmp_path):
    torch = pytest.importorskip("torch")
    exact = np.array([1.0, -2.5, 3.0e38], np.float32)
    torch.save({"a": torch.tensor(exact, dtype=torch.bfloat16)}, tmp_path / "weights.pth")
    found = as_array(load_state_dict(tmp_path / "weights.pth")["a"])
    np.testing.assert_array_equal(found, np.asarray(exact.astype("bfloat16"), np.float32))
