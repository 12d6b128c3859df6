from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from comfyui_vdp.vdp_core.edit.composite import composite
from comfyui_vdp.vdp_core.errors import InputError, LayersFileError, ShapeError
from comfyui_vdp.vdp_core.metrics import iou, psnr
from comfyui_vdp.vdp_core.models import masks
from comfyui_vdp.vdp_core.models.file import load_layers, save_layers
from comfyui_vdp.vdp_core.models.rebuild import reconstruct
from comfyui_vdp.vdp_core.motion.flow import estimate_flow
from comfyui_vdp.vdp_core.optim.progress import Progress
from comfyui_vdp.vdp_core.store.journal import NO_JOURNAL
from comfyui_vdp.vdp_core.tasks import TASKS
from comfyui_vdp.vdp_core.tasks.base import Work
from comfyui_vdp.vdp_core.tasks.driver import decompose
from comfyui_vdp.vdp_core.tasks.given import check_masks
from comfyui_vdp.vdp_core.tasks.segment import layer_flow, motion
from comfyui_vdp.vdp_core.types import Flow, Layers, Shot

COUNT, HEIGHT, WIDTH = 10, 96, 160
FIELDS = ("masks", "before", "after")


@dataclass(frozen=True)
class Case:
    """A rendered clip and what was found in it."""

    frames: torch.Tensor
    flow: Flow
    masks: torch.Tensor
    """The true ones, ``(T, L, H, W)``."""
    layers: Layers


def true(masks: torch.Tensor, layer: int) -> torch.Tensor:
    return (masks[:, layer] > 0.5).float()


def cut(masks: torch.Tensor, layer: int) -> torch.Tensor:
    """A found layer of zeros and ones, at the clip's size."""
    return (F.interpolate(masks[:, layer : layer + 1], size=(HEIGHT, WIDTH), mode="bilinear")[:, 0] > 0.5).float()


@pytest.fixture(scope="module")
def two(synthetic) -> Case:
    """Two objects that keep apart, in a layer each."""
    clip = synthetic.layered(COUNT, HEIGHT, WIDTH)
    layers = decompose("segment", clip.frames, clip.flow, preset="fast", layers=3)
    return Case(clip.frames, clip.flow, clip.masks, layers)


@pytest.fixture(scope="module")
def single(synthetic) -> Case:
    """One object, and its mask in frame 3 given."""
    clip = synthetic.layered(COUNT, HEIGHT, WIDTH, objects=1, seed=2)
    mask = (clip.masks[3:4, 1] > 0.5).float()
    layers = decompose("segment", clip.frames, clip.flow, preset="fast", mask=mask, mask_frame=3)
    return Case(clip.frames, clip.flow, clip.masks, layers)


@pytest.fixture(scope="module")
def little(synthetic) -> Case:
    """For what needs no good result."""
    clip = synthetic.layered(4, 48, 80)
    layers = decompose("segment", clip.frames, clip.flow, preset="fast", steps=3)
    return Case(clip.frames, clip.flow, clip.masks, layers)


def quick(case: Case, **settings: object) -> Layers:
    """A few steps: enough where the result need not be good."""
    return decompose("segment", case.frames, case.flow, preset="fast", steps=3, **settings)


# how good it is


def test_each_object_gets_a_layer(two):
    masks = two.layers.fields["masks"]
    agreement = torch.tensor([[iou(cut(masks, k), true(two.masks, j)) for j in (1, 2)] for k in (1, 2)])
    assert sorted(agreement.argmax(dim=1).tolist()) == [0, 1]
    assert agreement.amax(dim=1).min() > 0.75
    assert agreement.amin(dim=1).max() < 0.05
    assert iou(1.0 - cut(masks, 0), 1.0 - true(two.masks, 0)) > 0.8


def test_two_layers_put_all_objects_together(two):
    masks = quick(two).fields["masks"]
    assert masks.shape[1] == 2
    assert iou(cut(masks, 1), 1.0 - true(two.masks, 0)) > 0.7


def test_layers_beyond_the_objects_are_empty_and_told_so(two):
    layers = quick(two, layers=4)
    masks = layers.fields["masks"]
    assert masks.shape[1] == 4
    assert masks[:, 3].max() == 0.0
    assert all(masks[:, layer].max() > 0.9 for layer in range(3))
    assert layers.info["warning"] == "only 2 moving objects found: the layers after it are empty"


