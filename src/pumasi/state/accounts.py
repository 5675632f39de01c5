"""The books of a pool: how its healthy GPUs divide among the entitled, and what each charge does to them."""

from pumasi.model.ids import OwnerId
from pumasi.model.jobs import Charge
from pumasi.state.records import Account

Accounts = dict[OwnerId, Account]


def divide(capacity_gpus: int, entitlements: dict[OwnerId, int]) -> dict[OwnerId, int]:
    """The entitlements shrunk in proportion to `capacity_gpus`; odd GPUs go by largest remainder, then by name."""
    total = sum(entitlements.values())
    if capacity_gpus >= total or total == 0:
        return dict(entitlements)
    shares = {owner: capacity_gpus * gpus // total for owner, gpus in entitlements.items()}
    odd = capacity_gpus - sum(shares.values())
    by_remainder = sorted(entitlements, key=lambda owner: (-(capacity_gpus * entitlements[owner] % total), owner))
    for owner in by_remainder[:odd]:
        shares[owner] += 1
    return shares


def post(accounts: Accounts, borrower: OwnerId, charges: tuple[Charge, ...], sign: int) -> None:
    """Enter (sign 1) or remove (sign -1) the charges of an allocation of `borrower`'s job."""
    for charge in charges:
        account = accounts[charge.owner]
        gpus = sign * charge.gpus
        if charge.owner == borrower:
            account.home += gpus
        else:
            account.lent += gpus
            accounts.setdefault(borrower, Account()).borrowed += gpus


def promise(accounts: Accounts, charges: tuple[Charge, ...], sign: int) -> None:
    """Enter (sign 1) or remove (sign -1) the charges of a reservation."""
    for charge in charges:
        accounts[charge.owner].promised += sign * charge.gpus
