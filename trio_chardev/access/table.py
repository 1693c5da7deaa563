"""The table of the types of objects."""

from __future__ import annotations

from trio_chardev.access.objects import ObjectOptions
from trio_chardev.options.lazy import LazyTable
from trio_chardev.options.members import TaggedUnion

OBJECTS: LazyTable[type[ObjectOptions]] = LazyTable(
    {
        "authz-list": "trio_chardev.access.authz:AuthzList",
        "authz-simple": "trio_chardev.access.authz:AuthzSimple",
        "monitor-qmp": "trio_chardev.access.objects:MonitorQmp",
        "secret": "trio_chardev.access.secret:Secret",
        "tls-creds-psk": "trio_chardev.access.tls_creds:TlsCredsPsk",
        "tls-creds-x509": "trio_chardev.access.tls_creds:TlsCredsX509",
    }
)
"""``qom-type`` -> options class."""

OBJECT = TaggedUnion(
    "ObjectOptions",
    OBJECTS,
    tag="qom-type",
    is_flat=True,
    absent={"monitor-hmp": "only QMP is spoken here (monitor-qmp)"},
)
"""``{"qom-type": TYPE, "id": ID, ...}``, for structuring."""
