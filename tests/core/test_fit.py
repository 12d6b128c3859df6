from __future__ import annotations

import time

import pytest
import torch

from comfyui_vdp.vdp_core.errors import FitError, InputError
from comfyui_vdp.vdp_core.optim import fit as fit_module
from comfyui_vdp.vdp_core.optim.fit import PLATEAU_STEPS, Fitted, fit
from comfyui_vdp.vdp_core.store.journal import NO_JOURNAL, Journal


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
    assert (fitted.stopped, fitted.steps) == ("plateau", 2 * PLATEAU_STEPS)


def test_a_plateau_is_looked_for_every_tenth_step():
    x, _ = parabola()
    # flat from step 15 on; steps 13 to 92 are the first 80 over which it falls by less than a thousandth
    fitted = fit(lambda i: {"loss": 0.0 * x + max(100.0 - i, 85.0)}, [x], steps=1000, learning_rate=0.1)
    assert (fitted.stopped, fitted.steps) == ("plateau", 100)


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


def test_groups_have_rates_of_their_own():
    x, y, z = (torch.tensor(0.0, requires_grad=True) for _ in "xyz")
    groups = [{"params": [x], "lr": 0.1}, {"params": [y, z]}]
    fit(lambda _: {"slope": -x - y - z}, groups, steps=4, learning_rate=0.01)
    # steps of the rate, which falls evenly to a fiftieth
    length = 4 - 0.98 * (0.25 + 0.5 + 0.75)
    assert [x.item(), y.item(), z.item()] == pytest.approx([0.1 * length, 0.01 * length, 0.01 * length], abs=1e-6)


def test_steep_gradients_are_clipped_to_a_norm():
    x, y = (torch.tensor(0.0, requires_grad=True) for _ in "xy")
    seen = []

    def step(index: int) -> dict[str, torch.Tensor]:
        if index > 0:
            seen.append((x.grad.item(), y.grad.item()))
        return {"slope": (3.0 * x + 4.0 * y) * (1.0 if index == 0 else 0.1)}

    fit(step, [x, y], steps=3, learning_rate=0.1, clip=1.0)
    assert seen[0] == pytest.approx((0.6, 0.8), abs=1e-5)
    assert seen[1] == pytest.approx((0.3, 0.4), abs=1e-6)


def test_averages_over_the_steps_are_the_result():
    def run(ema: float) -> tuple[float, list[float]]:
        x, places = torch.tensor(0.0, requires_grad=True), []

        def step(index: int) -> dict[str, torch.Tensor]:
            places.append(x.item())
            return {"slope": -x}

        fit(step, [x], steps=4, learning_rate=0.1, ema=ema, schedule=lambda _: 1.0)
        return x.item(), places

    last, places = run(0.0)
    assert last == pytest.approx(0.4, abs=1e-6)
    # after the steps it lies at 0.1, 0.2, 0.3 and 0.4: alike at first, then a half of what was and a half of what is
    average, same = run(0.5)
    assert same == places
    assert average == pytest.approx(((0.1 + 0.2) / 2 + 0.3) / 4 + 0.4 / 2, abs=1e-6)
    assert run(0.99)[0] == pytest.approx(0.25, abs=1e-6)


def test_a_plateau_is_told_as_the_end():
    x, _ = parabola()
    told = []
    fit(
        lambda _: {"flat": 0.0 * x + 1.0},
        [x],
        steps=1000,
        learning_rate=0.1,
        on_step=lambda done, total, _: told.append((done, total)),
    )
    assert told[-2:] == [(2 * PLATEAU_STEPS - 1, 1000), (1000, 1000)]


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


def test_divergence_is_seen_when_the_loss_is_read():
    x, _ = parabola()
    told = []
    with pytest.raises(FitError, match="diverged at step 13;"):
        fit(
            lambda i: {"loss": x * (1.0 if i < 12 else float("nan"))},
            [x],
            steps=100,
            learning_rate=0.1,
            on_step=lambda done, *_: told.append(done),
        )
    assert told == list(range(1, 20))