@pytest.mark.slow
def test_objects_that_cross_keep_their_layers(synthetic):
    clip = synthetic.layered(16, HEIGHT, WIDTH, crossing=True)
    masks = decompose("segment", clip.frames, clip.flow, preset="fast", layers=3).fields["masks"]
    whole = [[iou(cut(masks, k), true(clip.masks, j)) for j in (1, 2)] for k in (1, 2)]
    owner = torch.tensor(whole).argmax(dim=1).tolist()
    assert sorted(owner) == [0, 1]
    for ends in (slice(0, 4), slice(-4, None)):
        for number, found in enumerate(owner):
            assert iou(cut(masks, 1 + number)[ends], true(clip.masks, 1 + found)[ends]) > 0.75


def moving_strip(widths: list[int], steps: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    """Motion to the right and masks of a strip that shows so many pixels of itself in each frame."""
    masks = torch.zeros(len(widths), 40, 60)
    for mask, width in zip(masks, widths, strict=True):
        mask[:, :width] = 1.0
    vectors = torch.zeros(len(steps), 2, 40, 60)
    vectors[:, 0] = torch.tensor(steps)[:, None, None]
    return vectors, masks


def test_a_layer_that_is_hidden_for_a_while_moves_as_before_and_after():
    vectors, masks = moving_strip([30, 30, 10, 30], [2.0, 2.0, 9.0, 4.0])
    ways = layer_flow._extended_flow(vectors, torch.ones_like(vectors[:, 0]), masks)
    assert_close(ways[:, 0].mean(dim=(1, 2)), torch.tensor([2.0, 2.0, 3.0, 4.0]))


def test_a_layer_that_has_hardly_entered_moves_as_it_does_later():
    vectors, masks = moving_strip([2, 4, 40, 40], [-1.0, -1.0, 5.0, 5.0])
    ways = layer_flow._extended_flow(vectors, torch.ones_like(vectors[:, 0]), masks)
    assert_close(ways[:, 0].mean(dim=(1, 2)), torch.full((4,), 5.0))


def test_a_layer_that_grows_is_not_taken_for_hidden():
    vectors, masks = moving_strip([10, 20, 30, 50], [2.0, 4.0, 6.0, 8.0])
    ways = layer_flow._extended_flow(vectors, torch.ones_like(vectors[:, 0]), masks)
    assert_close(ways[:, 0].mean(dim=(1, 2)), torch.tensor([2.0, 4.0, 6.0, 8.0]))


def test_a_pan_alone_has_an_empty_foreground_and_is_told_so(synthetic):
    frames, flow = synthetic.pan(4, 48, 80)
    layers = decompose("segment", frames, flow, preset="fast", layers=3)
    masks = layers.fields["masks"]
    assert masks.shape[:2] == (4, 3)
    assert bool((masks[:, 0] == 1.0).all())
    assert masks[:, 1:].max() == 0.0
    assert "nothing moves by itself" in layers.info["warning"]
    assert layers.info["steps"] == "0"
    assert psnr(reconstruct(layers), frames) > 35


# masks that are given


def test_a_given_mask_comes_back_and_is_followed(single):
    masks = single.layers.fields["masks"]
    assert iou(cut(masks, 1)[3:4], true(single.masks, 1)[3:4]) > 0.9
    assert iou(cut(masks, 1), true(single.masks, 1)) > 0.75
    assert "warning" not in single.layers.info


def test_empty_frames_of_masks_are_guided_by_the_others(single):
    mask = true(single.masks, 1)
    given = [0, COUNT - 1]
    mask[1:-1] = 0.0
    masks = quick(single, mask=mask).fields["masks"]
    assert iou(cut(masks, 1)[given], true(single.masks, 1)[given]) > 0.9
    assert iou(cut(masks, 1)[1:-1], true(single.masks, 1)[1:-1]) > 0.7


def test_ids_of_one_frame_are_objects_of_the_clip(two):
    labels = two.masks[4:5].argmax(dim=1).float()
    pictures = (labels / 255)[..., None].expand(-1, -1, -1, 3)
    layers = decompose("segment", two.frames, two.flow, preset="fast", layers=3, mask=pictures, mask_frame=4)
    found = layers.fields["masks"]
    assert found.shape[1] == 3
    for number in (1, 2):
        assert iou(cut(found, number)[4:5], true(two.masks, number)[4:5]) > 0.85
        assert iou(cut(found, number), true(two.masks, number)) > 0.7
    assert "warning" not in layers.info


def test_ids_keep_their_numbers_in_windows(two):
    """The other way round, and carried from one window to the next."""
    labels = (3.0 - two.masks[1:2].argmax(dim=1)) % 3.0
    task = TASKS["segment"]
    config = replace(task.presets["fast"].config, window=6, steps=60)
    given = {**dict.fromkeys(("reference", "reference_frame")), "layers": 3, "mask": labels, "mask_frame": 1}
    pictures = (labels / 255)[..., None].expand(-1, -1, -1, 3)
    checked = {one.name: one.check({**given, "mask": pictures}, two.frames) for one in task.inputs}
    checked = task.prepare(two.frames, checked, config)
    work = Work(0, torch.device("cpu"), (), NO_JOURNAL, Progress(None))
    found = task.find(Shot(two.frames, two.flow, range(COUNT)), checked, config, work).fields["masks"]
    assert iou(cut(found, 1), true(two.masks, 2)) > 0.6
    assert iou(cut(found, 2), true(two.masks, 1)) > 0.6


def test_with_two_layers_all_ids_are_one_object(little):
    labels = little.masks[1:2].argmax(dim=1).float()
    pictures = (labels / 255)[..., None].expand(-1, -1, -1, 3)
    both = quick(little, mask=(labels > 0).float(), mask_frame=1).fields["masks"]
    assert_close(quick(little, mask=pictures, mask_frame=1).fields["masks"], both)


def test_more_objects_than_layers_join_the_last(little):
    ids = torch.arange(4.0).repeat_interleave(20) / 255.0
    given = {"layers": 3, "mask": ids[None, None, :, None].expand(1, 48, 80, 3), "mask_frame": 0}
    by_frame = check_masks(given, little.frames)
    assert by_frame is not None
    assert_close(by_frame[0][:, 0, ::20], torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]]))


