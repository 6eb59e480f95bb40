"""Accounts, sites, grants, tokens, and the audit trail."""

from __future__ import annotations

import datetime
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
from litestar import Request
from msgspec import Meta

from gridloom.core.accounts import Account, Token
from gridloom.core.clock import from_datetime
from gridloom.core.errors import FieldFault, Forbidden, InvalidInput, NotFound
from gridloom.core.hub import Hub
from gridloom.core.model import Audit, Grant, Principal, Role, Site
from gridloom.web import wire
from gridloom.web.operation import NO_CONTROLS, Answer, Cursor, Id, Limit, Moment, Name, next_link, operation

Scope = Annotated[
    str,
    Meta(max_length=500, pattern=r"^(\*|(site|device):[^\x00-\x1f\x7f]+)$(?!\n)", description="`*` (the hub), `site:ID` or `device:ID`"),
]
SiteId = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$(?!\n)", description="made by the hub if absent")]
Email = Annotated[str, Meta(min_length=3, max_length=254, pattern=r"^[^\s@\x00-\x1f\x7f]+@[^\s@\x00-\x1f\x7f]+$(?!\n)", description="e-mail address")]
AccountName = Annotated[str, Meta(min_length=1, max_length=254, pattern=NO_CONTROLS, description="an account's id or e-mail address")]
Password = Annotated[str, Meta(min_length=8, max_length=512, pattern=NO_CONTROLS)]
Attributes = Annotated[dict[Name, Name], Meta(max_length=50, description="facts for people")]


