"""The fleet of one process."""

from tests.unit.rl import small
from weft.rl.buffer import SampleBuffer
from weft.rl.engines.intake import Intake
from weft.rl.engines.local import LocalFleet


def test_closing_gives_up_what_is_under_way():
    given = small.task()
    intake = Intake(SampleBuffer(32, 1, batch=16), group=4, job=1)
    fleet = LocalFleet(intake, given, seed=0, order="random")
    fleet.publish(0, small.learner().weights())
    while fleet.work():
        pass
    flying = len(intake.buffer.in_flight)
    assert flying >= 3
    fleet.close()
    assert intake.buffer.in_flight == ()
    assert len(intake.state_dict()["returned"]) == flying


def test_in_order_nothing_is_under_way_when_work_ends():
    intake = Intake(SampleBuffer(32, 1, batch=16), group=4, job=4)
    fleet = LocalFleet(intake, small.task(), seed=0)
    fleet.publish(0, small.learner().weights())
    assert fleet.work() and fleet.work() and not fleet.work()
    assert intake.buffer.in_flight == () and intake.buffer.waiting == 32
