"""Queue trees: read from the file, and their shares turned into whole GPUs.

A root queue has its owner's entitlements. Beneath it a queue asks for `share` of every pool of its parent, and in
`quotas` for GPUs or another share of single pools. Shares become GPUs by largest remainder, so those of 100% use up
the parent exactly.
"""

from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace

from pumasi.model.fleet import Preemption, Queue, QueueOrder, Quota
from pumasi.model.ids import OwnerId, PoolId, QueueId, is_queue_path
from pumasi.plans.problems import quoted, suggestion
from pumasi.plans.section import PERCENT_UNIT, Section
from pumasi.plans.yaml_tree import Mapping, Scalar

WHOLE = 100 * PERCENT_UNIT
_WEIGHT_LIMIT = 1_000_000


class Amount(Struct, frozen=True):
    """GPUs, or hundredths of a per cent of something."""

    gpus: int = 0
    hundredths: int | None = None

    def of(self, whole: int) -> int:
        """In GPUs, rounded down, where `whole` GPUs are 100%."""
        return self.gpus if self.hundredths is None else whole * self.hundredths // WHOLE


class Ask(Struct, frozen=True, kw_only=True):
    """What a queue asks of a pool. Limits: None for none."""

    nominal: Amount
    borrowing: Amount | None = None
    lending: Amount | None = None


class QueueDraft(Struct):
    """A queue as written: `common` is asked of every pool of the parent, `single` of the pools named."""

    queue: Queue
    section: Section
    common: Ask | None
    single: dict[PoolId, Ask]
    children: list["QueueDraft"]


def read_queues(root: Section) -> dict[OwnerId, QueueDraft]:
    """The section `queues`: one tree per owner."""
    return {name: _queue(name, section, is_root=True) for name, section in root.sections("queues")}


def _queue(path: QueueId, section: Section, *, is_root: bool = False) -> QueueDraft:
    if section.path and not is_queue_path(path):
        section.complain("", f"{quoted(path)} is no queue path; it has at most 8 names of a-z, 0-9 and hyphens")
    queue = Queue(
        id=path,
        title=section.text("title", path.rpartition("/")[2]),
        weight=section.integer("weight", 1, minimum=1, maximum=_WEIGHT_LIMIT),
        industry=section.text("industry", ""),
        preemption=section.choice("preemption", Preemption, Preemption.NEVER),
        order=section.choice("order", QueueOrder, QueueOrder.BEST_EFFORT),
    )
    common, single = (_root_ask(section), {}) if is_root else (_common_ask(section), _single_asks(section))
    children = [_queue(f"{path}/{name}", inner) for name, inner in section.sections("children")]
    section.finish()
    return QueueDraft(queue, section, common, single, children)


def _root_ask(section: Section) -> Ask:
    for key in ("share", "quotas", "lending_limit"):
        if section.has(key):
            whose = "the lending contract says what is lent" if key == "lending_limit" else "it has its entitlements"
            section.complain(key, f"does not belong to an owner's root queue; {whose}")
    return Ask(nominal=Amount(hundredths=WHOLE), borrowing=_limit(section, "borrowing_limit"))


def _common_ask(section: Section) -> Ask | None:
    borrowing, lending = _limit(section, "borrowing_limit"), _limit(section, "lending_limit")
    if not section.has("share"):
        return Ask(nominal=Amount(0), borrowing=borrowing, lending=lending) if borrowing or lending else None
    return Ask(nominal=Amount(hundredths=section.percent("share")), borrowing=borrowing, lending=lending)


def _limit(section: Section, key: str) -> Amount | None:
    return _amount(section, key) if section.has(key) else None


def _amount(section: Section, key: str) -> Amount:
    node = section.take(key)
    if isinstance(node, Scalar) and "%" in node.text:
        return Amount(hundredths=section.percent(key))
    return Amount(section.integer(key))


def _single_asks(section: Section) -> dict[PoolId, Ask]:
    quotas = section.section("quotas")
    return {pool: _single_ask(quotas, pool) for pool in quotas.node.entries}