@pytest.mark.parametrize("steps", [0, -1])
def test_no_steps_are_refused(steps):
    x, step = parabola()
    with pytest.raises(InputError, match=f"steps: at least 1 needed, got {steps}"):
        fit(step, [x], steps=steps, learning_rate=0.1)


class Killed(BaseException):
    """Stands for the end of the process."""


class Work:
    """A noisy regression, with all a fit may depend on: random batches, a statistic, a parameter used now and then."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(7)
        data = torch.rand(200, 6, generator=self.generator)
        self.net = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.BatchNorm1d(16), torch.nn.Linear(16, 1))
        with torch.no_grad():
            for parameter in self.net.parameters():
                parameter.copy_(torch.rand(parameter.shape, generator=self.generator) - 0.5)
        self.across = torch.rand(16, 6, generator=self.generator).T.requires_grad_()  # lies in memory column by column
        self.scale = torch.tensor(1.0, requires_grad=True)
        self.unused = torch.tensor(1.0, requires_grad=True)
        self.data, self.wanted = data, data.square().sum(dim=1, keepdim=True)
        self.asked: list[int] = []

    def step(self, index: int) -> dict[str, torch.Tensor]:
        self.asked.append(index)
        chosen = torch.randint(200, (32,), generator=self.generator)
        given = self.data[chosen]
        terms = {"wrong": (self.net(given) + given.mm(self.across).sum() - self.wanted[chosen]).square().mean()}
        if index % 3 == 2:
            terms["scale"] = (self.scale - 0.3).square()
        return terms

    def fit(self, journal: Journal, killed_at: int = -1, **settings: object) -> Fitted:
        def on_step(done: int, *_: object) -> None:
            if done == killed_at:
                raise Killed

        return fit(
            self.step,
            [*self.net.parameters(), self.across, self.scale, self.unused],
            learning_rate=0.01,
            on_step=on_step,
            journal=journal,
            generators=[self.generator],
            buffers=self.net.buffers(),
            **{"steps": 150, "plateau": 0.0, **settings},
        )

    def state(self) -> list[torch.Tensor]:
        return [*self.net.state_dict().values(), self.across, self.scale, self.unused, self.generator.get_state()]


@pytest.fixture
def always(monkeypatch):
    """Every step is kept."""
    monkeypatch.setattr(fit_module, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(fit_module, "SAVE_SHARE", float("inf"))


@pytest.mark.parametrize("kills", [[1], [2], [3], [40], [97, 98], [149], [150], [5, 60, 61, 130]])
def test_what_was_cut_off_ends_as_if_it_had_not_been(tmp_path, always, kills):
    whole = Work()
    expected = whole.fit(NO_JOURNAL)
    for kill in kills:
        with pytest.raises(Killed):
            Work().fit(Journal(tmp_path), kill)
    work = Work()
    fitted = work.fit(Journal(tmp_path))
    assert work.asked == list(range(kills[-1] - 1, 150))
    assert all(map(torch.equal, work.state(), whole.state()))
    assert (fitted.steps, fitted.terms, fitted.stopped) == (expected.steps, expected.terms, expected.stopped)


def test_clipped_and_averaged_parameters_go_on_too(tmp_path, always):
    whole = Work()
    whole.fit(NO_JOURNAL, clip=0.1, ema=0.9)
    with pytest.raises(Killed):
        Work().fit(Journal(tmp_path), 97, clip=0.1, ema=0.9)
    work = Work()
    work.fit(Journal(tmp_path), clip=0.1, ema=0.9)
    assert work.asked[0] == 96
    assert all(map(torch.equal, work.state(), whole.state()))


@pytest.mark.parametrize("kill", [79, 80, 81, 110])
def test_a_plateau_is_found_at_the_same_step(tmp_path, always, kill):
    whole = Work()
    expected = whole.fit(NO_JOURNAL, plateau=0.5, steps=1000)
    assert expected.stopped == "plateau"
    assert expected.steps > 110
    with pytest.raises(Killed):
        Work().fit(Journal(tmp_path), kill, plateau=0.5, steps=1000)
    work = Work()
    fitted = work.fit(Journal(tmp_path), plateau=0.5, steps=1000)
    assert work.asked[0] == kill - 1
    assert (fitted.steps, fitted.terms, fitted.stopped) == (expected.steps, expected.terms, expected.stopped)
    assert all(map(torch.equal, work.state(), whole.state()))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_draws_on_the_device_go_on(tmp_path, always, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")

    def run(journal: Journal, killed_at: int = -1) -> list[list[int]]:
        generator = torch.Generator(device).manual_seed(2**32 - 1)
        x, drawn = torch.ones(4, device=device, requires_grad=True), []

        def step(_: int) -> dict[str, torch.Tensor]:
            drawn.append(torch.randint(1000, (4,), generator=generator, device=device))
            return {"loss": (x * drawn[-1]).mean()}

        def on_step(done: int, *_: object) -> None:
            if done == killed_at:
                raise Killed

        settings = {"steps": 30, "learning_rate": 0.1, "plateau": 0.0, "journal": journal}
        try:
            fit(step, [x], on_step=on_step, generators=[generator], **settings)
        except Killed:
            return []
        return [numbers.tolist() for numbers in drawn]

    run(Journal(tmp_path), killed_at=17)
    assert run(Journal(tmp_path)) == run(NO_JOURNAL)[16:]


def test_seconds_go_on(tmp_path, always):
    def slow(index: int) -> dict[str, torch.Tensor]:
        time.sleep(0.05)
        return {"loss": x.square()}

    def stop(done: int, *_: object) -> None:
        if done == 9:
            raise Killed

    x = torch.tensor(1.0, requires_grad=True)
    with pytest.raises(Killed):
        fit(slow, [x], steps=10, learning_rate=0.1, on_step=stop, journal=Journal(tmp_path))
    assert fit(slow, [x], steps=10, learning_rate=0.1, journal=Journal(tmp_path)).seconds >= 0.5


def test_the_journal_of_another_fit_is_left_aside(tmp_path, always, caplog):
    with pytest.raises(Killed):
        Work().fit(Journal(tmp_path), 50)
    for settings in ({"steps": 40}, {"steps": 151}):
        caplog.clear()
        work, whole = Work(), Work()
        work.fit(Journal(tmp_path), **settings)
        whole.fit(NO_JOURNAL, **settings)
        assert "is of another fit and left aside" in caplog.text
        assert all(map(torch.equal, work.state(), whole.state()))
    x, step = parabola()
    fit(step, [x], steps=150, learning_rate=0.1, journal=Journal(tmp_path))
    assert caplog.text.count("is of another fit") == 2


def test_entries_in_the_journal_are_rare(tmp_path, monkeypatch):
    now = 0.0
    saved = []

    class Slow(Journal):
        def save(self, *_: object) -> None:
            nonlocal now
            saved.append(now)
            now += cost

    monkeypatch.setattr(time, "monotonic", lambda: now)

    def step(_: int) -> dict[str, torch.Tensor]:
        nonlocal now
        now += 1.0
        return {"loss": x.square()}

    x = torch.tensor(1.0, requires_grad=True)
    cost = 0.0
    fit(step, [x], steps=70, learning_rate=0.1, plateau=0.0, journal=Slow(tmp_path))
    assert saved == [20.0, 40.0, 60.0]
    now, cost = 0.0, 0.5  # a hundredth of the time, so one in 50 seconds
    saved.clear()
    fit(step, [x], steps=130, learning_rate=0.1, plateau=0.0, journal=Slow(tmp_path))
    assert saved == [20.0, 70.5, 121.0]


def test_a_fit_that_is_done_keeps_nothing(tmp_path):
    Work().fit(Journal(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
