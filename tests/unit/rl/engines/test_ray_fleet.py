"""A fleet of processes: what lives, what dies, and what is lost of it, which is nothing."""

import os
import signal
import socket
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from tests.unit.rl import small
from weft.core.errors import FileError, InputError, RunError
from weft.rl.buffer import SampleBuffer
from weft.rl.engines.intake import Intake, whole_share
from weft.rl.engines.training import Training

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'weft[rl]'")

from weft.rl.engines.ray_fleet import RayFleet, _knock  # noqa: E402

pytestmark = pytest.mark.dist
ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def started():
    """One Ray for all tests of this file: it takes seconds to start."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield
    ray.shutdown()


def recipe(name):
    """A task that a process loads by itself, as the command does it."""
    from weft.workflow.recipe import load_task

    return partial(load_task, f"{Path(small.__file__)}:{name}")


class Run:
    """A training of a task of the small kind by a fleet."""

    def __init__(self, name="small", *, lag=2, workers=2, folder=None, **fleet):
        given = small.task()
        batch = given.group * given.groups_per_step
        self.intake = Intake(
            SampleBuffer((lag + 1) * batch, lag, batch=batch),
            group=given.group,
            job=whole_share(given.groups_per_step, workers),
        )
        self.learner = small.learner(max_lag=lag, given=given)
        self.fleet = RayFleet(self.intake, recipe(name), workers=workers, seed=0, **fleet)
        self.training = Training(self.learner, self.intake, self.fleet, identity={}, folder=folder)
        self.told = []

    def go(self, steps, on_step=lambda told: None, **arguments):
        def note(told):
            self.told.append(told)
            on_step(told)

        try:
            return self.training.run(steps, on_step=note, **arguments)
        finally:
            self.fleet.close()

    @property
    def trained(self):
        return [number for told in self.told for number in told.prompts]

    def accounts_for_every_prompt(self):
        """Trained once, waiting or to be given out again: nothing else, and nothing twice."""
        state = self.intake.state_dict()
        waiting = {one["number"] for entry in state["buffer"]["waiting"] for one in entry["values"]}
        found = [*self.trained, *waiting, *state["returned"]]
        return sorted(found) == list(range(state["next"]))


@pytest.mark.parametrize("lag", [pytest.param(0, marks=pytest.mark.slow), 3])
def test_samples_are_no_older_than_allowed_and_all_are_accounted_for(started, lag):
    run = Run(lag=lag)
    assert run.go(12)
    assert max(max(told.lags) for told in run.told) <= lag
    assert all(told.samples == 16 for told in run.told)
    assert run.accounts_for_every_prompt()


@pytest.mark.slow
def test_actors_draw_with_the_weights_that_they_say(started):
    """New samples have ratios of 1 only if weights arrived whole, and in time."""
    run = Run(lag=0)
    run.go(6)
    assert all(told.kl < 1e-6 and told.effective > 0.9999 for told in run.told)
    assert run.told[-1].reward != run.told[0].reward


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ray.kill", "SIGKILL"])
def test_when_actors_are_killed_nothing_is_lost_or_trained_twice(started, how):
    run = Run("slow", lag=2)
    before = {actor._actor_id for actor in run.fleet.actors}

    def kill(told):
        if told.step in (3, 6):
            actor = run.fleet.actors[told.step % 2]
            if how == "ray.kill":
                ray.kill(actor)
            else:
                os.kill(ray.get(actor.pid.remote()), signal.SIGKILL)

    after = []
    assert run.go(12, lambda told: (kill(told), after.append(list(run.fleet.actors))))
    assert len({actor._actor_id for actor in after[-1]} - before) >= 1
    assert max(Counter(run.trained).values()) == 1
    assert run.accounts_for_every_prompt()


def test_a_job_that_takes_too_long_is_done_by_another_actor(started, monkeypatch):
    run = Run("slow", lag=1, workers=1, job_limit_s=1e-3)
    replace = run.fleet._replace
    replaced = []

    def note(worker, why):
        replaced.append(why)
        run.fleet._job_limit_s = 600.0  # the first one is late, and no other
        replace(worker, why)

    monkeypatch.setattr(run.fleet, "_replace", note)
    assert run.go(4)
    assert replaced == ["a job that took more than 0.001 s"]
    assert run.accounts_for_every_prompt() and len(set(run.trained)) == len(run.trained)


@pytest.mark.slow
def test_a_fleet_whose_actors_all_die_says_so_and_leaves_a_checkpoint(started, tmp_path):
    run = Run("deadly", workers=1, folder=tmp_path, deaths=1)
    with pytest.raises(RunError, match="2 deaths in a row"):
        run.go(3)
    assert (tmp_path / "checkpoint.pt").exists()


@pytest.mark.slow
def test_a_prompt_that_kills_ends_a_run_although_others_are_answered(started, tmp_path):
    run = Run("poisonous", workers=2, folder=tmp_path)
    with pytest.raises(RunError, match="4 deaths over prompts"):
        run.go(60)


def test_a_death_over_a_prompt_counts_by_itself(started):
    run = Run("deadly", workers=1, prompt_deaths=0)
    with pytest.raises(RunError, match=r"1 deaths over prompts \[0, 1, 2, 3\]"):
        run.go(3)


@pytest.mark.parametrize("options", [{"num_gpus": 1}, {"num_cpus": 2}])
def test_actors_for_which_there_is_no_room_are_refused_at_once(started, options):
    """Ray would let them wait, and every job with them."""
    if "num_gpus" in options and ray.cluster_resources().get("GPU", 0) >= 2:
        pytest.skip("there are GPUs enough")
    with pytest.raises(RunError, match=r"for 2 actors"):
        Run(workers=2, options=options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "text"), [("wrong", "no such digit"), ("unbuilt", "no such model")]
)
def test_an_error_of_the_recipe_is_told_at_once(started, name, text):
    run = Run(name, workers=1)
    with pytest.raises(RunError, match=text):
        run.go(3)


def test_an_error_of_weft_in_an_actor_arrives_as_it_is(started):
    run = Run("number", workers=1)
    with pytest.raises(InputError, match="returned int"):
        run.go(3)


def test_a_fleet_leaves_a_ray_that_it_did_not_start(started):
    Run(workers=1).fleet.close()
    assert ray.is_initialized()


def test_no_workers_are_refused(started):
    with pytest.raises(InputError, match="at least one actor"):
        Run(workers=1, deaths=-1)


def test_without_ray_the_engine_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(FileError, match=r"pip install 'weft\[rl\]'"):
        Run()


def test_an_address_that_nobody_answers_at_is_refused_at_once():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        _knock(f"127.0.0.1:{port}")
        _knock(f"ray://127.0.0.1:{port}")
    for address in (f"127.0.0.1:{port}", "127.0.0.1:99999"):
        with pytest.raises(RunError, match="answers at"):
            _knock(address)
    _knock("auto")