def test_a_mask_of_another_size_and_a_picture_of_one_will_do(little):
    mask = true(little.masks, 1)[1:2]
    plain = quick(little, mask=mask, mask_frame=1).fields["masks"]
    large = mask.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    picture = large[..., None].expand(-1, -1, -1, 3) / 255
    assert_close(quick(little, mask=large, mask_frame=1).fields["masks"], plain, atol=1e-3, rtol=0)
    assert_close(quick(little, mask=picture, mask_frame=1).fields["masks"], plain, atol=1e-3, rtol=0)
    assert torch.equal(quick(little, mask=mask[0], mask_frame=1).fields["masks"], plain)


def textured(count: int) -> tuple[torch.Tensor, Flow]:
    """A grey scene, and the flow of one in which nothing moves."""
    frames = 0.3 + 0.2 * torch.rand(HEIGHT // 8, WIDTH // 8, 1, generator=torch.Generator().manual_seed(0))
    frames = F.interpolate(frames.movedim(-1, 0)[None], size=(HEIGHT, WIDTH), mode="bicubic")[0].movedim(0, -1)
    still, seen = torch.zeros(count - 1, 2, HEIGHT, WIDTH), torch.zeros(count - 1, HEIGHT, WIDTH)
    return frames.clamp(0, 1).expand(count, -1, -1, 3).clone(), Flow(still, still, seen, seen, (HEIGHT, WIDTH))


RED = torch.tensor([0.8, 0.1, 0.1])


def test_colour_finds_an_object_that_the_flow_has_lost():
    frames, flow = textured(6)
    truth = torch.zeros(6, HEIGHT, WIDTH)
    for index in range(6):
        left = 20 + 15 * index
        truth[index, 30:60, left : left + 30] = 1.0
    frames[truth > 0.5] = RED
    layers = decompose("segment", frames, flow, preset="fast", mask=truth[:1])
    assert iou(cut(layers.fields["masks"], 1), truth) > 0.8


def test_masks_are_carried_from_frame_to_frame_where_nothing_else_tells():
    frames, still, seen = torch.full((4, 48, 80, 3), 0.5), torch.zeros(3, 2, 48, 80), torch.zeros(3, 48, 80)
    mask = torch.zeros(1, 48, 80)
    mask[:, 10:35, 20:50] = 1.0
    layers = decompose("segment", frames, Flow(still, still, seen, seen, (48, 80)), preset="fast", mask=mask)
    assert iou((layers.fields["masks"][:, 1] > 0.5).float(), mask.expand(4, -1, -1)) > 0.9


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_a_flat_clip_has_an_empty_foreground_and_is_told_so(level):
    frames = torch.full((4, 48, 80, 3), level)
    layers = decompose("segment", frames, estimate_flow(frames, model="dis"), preset="fast")
    assert layers.fields["masks"][:, 1].max() == 0.0
    assert "the foreground is empty" in layers.info["warning"]


@pytest.mark.parametrize("seed", [0, 1, 6])
def test_noise_has_an_empty_foreground_and_is_told_so(seed):
    noise = 0.02 * torch.randn(10, 96, 160, 3, generator=torch.Generator().manual_seed(seed))
    frames = (0.5 + noise).clamp(0, 1)
    layers = decompose("segment", frames, estimate_flow(frames, model="dis"), preset="fast")
    assert layers.fields["masks"][:, 1].max() == 0.0
    assert_close(layers.fields["masks"].sum(dim=1), torch.ones(10, 96, 160))
    assert "the foreground is empty" in layers.info["warning"]


@pytest.mark.parametrize("index", [0, 3, 5])
def test_one_black_frame_is_no_hindrance(synthetic, index):
    frames, _ = synthetic.pan(6, 48, 80)
    frames[index] = 0.0
    layers = decompose("segment", frames, estimate_flow(frames, model="dis"), preset="fast", steps=2)
    assert all(bool(field.isfinite().all()) for field in layers.fields.values())
    assert psnr(reconstruct(layers), frames) > 35


# what is in the layers


def test_the_layers_say_how_they_were_made(two):
    layers = two.layers
    assert (layers.model, layers.seed, len(layers)) == ("segment", 0, COUNT)
    assert layers.frames.data_ptr() == two.frames.data_ptr()
    assert layers.flow is two.flow
    height, width = layers.fields["masks"].shape[2:]
    assert layers.fields["masks"].shape[:2] == (COUNT, 3)
    assert layers.fields["before"].shape == layers.fields["after"].shape == (COUNT, 3, height, width)
    assert not any(field.requires_grad for field in layers.fields.values())
    assert layers.info["preset"] == "fast"
    assert 0 < int(layers.info["steps"]) <= TASKS["segment"].presets["fast"].config.steps
    assert "objects cover" in layers.info["said"]
    assert "warning" not in layers.info
    masks.MODEL.check(layers)


def test_masks_sum_to_one_and_the_background_is_first(two, single):
    for case in (two, single):
        masks = case.layers.fields["masks"]
        assert masks.min() >= 0.0
        assert_close(masks.sum(dim=1), torch.ones_like(masks[:, 0]), atol=1e-5, rtol=0)
        border = torch.cat((masks[:, 0, 0], masks[:, 0, -1]), dim=1)
        assert border.mean() > 0.95
        assert masks[:, 0].mean() > masks[:, 1:].sum(dim=1).mean()


def test_the_background_behind_an_object_that_moves_is_seen_elsewhere(two):
    masks, before, after = (two.layers.fields[name] for name in FIELDS)
    covered = masks[:, 0] < 0.5
    seen = (before[:, 2] > 0) | (after[:, 2] > 0)
    # in so few frames an object uncovers only what is near its border
    assert float(seen[covered].float().mean()) > 0.1
    assert float(before[0, 2].max()) == float(after[-1, 2].max()) == 0.0


def test_the_input_can_be_rebuilt(two, single, little):
    for case in (two, single, little):
        assert psnr(reconstruct(case.layers), case.frames) > 35
        assert psnr(composite(case.layers)[0], case.frames) > 35
        composed = masks.compose(case.layers, 1, 3, case.frames[1:3])
        assert composed.shape == case.frames[1:3].shape
        assert psnr(masks.rebuild(case.layers, 1, 3, composed), case.frames[1:3]) > 35


def test_layers_are_saved_and_loaded(little, tmp_path):
    layers = load_layers(save_layers(little.layers, tmp_path / "objects.safetensors"))
    for name in FIELDS:
        assert_close(layers.fields[name], little.layers.fields[name], atol=1e-2, rtol=1e-2)
    assert psnr(composite(layers)[0], composite(little.layers)[0]) > 40


@pytest.mark.parametrize("size", [(16, 16), (17, 33), (16, 90), (90, 17)])
def test_any_size_and_two_frames(synthetic, size):
    frames, flow = synthetic.pan(2, *size)
    layers = decompose("segment", frames, flow, preset="fast", steps=2)
    assert all(field.isfinite().all() for field in layers.fields.values())
    assert psnr(reconstruct(layers), frames) > 35


@pytest.mark.parametrize("guided", [False, True])
def test_the_same_seed_gives_the_same_layers(little, guided):
    given = {"mask": true(little.masks, 1)[:1]} if guided else {}
    first, again, other = (quick(little, seed=seed, **given) for seed in (4, 4, 5))
    for name in FIELDS:
        assert torch.equal(first.fields[name], again.fields[name])
    assert first.info["loss_labels"] == again.info["loss_labels"] != other.info["loss_labels"]


def test_random_numbers_of_others_are_left_alone(little, monkeypatch):
    def reseeded(seed: int) -> None:
        raise AssertionError("the GPUs' random numbers were started anew")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", reseeded)
    before = torch.random.get_rng_state()
    quick(little)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_largest_seed_will_do(little):
    layers = decompose("segment", little.frames, little.flow, preset="balanced", steps=2, seed=2**64 - 1)
    assert layers.seed == 2**64 - 1


def test_nothing_given_is_changed(little):
    mask = true(little.masks, 1)
    kept = little.frames.clone(), little.flow.forward.clone(), mask.clone()
    composite(quick(little, mask=mask))
    assert torch.equal(little.frames, kept[0])
    assert torch.equal(little.flow.forward, kept[1])
    assert torch.equal(mask, kept[2])


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_a_device_may_be_named(little, device):
    layers = quick(little, device=device)
    assert torch.equal(layers.fields["masks"], little.layers.fields["masks"])
    assert layers.fields["masks"].device.type == "cpu"


# steps and interruption


class Stop(BaseException):
    """What a host raises to interrupt."""


@pytest.mark.parametrize("preset", ["fast", "balanced"])
def test_progress_never_exceeds_its_total(little, preset):
    told = []
    decompose(
        "segment",
        little.frames,
        little.flow,
        preset=preset,
        steps=3,
        on_step=lambda done, total, preview: told.append((done, total, preview)),
    )
    assert all(0 < done <= total for done, total, _ in told)
    assert any(done == total for done, total, _ in told)
    pictures = [preview() for *_, preview in told if preview is not None]
    assert pictures
    for picture in pictures:
        assert picture.ndim == 3
        assert picture.shape[2] == 3
        assert 0.0 <= picture.min() <= picture.max() <= 1.0


def test_an_interruption_comes_through_wherever_it_is_raised(little):
    told = []
    quick(little, on_step=lambda *step: told.append(step))
    for last in (1, len(told) // 2, len(told)):
        calls = 0

        def stop(*_: object, last: int = last) -> None:
            nonlocal calls
            calls += 1
            if calls == last:
                raise Stop

        with pytest.raises(Stop):
            quick(little, on_step=stop)
        assert calls == last


# refusals


def speck() -> torch.Tensor:
    """A mask of a few pixels of a large picture."""
    mask = torch.zeros(1, 1080, 1800)
    mask[:, 500:504, 900:904] = 1.0
    return mask


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"frames": torch.rand(1, 48, 80, 3)}, ShapeError, "got 1 frame, motion needs at least two frames"),
        ({"frames": torch.rand(5, 48, 80, 3)}, ShapeError, "holds 3 frame pairs, a clip of 5 frames has 4"),
        ({"frames": torch.rand(4, 1, 1, 3)}, ShapeError, "1x1 pixels, at least 16x16 needed"),
        ({"flow": None}, InputError, "flow: the task segment needs the motion of the clip; link RAFTFlow"),
        ({"preset": "best"}, InputError, "no 'best'; known: fast, balanced, quality, paper"),
        ({"steps": -1}, InputError, "steps: 0 for the preset's, or more, got -1"),
        ({"layers": 1}, InputError, "layers: 2 to 4, the background included, got 1"),
        ({"layers": 5}, InputError, "layers: 2 to 4, the background included, got 5"),
        ({"reference": torch.rand(1, 48, 80, 3)}, InputError, "reference: the task segment takes none; unlink it"),
        ({"mask": torch.ones(3, 48, 80)}, ShapeError, "mask: one, or one for each of the 4 frames, got 3"),
        ({"mask": torch.zeros(1, 48, 80)}, InputError, "mask: it is empty everywhere; paint the object white"),
        ({"mask": torch.zeros(4, 48, 80)}, InputError, "mask: it is empty everywhere; paint the object white"),
        ({"mask": torch.zeros(4, 48, 80, 3)}, InputError, "mask: it is empty everywhere; paint the object white"),
        ({"mask": speck()}, InputError, "mask: what it shows is smaller than a pixel at the working size, 80x48"),
        ({"mask": torch.ones(1, 48, 48)}, ShapeError, "mask: it is 48x48 pixels, the frames are 80x48"),
        ({"mask": torch.ones(1, 48, 80), "mask_frame": 4}, InputError, "mask_frame: 0 to 3 in this clip, got 4"),
        ({"mask": torch.ones(1, 48, 80), "mask_frame": -1}, InputError, "mask_frame: 0 to 3 in this clip, got -1"),
        (
            {"mask": torch.ones(1, 48, 80), "layers": 3},
            InputError,
            "layers: with a mask of one object there are 2,.* got 3",
        ),
        ({"mask": torch.ones(1, 48, 80), "preset": "paper"}, InputError, "mask: the preset 'paper' takes none"),
        ({"mask": torch.full((1, 48, 80), torch.nan)}, InputError, "mask: holds NaN or infinite values"),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_step(little, settings, error, words):
    def never(*_: object) -> None:
        raise AssertionError("work was started")

    with pytest.raises(error, match=words) as refused:
        decompose("segment", **{"frames": little.frames, "flow": little.flow, "on_step": never, **settings})
    assert "\n" not in str(refused.value)


