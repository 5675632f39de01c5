"""Whatever happens to whatever fleet: every plan is allowed, every state sound, and no GPU idles that a job could have."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pumasi.events.facts import Event
from pumasi.testing.harness import Harness
from tests.scheduler.fleets import Step, fleets, play, steps


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(fleet=fleets(), story=st.lists(steps(), max_size=40))
def test_every_plan_of_every_story_is_allowed(fleet: list[Event], story: list[Step]) -> None:
    harness = Harness(fleet)
    for step in story:
        play(harness, step)
    harness.tick()
