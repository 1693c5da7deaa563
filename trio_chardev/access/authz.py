"""Access lists: which peers may connect."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import attrs

from trio_chardev.access.objects import ObjectOptions
from trio_chardev.access.sandbox import EVERYWHERE, Sandbox

Policy = Literal["deny", "allow"]


@attrs.frozen(kw_only=True)
class AuthzListRule:
    """Decides about the peers that match."""

    match: str
    """Identity of a peer, such as ``O=Example,CN=laptop``."""

    policy: Policy
    """Whether matching peers may connect."""

    format: Literal["exact", "glob"] = "exact"
    """In a glob ``*`` is any text and ``?`` any character."""

    def matches(self, identity: str) -> bool:
        """Does *identity* match?"""
        if self.format == "exact":
            return self.match == identity
        return matches_glob(self.match, identity)


def matches_glob(pattern: str, text: str) -> bool:
    """Does all of *text* match *pattern*, in which ``*`` is any text and ``?`` any character?

    As GLib's g_pattern_match. It takes one step for each character, whatever they are: the set of
    places in the pattern that the text so far may lead to is kept as the bits of a number.
    """
    wanted = pattern.replace("*", "")  # *loops* has the places in it that had a "*" before them
    if len(wanted) > len(text):
        return False
    loops, at, places = 0, 0, dict.fromkeys(wanted, 0)
    for char in re.sub(r"\*+", "*", pattern):
        if char == "*":
            loops |= 1 << at
        else:
            places[char] |= 1 << at
            at += 1
    any_char = places.get("?", 0)
    reached = 1
    for char in text:
        fits = places.get(char, 0) | any_char
        reached = ((reached & fits) << 1) | (reached & loops)
    return bool(reached >> at & 1)


@attrs.frozen(kw_only=True)
class AuthzList(ObjectOptions):
    """A list of rules about which peers may connect; the first that matches decides."""

    policy: Policy = "deny"
    """Whether peers that no rule matches may connect."""

    rules: tuple[AuthzListRule, ...] = ()
    """The rules, in order."""

    def create(self, objects: Mapping[str, object], sandbox: Sandbox = EVERYWHERE) -> AuthzList:
        """Return this object itself."""
        return self

    def allows(self, identity: str) -> bool:
        """See `Authorizer`."""
        for rule in self.rules:
            if rule.matches(identity):
                return rule.policy == "allow"
        return self.policy == "allow"


@attrs.frozen(kw_only=True)
class AuthzSimple(ObjectOptions):
    """Lets only one peer connect."""

    identity: str
    """Identity of that peer, such as ``O=Example,CN=laptop``."""

    def create(self, objects: Mapping[str, object], sandbox: Sandbox = EVERYWHERE) -> AuthzSimple:
        """Return this object itself."""
        return self

    def allows(self, identity: str) -> bool:
        """See `Authorizer`."""
        return identity == self.identity