def test_layers_without_masks_are_refused(little):
    left = {key: value for key, value in little.layers.fields.items() if key != "masks"}
    with pytest.raises(LayersFileError, match="masks"):
        masks.MODEL.check(replace(little.layers, fields=left))


def test_what_stands_before_the_background_is_unlike_what_far_frames_show_there():
    """A plain square that moves by 4 pixels a frame before plain ground that stands still."""
    count = 10
    small = torch.full((count, 3, 48, 96), 0.3)
    labels = torch.zeros(count, 2, 48, 96)
    for index in range(count):
        labels[index, 1, 16:32, 4 + 4 * index : 20 + 4 * index] = 1.0
    labels[:, 0] = 1.0 - labels[:, 1]
    small += 0.5 * labels[:, 1:]
    none, seen = torch.zeros(count - 1, 2, 48, 96), torch.zeros(count - 1, 48, 96)
    evidence = layer_flow.LayerFlows(labels, Flow(none, none, seen, seen, (48, 96))).background_evidence(small, labels)
    unlike, shown = evidence.float().unbind(dim=1)
    index = 5
    inside = labels[index, 1] > 0.5
    assert float(unlike[index][20:28, 28:36].min()) > 3.0  # log of 0.51 over 0.01
    assert float(unlike[index][~inside].median()) == pytest.approx(0.0, abs=1e-3)
    assert float(shown[index].min()) > 0.0
    assert bool(evidence.isfinite().all())