class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of bodies: strict."""


# ----------------------------------------------------------------------------------------------------------------- me


class GrantOut(msgspec.Struct, frozen=True):
    """An account has a role in a scope."""

    account: str
    scope: str
    role: Role


class Me(msgspec.Struct, frozen=True):
    """Who asks."""

    account: str
    token: Annotated[str, Meta(description="the token's id; empty for a session of this machine's browser")]
    grants: Annotated[tuple[GrantOut, ...], Meta(description="what this token or session carries at most")]


@operation("GET", "/api/v1/me", summary="Who this token is", tag="access")
async def who_am_i(principal: Principal) -> Me:
    """The account behind the request and what its token carries at most."""
    return Me(principal.account, principal.token, tuple(GrantOut(one.account, one.scope, one.role) for one in principal.grants))


# -------------------------------------------------------------------------------------------------------------- tokens


class TokenOut(msgspec.Struct, frozen=True, omit_defaults=True):
    """A token, without its secret."""

    id: str
    account: str
    grants: tuple[GrantOut, ...]
    created: Moment
    name: str = ""
    expires: Moment | None = None
    parent: Annotated[str, Meta(description="the id of the token that made it and with which it ends; absent: none")] = ""


class Tokens(msgspec.Struct, frozen=True):
    """Tokens, oldest first."""

    items: tuple[TokenOut, ...]


class NewToken(_Body, frozen=True):
    """What a token should carry."""

    role: Role
    account: Annotated[AccountName | None, Meta(description="whose token; absent: the asker's own")] = None
    scope: Scope = "*"
    name: Name = ""
    expires: Annotated[datetime.datetime, Meta(tz=True, description="when it ends; absent: never")] | None = None


class MadeToken(msgspec.Struct, frozen=True, omit_defaults=True):
    """A new token. Its secret is shown this once."""

    token: TokenOut
    secret: Annotated[str, Meta(description="send it as `Authorization: Bearer SECRET`; it is never shown again")]


@operation("GET", "/api/v1/tokens", summary="Tokens", tag="access")
async def list_tokens(hub: Hub, principal: Principal) -> Tokens:
    """All tokens for an admin; for others those of their account that carry no more than the token that asks. Secrets cannot be shown."""
    return Tokens(tuple(_token(one) for one in hub.accounts.tokens_for(principal)))


@operation(
    "POST",
    "/api/v1/tokens",
    summary="Create a token",
    tag="access",
    status=201,
    headers={"Location": "where the token can be revoked"},
    refuses={404: "There is no such account."},
)
async def create_token(hub: Hub, principal: Principal, body: NewToken) -> Answer[MadeToken]:
    """An admin for anybody; everybody else for themselves, at most what they carry and as long as the token that asks is valid."""
    _not_local(principal)
    expires = None if body.expires is None else from_datetime(body.expires)
    if expires is not None and expires <= hub.clock.now():
        raise InvalidInput("the token would have ended already", (FieldFault("$.expires", "expected a time in the future"),))
    token, secret = await hub.accounts.create_token(
        principal, account=body.account or principal.account, role=body.role, scope=body.scope, name=body.name, expires=expires
    )
    return Answer(MadeToken(_token(token), secret), headers={"location": f"/api/v1/tokens/{quote(token.id, safe='')}"})


@operation("DELETE", "/api/v1/tokens/{token_id}", summary="Revoke a token", tag="access", status=204, refuses={404: "There is no such token."})
async def revoke_token(hub: Hub, principal: Principal, token_id: str) -> None:
    """It and the tokens made with it open nothing from now on; live streams that they opened end within seconds."""
    _not_local(principal)
    await hub.accounts.revoke_token(principal, token_id)


def _token(one: Token) -> TokenOut:
    grants = tuple(GrantOut(grant.account, grant.scope, grant.role) for grant in one.grants)
    return TokenOut(one.id, one.account, grants, wire.moment(one.created), one.name, wire.maybe_moment(one.expires), one.parent)


def _not_local(principal: Principal) -> None:
    """A browser session of this machine looks; it makes and ends no tokens, also none of its own."""
    if not principal.token:
        raise Forbidden("this needs a token: a session of this machine's browser may only look")


# ------------------------------------------------------------------------------------------------------------ accounts


class AccountOut(msgspec.Struct, frozen=True, omit_defaults=True):
    """Somebody, or a service."""

    id: str
    email: str
    name: str
    role: Annotated[Role, Meta(description="what the account is; what it may see is said by its grants")]
    disabled: Annotated[bool, Meta(description="nothing it holds opens anything")]
    created: Moment
    grants: tuple[GrantOut, ...] = ()
    attributes: dict[str, str] = {}


class AccountsOut(msgspec.Struct, frozen=True):
    """Accounts, by id."""

    items: tuple[AccountOut, ...]


class NewAccount(_Body, frozen=True):
    """An account to create."""

    email: Email
    name: Name = ""
    role: Role = Role.OWNER
    scope: Annotated[Scope | None, Meta(description="where it has its role at once; absent: nowhere yet")] = None
    password: Password | None = None
    attributes: Attributes = {}


class AccountChange(_Body, frozen=True):
    """What to change; what is absent stays."""

    name: Name | None = None
    role: Role | None = None
    disabled: bool | None = None
    attributes: Attributes | None = None


class NewPassword(_Body, frozen=True):
    """A password to set. ``old`` is needed by whoever changes their own and is no admin."""

    password: Password
    old: Annotated[str, Meta(max_length=512, pattern=NO_CONTROLS)] | None = None


@operation("GET", "/api/v1/accounts", summary="Accounts", tag="access")
async def list_accounts(hub: Hub, principal: Principal) -> AccountsOut:
    """All accounts with their grants. For admins."""
    hub.accounts.require(principal, "account.manage")
    return AccountsOut(tuple(_account(hub, one) for one in hub.accounts.accounts()))


@operation(
    "POST",
    "/api/v1/accounts",
    summary="Create an account",
    tag="access",
    status=201,
    hide=("password",),
    headers={"Location": "the new account"},
    refuses={409: "The address is taken."},
)
async def create_account(hub: Hub, principal: Principal, body: NewAccount) -> Answer[AccountOut]:
    """For admins."""
    made = await hub.accounts.create_account(
        principal, body.email, name=body.name, role=body.role, scope=body.scope, password=body.password, attributes=body.attributes
    )
    return Answer(_account(hub, made), headers={"location": f"/api/v1/accounts/{quote(made.id, safe='')}"})


_NO_ACCOUNT = {404: "There is no such account."}
_LAST_ADMIN = {409: "It would leave the hub without an admin."}


@operation("GET", "/api/v1/accounts/{account_id}", summary="One account", tag="access", refuses=_NO_ACCOUNT)
async def read_account(hub: Hub, principal: Principal, account_id: str) -> AccountOut:
    """For admins, and for the account itself."""
    _self_or_admin(hub, principal, account_id)
    return _account(hub, hub.accounts.account(account_id))


@operation("PATCH", "/api/v1/accounts/{account_id}", summary="Change an account", tag="access", refuses={**_NO_ACCOUNT, **_LAST_ADMIN})
async def update_account(hub: Hub, principal: Principal, account_id: str, body: AccountChange) -> AccountOut:
    """For admins."""
    hub.accounts.require(principal, "account.manage")
    changed = await hub.accounts.update_account(
        principal, account_id, name=body.name, role=body.role, disabled=body.disabled, attributes=body.attributes
    )
    return _account(hub, changed)


@operation(
    "PUT", "/api/v1/accounts/{account_id}/password", summary="Set a password", tag="access", status=204, hide=("password", "old"), refuses=_NO_ACCOUNT
)
async def set_password(hub: Hub, principal: Principal, account_id: str, body: NewPassword) -> None:
    """An admin for anybody; anybody for themselves who knows the old one."""
    _self_or_admin(hub, principal, account_id)
    found = hub.accounts.account(account_id)
    if not hub.accounts.may(principal, "account.manage"):
        known = await hub.accounts.authenticate_password(found.email, body.old or "", principal.address, principal.client)
        if known is None:
            raise Forbidden("the old password is not right")
    await hub.accounts.set_password(principal, found.id, body.password)


def _self_or_admin(hub: Hub, principal: Principal, account_id: str) -> None:
    if not principal.token or principal.account != account_id:
        hub.accounts.require(principal, "account.manage")


def _account(hub: Hub, one: Account) -> AccountOut:
    grants = tuple(GrantOut(grant.account, grant.scope, grant.role) for grant in hub.accounts.grants(account=one.id))
    return AccountOut(one.id, one.email, one.name, one.role, one.disabled, wire.moment(one.created), grants, one.attributes)


# --------------------------------------------------------------------------------------------------------------- sites


class SiteOut(msgspec.Struct, frozen=True, omit_defaults=True):
    """A place with devices and people."""

    id: str
    name: str
    timezone: Annotated[str, Meta(description="IANA name; absent: the hub's")] = ""
    attributes: dict[str, str] = {}


class Sites(msgspec.Struct, frozen=True):
    """Sites, by id."""

    items: tuple[SiteOut, ...]


class NewSite(_Body, frozen=True):
    """A site to create."""

    name: Name
    id: SiteId | None = None
    timezone: Annotated[Name, Meta(description="IANA name; empty: the hub's")] = ""
    attributes: Attributes = {}


class SiteChange(_Body, frozen=True):
    """What to change; what is absent stays."""

    name: Name | None = None
    timezone: Annotated[Name | None, Meta(description="IANA name; empty: the hub's")] = None
    attributes: Attributes | None = None


_NO_SITE = {404: "There is no such site, or not for this token."}


@operation("GET", "/api/v1/sites", summary="Sites", tag="access")
async def list_sites(hub: Hub, principal: Principal) -> Sites:
    """Those that the token sees."""
    return Sites(tuple(_site(one) for one in hub.accounts.sites(principal)))


@operation(
    "POST",
    "/api/v1/sites",
    summary="Create a site",
    tag="access",
    status=201,
    headers={"Location": "the new site"},
    refuses={409: "There is already a site with this id."},
)
async def create_site(hub: Hub, principal: Principal, body: NewSite) -> Answer[SiteOut]:
    """It is owned by the account that creates it."""
    hub.accounts.require(principal, "site.manage")
    _check_zone(body.timezone)
    made = await hub.accounts.create_site(principal, body.name, id=body.id, timezone=body.timezone, attributes=body.attributes)
    return Answer(_site(made), headers={"location": f"/api/v1/sites/{quote(made.id, safe='')}"})


@operation("GET", "/api/v1/sites/{site_id}", summary="One site", tag="access", refuses=_NO_SITE)
async def read_site(hub: Hub, principal: Principal, site_id: str) -> SiteOut:
    """Its devices are at `/api/v1/devices?site=ID`."""
    return _site(hub.accounts.site(principal, site_id))


@operation("PATCH", "/api/v1/sites/{site_id}", summary="Change a site", tag="access", refuses=_NO_SITE)
async def update_site(hub: Hub, principal: Principal, site_id: str, body: SiteChange) -> SiteOut:
    """For those who manage it."""
    hub.accounts.require(principal, "site.manage", site=hub.accounts.site(principal, site_id).id)
    _check_zone(body.timezone or "")
    return _site(await hub.accounts.update_site(principal, site_id, name=body.name, timezone=body.timezone, attributes=body.attributes))


@operation("DELETE", "/api/v1/sites/{site_id}", summary="Remove a site", tag="access", status=204, refuses=_NO_SITE)
async def remove_site(hub: Hub, principal: Principal, site_id: str) -> None:
    """The site and all grants in it; its devices stay."""
    await hub.accounts.remove_site(principal, site_id)


def _site(one: Site) -> SiteOut:
    return SiteOut(one.id, one.name, one.timezone, one.attributes)


def _check_zone(name: str) -> None:
    from zoneinfo import ZoneInfo

    if not name:
        return
    try:
        ZoneInfo(name)
    except (OSError, ValueError, LookupError):
        fault = FieldFault("$.timezone", "expected an IANA time zone, e.g. Europe/Paris")
        raise InvalidInput(f"there is no time zone {name[:60]!r}", (fault,)) from None


# -------------------------------------------------------------------------------------------------------------- grants


class Grants(msgspec.Struct, frozen=True):
    """Grants, by account and scope."""

    items: tuple[GrantOut, ...]


class GrantQuery(_Body, frozen=True):
    """Which grants."""

    account: Annotated[AccountName | None, Meta(description="Only of this account.")] = None
    scope: Annotated[Scope | None, Meta(description="Only in this scope: `*`, `site:ID` or `device:ID`.")] = None


class OneGrant(_Body, frozen=True):
    """Which grant."""

    account: Annotated[AccountName, Meta(description="The account.")]
    scope: Annotated[Scope, Meta(description="The scope: `*`, `site:ID` or `device:ID`.")]


class NewGrant(_Body, frozen=True):
    """A role for an account in a scope, instead of the one it may have there."""

    account: AccountName
    scope: Scope
    role: Role


@operation("GET", "/api/v1/grants", summary="Who has which role where", tag="access", refuses=_NO_ACCOUNT)
async def list_grants(hub: Hub, principal: Principal, query: GrantQuery) -> Grants:
    """Those that the token may see: its account's own, and those in scopes where it may see with whom they are shared."""
    accounts = hub.accounts
    wanted = None if query.account is None else query.account if query.account == principal.account else _known(hub, principal, query.account)
    found = accounts.grants(account=wanted, scope=query.scope)
    return Grants(tuple(GrantOut(one.account, one.scope, one.role) for one in found if _may_see(hub, principal, one)))


