from __future__ import annotations

import torch

from comfyui_vdp.vdp_core.store.memo import Memo, digest


def test_a_digest_tells_values_shapes_and_types_apart():
    values = torch.arange(6.0)
    same = {digest(values, 1, "a"), digest(values.clone(), 1, "a"), digest(torch.arange(12.0)[:6], 1, "a")}
    assert len(same) == 1
    others = [digest(values.view(2, 3), 1, "a"), digest(values.int(), 1, "a"), digest(values, 1.0, "a")]
    others += [digest(values, "1", "a"), digest(values + 1e-6, 1, "a"), digest(values, 1, None)]
    assert len({*others, *same}) == 7


def test_the_same_is_made_once_and_the_oldest_is_forgotten():
    made = []

    def make(value: float):
        def now() -> torch.Tensor:
            made.append(value)
            return torch.full((4,), value)

        return now

    memo = Memo(most=2 * 16)
    for value in (1.0, 2.0, 1.0, 3.0, 1.0, 2.0):
        assert memo(digest(value), make(value)).tolist() == [value] * 4
    assert made == [1.0, 2.0, 3.0, 2.0]
    memo.clear()
    memo(digest(1.0), make(1.0))
    assert made[-1] == 1.0


def test_what_is_larger_than_the_room_is_still_given():
    assert Memo(most=4)(digest(1), lambda: torch.ones(8)).sum() == 8.0
