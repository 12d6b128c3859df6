from __future__ import annotations

import pytest
import torch

from comfyui_vdp.vdp_core.errors import ShapeError
from comfyui_vdp.vdp_core.types import Edit, Flow, Layers


def parts(pairs: int = 2, height: int = 4, width: int = 6) -> dict[str, object]:
    return {
        "forward": torch.zeros(pairs, 2, height, width),
        "backward": torch.zeros(pairs, 2, height, width),
        "forward_occlusion": torch.zeros(pairs, height, width),
        "backward_occlusion": torch.zeros(pairs, height, width),
        "source_size": (8, 12),
    }


def test_a_flow_knows_its_length_and_size():
    flow = Flow(**parts(), method="dis")
    assert len(flow) == 2
    assert flow.size == (4, 6)
    assert repr(flow) == "Flow(2 pairs, 6x4, dis)"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("forward", torch.zeros(2, 3, 4, 6), r"must both be \(T-1, 2, h, w\), got \(2, 3, 4, 6\)"),
        ("backward", torch.zeros(1, 2, 4, 6), r"and \(1, 2, 4, 6\)"),
        ("forward_occlusion", torch.zeros(2, 4, 5), r"forward_occlusion must be \(2, 4, 6\), got \(2, 4, 5\)"),
        ("backward_occlusion", torch.zeros(2, 1, 4, 6), "backward_occlusion must be"),
    ],
)
def test_a_flow_of_parts_that_do_not_fit_is_refused(name, value, words):
    with pytest.raises(ShapeError, match=words):
        Flow(**{**parts(), name: value})


def test_layers_are_told_apart_by_identity():
    # results are kept for as long as their layers are: equal tensors in two layers must not meet
    frames = torch.zeros(3, 4, 6, 3)
    first, second = (Layers("relight", {"log_gain": torch.zeros(3, 1, 2, 2)}, frames) for _ in range(2))
    assert first != second
    assert len({first, second}) == 2
    assert len(first) == 3
    assert repr(first) == "Layers(relight, 3 frames 6x4, fields ['log_gain'])"


def test_edits_follow_one_another():
    first, second = Edit(0.5, 1.0, 0.5, (2.0, 1.0)), Edit(0.5, -0.5, 4.0, (1.0, -1.0))
    assert first.then(second) == Edit(0.25, 0.5, 2.0, (3.0, 0.0))
    assert first.then(Edit()) == Edit().then(first) == first
