"""The networks of the published deflicker: the filter and the refinement."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.testing import assert_close

from comfyui_vdp.vdp_core.errors import WeightsError
from comfyui_vdp.vdp_core.nets.filter import FilterNet
from comfyui_vdp.vdp_core.nets.padding import padded
from comfyui_vdp.vdp_core.nets.refinement import RefinementNet
from comfyui_vdp.vdp_core.nets.weights import fill

NARROW = (8, 8, 12, 16, 20)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def stirred(net: nn.Module) -> nn.Module:
    """With other weights than to begin with."""
    for value in net.parameters():
        nn.init.normal_(value, std=0.1)
    return net


# sizes


@pytest.mark.parametrize(("build", "count"), [(FilterNet, 8_628_768), (RefinementNet, 2_979_555)])
def test_the_published_number_of_parameters(build, count):
    assert sum(value.numel() for value in build().parameters()) == count


def test_what_is_padded_repeats_the_border_and_is_cropped_again():
    pictures = torch.rand(2, 3, 30, 65)
    grown, crop = padded(pictures)
    assert grown.shape == (2, 3, 32, 96)
    assert torch.equal(grown[crop], pictures)
    assert torch.equal(grown[:, :, :30, 65:], pictures[..., -1:].expand(-1, -1, -1, 31))


@pytest.mark.parametrize("size", [(32, 64), (33, 47), (1, 5), (68, 31)])
def test_any_size_comes_back(size):
    pictures = torch.rand(2, 3, *size)
    assert FilterNet(NARROW)(pictures, pictures).shape == pictures.shape
    out, (given, memory) = RefinementNet(width=8, blocks=1)(pictures, pictures, pictures)
    assert out.shape == pictures.shape
    assert given.shape == memory.shape


def test_nothing_is_shifted_or_squashed_where_sizes_are_padded():
    """A frame that is as large as its padded copy gives the same where both have the same around it."""
    net = FilterNet(NARROW)
    whole = torch.rand(1, 3, 160, 160)
    part = whole[..., :150]
    # the padding differs, and is seen as far as the receptive field reaches
    assert_close(net(part, part)[..., :8, :8], net(whole, whole)[..., :8, :8])


# what they do


def test_the_filter_begins_with_the_frame():
    frames, atlas = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    out = FilterNet()(frames, atlas)
    together = torch.stack((out.detach().flatten(), frames.flatten()))
    assert float(torch.corrcoef(together)[0, 1]) > 0.9


def test_the_refinement_begins_with_no_change():
    now, before, given = torch.rand(3, 2, 3, 40, 24)
    assert torch.equal(RefinementNet()(now, before, given)[0], now)


def test_the_refinement_changes_by_less_than_one():
    net = stirred(RefinementNet(width=8, blocks=1))
    now, before, given = torch.rand(3, 1, 3, 32, 32)
    nn.init.constant_(net.head.bias, 100.0)
    assert_close(net(now, before, given)[0], now + 1.0)


def test_the_memory_is_carried_from_frame_to_frame():
    net = stirred(RefinementNet(width=8, blocks=1))
    frames = torch.rand(3, 1, 3, 32, 32)
    _, state = net(frames[1], frames[0], frames[0])
    out, after = net(frames[2], frames[1], frames[1], state)
    fresh, _ = net(frames[2], frames[1], frames[1])
    assert not torch.allclose(out, fresh)
    assert not torch.allclose(after[1], state[1])


def test_a_memory_that_keeps_all_and_takes_in_nothing_stays():
    net = RefinementNet(width=8, blocks=1)
    cell = net.memory
    nn.init.zeros_(cell.gates.weight)
    nn.init.constant_(cell.gates.bias, 0.0)
    with torch.no_grad():
        cell.gates.bias[:32], cell.gates.bias[32:64] = -100.0, 100.0  # enter, keep
    memory = torch.rand(1, 32, 8, 8)
    given, after = cell(torch.rand(1, 32, 8, 8), (torch.rand(1, 32, 8, 8), memory))
    assert_close(after, memory)
    assert_close(given, 0.5 * torch.tanh(memory))  # leave: half open


@pytest.mark.parametrize("net", [FilterNet(NARROW), RefinementNet(width=8, blocks=2)], ids=["filter", "refinement"])
def test_gradients_reach_every_parameter(net):
    stirred(net)
    if isinstance(net, FilterNet):
        out = net(torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32))
    else:
        now, before, given = torch.rand(3, 2, 3, 32, 32)
        first, state = net(now, before, given)
        out, _ = net(before, now, first, state)
    out.square().mean().backward()
    assert [name for name, value in net.named_parameters() if value.grad is None or not value.grad.any()] == []


# weights of files


def written(folder: Path, net: nn.Module, *, renamed: bool = False, suffix: str = ".pth") -> Path:
    """A file of the network's weights, by other names where it is told so."""
    table = {f"module.{name}": value for name, value in net.state_dict().items()}
    if renamed:
        table = {f"layer{index}.conv.weight": value for index, value in enumerate(table.values())}
    path = folder / f"net{suffix}"
    if suffix == ".safetensors":
        save_file(table, path)
    else:
        torch.save(table, path)
    return path


@pytest.mark.parametrize(
    ("renamed", "suffix"), [(False, ".pth"), (True, ".pth"), (False, ".safetensors")], ids=["own", "others", "safe"]
)
@pytest.mark.parametrize("build", [lambda: FilterNet(NARROW), lambda: RefinementNet(width=8)])
def test_weights_of_a_file_are_taken_by_name_or_by_shape_and_order(tmp_path, build, renamed, suffix):
    source, net = stirred(build()), build()
    fill(net, written(tmp_path, source, renamed=renamed, suffix=suffix), otherwise="do without")
    for name, value in source.state_dict().items():
        assert torch.equal(net.state_dict()[name], value), name


@pytest.mark.parametrize("other", [FilterNet((8, 8, 12, 16, 24)), RefinementNet(width=8)], ids=["wider", "another"])
@pytest.mark.parametrize("renamed", [False, True])
def test_weights_of_another_network_are_refused(tmp_path, other, renamed):
    path, net = written(tmp_path, other, renamed=renamed), FilterNet(NARROW)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(WeightsError, match=r"net\.pth: its weights are of another network; do without"):
        fill(net, path, otherwise="do without")
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_a_file_with_more_than_the_network_has_is_refused(tmp_path):
    net = FilterNet(NARROW)
    torch.save({**net.state_dict(), "more": torch.rand(3)}, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match="another network"):
        fill(net, tmp_path / "net.pth", otherwise="do without")
