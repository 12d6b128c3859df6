from __future__ import annotations

import math

import pytest
import torch
from torchvision.models import vgg16

from comfyui_vdp.vdp_core.degrade import darken
from comfyui_vdp.vdp_core.errors import InputError, ShapeError, WeightsError
from comfyui_vdp.vdp_core.models import light
from comfyui_vdp.vdp_core.store.journal import NO_JOURNAL
from comfyui_vdp.vdp_core.tasks import paper
from comfyui_vdp.vdp_core.tasks.dehaze import paper as haze_paper
from comfyui_vdp.vdp_core.tasks.driver import decompose
from comfyui_vdp.vdp_core.tasks.relight import paper as light_paper
from comfyui_vdp.vdp_core.tasks.segment import paper as masks_paper
from comfyui_vdp.vdp_core.types import Flow, Layers

STEPS = 6


@pytest.fixture(autouse=True)
def no_weights(tmp_path, monkeypatch):
    """A torch hub without weights."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


@pytest.fixture(scope="module")
def dark(synthetic) -> tuple[torch.Tensor, Flow]:
    clean, flow = synthetic.pan(5, 32, 48)
    return darken(clean, seed=0)[0], flow


def published(clip: tuple[torch.Tensor, Flow], steps: int = STEPS, **settings: object) -> Layers:
    return decompose("relight", *clip, preset="paper", steps=steps, **settings)


def test_a_few_steps(dark):
    told = []
    layers = published(dark, on_step=lambda done, total, preview: told.append((done, total, preview().shape)))
    assert told == [(done, STEPS, (32, 48, 3)) for done in range(1, STEPS + 1)]
    assert layers.info["preset"] == "paper"
    assert layers.info["steps"] == str(STEPS)
    assert layers.info["perceptual"] == "gradients and SSIM"
    assert {"loss_reconstruction", "loss_perceptual", "loss_warp"} <= set(layers.info)
    field = layers.fields["log_gain"]
    assert field.shape == (5, 1, 32, 48)
    # 1/A is the output of a sigmoid, so that the light is only ever raised
    assert field.min() >= 0.0
    assert field.max() <= -math.log(paper.DARKEST) + 1e-4
    assert not layers.fields["colour"].any()
    light.MODEL.check(layers)
    assert light.apply(layers, denoise=0.0).mean() > dark[0].mean()


@pytest.mark.parametrize("shape", [(5, 32, 48), (2, 16, 16), (2, 17, 33)])
def test_it_learns_at_any_size(synthetic, shape):
    clean, flow = synthetic.pan(*shape)
    dark = darken(clean, seed=0)[0], flow
    first, last = (float(published(dark, steps).info["loss_reconstruction"]) for steps in (1, 12))
    assert last < 0.8 * first


def test_it_starts_from_the_published_gamma(dark):
    # one step of Adam at a hundredth of the rate hardly moves it
    assert float(published(dark, 1).fields["gamma"][0]) == pytest.approx(1 / light_paper.INVERSE_GAMMA, rel=1e-3)


def test_a_hundred_epochs_of_batches_by_default(dark):
    class Stop(BaseException):
        pass

    totals = []

    def stop(done: int, total: int, preview: object) -> None:
        totals.append(total)
        raise Stop

    with pytest.raises(Stop):
        published(dark, 0, on_step=stop)
    assert totals == [200]  # 5 frames are 2 batches of 4


@pytest.mark.parametrize(
    ("progress", "factor"),
    [
        (0.0, 0.01),
        (0.025, 0.505),
        (0.0499, 0.998),
        (0.05, 0.5),
        (0.2, 0.25),
        (0.5, 0.125),
        (0.8, 0.0625),
        (1.0, 0.0625),
    ],
)
def test_the_published_schedule(progress, factor):
    assert paper._schedule(progress) == pytest.approx(factor, rel=1e-2)


def test_the_same_seed_gives_the_same_layers(dark):
    first, again, other = (published(dark, 2, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.fields["log_gain"], again.fields["log_gain"])
    assert torch.equal(first.fields["gamma"], again.fields["gamma"])
    assert not torch.equal(first.fields["log_gain"], other.fields["log_gain"])


def test_random_numbers_of_others_are_left_alone(dark):
    before = torch.random.get_rng_state()
    published(dark, 1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_vgg_is_used_where_its_weights_are(dark, tmp_path):
    with torch.device("meta"):
        shapes = vgg16(weights=None).features[:16].state_dict()
    torch.manual_seed(0)
    weights = {f"features.{name}": 0.05 * torch.randn(value.shape) for name, value in shapes.items()}
    torch.save(weights, tmp_path / "vgg16-test.pth")
    assert published(dark, 1, weights_folders=(tmp_path,)).info["perceptual"] == "vgg16"
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "vgg16-test.pth")
    with pytest.raises(WeightsError, match="do not fit torchvision's vgg16"):
        published(dark, 1, weights_folders=(tmp_path,))


def test_a_reference_is_refused(dark):
    with pytest.raises(InputError, match="the preset 'paper' takes none; choose another preset, or unlink it"):
        published(dark, reference=dark[0][:1])


def test_frames_too_narrow_for_the_nets_are_refused(synthetic):
    with pytest.raises(ShapeError, match=r"1000x16 pixels are too long and narrow .* choose another preset"):
        published(synthetic.pan(2, 16, 1000), 1)


# haze and objects

CALL = {"seed": 0, "device": "cpu", "weights_folders": (), "journal": NO_JOURNAL, "on_step": None}


@pytest.fixture(scope="module")
def plain(synthetic) -> tuple[torch.Tensor, Flow]:
    return synthetic.pan(5, 16, 24)


def test_haze(plain):
    frames, flow = plain
    airlight = torch.linspace(0.7, 0.9, 15).view(5, 3)
    told = []
    found = haze_paper.dehaze(
        frames, flow, airlight=airlight, steps=2, **{**CALL, "on_step": lambda *step: told.append(step[:2])}
    )
    assert told == [(1, 2), (2, 2)]
    assert found.transmission.shape == (5, 1, 16, 24)
    assert found.transmission.min() > 0.0
    assert found.transmission.max() <= 1.0
    assert torch.equal(found.airlight[..., 0, 0], airlight)
    assert set(found.fitted.terms) == {"reconstruction", "perceptual", "warp"}
    assert found.notes == {"perceptual": "gradients and SSIM"}
    again = haze_paper.dehaze(frames, flow, airlight=airlight, steps=2, **CALL)
    assert torch.equal(found.transmission, again.transmission)


@pytest.mark.parametrize("layers", [2, 3])
def test_masks(plain, layers):
    frames, flow = plain
    found = masks_paper.segment(frames, flow, layers=layers, steps=2, **CALL)
    assert found.masks.shape == (5, layers, 16, 24)
    assert found.masks.min() >= 0.0
    assert (found.masks.sum(dim=1) - 1.0).abs().max() < 1e-5
    terms = {"reconstruction", "perceptual", "warp", "layer", "flow_similarity", "binarisation"}
    assert set(found.fitted.terms) == terms
    assert found.notes == {"perceptual": "gradients and SSIM", "flow_similarity": "mean colours of the flow"}
    again = masks_paper.segment(frames, flow, layers=layers, steps=2, **CALL)
    assert torch.equal(found.masks, again.masks)


def test_looking_on_changes_nothing(plain):
    seen, unseen = (
        masks_paper.segment(*plain, layers=2, steps=4, **{**CALL, "on_step": on_step}).masks
        for on_step in (lambda done, total, preview: preview(), None)
    )
    assert torch.equal(seen, unseen)


def test_segmentation_learns(plain):
    frames, flow = plain
    first, last = (
        sum(masks_paper.segment(frames, flow, layers=2, steps=steps, **CALL).fitted.terms.values()) for steps in (1, 12)
    )
    assert last < 0.8 * first


def test_masks_of_two_layers_are_the_published_ones():
    alpha = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(masks_paper._sum_to_one(alpha), torch.cat((1 - alpha, alpha), dim=1))
    three = masks_paper._sum_to_one(torch.tensor([0.5, 1.0]).view(1, 2, 1, 1))
    assert three.flatten().tolist() == pytest.approx([0.0, 1 / 3, 2 / 3])


def test_the_layer_along_the_border_comes_first():
    masks = torch.zeros(2, 3, 8, 8)
    masks[:, 1] = 1.0
    masks[:, 1, 2:6, 2:6], masks[:, 0, 2:6, 2:4], masks[:, 2, 2:6, 4:6] = 0.0, 1.0, 1.0
    assert torch.equal(masks_paper._background_first(masks), masks[:, [1, 0, 2]])


def test_batches_of_two_for_objects(plain):
    class Stop(BaseException):
        pass

    totals = []

    def stop(done: int, total: int, preview: object) -> None:
        totals.append((total, preview().shape))
        raise Stop

    with pytest.raises(Stop):
        masks_paper.segment(*plain, layers=2, steps=0, **{**CALL, "on_step": stop})
    assert totals == [(300, (16, 24, 3))]
