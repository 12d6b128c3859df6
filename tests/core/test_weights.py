from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models.optical_flow import raft_large, raft_small

from comfyui_vdp.vdp_core.errors import WeightsError
from comfyui_vdp.vdp_core.nets.weights import fetch_weights, find_weights, read_weights, to_torchvision_raft


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    """An empty torch hub of this test's own."""
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return folder


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_given_folders_come_before_the_hub_and_patterns_in_order(tmp_path, hub):
    patterns = ("raft_large*", "raft-things*")
    assert find_weights(patterns, [tmp_path / "missing"]) is None
    cached = touch(hub / "raft_large_C_T_SKHT_V2-ff5fadd5.pth")
    assert find_weights(patterns, []) == cached
    things = touch(tmp_path / "models" / "original" / "raft-things.pth")
    assert find_weights(patterns, [tmp_path / "models"]) == things
    large = touch(tmp_path / "models" / "raft_large_C_T_SKHT_V2-ff5fadd5.safetensors")
    assert find_weights(patterns, [tmp_path / "models"]) == large


def test_a_half_download_is_not_found(tmp_path):
    touch(tmp_path / "models" / "raft_large.pth.1234.partial")
    assert find_weights(("raft_large*",), [tmp_path / "models"]) is None


def test_a_download_is_announced_checked_and_kept(tmp_path, hub, caplog):
    body = b"weights"
    digest = hashlib.sha256(body).hexdigest()
    source = tmp_path / f"net-{digest[:8]}.pth"
    source.write_bytes(body)
    path = fetch_weights(source.as_uri(), otherwise="do without")
    assert path == hub / source.name
    assert path.read_bytes() == body
    source.unlink()
    (said,) = caplog.messages
    assert source.as_uri() in said
    assert str(hub) in said
    assert fetch_weights(source.as_uri(), otherwise="do without") == path
    assert len(caplog.messages) == 1  # what is there is not announced again


def test_a_damaged_download_leaves_nothing(tmp_path, hub):
    source = tmp_path / "net-00000000.pth"
    source.write_bytes(b"weights")
    with pytest.raises(WeightsError, match="hash"):
        fetch_weights(source.as_uri(), otherwise="do without")
    assert list(hub.iterdir()) == []


def test_offline_names_file_address_folder_and_the_way_out(tmp_path, hub):
    address = (tmp_path / "nowhere" / "net-0123abcd.pth").as_uri()
    with pytest.raises(WeightsError) as caught:
        fetch_weights(address, otherwise="choose the model 'dis'")
    for word in ("net-0123abcd.pth", address, str(hub), "choose the model 'dis'"):
        assert word in str(caught.value)


def test_both_formats_are_read(tmp_path):
    weights = {"a.weight": torch.rand(2, 3), "a.bias": torch.rand(2)}
    torch.save(weights, tmp_path / "net.pth")
    torch.save({"state_dict": weights, "epoch": 3}, tmp_path / "wrapped.pth")
    save_file(weights, tmp_path / "net.safetensors")
    for name in ("net.pth", "wrapped.pth", "net.safetensors"):
        read = read_weights(tmp_path / name)
        assert read.keys() == weights.keys()
        assert all(torch.equal(read[key], weights[key]) for key in weights)


