from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from frossl.core.types import UserError
from frossl.nn.encoder import EncoderSpec, load_all_keys, load_encoder, read_encoder, save_encoder

SPEC = EncoderSpec(
    backbone="resnet18",
    channels=3,
    size=16,
    stem="small",
    features=8,
    mean=(0.1, 0.2, 0.3),
    std=(0.4, 0.5, 0.6),
    options={"channels": [8, 8, 8, 8], "layers": [1, 1, 1, 1]},
)


@pytest.fixture
def encoder():
    """With statistics in its batch norms that differ from those of a new one."""
    torch.manual_seed(0)
    network = SPEC.build().train()
    with torch.no_grad():
        network(3 * torch.randn(8, 3, 16, 16) + 1)
    return network.eval()


@pytest.fixture
def path(encoder, tmp_path):
    save_encoder(tmp_path / "encoder.safetensors", encoder, SPEC)
    return tmp_path / "encoder.safetensors"


@pytest.mark.parametrize("as_text", [False, True])
def test_an_encoder_comes_back_bit_for_bit(encoder, path, as_text):
    again, spec = load_encoder(str(path) if as_text else path)
    assert spec == SPEC
    assert not again.training
    x = torch.randn(4, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(again(x), encoder(x))
    mine, theirs = encoder.state_dict(), again.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(v, theirs[k]) and v.dtype == theirs[k].dtype for k, v in mine.items())


def test_an_encoder_in_channels_last_comes_back(encoder, tmp_path):
    save_encoder(tmp_path / "e.safetensors", encoder.to(memory_format=torch.channels_last), SPEC)
    again, _ = load_encoder(tmp_path / "e.safetensors")
    assert torch.equal(again.conv1.weight, encoder.conv1.weight)


def test_options_given_as_tuples_build_the_same_encoder(encoder, tmp_path):
    """timm's options are written by people as tuples; JSON knows lists."""
    spec = EncoderSpec(**{**vars(SPEC), "options": {"channels": (8, 8, 8, 8), "layers": (1, 1, 1, 1)}})
    save_encoder(tmp_path / "e.safetensors", encoder, spec)
    again, loaded = load_encoder(tmp_path / "e.safetensors")
    assert loaded == SPEC
    assert torch.equal(again.conv1.weight, encoder.conv1.weight)


def test_the_seed_decides_what_a_spec_builds():
    def build(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return SPEC.build().conv1.weight

    assert torch.equal(build(0), build(0))
    assert not torch.equal(build(0), build(1))


DAMAGE = {
    "missing": lambda state: state.pop("conv1.weight"),
    "extra": lambda state: state.update({"fc.weight": torch.zeros(2, 8)}),
    "shape": lambda state: state.update({"bn1.weight": torch.zeros(9)}),
}
WRONG = {"missing": "conv1.weight", "extra": "fc.weight", "shape": "bn1.weight"}


@pytest.mark.parametrize("damage", DAMAGE)
def test_weights_that_do_not_all_fit_are_counted_and_none_is_loaded(encoder, path, damage):
    state, _ = read_encoder(path)
    DAMAGE[damage](state)
    total = len(encoder.state_dict())
    fit = total - (damage != "extra")
    torch.manual_seed(9)
    other = SPEC.build()
    before = {k: v.clone() for k, v in other.state_dict().items()}
    with pytest.raises(UserError) as caught:
        load_all_keys(other, state, "the file")
    message = str(caught.value)
    assert message.startswith(f"the file: {fit} of {total} keys")
    assert WRONG[damage] in message
    assert all(torch.equal(v, before[k]) for k, v in other.state_dict().items())


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_file_whose_weights_do_not_all_fit_is_named(path, damage):
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    state, _ = read_encoder(path)
    DAMAGE[damage](state)
    save_file(state, path, header)
    with pytest.raises(UserError, match=rf"{path}: \d+ of \d+ keys fit.*{WRONG[damage]}"):
        load_encoder(path)


def test_only_the_first_of_many_wrong_keys_are_named(encoder):
    with pytest.raises(UserError, match=r": 0 of \d+ keys fit; ([^;]+; ){2}[^;]+ and others"):
        load_all_keys(encoder, {}, "nothing")


def test_the_safetensors_of_someone_else_are_refused(tmp_path):
    path = tmp_path / "theirs.safetensors"
    for header in (None, {"format": "pt"}):
        save_file({"conv1.weight": torch.zeros(2)}, path, header)
        with pytest.raises(UserError, match=f"{path} .*exported by frossl"):
            load_encoder(path)


@pytest.mark.parametrize("kind", ["truncated", "cut header", "text", "empty", "missing", "directory"])
def test_what_is_no_safetensors_file_is_named(path, kind):
    whole = path.read_bytes()
    changed = {"truncated": whole[:-100], "cut header": whole[:40], "text": b"hello, I am a text file\n", "empty": b""}
    path.unlink()
    if kind == "directory":
        path.mkdir()
    elif kind in changed:
        path.write_bytes(changed[kind])
    said = "is a directory" if kind == "directory" else "cannot be read"
    with pytest.raises(UserError, match=f"{path} {said}"):
        load_encoder(path)


@pytest.mark.parametrize(
    "header",
    [
        "{not json",
        json.dumps({"backbone": "resnet18"}),
        json.dumps([1, 2]),
        json.dumps({**vars(SPEC), "colour": "red"}),
        json.dumps({**vars(SPEC), "backbone": "resnet1800"}),
    ],
    ids=["no json", "keys missing", "a list", "unknown key", "unknown backbone"],
)
def test_a_header_that_describes_no_encoder_is_an_error_for_people(tmp_path, header):
    """As another version of this package, or a hand, may have written it."""
    path = tmp_path / "e.safetensors"
    save_file({"conv1.weight": torch.zeros(2)}, path, {"frossl_encoder": header})
    with pytest.raises(UserError):
        load_encoder(path)


def test_an_encoder_that_cannot_be_written_is_an_error_that_names_the_place(encoder, tmp_path):
    with pytest.raises(UserError, match=r"could not write .*nowhere"):
        save_encoder(tmp_path / "nowhere" / "e.safetensors", encoder, SPEC)
