"""Who may do what: one table of roles and actions, one function that answers, and nothing allowed that is not listed.

A role is bound at a scope and reaches what lies at or below it: `*` is the fleet, `public/academia` is that queue and
all queues beneath it, `site:sejong` is that site. Scopes are compared whole name by whole name, so `sk` says nothing of
`skt`. What a role may do only with its holder's own jobs or tokens is `OWN` in the table.
"""

from collections.abc import Iterable
from enum import IntEnum, StrEnum
from typing import NamedTuple

from pumasi.model.access import FLEET_SCOPE, Principal, Role, RoleBinding
from pumasi.model.ids import PrincipalId, QueueId, SiteId


class Action(StrEnum):
    """What can be done through the API. Every route declares one; PUBLIC and AGENT routes carry their own proof."""

    PUBLIC = "public"
    AGENT = "agent"
    WHOAMI = "whoami"
    FLEET_READ = "fleet:read"
    EVENTS_READ = "events:read"
    METRICS_READ = "metrics:read"
    QUEUE_READ = "queue:read"
    JOB_READ = "job:read"
    JOB_SUBMIT = "job:submit"
    JOB_CONTROL = "job:control"
    JOB_LOGS = "job:logs"
    USAGE_READ = "usage:read"
    NODE_DRAIN = "node:drain"
    NODE_RESERVE = "node:reserve"
    QUEUE_RESERVE = "queue:reserve"
    SITE_POWER = "site:power"
    SITE_ENROL = "site:enrol"
    PLAN_APPLY = "plan:apply"
    PRINCIPALS_READ = "principals:read"
    PRINCIPALS_WRITE = "principals:write"
    TOKENS_READ = "tokens:read"
    TOKENS_WRITE = "tokens:write"


class Extent(IntEnum):
    """How much of what lies in its scope a role may act on."""

    NONE = 0
    OWN = 1
    ALL = 2


_COLUMNS = {
    "v": Role.VIEWER,
    "u": Role.USER,
    "q": Role.QUEUE_ADMIN,
    "o": Role.OWNER_ADMIN,
    "s": Role.SITE_OPERATOR,
    "a": Role.AUDITOR,
    "f": Role.FLEET_ADMIN,
}

# One letter per role that may: a capital for everything in its scope, a small one for its own.
_TABLE: dict[Action, str] = {
    Action.WHOAMI: "VUQOSAF",
    Action.FLEET_READ: "VUQOSAF",
    Action.EVENTS_READ: "VUQOSAF",
    Action.METRICS_READ: "VUQOSAF",
    Action.QUEUE_READ: "VUQOSAF",
    Action.JOB_READ: "VUQOSAF",
    Action.JOB_SUBMIT: "UQOF",
    Action.JOB_CONTROL: "uQOF",
    Action.JOB_LOGS: "uQOF",
    Action.USAGE_READ: "VUQOSAF",
    Action.NODE_DRAIN: "OSF",
    Action.NODE_RESERVE: "OSF",
    Action.QUEUE_RESERVE: "OF",
    Action.SITE_POWER: "OSF",
    Action.SITE_ENROL: "OSF",
    Action.PLAN_APPLY: "F",
    Action.PRINCIPALS_READ: "QOAF",
    Action.PRINCIPALS_WRITE: "QOF",
    Action.TOKENS_READ: "vuqosaF",
    Action.TOKENS_WRITE: "vuqosaF",
}

EXTENTS: dict[tuple[Role, Action], Extent] = {
    (_COLUMNS[letter.lower()], action): Extent.ALL if letter.isupper() else Extent.OWN
    for action, letters in _TABLE.items()
    for letter in letters
}


class Resource(NamedTuple):
    """What an action is about. A binding at or above any of `scopes` reaches it.

    `user`: whose it is. `common`: it belongs to everybody with a role in the fleet, at whatever scope.
    """

    scopes: tuple[str, ...] = ()
    user: PrincipalId = ""
    common: bool = False


