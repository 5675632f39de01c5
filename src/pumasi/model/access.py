"""Who may do what: principals, roles and the scope a role is bound at."""

from enum import StrEnum

from msgspec import Struct

from pumasi.model.ids import PrincipalId

FLEET_SCOPE = "*"


class Role(StrEnum):
    """Roles, from least to most; what each may do is one table in `control.access`."""

    VIEWER = "viewer"
    USER = "user"
    QUEUE_ADMIN = "queue-admin"
    OWNER_ADMIN = "owner-admin"
    SITE_OPERATOR = "site-operator"
    AUDITOR = "auditor"
    FLEET_ADMIN = "fleet-admin"


class RoleBinding(Struct, frozen=True):
    """A role at a scope: `*` (the fleet), an owner or queue path (and all below it), or `site:<id>`."""

    role: Role
    scope: str


class Principal(Struct, frozen=True, kw_only=True):
    """A person or service that calls the API."""

    id: PrincipalId
    title: str = ""
    bindings: tuple[RoleBinding, ...] = ()


class TokenKind(StrEnum):
    """What a token is good for. SETUP and ENROL work once."""

    SETUP = "setup"
    PERSONAL = "personal"
    SERVICE = "service"
    ENROL = "enrol"


class Token(Struct, frozen=True, kw_only=True):
    """A credential as the log knows it: the SHA-256 of the secret, never the secret. `site` binds an ENROL token."""

    digest: str
    kind: TokenKind
    principal: PrincipalId = ""
    site: str = ""
    expires_at_ms: int
