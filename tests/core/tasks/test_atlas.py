"""The atlas: textures rebuild the clip, and mappings carry points to where they are."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from comfyui_vdp.vdp_core.errors import LayersFileError
from comfyui_vdp.vdp_core.image.knots import through
from comfyui_vdp.vdp_core.image.sample import averaged, sample_points
from comfyui_vdp.vdp_core.metrics import psnr
from comfyui_vdp.vdp_core.models import MODELS
from comfyui_vdp.vdp_core.models import atlas as model
from comfyui_vdp.vdp_core.models.file import load_layers, save_layers
from comfyui_vdp.vdp_core.models.rebuild import reconstruct
from comfyui_vdp.vdp_core.store.journal import Journal
from comfyui_vdp.vdp_core.tasks.atlas.textures import Canvas, Look, solve
from comfyui_vdp.vdp_core.tasks.driver import decompose
from comfyui_vdp.vdp_core.types import Flow, Layers

COUNT, HEIGHT, WIDTH = 12, 96, 160


@pytest.fixture(scope="module")
def clip(synthetic):
    return synthetic.layered(COUNT, HEIGHT, WIDTH, objects=1)


@pytest.fixture(scope="module")
def layers(clip) -> Layers:
    found = decompose("atlas", clip.frames, clip.flow, preset="fast", mask=clip.masks[:, 1] > 0.5)
    MODELS["atlas"].check(found)
    return found


def carried(layers: Layers, number: int, start: int, stop: int, points: torch.Tensor) -> torch.Tensor:
    """Where points ``(N, 2)`` of a layer in one frame lie in another: the pixel that lies nearest in the texture."""
    texture = layers.assets[f"texture_{number}"]
    corner = torch.tensor([texture.shape[2], texture.shape[1]]).view(2, 1, 1)
    size = (layers.frames.shape[1], layers.frames.shape[2])
    here, there = (through(layers.fields["mapping"][t, number], size) * corner for t in (start, stop))
    wanted = sample_points(here, points)
    nearest = (there.flatten(1)[:, :, None] - wanted[:, None]).norm(dim=0).argmin(dim=0)
    return torch.stack((nearest % size[1], nearest // size[1]), dim=1).float()


def test_textures_rebuild_the_clip(clip, layers):
    assert psnr(reconstruct(layers), clip.frames) > 32.0


def test_the_background_is_whole_behind_the_object(clip, layers):
    for index in (0, COUNT - 1):
        colours, mask = model.split(layers, 0, index, clip.frames[index])
        behind = clip.masks[index, 0] < 0.5
        # where some frame shows it
        assert (mask[behind] < 0.5).float().mean() > 0.8
        assert (colours - clip.colours[index, 0])[behind].abs().median() < 0.05


@pytest.mark.parametrize("number", [0, 1])
def test_points_are_carried_to_where_they_are(clip, layers, number):
    """Through the mappings alone, from the first frame to the last."""
    inside = clip.masks[:, number] > 0.5
    points = inside[0].nonzero().flip(-1).float()[::37]
    truth = points
    for index in range(COUNT - 1):
        truth = truth + sample_points(clip.flow.forward[index], truth).T
    within = (truth >= 2).all(dim=1) & (truth[:, 0] < WIDTH - 2) & (truth[:, 1] < HEIGHT - 2)
    places = truth.round().long().clamp_min(0)
    seen = within & inside[-1][places[:, 1].clamp(max=HEIGHT - 1), places[:, 0].clamp(max=WIDTH - 1)]
    assert seen.sum() > 5
    error = (carried(layers, number, 0, COUNT - 1, points[seen]) - truth[seen]).norm(dim=1)
    assert error.median() < 1.0


def test_points_follow_from_the_layers_alone(clip, layers):
    """Another flow beside the same fields changes nothing."""
    still = replace(layers, flow=replace(clip.flow, forward=torch.zeros_like(clip.flow.forward)))
    points = torch.tensor([[30.0, 40.0], [90.0, 20.0]])
    assert torch.equal(carried(layers, 0, 0, 5, points), carried(still, 0, 0, 5, points))


def test_a_clip_in_which_nothing_moves_has_one_texture(synthetic):
    frames, flow = synthetic.pan(8, 64, 96)
    found = decompose("atlas", frames, flow, preset="fast")
    MODELS["atlas"].check(found)
    assert found.assets["texture_1"].eq(0.0).all()
    assert "the foreground is empty" in found.info["warning"]
    assert psnr(reconstruct(found), frames) > 34.0
    height, width = found.assets["texture_0"].shape[1:]
    # the camera moves by 1.7 and 0.6 pixels a frame
    assert width >= 96 + 7 * 1.7
    assert height >= 64 + 7 * 0.6


def test_light_that_changes_stays_out_of_the_texture(synthetic):
    frames, flow = synthetic.pan(8, 64, 96)
    gain = torch.linspace(0.8, 1.2, 8)
    lit = (0.7 * gain.view(-1, 1, 1, 1) * frames).clamp(0, 1)
    found = decompose("atlas", lit, flow, preset="fast")
    assert_close(found.fields["light"].mean(dim=(1, 2, 3)), (gain / gain.log().mean().exp()).log(), atol=0.03, rtol=0)
    assert psnr(reconstruct(found), lit) > 34.0


def test_light_that_differs_over_the_frame_is_found_at_its_knots(synthetic):
    frames, flow = synthetic.pan(6, 64, 96)
    light = 0.15 * torch.randn(6, 3, 4, 7, generator=torch.Generator().manual_seed(1))
    light -= light.mean(dim=0)
    lit = 0.7 * frames * torch.stack([model.light_of(one, (64, 96)) for one in light]).movedim(1, -1)
    found = decompose("atlas", lit, flow, preset="fast")
    assert (found.fields["light"] - light).square().mean().sqrt() < 0.04


def test_shots_lie_below_each_other_in_one_texture(synthetic):
    shots = [synthetic.pan(4, 64, 96, seed=seed) for seed in (0, 5)]
    flow = shots[0][1]
    still = torch.zeros(1, 2, 64, 96)
    hidden = torch.ones(1, 64, 96)
    whole = replace(
        flow,
        forward=torch.cat((flow.forward, still, flow.forward)),
        backward=torch.cat((flow.backward, still, flow.backward)),
        forward_occlusion=torch.cat((flow.forward_occlusion, hidden, flow.forward_occlusion)),
        backward_occlusion=torch.cat((flow.backward_occlusion, hidden, flow.backward_occlusion)),
        forward_confidence=torch.ones(7, 64, 96),
        backward_confidence=torch.ones(7, 64, 96),
        cuts=(4,),
    )
    frames = torch.cat([shot[0] for shot in shots])
    found = decompose("atlas", frames, whole, preset="fast")
    alone = decompose("atlas", frames[4:], flow, preset="fast")
    assert_close(reconstruct(found)[4:], reconstruct(alone), atol=4 / 255, rtol=0)
    assert found.assets["texture_0"].shape[1] > alone.assets["texture_0"].shape[1]


@pytest.mark.parametrize("upright", [False, True])
def test_it_shows_frames_rebuilt_and_with_checkerboards(synthetic, upright):
    """Beside each other along the shorter side; the boards lie on the scene, and go along with it."""
    frames, flow = synthetic.pan(6, 48, 64) if not upright else synthetic.pan(6, 64, 48)
    shown = []

    def on_step(done, total, preview) -> None:
        if preview is not None:
            shown.append(preview())

    decompose("atlas", frames, flow, preset="fast", steps=10, on_step=on_step)
    rounds = torch.stack(shown)
    assert len(rounds) == (2 + 2) * len(frames)  # two rounds, and twice along edges
    assert rounds.shape[1:] == ((64, 96, 3) if upright else (96, 64, 3))
    assert rounds.min() >= 0.0 and rounds.max() <= 1.0
    rebuilt, boards = rounds[-6:].chunk(2, dim=2 if upright else 1)
    assert psnr(rebuilt, frames) > 30.0
    assert (rebuilt[1:] - rebuilt[:-1]).abs().mean() > 0.01
    squares = boards - 0.4 * frames  # what lies on the frames is dark or light
    assert squares.std() > 0.1
    moved = squares[0, 10:-10, 10:-10]
    # the camera moves by 1.7 and 0.6 pixels a frame: 5 and 2 in three
    assert (squares[3, 8:-12, 5:-15] - moved).abs().mean() < 0.3 * (squares[3, 10:-10, 10:-10] - moved).abs().mean()


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize(
    ("share", "kept"),
    [
        (0.38, {"masks"}),
        (0.65, {"masks", "beginning", "round_0"}),
        (0.8, {"masks", "beginning", "round_0", "round_1"}),
        (0.95, {"masks", "beginning", "round_0", "round_1", "edges"}),
    ],
)
def test_work_that_was_cut_off_goes_on(synthetic, tmp_path, share, kept):
    frames, flow = synthetic.pan(6, 48, 64)
    journal = Journal(tmp_path)

    def kill(done: int, total: int, _: object) -> None:
        if done >= share * total:
            raise Killed

    whole = decompose("atlas", frames, flow, preset="fast", steps=10)
    with pytest.raises(Killed):
        decompose("atlas", frames, flow, preset="fast", steps=10, journal=journal, on_step=kill)
    assert {path.stem for path in tmp_path.glob("*.safetensors")} == kept
    resumed = decompose("atlas", frames, flow, preset="fast", steps=10, journal=journal)
    assert all(torch.equal(resumed.fields[name], field) for name, field in whole.fields.items())
    assert all(torch.equal(resumed.assets[name], asset) for name, asset in whole.assets.items())


def test_layers_are_saved_whole(layers, tmp_path):
    loaded = load_layers(save_layers(layers, tmp_path / "atlas.safetensors"))
    # masks are upsampled along the frames, which files keep in 16 bits
    assert psnr(reconstruct(loaded), reconstruct(layers)) > 70.0
    with pytest.raises(LayersFileError, match="no texture of layer 1"):
        MODELS["atlas"].check(replace(layers, assets={"texture_0": layers.assets["texture_0"]}))


def test_a_texture_is_what_its_pixels_are_and_filled_in_beyond():
    """Two pixels laid whole on pixels of a texture are its colours there; a third gets theirs."""
    colours = torch.tensor([[[0.2, 0.6]], [[0.4, 0.4]], [[1.0, 0.0]]])
    look = Look(colours, torch.tensor([[[[1.0, 2.0]], [[1.0, 1.0]]]]), torch.ones(1, 2))
    canvas = Canvas((4, 6), torch.zeros(2), 1.0)
    found = solve(lambda: [(0, look)], {0: canvas}, 3, torch.device("cpu"))[0].values
    assert_close(found[:3, 1, 1:3], colours[:, 0])
    assert_close(found[3, 1, 1:3], torch.ones(2))
    assert (found[:3, 1, 4] - colours[:, 0].mean(dim=1)).abs().max() < 0.25
    assert found[3, 1, 4] == 0.0


def test_frames_between_pixels_and_in_motion_are_given_back_by_one_texture():
    """Three frames of a line: on its pixels, between them, and blurred along it."""
    line = torch.rand(3, 3, 24, generator=torch.Generator().manual_seed(0))
    x, y = torch.meshgrid(torch.arange(3.0, 20.0), torch.arange(3.0), indexing="xy")
    ways = [torch.stack([torch.stack((x + far, y)) for far in offsets]) for offsets in ([0.0], [0.5], [-1.0, 0.0, 1.0])]
    looks = [(0, Look(averaged(line, taps), taps, torch.ones(3, 17))) for taps in ways]
    # rows of pixels below the last one are not laid on
    canvas = Canvas((4, 24), torch.zeros(2), 1.0)
    found = solve(lambda: looks, {0: canvas}, 60, torch.device("cpu"))[0]
    for _, look in looks:
        assert_close(look.of(found.values[:3]), look.colours, atol=2e-3, rtol=0)
    assert_close(found.values[:3, :3, 4:19], line[:, :, 4:19], atol=0.02, rtol=0)


@pytest.mark.parametrize("opened", [0.0, 0.6])
def test_the_shutter_is_found(synthetic, opened):
    speeds = [1.0, 1.0, 1.0, 1.0, 8.0, 8.0, 8.0, 8.0, 1.0, 1.0, 1.0, 1.0]
    frames = synthetic.filmed(speeds, opened)
    still = torch.zeros(11, 64, 96)
    vectors = -torch.tensor(speeds[1:]).view(-1, 1, 1, 1) * torch.tensor([1.0, 0.0]).view(2, 1, 1).expand(2, 64, 96)
    flow = Flow(vectors, -vectors, still, still, (64, 96), "exact")
    found = decompose("atlas", frames, flow)
    width = found.assets["texture_0"].shape[2]
    # at 1.5 pixels of the texture to one of the frames
    ways = found.fields["blur"][:, 0, 0].mean(dim=(1, 2)) * width / 1.5
    assert_close(ways[5:7], torch.full((2,), 8.0 * opened), atol=1.0, rtol=0)
    assert (ways[[1, 2, 9, 10]] < 1.0).all()
    assert psnr(reconstruct(found), frames) > 36.0
