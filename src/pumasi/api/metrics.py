"""Metrics for Prometheus. Gauges are read from the state when they are scraped; no user or job is ever a label."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from pumasi.control.quarantine import QUARANTINED, suspects
from pumasi.control.service import Service
from pumasi.control.views.fleet import fleet_row
from pumasi.model.fleet import PARTS_PER_GPU
from pumasi.model.jobs import AttemptState
from pumasi.state.fleet_state import FleetState

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_USES = ("home", "lent", "promised", "borrowed", "idle")
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)


class Metrics:
    """The metrics of one API."""

    def __init__(self, service: Service) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_FleetCollector(service))
        self._requests = Histogram(
            "pumasi_http_request_seconds",
            "Time from a request's arrival to the end of its answer",
            ("method", "route", "status"),
            buckets=_SECONDS,
            registry=self._registry,
        )

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._requests.labels(method, route, str(status)).observe(seconds)

    def text(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(self._registry)


class _FleetCollector(Collector):
    def __init__(self, service: Service) -> None:
        self._service = service

    def describe(self) -> Iterator[Metric]:
        """Nothing beforehand: what there is depends on the plan that is applied."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The fleet at this moment."""
        state = self._service.plane.state
        yield _owner_gpus(state)
        yield _fleet_gpus(state)
        yield _jobs(state)
        yield _links(state)
        yield _suspect_nodes(state)
        silent = self._service.plane.silent_jobs
        yield GaugeMetricFamily(
            "pumasi_jobs_silent", "Active jobs that their sites do not name among their runs", silent
        )
        yield CounterMetricFamily("pumasi_jobs_submitted", "Jobs ever submitted", state.next_job - 1)
        yield CounterMetricFamily("pumasi_facts", "Facts in the log", self._service.plane.durable_seq)
        yield CounterMetricFamily("pumasi_cycles", "Scheduling cycles since the start", self._service.cycles)
        yield CounterMetricFamily(
            "pumasi_cycles_failed", "Scheduling cycles that failed and planned nothing", self._service.cycles_failed
        )
        yield GaugeMetricFamily(
            "pumasi_cycle_seconds", "Time the last cycle took", self._service.cycle_milliseconds / 1000
        )
        yield from _reclaims(self._service)


def _owner_gpus(state: FleetState) -> Metric:
    family = GaugeMetricFamily("pumasi_gpus", "GPUs by owner and use", labels=("owner", "use"))
    for owner in state.owners:
        accounts = [(state.pools[pool].declared, books[owner]) for pool, books in state.books.items() if owner in books]
        for use in _USES:
            parts = sum(pool.parts(getattr(account, use)) for pool, account in accounts)
            family.add_metric((owner, use), parts / PARTS_PER_GPU)
    return family


def _fleet_gpus(state: FleetState) -> Metric:
    row = fleet_row(state)
    family = GaugeMetricFamily("pumasi_fleet_gpus", "GPUs of the fleet by what becomes of them", labels=("state",))
    for name in ("total", "in_service", "in_use", "lent", "free", "reserved", "down"):
        family.add_metric((name,), getattr(row, f"gpus_{name}"))
    return family


def _jobs(state: FleetState) -> Metric:
    row = fleet_row(state)
    counts = dict.fromkeys(("starting", "running", "stopping"), 0)
    words = {AttemptState.PLACED: "starting", AttemptState.RUNNING: "running", AttemptState.STOPPING: "stopping"}
    for jobs in state.active.values():
        for job in jobs:
            counts[words[state.jobs[job].attempts[-1].state]] += 1
    family = GaugeMetricFamily("pumasi_jobs", "Jobs that have not ended, by state", labels=("state",))
    for name, count in {"waiting": row.jobs_waiting, "held": row.jobs_held, **counts}.items():
        family.add_metric((name,), count)
    return family


def _links(state: FleetState) -> Metric:
    family = GaugeMetricFamily("pumasi_site_connected", "1 while a site's agent is heard from", labels=("site",))
    for site, record in state.sites.items():
        family.add_metric((site,), int(record.link == "connected"))
    return family


def _suspect_nodes(state: FleetState) -> Metric:
    family = GaugeMetricFamily(
        "pumasi_suspect_nodes",
        "Nodes that fail whatever starts on them, by whether they were taken out",
        labels=("state",),
    )
    family.add_metric(("quarantined",), sum(reason.startswith(QUARANTINED) for reason in state.node_reasons.values()))
    family.add_metric(("up",), len(suspects(state)))
    return family


def _reclaims(service: Service) -> Iterator[Metric]:
    reclaims = service.plane.ledger.reclaims
    totals = reclaims.totals.values()
    fulfilled, kept_ones = sum(each.fulfilled for each in totals), sum(each.kept for each in totals)
    family = CounterMetricFamily(
        "pumasi_reclaims", "Reclaims fulfilled, by whether the promise was kept", labels=("kept",)
    )
    family.add_metric(("true",), kept_ones)
    family.add_metric(("false",), fulfilled - kept_ones)
    yield family
    requested, evicted = sum(each.requested_gpus for each in totals), sum(each.evicted_gpus for each in totals)
    yield CounterMetricFamily("pumasi_reclaim_requested_gpus", "GPUs got back by reclaims fulfilled", requested)
    yield CounterMetricFamily("pumasi_reclaim_evicted_gpus", "GPUs of the jobs that were stopped for them", evicted)
    yield GaugeMetricFamily("pumasi_reclaims_open", "Reclaims under way", len(reclaims.open))
