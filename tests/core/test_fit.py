from __future__ import annotations

import pytest
import torch

from comfyui_vdp.vdp_core.errors import FitError, InputError
from comfyui_vdp.vdp_core.fit import WINDOW, fit


def parabola(start: float = 3.0) -> tuple[torch.Tensor, object]:
    x = torch.tensor(start, requires_grad=True)
    return x, lambda _: {"bowl": (x - 1.0).square()}


def test_a_parabola_is_solved():
    x, step = parabola()
    fitted = fit(step, [x], steps=300, learning_rate=0.1, plateau=0.0)
    assert x.item() == pytest.approx(1.0, abs=1e-3)
    assert fitted.steps == 300
    assert fitted.stopped == "steps"
    assert fitted.seconds > 0.0
    assert fitted.terms["bowl"] < 1e-5


def test_terms_are_summed_and_told():
    x = torch.tensor(0.0, requires_grad=True)
    # the minimum of (x - 1)^2 + 3 (x - 5)^2 is at (1 + 15) / 4
    fitted = fit(
        lambda _: {"near": (x - 1).square(), "far": 3 * (x - 5).square()}, [x], steps=400, learning_rate=0.1, plateau=0
    )
    assert x.item() == pytest.approx(4.0, abs=1e-2)
    assert fitted.terms == {"near": pytest.approx(9.0, abs=0.1), "far": pytest.approx(3.0, abs=0.1)}


def test_the_first_step_of_adam_is_as_long_as_the_rate():
    x, step = parabola()
    fit(step, [x], steps=1, learning_rate=0.1)
    assert x.item() == pytest.approx(2.9, abs=1e-4)


def test_a_loss_that_stays_is_a_plateau():
    x, _ = parabola()
    fitted = fit(lambda _: {"flat": 0.0 * x + 1.0}, [x], steps=1000, learning_rate=0.1)
    assert (fitted.stopped, fitted.steps) == ("plateau", 2 * WINDOW)


def test_a_loss_that_falls_is_no_plateau():
    x = torch.tensor(1.0, requires_grad=True)
    # falls by a hundredth a step, whatever the optimiser does
    fitted = fit(lambda i: {"falling": 0.0 * x + 0.99**i}, [x], steps=150, learning_rate=0.1)
    assert (fitted.stopped, fitted.steps) == ("steps", 150)


def test_a_growing_loss_stops_too():
    x = torch.tensor(1.0, requires_grad=True)
    assert fit(lambda i: {"growing": 0.0 * x + i}, [x], steps=1000, learning_rate=0.1).stopped == "plateau"


def test_the_schedule_sets_the_rate():
    x, _ = parabola(0.0)
    asked = []

    def schedule(progress: float) -> float:
        asked.append(progress)
        return 1.0 if progress < 0.5 else 0.0

    places = []

    def step(_: int) -> dict[str, torch.Tensor]:
        places.append(x.item())
        return {"slope": -x}

    fit(step, [x], steps=4, learning_rate=0.1, schedule=schedule)
    assert asked == [0.0, 0.25, 0.5, 0.75]
    assert places == pytest.approx([0.0, 0.1, 0.2, 0.2], abs=1e-6)
    assert x.item() == pytest.approx(0.2, abs=1e-6)


def test_without_a_schedule_the_rate_falls_evenly():
    x, _ = parabola(0.0)
    fit(lambda _: {"slope": -x}, [x], steps=4, learning_rate=0.1)
    assert x.item() == pytest.approx(0.1 * (4 - 0.98 * (0.25 + 0.5 + 0.75)), abs=1e-5)


def test_every_step_is_told_with_a_preview():
    x, step = parabola()
    told = []
    picture = torch.rand(2, 3, 3)
    fit(
        step,
        [x],
        steps=5,
        learning_rate=0.1,
        preview=lambda: picture,
        on_step=lambda done, total, preview: told.append((done, total, preview())),
    )
    assert [entry[:2] for entry in told] == [(done, 5) for done in range(1, 6)]
    assert all(entry[2] is picture for entry in told)


def test_the_host_may_stop_it():
    class Stop(BaseException):
        pass

    x, step = parabola()
    told = []

    def stop(done: int, *_: object) -> None:
        told.append(done)
        if done == 3:
            raise Stop

    with pytest.raises(Stop):
        fit(step, [x], steps=100, learning_rate=0.1, on_step=stop)
    assert told == [1, 2, 3]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_refused(value):
    x, _ = parabola()
    with pytest.raises(FitError, match="diverged at step 3; try another seed or preset"):
        fit(lambda i: {"loss": x * (1.0 if i < 2 else value)}, [x], steps=10, learning_rate=0.1)


@pytest.mark.parametrize("steps", [0, -1])
def test_no_steps_are_refused(steps):
    x, step = parabola()
    with pytest.raises(InputError, match=f"steps: at least 1 needed, got {steps}"):
        fit(step, [x], steps=steps, learning_rate=0.1)
