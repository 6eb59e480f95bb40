"""Who may do what: accounts, sites, grants, tokens, secrets of devices. ``Accounts.may`` is the only authorisation of the hub.

A decision needs two yeses, each for the verb's roles (``core.verbs.TABLE``) and for the thing asked about:

- what the *account* was granted (a role in a scope: ``*``, ``site:ID``, ``device:ID``), looked up at the moment of the decision, so that what is
  revoked is gone at once, whatever tokens are about;
- what the *principal* carries: at most that much may be used by whoever signed in with this token.

An account also *is* something (``Account.role``): an owner without a site yet may create one, an installer may accept an invitation. For verbs
that concern no device and no site, being an owner or installer is enough where the row names that role; the hub-wide roles (admin, operator,
viewer) need their grant for ``*``.

Secrets: random tokens are kept as SHA-256 and looked up in memory; passwords of people are hashed by an injected PasswordHasher (argon2) in a thread;
secrets of devices have a salted verifier, and what was verified once is remembered in memory, so that a mass reconnect is not a hashing queue.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from gridloom.core import audit, ids
from gridloom.core.clock import Clock
from gridloom.core.errors import Conflict, FieldFault, Forbidden, InvalidInput, NotFound
from gridloom.core.faults import nearest
from gridloom.core.model import Consent, Device, Grant, Principal, Role, Site
from gridloom.core.ports import Delete, Put, Store, Write
from gridloom.core.verbs import TABLE

log = logging.getLogger(__name__)

SPACE = "core"
ADMIN_ACCOUNT = "admin"
EVERYWHERE = "*"
LONGEST_SECRET = 512
"""Longer tokens and passwords are not looked at: hashing megabytes for strangers is work they should not be able to give us."""
_LOOKUPS_PER_SECOND = 50
_HASHES_AT_ONCE = 2
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 2**11, 8, 1
_PLACED = frozenset({Role.OWNER, Role.INSTALLER})
"""Roles that one has somewhere, and that therefore count for verbs without a place even before there is one."""
_GRANTED_BY_OWNERS = frozenset({Role.OWNER, Role.INSTALLER, Role.VIEWER})


class PasswordHasher(Protocol):
    """Slow hashing of people's passwords (argon2, made elsewhere: the core knows no such library). Called in a thread."""

    def hash(self, password: str) -> str:
        """The hash with its salt and parameters."""
        ...

    def verify(self, hash: str, password: str) -> bool:
        """Whether the password is the one that was hashed. Never raises for a wrong one."""
        ...


class Account(msgspec.Struct, frozen=True, omit_defaults=True):
    """Somebody, or a service. ``role`` is what the account is; what it may see is said by its grants. ``created`` in µs."""

    id: str
    email: str
    name: str = ""
    role: Role = Role.OWNER
    disabled: bool = False
    created: int = 0
    attributes: dict[str, str] = {}


class Token(msgspec.Struct, frozen=True, omit_defaults=True):
    """A token without its secret. ``grants`` are what it allows at most; ``expires`` in µs.

    ``parent`` is the id of the token that made it, which it does not outlive; empty when somebody made it who manages tokens.
    """

    id: str
    account: str
    grants: tuple[Grant, ...]
    created: int
    name: str = ""
    expires: int | None = None
    parent: str = ""


class _StoredToken(msgspec.Struct, frozen=True):
    token: Token
    digest: str


class _StoredSecret(msgspec.Struct, frozen=True):
    """Of a person (the hasher's own string) or of a device (our verifier)."""

    verifier: str


class _Known:
    """What memory knows of one device's secret: never the secret itself."""

    __slots__ = ("accepted", "refused", "verifier")

    def __init__(self, verifier: str) -> None:
        self.verifier = verifier
        self.accepted = b""
        self.refused = b""


_accounts = msgspec.json.Decoder(Account)
_grants = msgspec.json.Decoder(Grant)
_sites = msgspec.json.Decoder(Site)
_tokens = msgspec.json.Decoder(_StoredToken)
_secrets = msgspec.json.Decoder(_StoredSecret)


