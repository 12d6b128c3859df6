"""Deflicker as published: an atlas, a filter and a refinement, trained on the clip itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from comfyui_vdp.vdp_core.degrade.flicker import Change, changed
from comfyui_vdp.vdp_core.errors import WeightsError
from comfyui_vdp.vdp_core.metrics import psnr
from comfyui_vdp.vdp_core.nets.filter import FilterNet
from comfyui_vdp.vdp_core.nets.refinement import RefinementNet
from comfyui_vdp.vdp_core.optim import fit as fit_module
from comfyui_vdp.vdp_core.optim.progress import Progress
from comfyui_vdp.vdp_core.store.journal import NO_JOURNAL, Journal
from comfyui_vdp.vdp_core.tasks.deflicker import paper
from comfyui_vdp.vdp_core.types import Flow

COUNT, HEIGHT, WIDTH = 8, 40, 60
NARROW = partial(FilterNet, (8, 12, 16, 24, 32)), partial(RefinementNet, width=8, blocks=1)


class Stopped(BaseException):
    """Stands for a person who interrupts, or the end of the process."""


@pytest.fixture(autouse=True)
def small(tmp_path, monkeypatch):
    """Narrow networks, and a torch hub without weights."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(paper, "FilterNet", NARROW[0])
    monkeypatch.setattr(paper, "RefinementNet", NARROW[1])


@pytest.fixture(scope="module")
def clip(synthetic) -> tuple[Tensor, Tensor, Flow]:
    """Frames with a gain of their own each, the truth, and their motion."""
    truth, flow = synthetic.pan(COUNT, HEIGHT, WIDTH)
    gain = 0.25 * torch.tensor([(-1.0) ** t for t in range(COUNT)]).view(-1, 1, 1, 1)
    return changed(truth, Change(gain=gain)), truth, flow


def made_of(clip: tuple[Tensor, Tensor, Flow], steps: int = 4, **settings) -> paper.Deflickered:
    told = {"seed": 0, "device": "cpu", "weights_folders": (), "journal": NO_JOURNAL, "on_step": None}
    return paper.deflicker(clip[0], clip[2], steps=steps, **{**told, **settings})


def test_every_stage_is_there_and_they_add_up(clip):
    found = made_of(clip)
    shape = (COUNT, 3, HEIGHT, WIDTH)
    assert list(found.stages) == ["atlas", "filter", "refinement"]
    for stage in (*found.stages.values(), found.residual):
        assert stage.shape == shape
        assert stage.dtype == torch.half
    assert_close(clip[0].movedim(-1, 1) + found.residual.float(), found.stages["refinement"].float(), atol=1e-3, rtol=0)
    assert found.fitted.steps == 4 + 1
    assert set(found.fitted.terms) == {"filter", "steady", "stay"}
    assert found.notes == {"filter": "trained on the clip", "refinement": "trained on the clip"}


def test_large_frames_are_worked_on_at_the_side_that_is_asked_for(clip):
    found = made_of(clip, steps=1, side=31)
    assert found.residual.shape == (COUNT, 3, 21, 31)


def test_flicker_of_the_whole_frame_goes(clip):
    frames, truth, _ = clip
    found = made_of(clip, steps=60)
    reached = {name: psnr(stage.float().movedim(1, -1), truth) for name, stage in found.stages.items()}
    floor = psnr(frames, truth)
    assert reached["atlas"] > floor + 3.0
    assert reached["filter"] > floor + 3.0
    assert reached["refinement"] > floor + 3.0


def test_training_lowers_the_loss(clip):
    frames = clip[0].movedim(-1, 1)
    drawn = torch.Generator().manual_seed(9)
    pairs = paper.recoloured(frames, drawn), paper.misplaced(frames, drawn)
    torch.manual_seed(0)
    net = NARROW[0]()

    def loss() -> float:
        with torch.no_grad():
            return float((net(*pairs) - frames).square().mean())

    before = loss()
    paper._train_filter(net, frames, frames, 60, 0, NO_JOURNAL, Progress(None))
    assert loss() < 0.6 * before


