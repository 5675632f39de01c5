"""The decision itself, as properties over drawn principals: narrower never sees more, and granting never adds power."""

from hypothesis import given
from hypothesis import strategies as st

from pumasi.control.access import (
    COMMON,
    EXTENTS,
    FLEET,
    Action,
    Extent,
    Resource,
    covers,
    decide,
    extent,
    may_declare,
    may_grant,
    may_speak_for,
)
from pumasi.model.access import Principal, Role, RoleBinding

SCOPES = ["*", "sk", "sk/a", "sk/a/b", "sk-x", "skt", "samsung", "site:sk", "site:ulsan"]
ACTIONS = [action for action in Action if action not in (Action.PUBLIC, Action.AGENT, Action.WHOAMI)]

scopes = st.sampled_from(SCOPES)
bindings = st.builds(RoleBinding, st.sampled_from(Role), scopes)
resources = st.builds(
    Resource, st.lists(scopes, min_size=1, max_size=3).map(tuple), st.sampled_from(["me", "you"])
) | st.sampled_from([COMMON, FLEET])


def principals(name: str) -> st.SearchStrategy[Principal]:
    return st.builds(Principal, id=st.just(name), bindings=st.lists(bindings, max_size=3).map(tuple))


def test_nothing_is_allowed_that_is_not_listed() -> None:
    nobody = Principal(id="me")
    for action in ACTIONS:
        for resource in (COMMON, FLEET, Resource(("sk",)), Resource()):
            assert not decide(nobody, action, resource).allowed
    assert {action for _, action in EXTENTS} == {*ACTIONS, Action.WHOAMI}


def test_scopes_reach_what_is_below_them_and_no_neighbours() -> None:
    reached = {scope: [target for target in SCOPES if covers(scope, target)] for scope in SCOPES}
    assert reached == {
        "*": SCOPES,
        "sk": ["sk", "sk/a", "sk/a/b"],
        "sk/a": ["sk/a", "sk/a/b"],
        **{scope: [scope] for scope in ("sk/a/b", "sk-x", "skt", "samsung", "site:sk", "site:ulsan")},
    }


@given(principals("me"), bindings, st.sampled_from(ACTIONS), resources)
def test_another_role_never_takes_a_right_away(
    me: Principal, more: RoleBinding, action: Action, what: Resource
) -> None:
    richer = Principal(id="me", bindings=(*me.bindings, more))
    assert extent(richer, action, what) >= extent(me, action, what)


@given(st.sampled_from(Role), scopes, scopes, st.sampled_from(ACTIONS), resources)
def test_a_narrower_scope_never_sees_more(role: Role, wide: str, narrow: str, action: Action, what: Resource) -> None:
    if covers(wide, narrow):
        above, below = (Principal(id="me", bindings=(RoleBinding(role, scope),)) for scope in (wide, narrow))
        assert extent(above, action, what) >= extent(below, action, what)


@given(principals("me"), bindings, st.sampled_from(ACTIONS), resources)
def test_what_one_may_grant_one_holds(me: Principal, given_away: RoleBinding, action: Action, what: Resource) -> None:
    if may_grant(me, given_away).allowed:
        friend = Principal(id="you", bindings=(given_away,))
        assert extent(friend, action, what) <= extent(me, action, what)


@given(principals("me"), principals("you"), principals("you"), st.sampled_from(ACTIONS), resources)
def test_who_may_be_changed_or_spoken_for_holds_no_more(
    me: Principal, before: Principal, after: Principal, action: Action, what: Resource
) -> None:
    if may_declare(me, before, after).allowed:
        assert max(extent(before, action, what), extent(after, action, what)) <= extent(me, action, what)
    if may_speak_for(me, Action.TOKENS_WRITE, before).allowed:
        assert extent(before, action, what) <= extent(me, action, what)


@given(principals("me"))
def test_one_may_always_handle_ones_own_tokens_and_no_strangers(me: Principal) -> None:
    if me.bindings:
        assert may_speak_for(me, Action.TOKENS_WRITE, me).allowed
    admin = any(binding == RoleBinding(Role.FLEET_ADMIN, "*") for binding in me.bindings)
    nobody = Principal(id="nobody")
    assert may_speak_for(me, Action.TOKENS_WRITE, nobody).allowed is admin


def test_own_is_ones_own() -> None:
    user = Principal(id="me", bindings=(RoleBinding(Role.USER, "sk"),))
    assert extent(user, Action.JOB_CONTROL, Resource(("sk/a",))) is Extent.OWN
    assert decide(user, Action.JOB_CONTROL, Resource(("sk/a",), user="me")).allowed
    assert not decide(user, Action.JOB_CONTROL, Resource(("sk/a",), user="you")).allowed
    assert not decide(user, Action.JOB_CONTROL, Resource(("samsung",), user="me")).allowed