class Payload:
    """What a hostile file may hold; reading it as code would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("name", ["code.pth", "cut.pth", "noise.pth", "noise.safetensors", "list.pth"])
def test_what_is_not_weights_is_refused(tmp_path, name):
    path, trace = tmp_path / name, tmp_path / "trace"
    if name == "code.pth":
        torch.save({"a": Payload(trace)}, path)
    elif name == "cut.pth":
        torch.save({"a": torch.rand(1000)}, path)
        path.write_bytes(path.read_bytes()[:2000])
    elif name == "list.pth":
        torch.save([torch.rand(3)], path)
    else:
        path.write_bytes(bytes(range(256)) * 8)
    with pytest.raises(WeightsError, match=re.escape(str(path))):
        read_weights(path)
    assert not trace.exists()


def test_a_missing_file_is_named(tmp_path):
    for name in ("none.pth", "none.safetensors"):
        with pytest.raises(WeightsError, match="none"):
            read_weights(tmp_path / name)


def original_shapes(small: bool) -> dict[str, tuple[int, ...]]:
    """Names and shapes in the checkpoints of https://github.com/princeton-vl/RAFT, from the paper's layer table."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, out: int, into: int, *kernel: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (out, into, *kernel), (out,)

    def norm(name: str, size: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (size,)
        shapes[f"{name}.num_batches_tracked"] = ()

    widths = (32, 32, 64, 96) if small else (64, 64, 96, 128)
    outputs = {"fnet": 128, "cnet": 160} if small else {"fnet": 256, "cnet": 256}
    for net, output in outputs.items():
        batch_norm = net == "cnet" and not small  # instance norm keeps nothing
        conv(f"{net}.conv1", widths[0], 3, 7, 7)
        if batch_norm:
            norm(f"{net}.norm1", widths[0])
        for stage in (1, 2, 3):
            into, out = widths[stage - 1], widths[stage]
            for block in (0, 1):
                at = f"{net}.layer{stage}.{block}"
                first = into if block == 0 else out
                if small:
                    conv(f"{at}.conv1", out // 4, first, 1, 1)
                    conv(f"{at}.conv2", out // 4, out // 4, 3, 3)
                    conv(f"{at}.conv3", out, out // 4, 1, 1)
                else:
                    conv(f"{at}.conv1", out, first, 3, 3)
                    conv(f"{at}.conv2", out, out, 3, 3)
                halves = stage > 1 and block == 0
                if batch_norm:
                    for index in (1, 2, 3) if halves else (1, 2):
                        norm(f"{at}.norm{index}", out)
                if halves:
                    conv(f"{at}.downsample.0", out, first, 1, 1)
                    if batch_norm:
                        norm(f"{at}.downsample.1", out)
        conv(f"{net}.conv2", output, widths[-1], 1, 1)

    at = "update_block.encoder"
    if small:
        conv(f"{at}.convc1", 96, 4 * 7 * 7, 1, 1)
        conv(f"{at}.convf1", 64, 2, 7, 7)
        conv(f"{at}.convf2", 32, 64, 3, 3)
        conv(f"{at}.conv", 80, 128, 3, 3)
        for gate in "zrq":
            conv(f"update_block.gru.conv{gate}", 96, 96 + 82 + 64, 3, 3)
        conv("update_block.flow_head.conv1", 128, 96, 3, 3)
        conv("update_block.flow_head.conv2", 2, 128, 3, 3)
        return shapes
    conv(f"{at}.convc1", 256, 4 * 9 * 9, 1, 1)
    conv(f"{at}.convc2", 192, 256, 3, 3)
    conv(f"{at}.convf1", 128, 2, 7, 7)
    conv(f"{at}.convf2", 64, 128, 3, 3)
    conv(f"{at}.conv", 126, 256, 3, 3)
    for index, kernel in ((1, (1, 5)), (2, (5, 1))):
        for gate in "zrq":
            conv(f"update_block.gru.conv{gate}{index}", 128, 128 + 256, *kernel)
    conv("update_block.flow_head.conv1", 256, 128, 3, 3)
    conv("update_block.flow_head.conv2", 2, 256, 3, 3)
    conv("update_block.mask.0", 256, 128, 3, 3)
    conv("update_block.mask.2", 576, 256, 1, 1)
    return shapes


@pytest.mark.parametrize(("build", "small"), [(raft_large, False), (raft_small, True)])
def test_the_original_authors_files_fit(build, small):
    original = {
        f"module.{name}": torch.zeros(shape, dtype=torch.int64 if name.endswith("tracked") else torch.float32)
        for name, shape in original_shapes(small).items()
    }
    build(weights=None).load_state_dict(to_torchvision_raft(original))


def test_each_original_layer_lands_in_its_place():
    # positions of a few layers of each kind, read off the two implementations
    places = {
        "fnet.conv1.weight": "feature_encoder.convnormrelu.0.weight",
        "cnet.norm1.running_var": "context_encoder.convnormrelu.1.running_var",
        "cnet.layer3.1.norm2.bias": "context_encoder.layer3.1.convnormrelu2.1.bias",
        "fnet.layer2.0.conv2.bias": "feature_encoder.layer2.0.convnormrelu2.0.bias",
        "cnet.layer2.0.downsample.1.weight": "context_encoder.layer2.0.downsample.1.weight",
        "cnet.conv2.weight": "context_encoder.conv.weight",
        "update_block.encoder.convc2.weight": "update_block.motion_encoder.convcorr2.0.weight",
        "update_block.encoder.convf1.bias": "update_block.motion_encoder.convflow1.0.bias",
        "update_block.encoder.conv.bias": "update_block.motion_encoder.conv.0.bias",
        "update_block.gru.convq1.weight": "update_block.recurrent_block.convgru1.convq.weight",
        "update_block.gru.convz2.bias": "update_block.recurrent_block.convgru2.convz.bias",
        "update_block.gru.convr.weight": "update_block.recurrent_block.convgru1.convr.weight",
        "update_block.flow_head.conv2.weight": "update_block.flow_head.conv2.weight",
        "update_block.mask.0.weight": "mask_predictor.convrelu.0.weight",
        "update_block.mask.2.bias": "mask_predictor.conv.bias",
    }
    numbered = {f"module.{name}": torch.tensor(float(i)) for i, name in enumerate(places)}
    renamed = to_torchvision_raft(numbered)
    assert {name: float(value) for name, value in renamed.items()} == {
        name: float(i) for i, name in enumerate(places.values())
    }


def test_torchvision_names_stay():
    weights = raft_small(weights=None).state_dict()
    assert to_torchvision_raft(weights).keys() == weights.keys()