@operation("PUT", "/api/v1/grants", summary="Give an account a role in a scope", tag="access", refuses={**_NO_ACCOUNT, **_LAST_ADMIN})
async def put_grant(hub: Hub, principal: Principal, body: NewGrant) -> GrantOut:
    """Owners of a site may make others owner, installer or viewer of it; everything else is for admins."""
    made = await hub.accounts.grant(principal, body.account, body.scope, body.role)
    return GrantOut(made.account, made.scope, made.role)


@operation("DELETE", "/api/v1/grants", summary="Take a role away", tag="access", status=204, refuses={404: "There is no such grant.", **_LAST_ADMIN})
async def delete_grant(hub: Hub, principal: Principal, query: OneGrant) -> None:
    """From the next request on, whatever tokens are about."""
    await hub.accounts.revoke(principal, query.account, query.scope)


def _known(hub: Hub, principal: Principal, account: str) -> str:
    """An account's id. Whether an account exists is told to nobody who sees none of its grants."""
    try:
        return hub.accounts.account(account).id
    except NotFound:
        if hub.accounts.may(principal, "account.manage"):
            raise
        return ""


def _may_see(hub: Hub, principal: Principal, grant: Grant) -> bool:
    if grant.account == principal.account or hub.accounts.everywhere(principal, "grants.read"):
        return True
    kind, _, rest = grant.scope.partition(":")
    return kind == "site" and hub.accounts.may(principal, "grants.read", site=rest)


