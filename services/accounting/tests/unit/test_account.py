"""The account: what it grants, what it refuses, and that its fields are what its entries add up to."""

import pytest
from ftgo_accounting.domain.account import (
    Account,
    AccountIsDisabled,
    AccountState,
    Entry,
    EntryType,
    InsufficientCredit,
    fold,
)
from ftgo_contracts.money import Money
from hypothesis import given
from hypothesis import strategies as st


def opened(limit: str = "1000.00") -> Account:
    account = Account.unopened("asha")
    return account.apply(account.open(Money.of(limit)))


def authorized(amount: str, limit: str = "1000.00") -> Account:
    account = opened(limit)
    return account.apply(account.authorize("order", Money.of(amount)))


def test_a_new_account_has_the_default_limit():
    account = Account.unopened("asha")
    account = account.apply(account.open())
    assert (account.credit_limit, account.authorized, account.version) == (Money.of("1000.00"), Money.zero(), 1)


def test_an_authorization_takes_from_what_is_available():
    account = authorized("61.70")
    assert (account.authorized, account.available) == (Money.of("61.70"), Money.of("938.30"))


def test_the_last_cent_is_granted_and_not_one_more():
    account = authorized("999.99")
    assert account.apply(account.authorize("other", Money.of("0.01"))).available == Money.zero()
    with pytest.raises(InsufficientCredit):
        account.authorize("other", Money.of("0.02"))


def test_a_disabled_account_grants_nothing_more_but_takes_back():
    account = authorized("10.00")
    disabling = account.disable()
    assert disabling is not None
    account = account.apply(disabling)
    with pytest.raises(AccountIsDisabled):
        account.authorize("other", Money.of("1.00"))
    with pytest.raises(AccountIsDisabled):
        account.revise("order", Money.of("10.00"), Money.of("10.01"))
    assert account.apply(account.revise("order", Money.of("10.00"), Money.of("4.00"))).authorized == Money.of("4.00")
    assert account.apply(account.reverse("order", Money.of("10.00"))).authorized == Money.zero()


def test_disabling_and_enabling_twice_is_nothing_new():
    account = opened()
    assert account.enable() is None
    disabling = account.disable()
    assert disabling is not None
    assert account.apply(disabling).disable() is None


def test_a_lower_limit_leaves_what_is_authorized():
    account = authorized("800.00")
    lowering = account.change_credit_limit(Money.of("500.00"))
    assert lowering is not None
    account = account.apply(lowering)
    assert (account.authorized, account.available) == (Money.of("800.00"), Money.zero())
    with pytest.raises(InsufficientCredit):
        account.revise("order", Money.of("800.00"), Money.of("800.01"))
    assert account.apply(account.revise("order", Money.of("800.00"), Money.of("600.00"))).authorized == Money.of(
        "600.00"
    )
    assert account.change_credit_limit(Money.of("500.00")) is None


def test_a_negative_amount_is_a_mistake_not_credit():
    with pytest.raises(ValueError, match=r"-5\.00"):
        opened().authorize("order", Money.of("-5.00"))


@pytest.mark.parametrize(
    "entry",
    [
        Entry("asha", 3, EntryType.ACCOUNT_DISABLED),
        Entry("asha", 1, EntryType.ACCOUNT_DISABLED),
        Entry("ben", 2, EntryType.ACCOUNT_DISABLED),
        Entry("asha", 2, EntryType.ACCOUNT_OPENED),
    ],
)
def test_an_entry_out_of_turn_is_not_applied(entry):
    with pytest.raises(ValueError, match="does not follow"):
        opened().apply(entry)


def test_an_account_begins_with_its_opening():
    with pytest.raises(ValueError, match="does not follow"):
        fold("asha", [Entry("asha", 1, EntryType.ACCOUNT_DISABLED)])


ORDERS = st.sampled_from(["a", "b", "c", "d"])
AMOUNTS = st.integers(0, 150_000).map(Money)
ACTIONS = st.one_of(
    st.tuples(st.just("authorize"), ORDERS, AMOUNTS),
    st.tuples(st.just("revise"), ORDERS, AMOUNTS),
    st.tuples(st.just("reverse"), ORDERS, AMOUNTS),
    st.tuples(st.just("limit"), ORDERS, AMOUNTS),
    st.tuples(st.sampled_from(["disable", "enable"]), ORDERS, AMOUNTS),
)


def decide(account: Account, standing: dict[str, Money], action: tuple[str, str, Money]) -> Entry | None:
    """What the use cases do: ``standing`` are the authorizations by order."""
    what, order, amount = action
    if what == "limit":
        return account.change_credit_limit(amount)
    if what in {"disable", "enable"}:
        return account.disable() if what == "disable" else account.enable()
    if what == "authorize" and order not in standing:
        entry = account.authorize(order, amount)
        standing[order] = amount
        return entry
    if what == "revise" and order in standing:
        entry = account.revise(order, standing[order], amount)
        standing[order] = amount
        return entry
    if what == "reverse" and order in standing:
        return account.reverse(order, standing.pop(order))
    return None


@given(st.lists(ACTIONS, max_size=60))
def test_the_balance_is_what_the_entries_add_up_to(actions):
    """For any history: the snapshot equals the fold and the sum of what stands, and no grant exceeds the limit."""
    account = Account.unopened("asha")
    entries = [account.open()]
    account = account.apply(*entries)
    standing: dict[str, Money] = {}
    for action in actions:
        try:
            entry = decide(account, standing, action)
        except (InsufficientCredit, AccountIsDisabled):
            continue
        if entry is None:
            continue
        before, account = account, account.apply(entry)
        entries.append(entry)
        if account.authorized > before.authorized:
            assert account.authorized <= account.credit_limit
            assert account.state is AccountState.ENABLED
        assert account.authorized == sum(standing.values(), Money.zero())
    assert fold("asha", entries) == account
    assert [entry.version for entry in entries] == list(range(1, len(entries) + 1))
