"""The network beside one that is written plainly, its parts by hand, and every published form of its weights."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from plain_matting import PlainMatting, State, trained
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from comfyui_vdp.vdp_core.errors import WeightsError
from comfyui_vdp.vdp_core.media.clip import read_clip
from comfyui_vdp.vdp_core.nets.matting_weights import find_matting, folded, load_matting
from comfyui_vdp.vdp_core.nets.recurrent_matting import (
    DeepGuidedFilter,
    Memory,
    RecurrentMatting,
    auto_ratio,
    drawn,
    fast_lines,
    shrunk,
)

FOLDED = "rvm_mobilenetv3_folded_u8.safetensors"


def clip(count: int = 3, height: int = 82, width: int = 110) -> Tensor:
    """Frames ``(T, 3, H, W)`` whose sides halve to odd numbers."""
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=["mobilenetv3", "resnet50"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[PlainMatting, Path]:
    """The plain network with random weights, and its state dict as a file, as the authors' are."""
    plain = trained(request.param)
    path = tmp_path_factory.mktemp("weights") / f"rvm_{request.param}.pth"
    torch.save(plain.state_dict(), path)
    return plain, path


@pytest.fixture
def small(tmp_path: Path) -> tuple[RecurrentMatting, dict[str, Tensor]]:
    """Our network of the smaller backbone, and the state dict that it came from."""
    table = trained("mobilenetv3").state_dict()
    torch.save(table, tmp_path / "given.pth")
    return load_matting(tmp_path / "given.pth"), table


def in_turn(plain: PlainMatting, frames: Tensor, ratio: float, refiner: str) -> tuple[Tensor, Tensor, State]:
    """What the plain network gives, frame by frame."""
    states: State = (None,) * 4
    made = []
    for frame in frames:
        *pictures, states = plain(frame[None], states, ratio, refiner == "fast")
        made.append(pictures)
    foregrounds, mattes = (torch.cat(pictures) for pictures in zip(*made, strict=True))
    return foregrounds, mattes, states


@pytest.mark.parametrize(("ratio", "refiner"), [(1.0, "deep"), (0.5, "deep"), (0.5, "fast"), (0.375, "deep")])
@torch.no_grad()
def test_it_gives_what_the_plain_network_gives(both: tuple[PlainMatting, Path], ratio: float, refiner: str) -> None:
    """All frames in one call, with normalisation folded: also at a ratio that the sides are no multiples of."""
    plain, path = both
    foregrounds, mattes, states = in_turn(plain, clip(), ratio, refiner)
    assert mattes.std() > 0.02  # there is something to compare
    ours = load_matting(path)(clip(), ratio=ratio, refiner=refiner)
    assert (ours[1] - mattes).abs().max() < 1e-4
    assert ((ours[0] - foregrounds) * mattes).abs().max() < 1e-4
    assert all((one - other).abs().max() < 1e-4 for one, other in zip(ours[2], states, strict=True))


def test_the_authors_files_have_as_many_tensors() -> None:
    counts = {"mobilenetv3": (380, 3_748_633), "resnet50": (390, 26_890_461)}
    for backbone, (tensors, parameters) in counts.items():
        plain = PlainMatting(backbone)
        assert (len(plain.state_dict()), sum(value.numel() for value in plain.parameters())) == (tensors, parameters)
    assert len(RecurrentMatting().state_dict()) == 162


@torch.no_grad()
def test_one_frame_after_the_other_is_the_same_as_all_at_once(small) -> None:
    net, _ = small
    together = net(clip(4), ratio=0.5)
    state, apart = None, []
    for frame in clip(4):
        *pictures, state = net(frame[None], state, ratio=0.5)
        apart.append(pictures)
    for one, others in zip(together[:2], zip(*apart, strict=True), strict=True):
        assert (one - torch.cat(others)).abs().max() < 1e-5


# Parts


@torch.no_grad()
def test_a_memory_by_hand() -> None:
    """One channel, no neighbours: h' = (1 - z) h + z tanh(x + r h), r and z of the sums of x and h."""
    memory = Memory(1)
    for conv in (memory.ih[0], memory.hh[0]):
        nn.init.zeros_(conv.weight)
        nn.init.zeros_(conv.bias)
        conv.weight.data[:, :, 1, 1] = 1.0
    memory.ih[0].weight.data[1, :, 1, 1] = -1.0
    x, h = 0.4, -0.3
    r, z = 1 / (1 + np.exp(-(x + h))), 1 / (1 + np.exp(x + h))
    made, state = memory(torch.full((1, 1, 1, 1), x), torch.full((1, 1, 1, 1), h))
    assert float(made) == float(state) == pytest.approx((1 - z) * h + z * np.tanh(x + r * h))
    begun, _ = memory(torch.full((1, 1, 1, 1), x), None)
    assert float(begun) == pytest.approx(np.tanh(x) / (1 + np.exp(x)))