@pytest.mark.parametrize("sway", [0.0, 0.8])
def test_what_moves_with_an_object_but_not_as_steadily_is_none_of_it(sway):
    """A square, and below it another that moves alike in the mean, before ground that trembles."""
    count, height, width = 17, 96, 128
    forward, backward = 0.2 * torch.randn(2, count - 1, 2, height, width, generator=torch.Generator().manual_seed(0))
    above, below = torch.zeros(2, count, height, width, dtype=torch.bool)
    for index in range(count):
        across = slice(20 + 2 * index, 52 + 2 * index)
        above[index, 24:48, across] = below[index, 48:72, across] = True
    for index in range(count - 1):
        for where, speed in ((above, 2.0), (below, 2.0 + sway * (1, 1, -1, -1)[index % 4])):
            forward[index][:, where[index]] = torch.tensor([[speed], [0.0]])
            backward[index][:, where[index + 1]] = torch.tensor([[-speed], [0.0]])
    seen = torch.zeros(count - 1, height, width)
    flow = Flow(forward, backward, seen, seen, (height, width))
    found = motion.MotionTracks(flow, 1, torch.device("cpu"), Progress(None)).labels((height, width))[:, 1]
    assert float(found[above].mean()) > 0.9
    assert float(found[below].mean()) > 0.9 if sway == 0.0 else float(found[below].mean()) < 0.1