def test_the_same_seed_gives_the_same_bits_and_another_others(clip):
    one, same, other = (made_of(clip, seed=seed).residual for seed in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("at", [0.1, 0.5, 0.9])
def test_what_was_cut_off_goes_on_to_the_same_bits(tmp_path, monkeypatch, clip, at):
    monkeypatch.setattr(fit_module, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(fit_module, "SAVE_SHARE", float("inf"))
    whole = made_of(clip, steps=12)
    journal = Journal(tmp_path / "journal")

    def stop(done: int, total: int, _: object) -> None:
        if done >= at * total:
            raise Stopped

    with pytest.raises(Stopped):
        made_of(clip, steps=12, journal=journal, on_step=stop)
    resumed = made_of(clip, steps=12, journal=journal)
    for name, stage in whole.stages.items():
        assert torch.equal(resumed.stages[name], stage), name
    assert torch.equal(resumed.residual, whole.residual)
    assert resumed.fitted.terms == whole.fitted.terms


def test_progress_is_told_once_up_to_the_end(clip):
    told: list[tuple[int, int]] = []
    shown: list[Tensor] = []

    def tell(done: int, total: int, preview: Callable[[], Tensor] | None) -> None:
        told.append((done, total))
        shown.extend([] if preview is None else [preview()])

    made_of(clip, on_step=tell)
    (total,) = {total for _, total in told}
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (total, total)
    assert all(picture.ndim == 3 and 0.0 <= picture.min() <= picture.max() <= 1.0 for picture in shown)
    assert (HEIGHT, WIDTH, 3) in {tuple(picture.shape) for picture in shown}


# weights of files


def test_weights_are_used_where_there_are_some(tmp_path, clip):
    torch.save(NARROW[1]().state_dict(), tmp_path / "local_refinement_net.pth")  # changes nothing
    net = NARROW[0]()
    with torch.no_grad():
        net.head.weight[:, 6:] = 0.0  # gives the frame back
    torch.save(net.state_dict(), tmp_path / "neural_filter.pth")
    found = made_of(clip, weights_folders=(tmp_path,))
    assert_close(found.residual.float(), torch.zeros(COUNT, 3, HEIGHT, WIDTH), atol=2e-3, rtol=0)
    assert found.fitted.steps == 0
    assert found.notes == {"filter": "neural_filter.pth", "refinement": "local_refinement_net.pth"}


@pytest.mark.parametrize("name", ["neural_filter", "local_refinement_net"])
def test_weights_of_another_network_are_refused_before_any_work(tmp_path, clip, name):
    torch.save({"weight": torch.rand(3, 3)}, tmp_path / f"{name}.pth")
    told: list[int] = []
    with pytest.raises(WeightsError, match=f"{name}.pth: its weights are of another network; move it elsewhere"):
        made_of(clip, weights_folders=(tmp_path,), on_step=lambda done, *_: told.append(done))
    assert told == []


def test_a_filter_that_does_not_give_back_a_steady_frame_is_refused(tmp_path, clip):
    net = NARROW[0]()
    with torch.no_grad():
        net.head.weight.zero_()
    torch.save(net.state_dict(), tmp_path / "neural_filter.pth")
    with pytest.raises(WeightsError, match=r"comes back with \d+\.\d dB; move it elsewhere"):
        made_of(clip, weights_folders=(tmp_path,))


# what the networks learn from


def test_recoloured_pictures_lie_where_they_were(synthetic):
    pictures = synthetic.pan(6, 48, 64)[0].movedim(-1, 1)
    drawn = torch.Generator().manual_seed(0)
    made = torch.cat([paper.recoloured(pictures, drawn) for _ in range(4)])
    same = pictures.repeat(4, 1, 1, 1)
    assert 0.02 < float((made - same).abs().mean()) < 0.3
    edges = [one.diff(dim=-1).flatten() for one in (made, same)]
    assert float(torch.corrcoef(torch.stack(edges))[0, 1]) > 0.8


def test_misplaced_pictures_have_the_colours_that_they_had(synthetic):
    pictures = synthetic.pan(6, 48, 64)[0].movedim(-1, 1)
    drawn = torch.Generator().manual_seed(0)
    made = torch.cat([paper.misplaced(pictures, drawn) for _ in range(4)])
    same = pictures.repeat(4, 1, 1, 1)
    assert float((made - same).abs().mean()) > 0.01
    assert_close(made.mean(dim=(0, 2, 3)), same.mean(dim=(0, 2, 3)), atol=0.02, rtol=0)
    assert made.diff(dim=-1).square().mean() < same.diff(dim=-1).square().mean()


def test_a_motion_out_of_the_part_is_known():
    vectors = torch.zeros(1, 2, 3, 4)
    vectors[0, 0, 0] = torch.tensor([-1.0, -1.0, 1.0, 1.0])
    vectors[0, 1, 2, 1] = 0.5
    wanted = torch.zeros(1, 3, 4)
    wanted[0, 0, (0, 3)] = wanted[0, 2, 1] = 1.0
    assert torch.equal(paper._left(vectors), wanted)


def test_the_refinement_is_given_what_it_left_before(clip):
    frames = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 8, 8).half() / 8.0
    seen: list[tuple[float, float, float, int | None]] = []

    def halfway(now: Tensor, before: Tensor, given: Tensor, state: int | None) -> tuple[Tensor, int]:
        seen.append((*(float(one.mean()) for one in (now, before, given)), state))
        return 0.5 * (now + given), len(seen)

    made = paper._Runs(frames, clip[2], torch.device("cpu")).refined(halfway, Progress(None))
    assert seen == [(0.125, 0.0, 0.0, None), (0.25, 0.125, 0.0625, 1), (0.375, 0.25, 0.15625, 2)]
    assert made[:, 0, 0, 0].tolist() == [0.0, 0.0625, 0.15625, 0.265625]


def test_frames_that_flicker_are_drawn_to_the_frame_before(clip):
    """Where nothing keeps them, as much of the flicker goes as the refinement has steps for."""
    frames, _, flow = clip
    still = frames[:2, :1, :1].expand(-1, HEIGHT, WIDTH, -1).repeat(4, 1, 1, 1)
    no_motion = flow.mapped(torch.zeros_like)
    torch.manual_seed(0)
    net = RefinementNet(width=8, blocks=1)
    runs = paper._Runs(still.movedim(-1, 1).half(), no_motion, torch.device("cpu"))
    before = float(runs.refined(net, Progress(None)).float().diff(dim=0).abs().mean())
    fitted = runs.train(net, 60, 0, NO_JOURNAL, Progress(None))
    after = float(runs.refined(net, Progress(None)).float().diff(dim=0).abs().mean())
    assert math.isfinite(fitted.terms["steady"])
    assert after < 0.7 * before


@pytest.mark.parametrize("shape", [(2, 16, 16), (3, 17, 90), (2, 130, 100)])
def test_any_shot_that_tasks_take(synthetic, shape):
    frames, flow = synthetic.pan(*shape)
    found = made_of((frames, frames, flow), steps=1)
    assert found.residual.shape == (shape[0], 3, *shape[1:])
    assert bool(found.residual.isfinite().all())