class Accounts:
    """All accounts in memory, written through to the store. A principal of None is the local command line or the hub itself."""

    def __init__(self, *, store: Store, clock: Clock, hasher: PasswordHasher | None = None) -> None:
        self._store = store
        self._clock = clock
        self._hasher = hasher
        self._accounts: dict[str, Account] = {}
        self._emails: dict[str, str] = {}
        self._grants: dict[str, dict[str, Grant]] = {}
        self._sites: dict[str, Site] = {}
        self._tokens: dict[bytes, Token] = {}
        self._passwords: dict[str, str] = {}
        self._credentials: dict[str, _Known] = {}
        self._systems: dict[str, tuple[Grant, ...]] = {}
        self._changing = asyncio.Lock()
        self._hashing = asyncio.Semaphore(_HASHES_AT_ONCE)
        self._pepper = secrets.token_bytes(32)  # of this process: what memory holds of a device's secret is worth nothing elsewhere
        self._dummy: str | None = None
        self._lookups = (0.0, 0)

    # ------------------------------------------------------------------------------------------------------------ start

    async def load(self) -> None:
        """Read everything. Call once, before anybody is let in."""
        documents = self._store.documents
        for found in await documents.find(SPACE, "account"):
            self._remember(_accounts.decode(found.body))
        for found in await documents.find(SPACE, "grant"):
            grant = _grants.decode(found.body)
            self._grants.setdefault(grant.account, {})[grant.scope] = grant
        for found in await documents.find(SPACE, "site"):
            site = _sites.decode(found.body)
            self._sites[site.id] = site
        for found in await documents.find(SPACE, "token"):
            stored = _tokens.decode(found.body)
            self._tokens[bytes.fromhex(stored.digest)] = stored.token
        for found in await documents.find(SPACE, "password"):
            self._passwords[found.id] = _secrets.decode(found.body).verifier
        for found in await documents.find(SPACE, "credential"):
            self._credentials[found.id] = _Known(_secrets.decode(found.body).verifier)

    async def bootstrap(self) -> str | None:
        """When there is no admin's token yet: the account ``admin``, all rights, and a token, whose secret is returned this once; else None."""
        if any(grant.role is Role.ADMIN and grant.scope == EVERYWHERE for token in self._tokens.values() for grant in token.grants):
            return None
        _, secret = await self.create_token(None, account=ADMIN_ACCOUNT, role=Role.ADMIN, name="first start")
        return secret

    # -------------------------------------------------------------------------------------------------------- decisions

    def may(self, principal: Principal, verb: str, device: Device | None = None, *, site: str | None = None) -> bool:
        """Whether the principal may use the verb on this device, in this site, or (neither given) as such.

        A verb that is not in the table is allowed to nobody. Readings of a device whose owner refused consent are let out only to an
        admin of the whole hub.
        """
        row = TABLE.get(verb)
        if row is None:
            return False
        account = self._accounts.get(principal.account)
        held = self._systems.get(principal.account, ())
        if account is not None:
            if account.disabled:
                return False
            held = tuple(self._grants.get(account.id, {}).values())
        roles = row.roles
        if device is not None and device.consent is Consent.REFUSED and verb == "readings.read":
            roles, device, site = roles & {Role.ADMIN}, None, None  # asked of the hub as a whole
        if _allowed(held, roles, device, site) and _allowed(principal.grants, roles, device, site):
            return True
        if device is None and site is None and account is not None and account.role in _PLACED and account.role in roles:
            return any(grant.role in roles and grant.scope == EVERYWHERE for grant in principal.grants)
        return False

    def require(self, principal: Principal, verb: str, device: Device | None = None, *, site: str | None = None) -> None:
        """Raises NotFound when the device or site does not exist for the principal, Forbidden when it does but not for this verb."""
        if self.may(principal, verb, device, site=site):
            return
        if device is not None and not self.visible(principal, device):
            raise NotFound(f"there is no device {device.id!r}")
        if device is None and site is not None and not self.may(principal, "site.read", site=site):
            raise NotFound(f"there is no site {site!r}")
        row = TABLE.get(verb)
        if row is None:
            raise Forbidden(f"there is no verb {verb[:60]!r}{nearest(verb, TABLE)}")
        where = f" for {device.id}" if device is not None else f" in site {site}" if site is not None else ""
        raise Forbidden(f"{verb}{where} needs one of the roles {', '.join(sorted(row.roles))}")

    def visible(self, principal: Principal, device: Device) -> bool:
        """Whether the device exists for the principal. Its values are another matter: ask ``may(…, "readings.read", device)``."""
        return self.may(principal, "device.read", device)

    def everywhere(self, principal: Principal, verb: str) -> bool:
        """Whether the principal may use the verb in the whole hub (so that a query need not be cut down to devices)."""
        row = TABLE.get(verb)
        account = self._accounts.get(principal.account)
        if row is None or (account is not None and account.disabled):
            return False
        held = self._systems.get(principal.account, ()) if account is None else self._grants.get(account.id, {}).values()
        return _allowed(held, row.roles, None, None) and _allowed(principal.grants, row.roles, None, None)

    # ------------------------------------------------------------------------------------------------------- principals

    def system(self, name: str, role: Role = Role.OPERATOR) -> Principal:
        """A part of the hub that acts by itself (charge control…): by default an operator of the hub, named ``system:NAME`` in the audit trail."""
        account = f"system:{name}"
        grants = self._systems.setdefault(account, (Grant(account, EVERYWHERE, role),))
        return Principal(account, grants)

    def principal(self, account: str, *, address: str = "", client: str = "") -> Principal:
        """Somebody who proved by other means (password, vendor key) to be this account. Raises NotFound."""
        found = self.account(account)
        roles = {found.role} | {grant.role for grant in self._grants.get(found.id, {}).values()}
        return Principal(found.id, tuple(Grant(found.id, EVERYWHERE, role) for role in sorted(roles)), "", address, client)

    def authenticate_token(self, secret: str, address: str = "", client: str = "") -> Principal | None:
        """Who has this token: one look-up in memory. None when nobody, when it has ended, or when the account is disabled."""
        digest = _digest(secret)
        token = self._tokens.get(digest) if digest is not None else None
        if token is None:
            return None
        account = self._accounts.get(token.account)
        if account is None or account.disabled or (token.expires is not None and token.expires <= self._clock.now()):
            return None
        return Principal(token.account, token.grants, token.id, address, client)

    async def lookup_token(self, secret: str, address: str = "", client: str = "") -> Principal | None:
        """As ``authenticate_token``; a token that memory does not know is looked for in the store, where another node may have put it.

        Strangers cannot make this expensive: the store is asked at most 50 times a second.
        """
        found = self.authenticate_token(secret, address, client)
        digest = _digest(secret)
        if found is not None or digest is None or digest in self._tokens:
            return found
        second = self._clock.monotonic() // 1
        since, asked = self._lookups
        self._lookups = (second, asked + 1) if since == second else (second, 1)
        if since == second and asked >= _LOOKUPS_PER_SECOND:
            return None
        documents = await self._store.documents.find(SPACE, "token", {"digest": digest.hex()}, limit=1)
        if not documents:
            return None
        token = _tokens.decode(documents[0].body).token
        account = await self._store.documents.get(SPACE, "account", token.account)
        if account is None:
            return None
        for document in await self._store.documents.find(SPACE, "grant", {"account": token.account}):
            grant = _grants.decode(document.body)
            self._grants.setdefault(grant.account, {})[grant.scope] = grant
        self._remember(_accounts.decode(account.body))
        self._tokens[digest] = token
        return self.authenticate_token(secret, address, client)

    async def authenticate_password(self, email: str, password: str, address: str = "", client: str = "") -> Principal | None:
        """Who has this password. An unknown account takes as long as a wrong password."""
        if self._hasher is None or len(password) > LONGEST_SECRET:
            return None
        account = self._accounts.get(self._emails.get(_email_key(email), ""))
        stored = self._passwords.get(account.id) if account is not None else None
        hasher = self._hasher
        async with self._hashing:
            if stored is None and self._dummy is None:
                self._dummy = await asyncio.to_thread(hasher.hash, secrets.token_urlsafe(16))
            right = await asyncio.to_thread(hasher.verify, stored or self._dummy or "", password)
        if not right or stored is None or account is None:
            return None
        current = self._accounts.get(account.id)
        if current is None or current.disabled or self._passwords.get(account.id) != stored:  # changed while we were hashing
            return None
        return self.principal(account.id, address=address, client=client)

    # --------------------------------------------------------------------------------------------------------- accounts

    def account(self, account: str) -> Account:
        """By id or e-mail address. Raises NotFound."""
        found = self._accounts.get(account) or self._accounts.get(self._emails.get(_email_key(account), ""))
        if found is None:
            raise NotFound(f"there is no account {account[:254]!r}")
        return found

    def accounts(self) -> list[Account]:
        """All, ordered by id."""
        return sorted(self._accounts.values(), key=lambda account: account.id)

    async def create_account(
        self,
        principal: Principal | None,
        email: str,
        *,
        name: str = "",
        role: Role = Role.OWNER,
        scope: str | None = None,
        password: str | None = None,
        attributes: dict[str, str] | None = None,
    ) -> Account:
        """A new account. With ``scope`` it is granted its role there at once; without it sees nothing yet.

        Raises Forbidden, InvalidInput (``$.email``, ``$.password``, ``$.scope``), Conflict when the address is taken.
        """
        self._require(principal, "account.manage")
        _check_email(email)
        if scope is not None:
            self._check_scope(scope)
        verifier = None if password is None else await self._hash(password)
        async with self._changing:
            if _email_key(email) in self._emails:
                raise Conflict(f"there is already an account {email}")
            account = Account(ids.unique(self._clock.now()), email.strip(), name, role, created=self._clock.now(), attributes=attributes or {})
            writes: list[Write] = [_put("account", account.id, account, {"email": _email_key(email)})]
            if verifier is not None:
                writes.append(_put("password", account.id, _StoredSecret(verifier), {}))
            grants = [] if scope is None else [Grant(account.id, scope, role)]
            writes += [_put_grant(grant) for grant in grants]
            writes.append(self._audit(principal, "account.manage", account.id, {"created": account.email, "role": role.value, "scope": scope or ""}))
            await self._store.commit(writes)
            self._remember(account)
            for grant in grants:
                self._grants.setdefault(account.id, {})[grant.scope] = grant
            if verifier is not None:
                self._passwords[account.id] = verifier
        return account

    async def update_account(
        self,
        principal: Principal | None,
        account: str,
        *,
        name: str | None = None,
        role: Role | None = None,
        disabled: bool | None = None,
        attributes: dict[str, str] | None = None,
    ) -> Account:
        """Change what is given. Raises Forbidden, NotFound, Conflict when it would leave the hub without an admin."""
        self._require(principal, "account.manage")
        async with self._changing:
            old = self.account(account)
            if disabled and self._last_admin(old.id):
                raise Conflict(f"{old.id} is the last admin of the hub")
            new = msgspec.structs.replace(
                old,
                name=old.name if name is None else name,
                role=old.role if role is None else role,
                disabled=old.disabled if disabled is None else disabled,
                attributes=old.attributes if attributes is None else attributes,
            )
            changed: dict[str, object] = {
                field: getattr(new, field) for field in ("name", "role", "disabled", "attributes") if getattr(new, field) != getattr(old, field)
            }
            if changed:
                keys = {"email": _email_key(old.email)}
                await self._store.commit([_put("account", new.id, new, keys), self._audit(principal, "account.manage", new.id, changed)])
                self._accounts[new.id] = new
        return new

    async def set_password(self, principal: Principal | None, account: str, password: str) -> None:
        """An admin for anybody, anybody for themselves (then ``web`` has asked for the old one). Raises Forbidden, NotFound, InvalidInput."""
        found = self.account(account)
        if principal is None or principal.account != found.id:
            self._require(principal, "account.manage")
        verifier = await self._hash(password)
        await self._store.commit(
            [_put("password", found.id, _StoredSecret(verifier), {}), self._audit(principal, "account.manage", found.id, {"password": "changed"})]
        )
        self._passwords[found.id] = verifier

    # ----------------------------------------------------------------------------------------------------------- grants

    def grants(self, *, account: str | None = None, scope: str | None = None) -> list[Grant]:
        """Grants of an account (its id), in a scope, or all; ordered. Who may see them is asked by the caller (``grants.read``)."""
        accounts = self._grants if account is None else {account: self._grants.get(account, {})}
        found = [grant for grants in accounts.values() for grant in grants.values() if scope is None or grant.scope == scope]
        return sorted(found, key=lambda grant: (grant.account, grant.scope))

    async def grant(self, principal: Principal | None, account: str, scope: str, role: Role) -> Grant:
        """Give an account a role in a scope, instead of the role it may have there.

        Whoever owns a site may make others owner, installer or viewer of it; everything else is for admins. Raises Forbidden, NotFound, InvalidInput.
        """
        self._require_scope(principal, scope, role)  # first: whether a site exists is nothing for strangers
        self._check_scope(scope)
        async with self._changing:
            found = self.account(account)
            if role is not Role.ADMIN and scope == EVERYWHERE and self._last_admin(found.id):
                raise Conflict(f"{found.id} is the last admin of the hub")
            grant = Grant(found.id, scope, role)
            await self._store.commit([_put_grant(grant), self._audit(principal, "grant.manage", scope, {"account": found.id, "role": role.value})])
            self._grants.setdefault(found.id, {})[scope] = grant
        return grant

    async def revoke(self, principal: Principal | None, account: str, scope: str) -> None:
        """Take away what an account has in a scope, from the next decision on. Raises Forbidden, NotFound, Conflict for the last admin."""
        async with self._changing:
            found = self.account(account)
            held = self._grants.get(found.id, {}).get(scope)
            self._require_scope(principal, scope, held.role if held is not None else Role.VIEWER)
            if held is None:
                raise NotFound(f"{found.id} has no grant for {scope}")
            if scope == EVERYWHERE and self._last_admin(found.id):
                raise Conflict(f"{found.id} is the last admin of the hub")
            line = self._audit(principal, "grant.manage", scope, {"account": found.id, "revoked": held.role.value})
            await self._store.commit([Delete(SPACE, "grant", _grant_id(held)), line])
            del self._grants[found.id][scope]

    # ------------------------------------------------------------------------------------------------------------ sites

    def site(self, principal: Principal | None, id: str) -> Site:
        """Raises NotFound when there is none, or not for this principal."""
        found = self._sites.get(id)
        if found is None or (principal is not None and not self.may(principal, "site.read", site=id)):
            raise NotFound(f"there is no site {id[:60]!r}")
        return found

    def sites(self, principal: Principal | None) -> list[Site]:
        """Those the principal sees, ordered by id."""
        return [self._sites[id] for id in sorted(self._sites) if principal is None or self.may(principal, "site.read", site=id)]

    async def create_site(
        self,
        principal: Principal,
        name: str,
        *,
        id: str | None = None,
        timezone: str = "",
        attributes: dict[str, str] | None = None,
        writes: Sequence[Write] = (),
    ) -> Site:
        """A new site, owned by the account that creates it; ``writes`` go into the same commit. Raises Forbidden, Conflict for an id that exists."""
        self._require(principal, "site.manage")
        async with self._changing:
            site = Site(ids.unique(self._clock.now()) if id is None else id, name, timezone, attributes or {})
            if site.id in self._sites:
                raise Conflict(f"there is already a site {site.id}")
            grant = Grant(principal.account, f"site:{site.id}", Role.OWNER)
            owned = principal.account in self._accounts
            line = self._audit(principal, "site.manage", site.id, {"created": name})
            await self._store.commit([_put("site", site.id, site, {}), *([_put_grant(grant)] if owned else []), line, *writes])
            self._sites[site.id] = site
            if owned:
                self._grants.setdefault(principal.account, {})[grant.scope] = grant
        return site

    async def update_site(
        self, principal: Principal, id: str, *, name: str | None = None, timezone: str | None = None, attributes: dict[str, str] | None = None
    ) -> Site:
        """Change what is given. Raises NotFound, Forbidden."""
        async with self._changing:
            old = self.site(principal, id)
            self.require(principal, "site.manage", site=id)
            new = Site(
                id,
                old.name if name is None else name,
                old.timezone if timezone is None else timezone,
                old.attributes if attributes is None else attributes,
            )
            if new != old:
                await self._store.commit([_put("site", id, new, {}), self._audit(principal, "site.manage", id, {"changed": name or old.name})])
                self._sites[id] = new
        return new

    async def remove_site(self, principal: Principal, id: str) -> None:
        """The site and all grants in it. Its devices stay, seen by staff only, until somebody moves them. Raises NotFound, Forbidden."""
        async with self._changing:
            self.site(principal, id)
            self.require(principal, "site.manage", site=id)
            scope = f"site:{id}"
            gone = self.grants(scope=scope)
            line = self._audit(principal, "site.manage", id, {"removed": self._sites[id].name})
            await self._store.commit([Delete(SPACE, "site", id), *(Delete(SPACE, "grant", _grant_id(grant)) for grant in gone), line])
            del self._sites[id]
            for grant in gone:
                self._grants[grant.account].pop(scope, None)

    # ----------------------------------------------------------------------------------------------------------- tokens

    async def create_token(
        self,
        principal: Principal | None,
        *,
        account: str,
        role: Role,
        scope: str = EVERYWHERE,
        name: str = "",
        expires: int | None = None,
    ) -> tuple[Token, str]:
        """A token that allows at most ``role`` in ``scope`` of what its account may; ``expires`` in µs. The secret is returned this once.

        From the local command line (principal None) an account that does not exist yet is made: ``admin`` with all rights, or an e-mail address; the
        latter *is* ``role``, and a hub-wide role (admin, operator, viewer) is granted to it in ``scope``. Others: admins for anybody, and
        everybody for themselves what they carry anyway; such a token ends with the token that made it, at the latest.
        Raises Forbidden, NotFound, InvalidInput (``$.account``, ``$.scope``).
        """
        if principal is not None:
            self._require_minting(principal, account, role, scope)
        self._check_scope(scope)
        now = self._clock.now()
        async with self._changing:
            writes: list[Write] = []
            made: Account | None = None
            grant: Grant | None = None
            parent, expires = self._parent(principal, expires)
            known = account in self._accounts or _email_key(account) in self._emails
            if principal is None and not known:
                if account == ADMIN_ACCOUNT:
                    made = Account(ADMIN_ACCOUNT, "", role=Role.ADMIN, created=now)
                    grant = Grant(made.id, EVERYWHERE, Role.ADMIN)
                else:
                    _check_email(account, "$.account")
                    made = Account(ids.unique(now), account.strip(), role=role, created=now)
                    grant = Grant(made.id, scope, role) if role not in _PLACED or scope != EVERYWHERE else None
                writes.append(_put("account", made.id, made, {"email": _email_key(made.email)}))
                if grant is not None:
                    writes.append(_put_grant(grant))
                owner = made
            else:
                owner = self.account(account)
            secret = secrets.token_urlsafe(32)
            digest = hashlib.sha256(secret.encode("ascii")).digest()
            token = Token(ids.unique(now), owner.id, (Grant(owner.id, scope, role),), now, name, expires, parent)
            writes.append(_put("token", token.id, _StoredToken(token, digest.hex()), {"digest": digest.hex(), "account": owner.id}))
            writes.append(self._audit(principal, "token.manage", token.id, {"account": owner.id, "role": role.value, "scope": scope, "name": name}))
            await self._store.commit(writes)
            if made is not None:
                self._remember(made)
            if grant is not None:
                self._grants.setdefault(grant.account, {})[grant.scope] = grant
            self._tokens[digest] = token
        return token, secret

    def tokens(self, account: str | None = None) -> list[Token]:
        """All, or those of an account (its id), oldest first. They hold no secret."""
        found = [token for token in self._tokens.values() if account is None or token.account == account]
        return sorted(found, key=lambda token: token.id)

    def tokens_for(self, principal: Principal) -> list[Token]:
        """Those that the principal may see and revoke, oldest first: all for who manages tokens.

        For others those of their account that carry no more than they do themselves (also the one they came with): the account's
        other tokens may be worth more than the one that asks.
        """
        if self.may(principal, "token.manage"):
            return self.tokens()
        return [token for token in self.tokens(principal.account) if _within(token.grants, principal.grants)]

    async def revoke_token(self, principal: Principal | None, id: str) -> None:
        """From now on it opens nothing, nor do the tokens made with it. Whoever sees it (``tokens_for``) may. Raises NotFound."""
        async with self._changing:
            token = next((one for one in (self.tokens() if principal is None else self.tokens_for(principal)) if one.id == id), None)
            if token is None:
                raise NotFound(f"there is no token {id[:60]!r}")
            # From the store: another node may have made some of them.
            documents = await self._store.documents.find(SPACE, "token", {"account": token.account})
            gone = [id, *_descendants(id, [_tokens.decode(document.body).token for document in documents])]
            writes: list[Write] = []
            for one in gone:
                data: dict[str, object] = {"revoked": token.account}
                if one != id:
                    data["with"] = id
                writes += [Delete(SPACE, "token", one), self._audit(principal, "token.manage", one, data)]
            await self._store.commit(writes)
            for digest in [digest for digest, one in self._tokens.items() if one.id in gone]:
                del self._tokens[digest]

    # ------------------------------------------------------------------------------------------------ secrets of devices

    def has_credential(self, device: str) -> bool:
        """Whether the device must present a secret."""
        return device in self._credentials

    async def set_credential(self, principal: Principal | None, device: str, secret: str | None = None) -> str:
        """Set the secret that the device (its id; it need not have presented itself yet) must present; without one, make one of 256 random bits.

        Returns the secret. Raises Forbidden, InvalidInput (``$.secret``).
        """
        self._require(principal, "device.credential.manage")
        if secret is None:
            secret = secrets.token_urlsafe(32)
            verifier = _fast_verifier(secret)
        else:
            if not 1 <= len(secret) <= LONGEST_SECRET:
                reason = f"expected 1 to {LONGEST_SECRET} characters, got {len(secret)}"
                raise InvalidInput(f"secret of {device}: {reason}", (FieldFault("$.secret", reason),))
            async with self._hashing:
                verifier = await asyncio.to_thread(_slow_verifier, secret)
        line = self._audit(principal, "device.credential.manage", device, {"credential": "set"}, device=device)
        await self._store.commit([_put("credential", device, _StoredSecret(verifier), {}), line])
        known = self._credentials[device] = _Known(verifier)
        known.accepted = self._peppered(secret)
        return secret

    async def remove_credential(self, principal: Principal | None, device: str) -> None:
        """The device presents no secret any more. Raises Forbidden, NotFound."""
        self._require(principal, "device.credential.manage")
        if device not in self._credentials:
            raise NotFound(f"{device} has no credential")
        line = self._audit(principal, "device.credential.manage", device, {"credential": "removed"}, device=device)
        await self._store.commit([Delete(SPACE, "credential", device), line])
        self._credentials.pop(device, None)

    def check_credential(self, device: str, secret: str) -> bool | None:
        """Whether the secret is right, from memory alone, for places that cannot wait. None: ask ``verify_credential``."""
        known = self._credentials.get(device)
        if known is None or len(secret) > LONGEST_SECRET:
            return False
        peppered = self._peppered(secret)
        if known.accepted and hmac.compare_digest(known.accepted, peppered):
            return True
        if known.refused and hmac.compare_digest(known.refused, peppered):
            return False  # the same wrong secret again: stations repeat themselves for days
        if known.verifier.startswith("sha256$"):
            return self._learn(known, peppered, _verify(known.verifier, secret))
        return None

    async def verify_credential(self, device: str, secret: str) -> bool:
        """Whether the secret is right. Slow (some ms in a thread) only the first time after a start, for a secret that people made up."""
        quick = self.check_credential(device, secret)
        if quick is not None:
            return quick
        async with self._hashing:
            known = self._credentials.get(device)
            if known is None:
                return False
            quick = self.check_credential(device, secret)  # somebody may have verified it while we queued
            if quick is not None:
                return quick
            right = await asyncio.to_thread(_verify, known.verifier, secret)
        if self._credentials.get(device) is not known:
            return False  # changed meanwhile
        return self._learn(known, self._peppered(secret), right)

    # ---------------------------------------------------------------------------------------------------------- details

    def _learn(self, known: _Known, peppered: bytes, right: bool) -> bool:
        if right:
            known.accepted = peppered
        else:
            known.refused = peppered
        return right

    def _peppered(self, secret: str) -> bytes:
        return hashlib.blake2b(secret.encode("utf-8", "surrogatepass"), key=self._pepper, digest_size=32).digest()

    def _remember(self, account: Account) -> None:
        self._accounts[account.id] = account
        if account.email:
            self._emails[_email_key(account.email)] = account.id

    def _require(self, principal: Principal | None, verb: str) -> None:
        if principal is not None:
            self.require(principal, verb)

    def _require_scope(self, principal: Principal | None, scope: str, role: Role) -> None:
        if principal is None or self.may(principal, "account.manage"):
            return
        kind, _, site = scope.partition(":")
        if kind == "site":
            self.require(principal, "grant.manage", site=site)
            if role in _GRANTED_BY_OWNERS:
                return
        raise Forbidden(f"the role {role.value} in {scope} is given and taken by admins of the hub")

    def _require_minting(self, principal: Principal, account: str, role: Role, scope: str) -> None:
        if self.may(principal, "token.manage"):
            return
        own = self._accounts.get(principal.account)
        carried = any(grant.role is role and grant.scope in (EVERYWHERE, scope) for grant in principal.grants)
        if own is None or account not in (own.id, own.email) or not carried:
            raise Forbidden("a token for another account, or for more than one carries oneself, is made by an admin of the hub")

    def _parent(self, principal: Principal | None, expires: int | None) -> tuple[str, int | None]:
        """The token that a new one may not outlive, and when the new one ends. None for what managers of tokens make. Raises Forbidden."""
        if principal is None or not principal.token or self.may(principal, "token.manage"):
            return "", expires
        parent = next((token for token in self._tokens.values() if token.id == principal.token), None)
        if parent is None:  # revoked while its request was under way
            raise Forbidden("the token that asks has been revoked")
        return parent.id, min((end for end in (expires, parent.expires) if end is not None), default=None)

    def _last_admin(self, account: str) -> bool:
        admins = {
            id
            for id, grants in self._grants.items()
            if EVERYWHERE in grants and grants[EVERYWHERE].role is Role.ADMIN and id in self._accounts and not self._accounts[id].disabled
        }
        return admins == {account}

    def _check_scope(self, scope: str) -> None:
        kind, colon, rest = scope.partition(":")
        if scope == EVERYWHERE or (kind == "device" and colon and rest):
            return
        if kind == "site" and rest in self._sites:
            return
        if kind == "site" and rest:
            reason = f"there is no site {rest[:60]!r}{nearest(rest, self._sites)}"
        else:
            reason = f'expected "*", "site:ID" or "device:ID", got {scope[:60]!r}'
        raise InvalidInput(reason, (FieldFault("$.scope", reason),))

    async def _hash(self, password: str) -> str:
        if self._hasher is None:
            raise InvalidInput("this hub takes no passwords", (FieldFault("$.password", "this hub takes no passwords"),))
        if not 8 <= len(password) <= LONGEST_SECRET:
            reason = f"expected 8 to {LONGEST_SECRET} characters, got {len(password)}"
            raise InvalidInput(f"password: {reason}", (FieldFault("$.password", reason),))
        async with self._hashing:
            return await asyncio.to_thread(self._hasher.hash, password)

    def _audit(self, principal: Principal | None, action: str, target: str, data: dict[str, object], *, device: str = "") -> Write:
        return audit.entry(self._clock, principal, action, target, "done", device=device, data=dict(data))