def test_what_is_a_line_of_the_colours_is_found_by_the_fast_filter() -> None:
    guide = torch.rand(1, 4, 12, 16, generator=torch.Generator().manual_seed(1))
    lines = fast_lines(guide, 0.7 * guide + 0.1)[..., 1:-1, 1:-1]
    assert (lines[:, :4] - 0.7).abs().max() < 1e-3  # as little as the regularisation does
    assert (lines[:, 4:] - 0.1).abs().max() < 1e-3


def test_the_deep_filter_takes_its_means_with_learnt_weights() -> None:
    """Where a window reads nothing but the sample to its left, means are that sample's and all variances are 0."""
    refiner = DeepGuidedFilter(16)
    nn.init.zeros_(refiner.box_filter.weight)
    refiner.box_filter.weight.data[:, :, 1, 0] = 1.0
    guide, values = torch.rand(2, 1, 4, 6, 8, generator=torch.Generator().manual_seed(1))
    lines = refiner(guide, values, torch.zeros(1, 16, 6, 8))
    slope = lines[:, :4]
    assert torch.allclose(slope, slope[..., 3:4, 3:4].expand_as(slope), atol=1e-5)
    assert torch.allclose(lines[:, 4:, :, 1:], (values - slope * guide)[..., :-1], atol=1e-5)


def test_lines_are_drawn_the_same_on_every_device() -> None:
    """A CPU interpolates them with OpenCV, what learns with torch."""
    lines, frames = torch.randn(2, 8, 11, 17, generator=torch.Generator().manual_seed(2)), clip(2)
    plain = drawn(lines.clone().requires_grad_(), frames)
    assert all(torch.allclose(*pair, atol=1e-5) for pair in zip(drawn(lines, frames), plain, strict=True))


def test_a_copy_lies_on_the_samples_of_the_given_ratio() -> None:
    ramp = torch.arange(100.0).expand(1, 3, 4, 100) / 100
    small = shrunk(ramp, 0.375)
    assert small.shape == (1, 3, 1, 37)
    assert torch.allclose(small[0, 0, 0], ((torch.arange(37) + 0.5) / 0.375 - 0.5) / 100)


def test_the_ratio_by_itself() -> None:
    assert auto_ratio(1080, 1920) == pytest.approx(512 / 1920)
    assert auto_ratio(480, 320) == 1.0


def test_gradients_reach_every_weight() -> None:
    net = RecurrentMatting()
    foregrounds, mattes, _ = net(clip(2, 32, 48), ratio=0.5)
    (foregrounds.square().mean() + mattes.square().mean()).backward()
    assert all(value.grad is not None for value in net.parameters())


# Weights


def same(one: RecurrentMatting, other: RecurrentMatting, within: float = 0.0) -> bool:
    there = other.state_dict()
    return all((value - there[name]).abs().max() <= within for name, value in one.state_dict().items())


def test_a_folded_file_gives_the_same_network(small, tmp_path: Path) -> None:
    net, table = small
    save_file(folded(dict(table)), tmp_path / "folded.safetensors")
    assert same(load_matting(tmp_path / "folded.safetensors"), net)


def test_weights_in_8_bits_are_their_steps(small, tmp_path: Path) -> None:
    """``value = step * scale + min`` for each channel."""
    net, table = small
    steps = {}
    for name, value in folded(dict(table)).items():
        rows = value.flatten(1) if value.ndim > 1 else value[None]
        least = rows.amin(dim=1)
        scale = ((rows.amax(dim=1) - least) / 255).clamp_min(1e-8)
        steps[name] = ((rows - least[:, None]) / scale[:, None]).round().byte().view(value.shape)
        steps |= {f"{name}.scale": scale, f"{name}.min": least}
    save_file(steps, tmp_path / "steps.safetensors")
    assert same(load_matting(tmp_path / "steps.safetensors"), net, within=0.02)
    assert not same(load_matting(tmp_path / "steps.safetensors"), net)


def test_a_torchscript_file_is_read_as_data(small, tmp_path: Path) -> None:
    _, table = small

    class Scripted(nn.Module):
        """Modules of the same names, with a program beside them."""

        def __init__(self, tables: dict[str, Tensor]) -> None:
            super().__init__()
            for name, value in tables.items():
                head, _, rest = name.partition(".")
                if not rest:
                    self.register_buffer(head, value.half() if value.is_floating_point() else value)
            for head in dict.fromkeys(name.partition(".")[0] for name in tables if "." in name):
                inner = {name.partition(".")[2]: value for name, value in tables.items() if name.startswith(f"{head}.")}
                self.add_module(head, Scripted(inner))

        def forward(self, x: Tensor) -> Tensor:
            return x + 1

    path = tmp_path / "rvm_mobilenetv3_fp16.torchscript"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Scripted(table)).save(path)
    halves = {name: value.half() if value.is_floating_point() else value for name, value in table.items()}
    torch.save(halves, tmp_path / "halves.pth")
    assert same(load_matting(path), load_matting(tmp_path / "halves.pth"))
    path.write_bytes(path.read_bytes()[:-40_000])
    with pytest.raises(WeightsError, match="damaged"):
        load_matting(path)


