"""The table of TIC modems."""

from __future__ import annotations

from gridloom.integrations.tic.modems import TABLE, modem_type


def test_the_two_modems_of_the_facts() -> None:
    """TIC FACTS 5; the received document's example shows MICHAUD beside product 24597 (6015), and is wrong (FACTS 11)."""
    assert modem_type(0x0403, 0x6001) == "MICHAUD"
    assert modem_type(1027, 24597) == "TELEINFO"


def test_any_other_adapter_is_no_tic_modem() -> None:
    assert modem_type(0x10C4, 0xEA60) is None
    assert modem_type(0x0403, None) is None
    assert modem_type(None, None) is None


def test_every_row_cites_its_clause() -> None:
    assert all(row.clause and row.type for row in TABLE.values())