def _allowed(grants: Iterable[Grant], roles: frozenset[Role], device: Device | None, site: str | None) -> bool:
    """Whether one of the grants has one of the roles for the device, the site, or (neither) the hub."""
    for grant in grants:
        if grant.role not in roles:
            continue
        scope = grant.scope
        if scope == EVERYWHERE:
            return True
        if device is not None:
            if scope == "device:" + device.id or (device.site and scope == "site:" + device.site):
                return True
        elif site is not None and scope == "site:" + site:
            return True
    return False


def _within(grants: Iterable[Grant], held: Sequence[Grant]) -> bool:
    """Whether each grant is in a scope, and of a role all of whose verbs are those of a role, that is held there."""
    return all(any(own.scope in (EVERYWHERE, grant.scope) and _includes(own.role, grant.role) for own in held) for grant in grants)


def _includes(role: Role, other: Role) -> bool:
    return all(role in row.roles for row in TABLE.values() if other in row.roles)


def _descendants(id: str, tokens: Sequence[Token]) -> list[str]:
    """Ids of the tokens made with this one, with those, and so on."""
    found = [id]
    for one in found:  # grows as we go; a token has one parent, made before it, so that none comes twice
        found += [token.id for token in tokens if token.parent == one]
    return found[1:]


def _put(kind: str, id: str, body: msgspec.Struct, keys: dict[str, str]) -> Put:
    return Put(SPACE, kind, id, msgspec.json.encode(body), keys)