def test_other_weights_are_refused(small, tmp_path: Path) -> None:
    _, table = small
    path = tmp_path / "other.pth"
    torch.save({"features.weight": torch.rand(3)}, path)
    with pytest.raises(WeightsError, match=r"other\.pth: not the weights of a matting network"):
        load_matting(path)
    torch.save({**table, "decoder.decode0.conv.0.weight": torch.rand(16, 34, 3, 3)}, path)
    with pytest.raises(WeightsError, match=r"its 'decoder\.decode0\.conv\.0\.weight' is not"):
        load_matting(path)
    torch.save({name: value for name, value in table.items() if not name.startswith("aspp")}, path)
    with pytest.raises(WeightsError, match="aspp"):
        load_matting(path)


def test_without_a_refiner_the_fast_one_works(small, tmp_path: Path) -> None:
    _, table = small
    path = tmp_path / "bare.pth"
    torch.save({name: value for name, value in table.items() if not name.startswith("refiner")}, path)
    load_matting(path, refiner="fast")
    with pytest.raises(WeightsError, match="choose the refiner 'fast'"):
        load_matting(path)


def test_weights_are_found_by_name_or_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub, folder = tmp_path / "hub" / "checkpoints", tmp_path / "video_matting"
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    for place, name in ((hub, "rvm_mobilenetv3.pth"), (folder, "rvm_resnet50.pth"), (folder, "mine.safetensors")):
        place.mkdir(parents=True, exist_ok=True)
        (place / name).touch()
    assert find_matting("auto", []) == hub / "rvm_mobilenetv3.pth"
    assert find_matting("auto", [folder]) == folder / "rvm_resnet50.pth"
    assert find_matting("rvm_mobilenetv3", [folder]) == hub / "rvm_mobilenetv3.pth"
    assert find_matting("mine", [folder]) == find_matting("mine.safetensors", [folder]) == folder / "mine.safetensors"
    assert find_matting(str(folder / "mine.safetensors"), []) == folder / "mine.safetensors"


@pytest.mark.parametrize("name", ["auto", "rvm_resnet50", "weights/none.pth", "", "a\0b"])
def test_without_a_file_one_sentence_says_where_to_get_it(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(WeightsError) as caught:
        find_matting(name, [tmp_path / "video_matting"])
    for word in ("GPL-3.0", "https://", "video_matting", str(tmp_path / "hub"), "path"):
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


# The published weights, where a folder of data is given (VDP_TEST_DATA)


@torch.no_grad()
def test_the_published_weights_see_a_person(data: Path) -> None:
    net = load_matting(data / "rvm" / FOLDED)
    frames = read_clip(data / "davis" / "frames" / "lucia", count=3).frames
    masks = read_clip(data / "davis" / "masks" / "lucia", count=3).frames[..., 0] > 0.5
    _, mattes, _ = net(frames.movedim(-1, 1), ratio=0.5)
    found = mattes[-1, 0] > 0.5
    assert (found & masks[-1]).sum() / (found | masks[-1]).sum() > 0.8


@torch.no_grad()
def test_the_published_weights_give_the_reference(data: Path) -> None:
    """Frames as PNG files beside the reference, in ``rvm/frames``: those that its hashes name."""
    with np.load(data / "rvm" / "rvm_reference.npz", allow_pickle=False) as arrays:
        reference = dict(arrays)
    about = json.loads(str(reference["meta"]))
    if not (data / "rvm" / "frames").is_dir():
        pytest.skip("the reference's frames are not there")
    frames = read_clip(data / "rvm" / "frames").frames
    hashes = [hashlib.sha256((frame * 255).round().byte().numpy().tobytes()).hexdigest() for frame in frames]
    assert hashes == about["rgb_sha256"]
    net, clip_of_it = load_matting(data / "rvm" / FOLDED), frames.movedim(-1, 1)

    def close(name: str, found: Tensor, within: float) -> None:
        wanted = torch.from_numpy(reference[name].astype(np.float32))
        assert (found[-len(wanted) :] - wanted).abs().max() < within, name

    cases = {"r1": (1.0, "deep"), "r05_deep": (0.5, "deep"), "r05_fast": (0.5, "fast")}
    for name, (ratio, refiner) in cases.items():
        foregrounds, mattes, state = net(clip_of_it, ratio=ratio, refiner=refiner)
        close(f"pha_{name}", mattes, 2e-3)
        if f"fgr_{name}" in reference:
            wanted = torch.from_numpy(reference[f"fgr_{name}"]) / 255
            assert ((foregrounds - wanted) * mattes).abs().max() < 1 / 255 + 2e-3
        if name == "r1":
            close("rec3_r1", state[2], 2e-3)
            close("rec4_r1", state[3], 2e-3)
    for name, ratio in (("pha_crop_r1", 1.0), ("pha_crop_r0375_deep", 0.375)):
        close(name, net(clip_of_it[:3, :, :226, :398], ratio=ratio)[1], 2e-3)


def test_the_file_of_the_data_folder_is_whole(data: Path) -> None:
    assert len(folded(load_file(data / "rvm" / FOLDED))) == 162
