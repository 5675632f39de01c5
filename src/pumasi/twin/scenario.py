"""What a simulation varies beside fleet and jobs: how long, by which seed, with which faults and changes of plan."""

from typing import TypeAlias

from msgspec import Struct

from pumasi.control.commands import MakeReservation
from pumasi.model.fleet import FleetPlan
from pumasi.model.ids import SiteId

HOUR_MS = 3_600_000


class FaultRates(Struct, frozen=True, kw_only=True):
    """How often what breaks; 0 means never. The defaults are a fleet without faults, `MEASURED` are the field's.

    `gpu_mtbf_hours`: mean hours between faults of one GPU (exponential). `lemon_per_mille` of the nodes fail
    `lemon_factor` times as often. `switch_percent` of GPU faults take a switch with 8 to 64 neighbouring nodes instead
    of one node. `rack_years`: mean years between losses of one rack. `partitions_per_site_year`: cuts of a site from
    the control plane, log-normal from some minutes to half a day. `black_hole_per_mille` of the nodes look well, and
    every run on them fails within seconds. `reboot_percent` of the repairs take 10 to 30
    minutes, the others 1 to 10 days. `agent_crash_days`, `control_crash_days`: mean days between crashes of one agent
    and of the control plane; each is back after `restart_seconds`.
    """

    gpu_mtbf_hours: int = 0
    lemon_per_mille: int = 0
    lemon_factor: int = 1
    black_hole_per_mille: int = 0
    switch_percent: int = 0
    rack_years: int = 0
    partitions_per_site_year: int = 0
    reboot_percent: int = 100
    agent_crash_days: int = 0
    control_crash_days: int = 0
    restart_seconds: int = 60


MEASURED = FaultRates(
    gpu_mtbf_hours=50_000,
    lemon_per_mille=15,
    lemon_factor=20,
    switch_percent=8,
    rack_years=5,
    partitions_per_site_year=4,
    reboot_percent=60,
    agent_crash_days=7,
    control_crash_days=7,
)


class PlanChange(Struct, frozen=True, kw_only=True):
    """From a moment on the fleet is what a plan says, with the stages it gives for `as_of` (ISO date)."""

    at_ms: int
    plan: FleetPlan
    as_of: str


class PowerChange(Struct, frozen=True, kw_only=True):
    """At a moment a site's operator caps its power; 0 kilowatts: it has again what the plan says."""

    at_ms: int
    site: SiteId
    kilowatts: int
    notice_seconds: int


class ReservationChange(Struct, frozen=True, kw_only=True):
    """At a moment somebody reserves nodes in advance, by the command that the API gives."""

    at_ms: int
    command: MakeReservation


ScenarioChange: TypeAlias = PlanChange | PowerChange | ReservationChange


class Scenario(Struct, frozen=True, kw_only=True):
    """One run of the twin. Times are Unix milliseconds.

    `start_ms`: when the fleet is declared, at or before the first submission. `until_ms`: the horizon; 0 runs until
    the last job has ended. `as_of`: the date whose stages the plan starts with. `cycle_ms`: the least time between two
    cycles, as the live service has; 0 plans at every instant at which something changed. `latency_ms`: from the control
    plane to a site and back, each way. `start_delay_ms`: what an engine takes to start a run. `end_delay_ms`: from a
    run's end until its site knows. `check_every_cycles`: how often the invariants are checked; 0 never.
    """

    name: str = "twin"
    seed: int = 0
    start_ms: int
    until_ms: int = 0
    as_of: str = "2031-12-31"
    cycle_ms: int = 0
    latency_ms: int = 0
    start_delay_ms: int = 0
    end_delay_ms: int = 0
    faults: FaultRates = FaultRates()
    changes: tuple[ScenarioChange, ...] = ()
    check_every_cycles: int = 0
