"""Secrets: passwords, given or in a file."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Literal

import attrs

from trio_chardev.access.objects import ObjectOptions
from trio_chardev.access.sandbox import EVERYWHERE, Sandbox
from trio_chardev.errors import OptionsError, backend_errors
from trio_chardev.files import read_file
from trio_chardev.options.values import path_text_or_none

MAX_SECRET = 1 << 20  # bytes of a secret's file


@attrs.frozen
class SecretValue:
    """The value of a `Secret`."""

    data: bytes = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class Secret(ObjectOptions):
    """A password, given here or in a file."""

    format: Literal["raw", "base64"] = "raw"
    """Encoding of the secret."""

    data: str | None = attrs.field(default=None, repr=False)
    """The secret itself; others may see it in the list of processes or in logs."""

    file: str | None = attrs.field(default=None, converter=path_text_or_none)
    """File that contains the secret, and nothing else, not even an end of line."""

    @property
    def reads_files(self) -> bool:
        return self.file is not None

    def create(self, objects: Mapping[str, object], sandbox: Sandbox = EVERYWHERE) -> SecretValue:
        """Read the secret. Raises OptionsError, BackendError if the file can't be read."""
        if self.data is not None and self.file is not None:
            raise OptionsError("'file' and 'data' are mutually exclusive")
        if self.file is not None:
            failed = f"Unable to read {self.file}: Failed to open file \u201c{self.file}\u201d"
            with backend_errors(failed):
                content = read_file(self.file, MAX_SECRET, sandbox.open)
        elif self.data is not None:
            content = _encoded(self.data)
        else:
            raise OptionsError("Either 'file' or 'data' must be provided")
        return SecretValue(_decode_base64(content) if self.format == "base64" else content)


def _encoded(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")  # gives the command line's exact bytes
    except UnicodeEncodeError as exc:
        raise OptionsError("'data' is no text") from exc


def _decode_base64(text: bytes) -> bytes:
    if re.search(rb"[^A-Za-z0-9+/=\n]", text):
        raise OptionsError("Base64 data contains invalid characters")
    digits = re.sub(rb"[=\n]", b"", text)
    try:
        return base64.b64decode(digits + b"=" * (-len(digits) % 4))
    except ValueError as exc:
        raise OptionsError("Base64 data is truncated") from exc


def password_of(id: str | None, objects: Mapping[str, object]) -> bytes:
    if id is None:
        return b""
    secret = objects.get(id)
    if secret is None:
        raise OptionsError(f"No secret with id '{id}'")
    if not isinstance(secret, SecretValue):
        raise OptionsError(f"Object with id '{id}' is not a secret")
    return secret.data
