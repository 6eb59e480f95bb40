"""Checks for schemathesis: its own, made precise about what a schema cannot say.

``positive_data_acceptance`` wants every request that fits the schema to be accepted. A schema cannot say that an end lies behind a begin, that a
cursor was given by this very list, or that a site exists; for exactly these members a 400 that names them is right. Everything else stays as
strict as schemathesis has it. Loaded by SCHEMATHESIS_HOOKS, see test_schemathesis.py.
"""

from __future__ import annotations

import json
import re
from typing import Any

import schemathesis
from schemathesis.specs.openapi import checks

SEMANTIC = re.compile(
    r"""\$\.(?:
        cursor                      # given by this very list
      | begin | end                 # in order, from 1970, at most 10,000 steps
      | measurand\[\d+\]            # known to the tables or to a device
      | operator                    # delta is for registers
      | zone | timezone             # known to the time-zone database
      | site | scope                # a site that exists
      | expires                     # in the future
      | identity                    # of printable characters, as Unicode has them
      | verb                        # said by the alternatives, but a verb may be out of them by one character
      | arguments(?:\..*|\[.*)?     # a rule over several arguments of a verb
      | payload(?:\..*|\[.*)? | everything | file   # rules of the message that is sent
    )\Z""",
    re.VERBOSE,
)
TRANSPORT = (413, 431)
"""Longer than what the hub reads at all: the schema cannot say that either."""


@schemathesis.check
def well_formed_is_accepted(ctx: Any, response: Any, case: Any) -> bool | None:
    try:
        return checks.positive_data_acceptance(ctx, response, case)
    except Exception as refused:
        if type(refused).__name__ != "RejectedPositiveData":
            raise
        if response.status_code in TRANSPORT:
            return None
        errors = json.loads(response.content).get("errors", [])
        if response.status_code == 400 and errors and all(SEMANTIC.match(one["path"]) for one in errors):
            return None
        raise


@schemathesis.check
def malformed_is_refused(ctx: Any, response: Any, case: Any) -> bool | None:
    return None if response.status_code in TRANSPORT else checks.negative_data_rejection(ctx, response, case)


@schemathesis.check
def refusals_are_problems(ctx: Any, response: Any, case: Any) -> bool | None:
    """Not one of schemathesis's: every refusal is a problem with its own status; a 400 names what is wrong."""
    if response.status_code >= 400:
        assert response.headers["content-type"] == ["application/problem+json"], response.headers["content-type"]
        problem = json.loads(response.content)
        assert problem["status"] == response.status_code
        assert problem["title"]
        assert response.status_code != 400 or problem["errors"], problem
    return None
