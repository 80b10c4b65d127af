"""Prompts are given out as far as there is time, and none is lost or given out twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import InputError
from weft.rl.buffer import SampleBuffer
from weft.rl.engines.intake import Intake, whole_share
from weft.rl.rollout import Rollout

GROUP = 2


def an_intake(max_lag=1, groups=4, job=2):
    batch = groups * GROUP
    return Intake(SampleBuffer((max_lag + 1) * batch, max_lag, batch=batch), group=GROUP, job=job)


def answers(job, reward=1.0):
    return [
        [
            Rollout(
                number=number,
                prompt=(1,),
                tokens=(2,),
                log_probs=(-1.0,),
                reward=reward,
                version=job.version,
            )
        ]
        * GROUP
        for number in job.numbers
    ]


def test_as_much_is_begun_as_can_be_trained_in_time():
    intake = an_intake()
    jobs = [intake.begin(0) for _ in range(5)]
    assert [job.numbers for job in jobs[:4]] == [(0, 1), (2, 3), (4, 5), (6, 7)]
    assert jobs[4] is None and intake.begun == 8


def test_answers_wait_in_the_buffer():
    intake = an_intake()
    job = intake.begin(0)
    intake.finish(job, answers(job))
    assert intake.buffer.waiting == 4 and intake.buffer.in_flight == ()


def test_what_is_given_up_is_given_out_again_first():
    intake = an_intake()
    first, second = intake.begin(0), intake.begin(0)
    intake.give_up(first)
    intake.give_up(second)
    assert [intake.begin(0).numbers for _ in range(3)] == [(0, 1), (2, 3), (4, 5)]


def test_a_job_that_was_given_up_brings_nothing():
    intake = an_intake()
    job = intake.begin(0)
    intake.give_up(job)
    again = intake.begin(0)
    assert again.numbers == job.numbers
    with pytest.raises(InputError, match="done or given up"):
        intake.finish(job, answers(job))
    intake.finish(again, answers(again))
    assert intake.buffer.waiting == 4


def test_answers_to_other_prompts_or_of_other_weights_are_refused():
    intake = an_intake()
    job, other = intake.begin(0), intake.begin(0)
    with pytest.raises(InputError, match="prompts"):
        intake.finish(job, answers(other))
    with pytest.raises(InputError, match="prompts"):
        intake.finish(job, answers(job)[:1])


def test_a_smaller_job_is_begun_only_where_nothing_is_out():
    intake = an_intake(max_lag=0, groups=4, job=4)
    job = intake.begin(0)
    intake.finish(job, answers(job))
    state = intake.state_dict()
    state["buffer"]["waiting"].pop()  # as after a resume with jobs of another size
    other = an_intake(max_lag=0, groups=4, job=4)
    other.load_state_dict(state)
    small = other.begin(0)
    assert len(small.numbers) == 1
    assert other.begin(0) is None


def test_the_fresh_reward_is_that_of_the_newest_weights_since_it_was_asked_for():
    intake = an_intake()
    old, new = intake.begin(0), intake.begin(0)
    assert intake.fresh_reward() is None
    intake.finish(old, answers(old, 1.0))
    assert intake.fresh_reward() == 1.0
    late = intake.begin(0)
    intake.buffer.publish(1)
    newest = intake.begin(1)
    intake.finish(newest, answers(newest, 3.0))
    intake.finish(late, answers(late, 9.0))
    assert intake.fresh_reward() == 3.0
    intake.finish(new, answers(new, 2.0))
    assert intake.fresh_reward() == 2.0
    assert intake.fresh_reward() is None


@given(st.lists(st.sampled_from(["begin", "finish", "give up", "train", "resume"]), max_size=60))
def test_every_prompt_is_trained_once_out_or_waiting(events):
    intake = an_intake(max_lag=2, groups=2, job=1)
    trained, jobs, version = [], [], 0
    for event in events:
        if event == "begin" and (job := intake.begin(version)) is not None:
            jobs.append(job)
        elif event == "finish" and jobs:
            job = jobs.pop(len(jobs) // 2)
            intake.finish(job, answers(job))
        elif event == "give up" and jobs:
            intake.give_up(jobs.pop(0))
        elif event == "train" and (ticket := intake.buffer.take(4, timeout=0.0)):
            trained += [one.number for one in ticket.values]
            version += 1
            intake.buffer.done(ticket, version=version)
        elif event == "resume":
            state = intake.state_dict()
            intake = an_intake(max_lag=2, groups=2, job=1)
            intake.load_state_dict(state)
            jobs = []
    state = intake.state_dict()
    waiting = [one["number"] for entry in state["buffer"]["waiting"] for one in entry["values"]]
    once = sorted([*trained, *waiting])[::GROUP] + state["returned"]
    assert sorted(once) == list(range(state["next"]))
    assert len(trained) + len(waiting) == GROUP * (state["next"] - len(state["returned"]))


def test_groups_that_make_up_no_batch_are_refused():
    with pytest.raises(InputError, match="whole groups"):
        Intake(SampleBuffer(9, 0), group=2, job=1)


@given(st.integers(1, 64), st.integers(1, 80))
def test_shares_divide_a_step_into_at_least_as_many_jobs_where_that_goes(groups, parts):
    size = whole_share(groups, parts)
    assert groups % size == 0
    assert groups // size >= min(parts, groups)
