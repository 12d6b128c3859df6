"""Every task goes on from its journal, and ends to the bit as if it had never been cut off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from golden_set import needed

from comfyui_vdp.vdp_core.optim import fit as fit_module
from comfyui_vdp.vdp_core.store.journal import Journal
from comfyui_vdp.vdp_core.tasks import TASKS
from comfyui_vdp.vdp_core.tasks.atlas import paper as atlas_paper
from comfyui_vdp.vdp_core.tasks.driver import decompose
from comfyui_vdp.vdp_core.types import Layers


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def always(monkeypatch):
    """Every step is kept, and the published atlas begins with few."""
    monkeypatch.setattr(atlas_paper, "LEAST", 5)
    monkeypatch.setattr(fit_module, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(fit_module, "SAVE_SHARE", float("inf"))


@pytest.fixture
def steps_run(monkeypatch) -> list[int]:
    """How many steps of Adam were taken since it was last cleared, one entry each."""
    taken: list[int] = []
    step = torch.optim.Adam.step

    def counted(self, *arguments, **named):
        taken.append(1)
        return step(self, *arguments, **named)

    monkeypatch.setattr(torch.optim.Adam, "step", counted)
    return taken


def alike(one, other) -> bool:
    """Whether layers are equal to the bit; the seconds they took may differ."""
    notes = [{name: text for name, text in layers.info.items() if name != "seconds"} for layers in (one, other)]
    same_fields = one.fields.keys() == other.fields.keys()
    return (
        same_fields
        and notes[0] == notes[1]
        and all(torch.equal(one.fields[name], other.fields[name]) for name in one.fields)
    )


def check_it_goes_on(journal: Journal, steps_run: list[int], work: Callable[..., Layers]) -> None:
    """Kill ``work(journal=..., on_step=...)`` twice, and let it end."""
    whole = work()
    all_steps = len(steps_run)
    for share in (0.3, 0.4):
        steps_run.clear()

        def kill(*_: object, share: float = share) -> None:
            if len(steps_run) >= share * all_steps:
                raise Killed

        with pytest.raises(Killed):
            work(journal=journal, on_step=kill)
    steps_run.clear()
    resumed = work(journal=journal)
    assert alike(resumed, whole)
    assert len(steps_run) <= 0.3 * all_steps + 5  # a step is kept when it is over; each part of the work may lose one
    assert alike(work(journal=journal), whole)


@pytest.mark.parametrize("cuts", [(), (4,)], ids=["one shot", "two shots"])
@pytest.mark.parametrize("task", TASKS)
def test_what_was_cut_off_goes_on(tmp_path, synthetic, always, steps_run, task, cuts):
    frames, flow = synthetic.pan(8, 48, 64)
    flow = replace(flow, cuts=cuts)
    given = {name: masks[:1] for name, masks in needed(task, frames).items()}
    work = partial(decompose, task, frames, flow, preset="balanced", steps=30, seed=1, **given)
    check_it_goes_on(Journal(tmp_path), steps_run, work)


@pytest.mark.slow
@pytest.mark.parametrize("task", [name for name, task in TASKS.items() if "paper" in task.presets])
def test_the_published_networks_go_on(tmp_path, synthetic, always, steps_run, task):
    frames, flow = synthetic.pan(4, 32, 48)
    work = partial(decompose, task, frames, flow, preset="paper", steps=6, seed=1)
    check_it_goes_on(Journal(tmp_path), steps_run, work)