# --------------------------------------------------------------------------------------------------------------- audit


class AuditOut(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the audit trail."""

    id: str
    time: Moment
    account: str
    action: Annotated[str, Meta(description="a verb of `/api/v1/verbs`, or what was done")]
    target: str
    result: str
    address: str = ""
    client: str = ""
    token: Annotated[str, Meta(description="the id of the token that was used; absent: none")] = ""
    token_name: Annotated[str, Meta(description="its name; absent if it has none or no longer exists")] = ""
    data: dict[str, Any] = {}


class AuditPage(msgspec.Struct, frozen=True):
    """A page of the audit trail, newest first."""

    items: tuple[AuditOut, ...]
    next: str | None


class AuditQuery(_Body, frozen=True):
    """Which lines."""

    device: Annotated[tuple[Id, ...], Meta(max_length=100, description="Only about these devices. Repeatable.")] | None = None
    action: Annotated[tuple[Id, ...], Meta(max_length=100, description="Only these actions; may end in `.*`. Repeatable.")] | None = None
    begin: Annotated[datetime.datetime, Meta(tz=True, description="From this time on.")] | None = None
    end: Annotated[datetime.datetime, Meta(tz=True, description="Before this time.")] | None = None
    limit: Limit = 100
    cursor: Cursor | None = None


@operation(
    "GET",
    "/api/v1/audit",
    summary="Who ordered or changed what",
    tag="access",
    headers={"Link": 'the next page, with `rel="next"`'},
    refuses={404: "One of the devices does not exist, or not for this token."},
)
async def list_audit(hub: Hub, principal: Principal, query: AuditQuery, request: Request[Any, Any, Any]) -> Answer[AuditPage]:
    """When, from where, with which result; newest first. Lines about the hub as a whole are for those who may see its whole trail."""
    page = await hub.query.audit(
        principal,
        devices=query.device,
        actions=query.action,
        begin=None if query.begin is None else from_datetime(query.begin),
        end=None if query.end is None else from_datetime(query.end),
        limit=query.limit,
        cursor=query.cursor,
    )
    names = {token.id: token.name for token in hub.accounts.tokens()}
    lines = tuple(_line(one, names.get(one.token, "")) for one in page.lines)
    return Answer(AuditPage(lines, page.next), headers=next_link(request, page.next))


def _line(one: Audit, token_name: str) -> AuditOut:
    return AuditOut(
        one.id, wire.moment(one.time), one.account, one.action, one.target, one.result, one.address, one.client, one.token, token_name, one.data
    )


ROUTES = (
    who_am_i,
    list_tokens,
    create_token,
    revoke_token,
    list_accounts,
    create_account,
    read_account,
    update_account,
    set_password,
    list_sites,
    create_site,
    read_site,
    update_site,
    remove_site,
    list_grants,
    put_grant,
    delete_grant,
    list_audit,
)
