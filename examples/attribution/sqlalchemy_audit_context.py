"""Who and why, for SQLAlchemy (2.0 and later, psycopg): copy it into the project.

    audit(engine)                                  # once, behind create_engine

    with audit_context(actor_id=7, reason="refund"):
        with Session(engine) as session, session.begin():
            order.state = "refunded"

Every transaction says it before its first statement that is no SELECT. Under asyncio give `audit` the engine's `sync_engine`.
"""

import contextlib
import contextvars
import json

from sqlalchemy import event

_said = contextvars.ContextVar("audit_context", default=None)
_UNKNOWN = object()


@contextlib.contextmanager
def audit_context(**fields):
    """Says `fields` (actor_id, actor, reason, request_id, ip, source, …), together with what an outer block says."""
    token = _said.set({**(_said.get() or {}), **fields})
    try:
        yield
    finally:
        _said.reset(token)


def audit(engine):
    @event.listens_for(engine, "begin")
    def begin(connection):
        connection.info["audit_said"] = None

    @event.listens_for(engine, "rollback_savepoint")
    def rollback_savepoint(connection, name, context):
        # What was said behind the savepoint is gone.
        connection.info["audit_said"] = _UNKNOWN

    @event.listens_for(engine, "before_cursor_execute")
    def say(connection, cursor, statement, parameters, context, executemany):
        if statement.lstrip().upper().startswith(("SELECT", "SET ", "SHOW ")):
            return
        if connection.info.get("audit_said") != _said.get():
            cursor.execute("SELECT cdc_audit.set_context(%s::jsonb)", [json.dumps(_said.get(), default=str)])
            connection.info["audit_said"] = _said.get()