def _single_ask(quotas: Section, pool: PoolId) -> Ask:
    if not isinstance(quotas.take(pool), Mapping):
        return Ask(nominal=_amount(quotas, pool))
    inner = quotas.section(pool)
    ask = Ask(
        nominal=_amount(inner, "nominal"),
        borrowing=_limit(inner, "borrowing_limit"),
        lending=_limit(inner, "lending_limit"),
    )
    inner.finish()
    return ask


def settle(root: QueueDraft, entitled: dict[PoolId, int]) -> Iterator[Queue]:
    """The queues of one owner, parents first, with quotas in GPUs; `entitled` is what the owner is due of each pool."""
    quotas = {pool: _quota(root, pool, gpus, root.common) for pool, gpus in entitled.items()}
    yield from _settle(root, quotas)


def _settle(draft: QueueDraft, quotas: dict[PoolId, Quota]) -> Iterator[Queue]:
    queue = draft.queue
    yield replace(queue, quotas=quotas)
    nominal = {pool: quota.nominal for pool, quota in quotas.items()}
    _check_shares(draft)
    by_child: list[dict[PoolId, Quota]] = [{} for _ in draft.children]
    for pool, gpus in nominal.items():
        for child, given, into in zip(draft.children, _divide(draft, pool, gpus), by_child, strict=True):
            if (ask := child.single.get(pool, child.common)) is not None:
                into[pool] = _quota(child, pool, given, ask)
    for child, into in zip(draft.children, by_child, strict=True):
        _check_pools(child, draft, nominal)
        yield from _settle(child, into)


def _check_shares(draft: QueueDraft) -> None:
    total = sum(child.common.nominal.hundredths or 0 for child in draft.children if child.common)
    if total > WHOLE:
        message = f"the shares of its children add up to {_percent(total)}; {draft.queue.id} has 100% to share out"
        draft.section.complain("children", message)


def _check_pools(child: QueueDraft, parent: QueueDraft, nominal: dict[PoolId, int]) -> None:
    for pool in child.single:
        if pool not in nominal:
            message = f"{parent.queue.id} has no quota of a pool {quoted(pool)}{suggestion(pool, nominal)}"
            child.section.complain("quotas", message)


def _divide(draft: QueueDraft, pool: PoolId, gpus: int) -> list[int]:
    """GPUs of `pool` for each child; the odd ones go to the largest remainders, then in the order of the file."""
    amounts = [ask.nominal if (ask := child.single.get(pool, child.common)) else Amount(0) for child in draft.children]
    given = [amount.of(gpus) for amount in amounts]
    shares = [(amount.hundredths or 0) * gpus for amount in amounts]
    odd = sum(shares) // WHOLE - sum(share // WHOLE for share in shares)
    for index in sorted(range(len(shares)), key=lambda index: (-(shares[index] % WHOLE), index))[:odd]:
        given[index] += 1
    _check_sum(draft, pool, sum(given), gpus)
    return given


def _check_sum(draft: QueueDraft, pool: PoolId, given: int, gpus: int) -> None:
    common = sum(child.common.nominal.hundredths or 0 for child in draft.children if child.common)
    if given > gpus and common <= WHOLE:  # otherwise the shares are to blame, and were
        message = f"the quotas of pool {pool} add up to {given:,} GPUs, but {draft.queue.id} has {gpus:,}"
        draft.section.complain("children", message)


def _quota(draft: QueueDraft, pool: PoolId, nominal: int, ask: Ask | None) -> Quota:
    borrowing = ask.borrowing.of(nominal) if ask and ask.borrowing else None
    lending = ask.lending.of(nominal) if ask and ask.lending else None
    if lending is not None and lending > nominal:
        message = f"the lending limit of pool {pool} is {lending:,} GPUs, but the queue has only {nominal:,} to lend"
        draft.section.complain("quotas" if pool in draft.single else "lending_limit", message)
    return Quota(nominal=nominal, borrowing_limit=borrowing, lending_limit=lending)


def _percent(hundredths: int) -> str:
    whole, rest = divmod(hundredths, PERCENT_UNIT)
    return f"{whole}.{rest:02}%" if rest else f"{whole}%"
