"""Idempotency keys and counters of each API, with the columns of their scope; what there is moves there.

Revision 0025, after 0024. Only versions that know it can serve: one that looked for keys and numbers where they were
would do a request again, and give a number twice. Such a process stops when it looks at the schema, within seconds.
What it writes until then under a key, or with a number, is refused as if a lock were in the way, which it answers with
`unavailable`; so it does while this step waits and moves. So both old tables are left, empty, and so is the old column
of deliveries; the release after this one drops them, with `refuse_older_versions()`.
"""

import sqlalchemy as sa
from alembic import op

from service.migrations import breaking

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

_OWNERS = {
    "itsm_keys": (("account_id", sa.Uuid), ("live", sa.Boolean)),
    "helpdesk_keys": (("tenant_id", sa.Text), ("app_id", sa.Text), ("sub", sa.Text)),
    "helpdesk_sla_keys": (("tenant_id", sa.Text), ("sub", sa.Text)),
    "handoff_keys": (("project_id", sa.Uuid), ("user_id", sa.Uuid)),
    "admin_keys": (("sub", sa.Text),),
}
_COUNTERS = {"helpdesk_counters": ("tenant_id", sa.Text), "handoff_counters": ("project_id", sa.Uuid)}

_OLD = "key, request_hash, response, expires_at"
_NAMES = "substr(scope, strpos(scope, ':') + 1)::json"
# Where the keys of a scope go: the table, what its owner is made of, and how the scope begins.
_MOVES = (
    ("itsm_keys", "split_part(scope, ':', 2)::uuid, split_part(scope, ':', 3) = 'live'", "itsm:"),
    ("helpdesk_keys", f"{_NAMES} ->> 0, coalesce({_NAMES} ->> 1, ''), {_NAMES} ->> 2", "helpdesk:"),
    ("helpdesk_sla_keys", f"{_NAMES} ->> 0, {_NAMES} ->> 1", "helpdesk SLA policies:"),
    ("handoff_keys", "split_part(scope, ':', 2)::uuid, split_part(scope, ':', 3)::uuid", "handoff:"),
    ("admin_keys", "substr(scope, 7)", "admin:"),
)
_MOVES_OF_COUNTERS = (
    ("helpdesk_counters", "substr(scope, 10)", "helpdesk:"),
    ("handoff_counters", "substr(scope, 9)::uuid", "handoff:"),
)
_SLA = "'helpdesk SLA policies:[' || to_json(tenant_id)::text || ',' || to_json(sub)::text || ']'"
_SCOPES = (
    ("itsm_keys", "concat('itsm:', account_id, ':', CASE WHEN live THEN 'live' ELSE 'test' END)"),
    (
        "helpdesk_keys",
        "'helpdesk:[' || to_json(tenant_id)::text || ',' || coalesce(to_json(nullif(app_id, ''))::text, 'null')"
        " || ',' || to_json(sub)::text || ']'",
    ),
    ("helpdesk_sla_keys", _SLA),
    ("handoff_keys", "concat('handoff:', project_id, ':', user_id)"),
    ("admin_keys", "'admin:' || sub"),
)
_SCOPES_OF_COUNTERS = (
    ("helpdesk_counters", "'helpdesk:' || tenant_id"),
    ("handoff_counters", "concat('handoff:', project_id)"),
)
# More than a transaction that writes a key takes, which has its instant from its begin.
_LONGEST = "interval '2 minutes'"
# In the order of statements that use both.
_LOCK = "LOCK TABLE counters, idempotency_keys IN ACCESS EXCLUSIVE MODE"


def upgrade() -> None:
    """Apply."""
    _create_tables()
    with op.get_context().autocommit_block():
        # While others write, as there may be millions; what they write meanwhile follows under the lock. A step that
        # gave up waiting for that begins anew, and finds this done.
        begun = op.get_bind().scalar(sa.text("SELECT extract(epoch FROM now())"))
        _copy_keys("expires_at > now()")
    breaking.mark(revision)
    op.execute(
        "CREATE FUNCTION refuse_older_versions() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE lock_not_available USING MESSAGE = 'only newer versions can write this, since revision 0025'; END $$"
    )
    op.execute(
        "CREATE TRIGGER refuse_older_versions BEFORE INSERT ON provider_deliveries FOR EACH ROW"
        " WHEN (NEW.idempotency_scope IS NOT NULL) EXECUTE FUNCTION refuse_older_versions()"
    )
    op.execute(_LOCK)
    _copy_keys(f"expires_at > to_timestamp({begun}) + interval '1 hour' - {_LONGEST}")
    for table, owner, begin in _MOVES_OF_COUNTERS:
        op.execute(
            f"INSERT INTO {table} SELECT {owner}, last_number FROM counters"  # noqa: S608 - our own words
            f" WHERE starts_with(scope, '{begin}')"
        )
    op.execute("TRUNCATE counters, idempotency_keys")
    for table in ("counters", "idempotency_keys"):
        op.execute(
            f"CREATE TRIGGER refuse_older_versions BEFORE INSERT ON {table} EXECUTE FUNCTION refuse_older_versions()"
        )


def _create_tables() -> None:
    for name, owner in _OWNERS.items():
        op.create_table(
            name,
            *(sa.Column(column, kind(), nullable=False) for column, kind in owner),
            sa.Column("key", sa.Text(), nullable=False),
            sa.Column("request_hash", sa.LargeBinary(), nullable=False),
            sa.Column("response", sa.JSON(), nullable=False),
            sa.Column(
                "expires_at",
                sa.DateTime(timezone=True),
                server_default=sa.text("now() + interval '1 hour'"),
                nullable=False,
            ),
            sa.PrimaryKeyConstraint(*(column for column, _ in owner), "key", name=op.f(f"{name}_pkey")),
            if_not_exists=True,
        )
        op.create_index(op.f(f"{name}_expires_at_idx"), name, ["expires_at"], if_not_exists=True)
        # As 0022 has it for the old one.
        op.execute(f"ALTER TABLE {name} SET (autovacuum_vacuum_scale_factor = 0.05)")
    for name, (column, kind) in _COUNTERS.items():
        op.create_table(
            name,
            sa.Column(column, kind(), nullable=False),
            sa.Column("last_number", sa.BigInteger(), nullable=False),
            sa.PrimaryKeyConstraint(column, name=op.f(f"{name}_pkey")),
            if_not_exists=True,
        )


def _copy_keys(which: str) -> None:
    """Those that there are already are the same, or had expired."""
    new = ", ".join(f"{name} = excluded.{name}" for name in ("request_hash", "response", "expires_at"))
    for table, whose, begin in _MOVES:
        owner = ", ".join(column for column, _ in _OWNERS[table])
        op.execute(
            f"INSERT INTO {table} SELECT {whose}, {_OLD} FROM idempotency_keys"  # noqa: S608 - our own words
            f" WHERE starts_with(scope, '{begin}') AND {which} ON CONFLICT ({owner}, key) DO UPDATE SET {new}"
        )


def downgrade() -> None:
    """Undo."""
    op.execute("DROP FUNCTION refuse_older_versions() CASCADE")
    for table, scope in _SCOPES:
        op.execute(
            f"INSERT INTO idempotency_keys (scope, {_OLD}) SELECT {scope}, {_OLD} FROM {table}"  # noqa: S608 - our own words
        )
    for table, scope in _SCOPES_OF_COUNTERS:
        op.execute(f"INSERT INTO counters SELECT {scope}, last_number FROM {table}")  # noqa: S608 - our own words
    for table in (*_OWNERS, *_COUNTERS):
        op.drop_table(table)
    breaking.unmark(revision)
