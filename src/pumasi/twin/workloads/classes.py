"""Work as industries have it: kinds of jobs with their sizes, lengths and hours, for fleets no trace exists of.

Sizes and lengths follow what is published of such work; where nothing is, they are assumptions (docs/guides/twin.md).
"""

from msgspec import Struct

OFFICE = (0, 0, 0, 0, 0, 0, 1, 3, 8, 10, 10, 8, 6, 9, 10, 10, 9, 7, 4, 2, 1, 1, 0, 0)  # by hour of the day
NIGHT = (4, 3, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3, 8, 10, 10, 8, 7, 6)
MORNING = (0, 0, 0, 0, 0, 0, 2, 8, 10, 6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
LESSONS = (0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 10, 10, 2, 10, 10, 8, 4, 0, 0, 0, 0, 0, 0, 0)
DAYLONG = (3, 2, 2, 1, 1, 1, 2, 3, 5, 7, 8, 7, 6, 8, 9, 9, 8, 7, 5, 4, 4, 4, 4, 3)
EVEN = (1,) * 24
WORKDAYS = (5, 5, 5, 5, 5, 1, 1)  # from Monday
SCHOOL_DAYS = (1, 1, 1, 1, 1, 0, 0)
ANY_DAY = (1,) * 7


class WorkClass(Struct, frozen=True, kw_only=True):
    """A kind of job. Lengths are log-normal around `median_minutes` (`spread`: sigma of the logarithm), in bounds.

    `sizes`: GPUs with their weights. `burst`: jobs that are submitted together, as an array or a class of students is.
    `on_slices`: sizes are slices where the queue is due any, as small work needs no whole GPU.
    `hours`, `weekdays`: weights of the time of submission, Korean time. `stays_home` and `data_class` as in a job;
    `checkpoint_minutes` 0: the work is lost when it is stopped.
    """

    name: str
    sizes: dict[int, int]
    median_minutes: int
    spread: float
    minutes_min: int = 1
    minutes_max: int = 7 * 24 * 60
    hours: tuple[int, ...] = DAYLONG
    weekdays: tuple[int, ...] = WORKDAYS
    burst: int = 1
    priority: int = 0
    data_class: str = "open"
    stays_home: bool = False
    may_borrow: bool = True
    checkpoint_minutes: int = 30
    on_slices: bool = False


PRETRAINING = WorkClass(
    name="pretraining",
    sizes={256: 4, 512: 4, 1024: 2},
    median_minutes=3 * 24 * 60,
    spread=0.5,
    minutes_min=12 * 60,
    hours=OFFICE,
)
FINE_TUNING = WorkClass(name="fine-tuning", sizes={8: 6, 16: 3, 32: 2, 64: 1}, median_minutes=360, spread=1.2)
EVALUATION = WorkClass(name="evaluation", sizes={1: 2, 2: 2, 4: 2, 8: 4}, median_minutes=90, spread=1.0)
SIMULATION = WorkClass(
    name="simulation", sizes={1: 1, 2: 1, 4: 2, 8: 12}, median_minutes=180, spread=0.6, hours=OFFICE, burst=64
)
DRIVING = WorkClass(
    name="driving-model", sizes={64: 4, 128: 3, 256: 2, 512: 1}, median_minutes=24 * 60, spread=0.8, hours=OFFICE
)
INTERACTIVE = WorkClass(
    name="interactive-twin",
    sizes={1: 1, 2: 2, 4: 3, 8: 3},
    median_minutes=240,
    spread=0.5,
    minutes_max=600,
    hours=OFFICE,
    priority=50,
    may_borrow=False,
    checkpoint_minutes=0,
)
NIGHT_BATCH = WorkClass(
    name="night-batch", sizes={8: 2, 16: 3, 32: 1}, median_minutes=180, spread=0.6, hours=NIGHT, burst=16
)
MASK = WorkClass(
    name="mask-deadline",
    sizes={256: 4, 512: 3, 1024: 1},
    median_minutes=10 * 60,
    spread=0.25,
    minutes_max=16 * 60,
    hours=NIGHT,
    weekdays=ANY_DAY,
    priority=80,
    data_class="nct",
    stays_home=True,
)
DEVICE = WorkClass(name="device-simulation", sizes={8: 5, 16: 3, 64: 1}, median_minutes=360, spread=1.0)
DISTILLATION = WorkClass(name="distillation", sizes={8: 4, 32: 3, 128: 1}, median_minutes=480, spread=1.0)
REPLICAS = WorkClass(
    name="inference-base",
    sizes={8: 3, 16: 1},
    median_minutes=24 * 60,
    spread=0.05,
    hours=EVEN,
    weekdays=ANY_DAY,
    priority=60,
    checkpoint_minutes=0,
)
DAY_REPLICAS = WorkClass(
    name="inference-day",
    sizes={8: 1},
    median_minutes=600,
    spread=0.1,
    hours=MORNING,
    burst=4,
    priority=60,
    checkpoint_minutes=0,
)
LESSON = WorkClass(
    name="lesson",
    sizes={1: 1},
    median_minutes=100,
    spread=0.2,
    hours=LESSONS,
    weekdays=SCHOOL_DAYS,
    burst=30,
    checkpoint_minutes=0,
    on_slices=True,
)

# What the queues of each industry are busy with: classes and their share of the GPU-time, in per cent.
INDUSTRIES: dict[str, tuple[tuple[WorkClass, int], ...]] = {
    "foundation-models": ((PRETRAINING, 80), (FINE_TUNING, 18), (EVALUATION, 2)),
    "research": ((PRETRAINING, 20), (FINE_TUNING, 75), (EVALUATION, 5)),
    "small-business": ((FINE_TUNING, 75), (EVALUATION, 5), (DAY_REPLICAS, 20)),
    "public": ((REPLICAS, 70), (DAY_REPLICAS, 30)),
    "cloud": ((REPLICAS, 40), (DAY_REPLICAS, 20), (FINE_TUNING, 40)),
    "automotive": ((DRIVING, 60), (SIMULATION, 40)),
    "manufacturing": ((INTERACTIVE, 20), (NIGHT_BATCH, 80)),
    "chip-fab": ((MASK, 60), (DEVICE, 40)),
    "consumer-electronics": ((DISTILLATION, 100),),
    "telecom": ((REPLICAS, 60), (FINE_TUNING, 40)),
    "foreign-partner": ((FINE_TUNING, 100),),
    "teaching": ((LESSON, 100),),
}
OTHER: tuple[tuple[WorkClass, int], ...] = ((FINE_TUNING, 95), (EVALUATION, 5))  # queues that name no known industry
