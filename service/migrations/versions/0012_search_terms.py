"""the terms of texts by which tickets are found, made by the service; its background fills them in.

Revision 0012, after 0011. While it runs, and after it, processes of the previous version serve. They write texts without
terms, and the trigger forgets those that a changed text had: both are made in the background, as all others are. Their
own searches find what they did, but slower, without their index.
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_TEXTS = {
    "handoff_tickets": ("title", "description"),
    "helpdesk_tickets": ("title", "description"),
    "itsm_tickets": ("subject", "description"),
}
_GIN = "WITH (gin_pending_list_limit = 512) WHERE search_terms IS NOT NULL"


def upgrade() -> None:
    """Apply."""
    op.execute(
        "CREATE OR REPLACE FUNCTION forget_search_terms() RETURNS trigger LANGUAGE plpgsql"
        " AS 'BEGIN NEW.search_terms := NULL; RETURN NEW; END'"
    )
    for table, texts in _TEXTS.items():
        op.execute(f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS search_terms tsvector")
        old, new = (f"({', '.join(f'{row}.{name}' for name in texts)})" for row in ("OLD", "NEW"))
        op.execute(
            f"CREATE OR REPLACE TRIGGER {table}_forget_search_terms BEFORE UPDATE OF {', '.join(texts)} ON {table}"
            f" FOR EACH ROW WHEN ({old} IS DISTINCT FROM {new} AND OLD.search_terms IS NOT DISTINCT FROM"
            " NEW.search_terms) EXECUTE FUNCTION forget_search_terms()"
        )
    with op.get_context().autocommit_block():
        for table in _TEXTS:
            _create_index(f"{table}_search_idx", f"{table} USING gin (search_terms) {_GIN}")
            _create_index(f"{table}_unindexed_idx", f"{table} (created_at) WHERE search_terms IS NULL")
        _create_index(
            "helpdesk_tickets_tags_idx",
            "helpdesk_tickets USING gin (array_to_tsvector(array_append(tag_terms, '@' || tenant_id)))",
        )
        for table in ("handoff_tickets", "helpdesk_tickets"):
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {table}_terms_idx")


def _create_index(name: str, on: str) -> None:
    # What an attempt before has left is not valid.
    op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
    op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {on}")


def downgrade() -> None:
    """Undo."""
    words = "to_tsvector('simple'::regconfig, (title || ' ') ||"
    op.execute(
        "CREATE INDEX handoff_tickets_terms_idx ON handoff_tickets USING gin"
        f" (({words} description) || array_to_tsvector(ARRAY[' ' || project_id::text])))"
    )
    op.execute(
        "CREATE INDEX helpdesk_tickets_terms_idx ON helpdesk_tickets USING gin"
        f" (({words} coalesce(description, '')) || array_to_tsvector(tag_terms)"
        " || array_to_tsvector(ARRAY['@' || tenant_id])))"
    )
    op.drop_index("helpdesk_tickets_tags_idx", table_name="helpdesk_tickets")
    for table in _TEXTS:
        op.execute(f"DROP TRIGGER {table}_forget_search_terms ON {table}")
        op.drop_column(table, "search_terms")
    op.execute("DROP FUNCTION forget_search_terms()")
