"""Why a job waits: codes, the Slurm word next to each, and the sentences that say what would change it."""

from enum import StrEnum

from msgspec import Struct

from pumasi.model.ids import PoolId


class ReasonCode(StrEnum):
    """Why a job does not start; the codes are the API. `SLURM_WORDS` gives each one the word Slurm's users know."""

    # what a pool is: these never change by waiting
    NO_POOL = "no_pool"
    NOT_IN_SERVICE = "not_in_service"
    OTHER_POOL_ASKED = "other_pool_asked"
    SITE_REFUSES = "site_refuses"
    GPU_MODEL = "gpu_model"
    SLICE = "slice"
    GPU_MEMORY = "gpu_memory"
    CPU_ARCHITECTURE = "cpu_architecture"
    CPUS = "cpus"
    HOST_MEMORY = "host_memory"
    DATA_CLASS = "data_class"
    PLACEMENT_RULE = "placement_rule"
    STAYS_HOME = "stays_home"
    GANG_SHAPE = "gang_shape"
    GANG_TOO_LARGE = "gang_too_large"
    TOPOLOGY_TOO_NARROW = "topology_too_narrow"
    SEGMENT = "segment"
    ENTITLEMENT_TOO_SMALL = "entitlement_too_small"
    QUEUE_LIMIT_TOO_SMALL = "queue_limit_too_small"
    # rules of the lenders
    LENDER_REFUSES_OWNER = "lender_refuses_owner"
    LENDER_REFUSES_KIND = "lender_refuses_kind"
    LENDING_LIMIT = "lending_limit"
    OUTSIDE_LENDING_WINDOW = "outside_lending_window"
    # what changes from minute to minute
    BEGIN_TIME = "begin_time"
    QUEUE_ORDER = "queue_order"
    SITE_NOT_CONNECTED = "site_not_connected"
    POWER_CAP = "power_cap"
    RECLAIMING = "reclaiming"
    PLANNED_START = "planned_start"
    RESERVED = "reserved"
    ENTITLEMENT_USED = "entitlement_used"
    QUEUE_LIMIT = "queue_limit"
    LENT_OUT = "lent_out"
    NOTHING_TO_BORROW = "nothing_to_borrow"
    TOO_FEW_FREE = "too_few_free"
    NO_SHAPE = "no_shape"
    TOO_FEW_CPUS = "too_few_cpus"
    TOO_LITTLE_MEMORY = "too_little_memory"


_C = ReasonCode

SLURM_WORDS: dict[ReasonCode, str] = {
    _C.NO_POOL: "BadConstraints",
    _C.NOT_IN_SERVICE: "PartitionDown",
    _C.OTHER_POOL_ASKED: "BadConstraints",
    _C.SITE_REFUSES: "AccountNotAllowed",
    _C.GPU_MODEL: "BadConstraints",
    _C.SLICE: "BadConstraints",
    _C.GPU_MEMORY: "BadConstraints",
    _C.CPU_ARCHITECTURE: "BadConstraints",
    _C.CPUS: "BadConstraints",
    _C.HOST_MEMORY: "BadConstraints",
    _C.DATA_CLASS: "BadConstraints",
    _C.PLACEMENT_RULE: "BadConstraints",
    _C.STAYS_HOME: "AccountNotAllowed",
    _C.GANG_SHAPE: "BadConstraints",
    _C.GANG_TOO_LARGE: "PartitionNodeLimit",
    _C.TOPOLOGY_TOO_NARROW: "BadConstraints",
    _C.SEGMENT: "BadConstraints",
    _C.ENTITLEMENT_TOO_SMALL: "AssocMaxGRESPerJob",
    _C.QUEUE_LIMIT_TOO_SMALL: "AssocMaxGRESPerJob",
    _C.LENDER_REFUSES_OWNER: "AccountNotAllowed",
    _C.LENDER_REFUSES_KIND: "AccountNotAllowed",
    _C.LENDING_LIMIT: "QOSGrpGRES",
    _C.OUTSIDE_LENDING_WINDOW: "PartitionInactive",
    _C.BEGIN_TIME: "BeginTime",
    _C.QUEUE_ORDER: "Priority",
    _C.SITE_NOT_CONNECTED: "PartitionDown",
    _C.POWER_CAP: "PowerNotAvail",
    _C.RECLAIMING: "Resources",
    _C.PLANNED_START: "Priority",
    _C.RESERVED: "ReqNodeNotAvail",
    _C.ENTITLEMENT_USED: "AssocGrpGRES",
    _C.QUEUE_LIMIT: "AssocGrpGRES",
    _C.LENT_OUT: "Resources",
    _C.NOTHING_TO_BORROW: "QOSGrpGRES",
    _C.TOO_FEW_FREE: "Resources",
    _C.NO_SHAPE: "Resources",
    _C.TOO_FEW_CPUS: "Resources",
    _C.TOO_LITTLE_MEMORY: "Resources",
}


class Verdict(Struct, frozen=True, gc=False):
    """Why a pool can never run a job, or may not lend to it. `pool` is empty if it concerns all of them."""

    code: ReasonCode
    pool: PoolId
    detail: str


class Reason(Struct, frozen=True, gc=False):
    """One thing that keeps a job waiting. `would_start`: what would change it, in numbers; empty if only time does."""

    code: ReasonCode
    pool: PoolId
    detail: str
    would_start: str = ""

    @property
    def slurm(self) -> str:
        """The word Slurm's users know for it."""
        return SLURM_WORDS[self.code]


class Reasons(Struct, frozen=True, gc=False):
    """Why a job waits, the most decisive first. `would_start`: the least that would start it."""

    reasons: tuple[Reason, ...]
    would_start: str

    @property
    def first(self) -> Reason:
        """The most decisive reason."""
        return self.reasons[0]
