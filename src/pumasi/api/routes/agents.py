"""What sites' agents call. They always dial out, and sign what they send."""

import msgspec

from pumasi.api.auth import one_use_token
from pumasi.api.call import Call
from pumasi.api.problems import Problem, problem_of
from pumasi.api.routing import BodySize, Reach, Table
from pumasi.control.access import Action
from pumasi.control.commands import EnrolSite
from pumasi.control.refusals import Refusal
from pumasi.model.access import TokenKind
from pumasi.protocol import signing
from pumasi.protocol.messages import Enrolled, Enrolment, SyncRequest, SyncResponse

TABLE = Table("agents")


@TABLE.route("POST", "/v1/agent/enrol", Action.AGENT, Reach.OPEN, body=Enrolment, tolerant=True, answer=Enrolled)
async def enrol(call: Call) -> Enrolled:
    """Bind an agent's key to its site, for a one-use token."""
    body: Enrolment = call.body
    token = one_use_token(call.state, body.token, TokenKind.ENROL, call.service.plane.now_ms())
    if token.site != body.site:
        raise Problem(403, "token-used", "this one-use token is used up, expired or unknown")
    if not signing.verify_enrolment(body.public_key, body.site, body.token, body.proof):
        raise Problem(401, "signature-invalid", "the proof is not a signature by the key it comes with")
    command = EnrolSite(by=f"site:{body.site}", site=body.site, public_key=body.public_key, used_up=token.digest)
    generation: int = await call.do(command)
    return Enrolled(fleet=call.state.plan_name, generation=generation)


@TABLE.route(
    "POST",
    "/v1/agent/sync",
    Action.AGENT,
    Reach.SITE,
    body=SyncRequest,
    tolerant=True,
    body_size=BodySize.BATCH,
    answer=SyncResponse,
)
async def sync(call: Call) -> SyncResponse:
    """Take an agent's reports and tell it what is to be done, at once or when something comes up."""
    request: SyncRequest = call.body
    generation = call.state.sites[call.site].generation
    wait_seconds = max(0, min(request.wait_seconds, call.settings.agent_wait_seconds))
    answer = await call.service.sync(call.site, msgspec.structs.replace(request, wait_seconds=wait_seconds))
    if isinstance(answer, Refusal):
        raise problem_of(answer)
    # An agent that was superseded while it waited must not carry orders away: its successor gets them too.
    if call.state.sites[call.site].generation != generation:
        raise Problem(403, "agent-superseded", f"a newer agent speaks for {call.site}")
    return answer
