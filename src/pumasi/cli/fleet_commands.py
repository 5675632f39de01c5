"""Commands on the fleet: pools and nodes, what each owner has, draining and resuming nodes."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from pumasi.cli.arguments import expand_nodes, split_names
from pumasi.cli.durations import format_elapsed, format_gpu_hours
from pumasi.cli.errors import CommandError, ExitCode
from pumasi.cli.output import Column, Output, Row, dash, output_options, print_json, print_rows
from pumasi.cli.session import act_on_each, open_client
from pumasi.model.hostlist import compress, node_index
from pumasi.model.jobs import Span

if TYPE_CHECKING:
    from pumasi.client.client import Client

NODE_STATES = ("idle", "mix", "alloc", "drain", "drng", "down", "planned")
_NODE_STYLES = {"idle": "green", "mix": "cyan", "alloc": "blue", "drain": "yellow", "drng": "yellow", "down": "red"}


@click.command()
@click.option("-p", "--partition", "places", metavar="NAMES", default="", help="Only these pools or sites.")
@click.option("-N", "--Node", "by_node", is_flag=True, help="One line for each node.")
@click.option("-s", "--summarize", is_flag=True, help="One line for each pool.")
@click.option("-t", "--states", metavar="STATES", default="", help="Only nodes in these states: idle, mix, alloc, ...")
@output_options
@click.pass_context
def info(context: click.Context, places: str, by_node: bool, summarize: bool, states: str, output: Output) -> None:
    """List pools and the states of their nodes, as sinfo does; a pool is a partition."""
    client = open_client(context)
    wanted = _checked_states(states)
    pools = _pools_at(client.pools(), split_names(places))
    if by_node:
        print_rows(_nodes(client, pools, wanted, bool(places)), NODE_COLUMNS, output)
    elif summarize or output.json:
        print_rows(pools, SUMMARY_COLUMNS, output)
    else:
        print_rows(_state_rows(client, pools, wanted, bool(places)), STATE_COLUMNS, output)


def _checked_states(text: str) -> list[str]:
    states = [name.lower() for name in split_names(text)]
    for state in states:
        if state not in NODE_STATES:
            raise CommandError(
                f"there is no node state {state}", ExitCode.USAGE, f"states are: {', '.join(NODE_STATES)}"
            )
    return states


def _pools_at(pools: Iterable[Row], places: list[str]) -> list[Row]:
    pools = list(pools)
    known = {str(pool["id"]) for pool in pools} | {str(pool["site"]) for pool in pools}
    unknown = [place for place in places if place not in known]
    if unknown:
        raise CommandError(f"there is no pool or site {unknown[0]}", ExitCode.NOT_FOUND)
    return [pool for pool in pools if not places or pool["id"] in places or pool["site"] in places]


def _nodes(client: "Client", pools: list[Row], states: list[str], narrowed: bool) -> Iterator[Row]:
    chosen = [str(pool["id"]) for pool in pools] if narrowed else [None]
    for pool in chosen:
        yield from client.nodes(pool=pool, state=states)


def _state_rows(client: "Client", pools: list[Row], states: list[str], exact: bool) -> Iterator[Row]:
    """A row for each pool and node state; the nodes are named exactly when the pools were chosen."""
    for pool in pools:
        counts = {state: int(pool["node_states"].get(state, 0)) for state in NODE_STATES}
        shown = [state for state in NODE_STATES if counts[state] and (not states or state in states)]
        for state in shown:
            names = _node_list(client, pool, state, counts, exact)
            yield {**pool, "state": state, "count": counts[state], "node_list": names}


def _node_list(client: "Client", pool: Row, state: str, counts: dict[str, int], exact: bool) -> str:
    name = str(pool["id"])
    everything = compress(name, (Span(0, int(pool["nodes"]), 1),))
    if counts[state] == int(pool["nodes"]):
        return everything
    if not exact:
        return f"{counts[state]} of {everything}"
    return _compressed(name, (str(node["name"]) for node in client.nodes(pool=name, state=state)))


def _compressed(pool: str, names: Iterable[str]) -> str:
    indexes = [found[1] for name in names if (found := node_index(name))]
    return compress(pool, tuple(Span(index, 1, 1) for index in indexes)) if indexes else "-"


def _available(row: Row) -> str:
    """What sinfo calls AVAIL: up, down (its site is not heard from) or inact (not in service)."""
    if row.get("stage") != "in_service":
        return "inact"
    return "up" if row.get("link") == "connected" else "down"


def _gpu_counts(row: Row) -> str:
    return f"{row['gpus_free']}/{row['gpus']}"


def _model(row: Row) -> str:
    """Of GPUs that are cut also into what, and how many to a GPU: `rtx-pro-6000/4x1g.24gb`."""
    cut = f"/{row['slices_per_gpu']}x{row['slice']}" if row.get("slice") else ""
    return f"{dash(row.get('model'))}{cut}"


def _allocated_idle_other_total(row: Row) -> str:
    count = row["node_states"]
    allocated = int(count.get("alloc", 0)) + int(count.get("mix", 0))
    idle = int(count.get("idle", 0))
    return f"{allocated}/{idle}/{int(row['nodes']) - allocated - idle}/{row['nodes']}"


_POOL_COLUMNS = [
    Column("PARTITION", lambda row: str(row["id"])),
    Column("AVAIL", _available),
    Column("TIMELIMIT", lambda _row: "infinite"),
]
_GPU_COLUMNS = [
    Column("MODEL", _model),
    Column("GPUS(F/T)", _gpu_counts),
    Column("SITE", lambda row: str(row["site"]), wide=True),
    Column("STAGE", lambda row: dash(row.get("stage")), wide=True),
    Column("LINK", lambda row: dash(row.get("link")), wide=True),
]
STATE_COLUMNS = [
    *_POOL_COLUMNS,
    Column("NODES", lambda row: int(row["count"])),
    Column("STATE", lambda row: str(row["state"]), style=lambda row: _NODE_STYLES.get(str(row["state"]), "")),
    *_GPU_COLUMNS,
    Column("NODELIST", lambda row: str(row["node_list"])),
]
SUMMARY_COLUMNS = [
    *_POOL_COLUMNS,
    Column("NODES(A/I/O/T)", _allocated_idle_other_total),
    *_GPU_COLUMNS,
    Column("NODELIST", lambda row: compress(str(row["id"]), (Span(0, int(row["nodes"]), 1),))),
]
NODE_COLUMNS = [
    Column("NODELIST", lambda row: str(row["name"])),
    Column("PARTITION", lambda row: str(row["pool"])),
    Column("STATE", lambda row: str(row["state"]), style=lambda row: _NODE_STYLES.get(str(row["state"]), "")),
    Column("MODEL", _model),
    Column("GPUS(F/T)", _gpu_counts),
    Column("REASON", lambda row: dash(row.get("reason"))),
]


# --- shares ----------------------------------------------------------------------------------------------------------

_BOOK_COLUMNS = [
    Column("ENTITLED", lambda row: int(row["entitled"])),
    Column("DUE", lambda row: int(row["due"])),
    Column("HOME", lambda row: int(row["home"])),
    Column("LENT", lambda row: int(row["lent"]), style=lambda row: "cyan" if row["lent"] else ""),
    Column("PROMISED", lambda row: int(row["promised"]), wide=True),
    Column("BORROWED", lambda row: int(row["borrowed"]), style=lambda row: "yellow" if row["borrowed"] else ""),
    Column("IDLE", lambda row: int(row["idle"])),
]


def _over_share(row: Row) -> str:
    return "yellow" if int(row["gpus_in_use"]) > int(row["gpus_fair_share"]) else ""


OWNER_COLUMNS = [
    Column("OWNER", lambda row: str(row["owner"])),
    Column("TITLE", lambda row: dash(row.get("title")), wide=True),
    *_BOOK_COLUMNS,
    Column("CREDIT(GPU-H)", lambda row: format_gpu_hours(int(row["credit_gpu_milliseconds"]))),
    Column("LENDS", lambda row: f"{row['lendable_percent']}%", wide=True),
    Column("RECLAIM", lambda row: format_elapsed(int(row["reclaim_window_seconds"])), wide=True),
]
OWNER_POOL_COLUMNS = [
    Column("OWNER", lambda row: str(row["owner"])),
    Column("POOL", lambda row: str(row["pool"])),
    *_BOOK_COLUMNS,
]
QUEUE_COLUMNS = [
    Column("QUEUE", lambda row: str(row["id"])),
    Column("TITLE", lambda row: dash(row.get("title")), wide=True),
    Column("WEIGHT", lambda row: int(row["weight"])),
    Column("NOMINAL", lambda row: int(row["gpus_nominal"])),
    Column("SHARE", lambda row: int(row["gpus_fair_share"])),
    Column("IN_USE", lambda row: int(row["gpus_in_use"]), style=_over_share),
    Column("DOMINANT", lambda row: f"{int(row['dominant_permille']) / 10:.1f}%"),
    Column("WAITING", lambda row: int(row["jobs_waiting"])),
    Column("PAST(GPU-H)", lambda row: format_gpu_hours(int(row["past_gpu_milliseconds"]))),
]
LOAN_COLUMNS = [
    Column("LENDER", lambda row: str(row["lender"])),
    Column("BORROWER", lambda row: str(row["borrower"])),
    Column("POOL", lambda row: str(row["pool"])),
    Column("GPUS", lambda row: int(row["gpus"])),
]


@click.command()
@click.option("--by", type=click.Choice(["owner", "pool", "queue", "loan"]), default="owner", show_default=True)
@click.option("--owner", metavar="NAMES", default="", help="Only these owners.")
@output_options
@click.pass_context
def shares(context: click.Context, by: str, owner: str, output: Output) -> None:
    """Show what each owner is entitled to and due, and what of it is in use, lent and idle, in GPUs; by pool and by
    loan in slices, where a pool is cut.

    DUE is the entitlement less faults. HOME and LENT are used on it, by the owner and by others; BORROWED is what the
    owner uses of others. CREDIT grows by lending and shrinks by borrowing.

    By queue: SHARE is what each queue is due now of its owner's GPUs, by weight, no more than it wants, counting what
    it used in the past; what is placed next tends to it. DOMINANT is the largest part it uses of any pool.
    """
    client, owners = open_client(context), split_names(owner)
    if by == "queue":
        print_rows((row for row in client.queues() if not owners or row["owner"] in owners), QUEUE_COLUMNS, output)
        return
    found = client.shares()
    if output.json:
        print_json(found)
        return
    rows, columns = share_rows(found, by)
    print_rows([row for row in rows if not owners or not owners_of(row).isdisjoint(owners)], columns, output)


def owners_of(row: Row) -> set[str]:
    """The owners a row of shares is about."""
    return {str(row[key]) for key in ("owner", "lender", "borrower") if key in row}


def share_rows(found: Row, by: str) -> tuple[list[Row], list[Column]]:
    """Rows and columns of the shares by owner, by owner and pool, or by loan."""
    if by == "loan":
        return list(found["loans"]), LOAN_COLUMNS
    if by == "pool":
        rows: list[Row] = [{**book, "pool": pool} for owner in found["owners"] for pool, book in owner["pools"].items()]
        return rows, OWNER_POOL_COLUMNS
    return [{**owner, **owner["total"]} for owner in found["owners"]], OWNER_COLUMNS


# --- nodes -----------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("nodes", metavar="NODE...", nargs=-1, required=True)
@click.option("--reason", required=True, help="Why; shown to everybody who looks at the node.")
@click.pass_context
def drain(context: click.Context, nodes: tuple[str, ...], reason: str) -> int:
    """Let nodes finish their work and take no more. NODE may be a list: pool-[00001-00004,00009]."""
    client = open_client(context)
    return act_on_each(expand_nodes(nodes), lambda name: client.drain(name, reason))


@click.command()
@click.argument("nodes", metavar="NODE...", nargs=-1, required=True)
@click.pass_context
def resume(context: click.Context, nodes: tuple[str, ...]) -> int:
    """Put drained nodes back to work. NODE may be a list: pool-[00001-00004,00009]."""
    return act_on_each(expand_nodes(nodes), open_client(context).resume)