def _grant_id(grant: Grant) -> str:
    return f"{grant.account} {grant.scope}"


def _put_grant(grant: Grant) -> Put:
    return _put("grant", _grant_id(grant), grant, {"account": grant.account, "scope": grant.scope})


def _email_key(email: str) -> str:
    return email.strip().casefold()


def _check_email(email: str, path: str = "$.email") -> None:
    name, at, host = email.strip().rpartition("@")
    if not (at and name and host) or len(email) > 254 or any(sign.isspace() for sign in email.strip()):
        reason = "expected an e-mail address of at most 254 characters"
        raise InvalidInput(f"{path}: {reason}", (FieldFault(path, reason),))


def _digest(secret: str) -> bytes | None:
    if not secret or len(secret) > LONGEST_SECRET:
        return None
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _fast_verifier(secret: str) -> str:
    """For secrets of 256 random bits there is nothing to guess: one salted hash is enough."""
    salt = secrets.token_bytes(16)
    return f"sha256${_text(salt)}${_text(hashlib.sha256(salt + secret.encode()).digest())}"


def _slow_verifier(secret: str) -> str:
    """For secrets that people made up."""
    salt = secrets.token_bytes(16)
    return f"scrypt${_SCRYPT_N}${_SCRYPT_R}${_SCRYPT_P}${_text(salt)}${_text(_scrypt(secret, salt, _SCRYPT_N, _SCRYPT_R, _SCRYPT_P))}"


def _verify(verifier: str, secret: str) -> bool:
    kind, *parts = verifier.split("$")
    if kind == "sha256":
        salt, expected = map(_bytes, parts)
        return hmac.compare_digest(hashlib.sha256(salt + secret.encode("utf-8", "surrogatepass")).digest(), expected)
    n, r, p = map(int, parts[:3])
    salt, expected = map(_bytes, parts[3:])
    return hmac.compare_digest(_scrypt(secret, salt, n, r, p), expected)


def _scrypt(secret: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(secret.encode("utf-8", "surrogatepass"), salt=salt, n=n, r=r, p=p, dklen=32)


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode("ascii")


def _bytes(text: str) -> bytes:
    return urlsafe_b64decode(text)