FLEET = Resource((FLEET_SCOPE,))
COMMON = Resource(common=True)


class Verdict(NamedTuple):
    """Whether an action is allowed, and by which binding or for want of what."""

    allowed: bool
    reason: str


def site_scope(site: SiteId) -> str:
    """The scope of a site."""
    return f"site:{site}"


def covers(scope: str, target: str) -> bool:
    """True if a binding at `scope` reaches `target`: the same, or above it on a '/' boundary."""
    return scope in (FLEET_SCOPE, target) or target.startswith(f"{scope}/")


def extent(principal: Principal, action: Action, resource: Resource) -> Extent:
    """How much of `resource` the principal's bindings let it act on."""
    return max((_of_binding(binding, action, resource) for binding in principal.bindings), default=Extent.NONE)


def decide(principal: Principal, action: Action, resource: Resource) -> Verdict:
    """The one answer to "may it?". What no binding allows is denied."""
    if action is Action.WHOAMI:
        return Verdict(allowed=True, reason="everybody may know who they are")
    granted = extent(principal, action, resource)
    if granted is Extent.ALL or (granted is Extent.OWN and resource.user == principal.id):
        return Verdict(allowed=True, reason=f"a role of {principal.id} allows {action}")
    if granted is Extent.OWN:
        return Verdict(allowed=False, reason=f"{principal.id} may do {action} only with its own")
    return Verdict(allowed=False, reason=f"no role of {principal.id} allows {action} here")


def may_grant(principal: Principal, binding: RoleBinding) -> Verdict:
    """Nobody grants what they lack: at the scope, the grantor holds everything the role gives, to the same extent."""
    resource = Resource((binding.scope,))
    if extent(principal, Action.PRINCIPALS_WRITE, resource) is Extent.NONE:
        return Verdict(allowed=False, reason=f"{principal.id} may not grant roles at {binding.scope}")
    for (role, action), needed in EXTENTS.items():
        if role is binding.role and extent(principal, action, resource) < needed:
            return Verdict(allowed=False, reason=f"{principal.id} lacks {action} at {binding.scope} itself")
    return Verdict(allowed=True, reason=f"{principal.id} holds all of {binding.role} at {binding.scope}")


def may_declare(principal: Principal, before: Principal | None, after: Principal) -> Verdict:
    """May the principal replace another's bindings? It must be able to grant each one that is added or taken away.

    Somebody who holds rights beyond the caller's may not be changed at all: a title or an empty change is a change.
    """
    in_question = dict.fromkeys((*(before.bindings if before else ()), *after.bindings))
    if not in_question:
        return decide(principal, Action.PRINCIPALS_WRITE, FLEET)
    return _all_grantable(principal, in_question)


def may_speak_for(principal: Principal, action: Action, other: Principal) -> Verdict:
    """A token gives its principal's whole power: only the principal, or who could have granted it all, may."""
    verdict = decide(principal, action, Resource((FLEET_SCOPE,), user=other.id))
    if verdict.allowed or principal.id == other.id:
        return Verdict(allowed=True, reason=verdict.reason)
    return _all_grantable(principal, other.bindings) if other.bindings else verdict


def readable_queue(principal: Principal, queue: QueueId) -> bool:
    """True if the principal may read the jobs of a queue, whoever submitted them."""
    return extent(principal, Action.JOB_READ, Resource((queue,))) is Extent.ALL


def _all_grantable(principal: Principal, bindings: Iterable[RoleBinding]) -> Verdict:
    verdicts = (may_grant(principal, binding) for binding in bindings)
    refused = next((verdict for verdict in verdicts if not verdict.allowed), None)
    return refused or Verdict(allowed=True, reason=f"{principal.id} could grant every right in question")


def _of_binding(binding: RoleBinding, action: Action, resource: Resource) -> Extent:
    granted = EXTENTS.get((binding.role, action), Extent.NONE)
    if granted and (resource.common or any(covers(binding.scope, target) for target in resource.scopes)):
        return granted
    return Extent.NONE
