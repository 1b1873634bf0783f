"""Who and why, for Django (4.2 and later, psycopg 3): copy it into the project and list the middleware behind the authentication's.

    MIDDLEWARE = [..., "django.contrib.auth.middleware.AuthenticationMiddleware", "shop.audit_context.AuditMiddleware"]

    with audit_context(actor_id=7, reason="refund"):
        order.save()

Every transaction says it before its first statement that is no SELECT. A statement outside `atomic` gets a transaction of its own, in which
it is said.
"""

import contextlib
import contextvars
import json

from django.db import connections, transaction

_said = contextvars.ContextVar("audit_context", default=None)
_UNKNOWN = object()


@contextlib.contextmanager
def audit_context(using="default", **fields):
    """Says `fields` (actor_id, actor, reason, request_id, ip, source, …), together with what an outer block says."""
    token = _said.set({**(_said.get() or {}), **fields})
    try:
        with connections[using].execute_wrapper(_say):
            yield
    finally:
        _said.reset(token)


class AuditMiddleware:
    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        user = getattr(request, "user", None)
        fields = {"ip": request.META.get("REMOTE_ADDR"), "request_id": request.headers.get("X-Request-Id")}
        if user is not None and user.is_authenticated:
            fields["actor_id"] = str(user.pk)
            fields["actor"] = {"id": user.pk, "name": user.get_username()}
        with audit_context(**{name: value for name, value in fields.items() if value}):
            return self.get_response(request)


def _say(execute, sql, params, many, context):
    connection, statement = context["connection"], str(sql).lstrip().upper()
    if getattr(connection, "_audit_saying", False) or statement.startswith(("SELECT", "SET ", "SHOW ")):
        return execute(sql, params, many, context)
    if not connection.in_atomic_block:
        with transaction.atomic(using=connection.alias):
            return _say(execute, sql, params, many, context)
    if connection.connection.info.transaction_status == 0:
        # Idle: the transaction begins with this statement.
        connection._audit_said = None
    if getattr(connection, "_audit_said", None) != _said.get():
        connection._audit_saying = True
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT cdc_audit.set_context(%s::jsonb)", [json.dumps(_said.get(), default=str)])
        finally:
            connection._audit_saying = False
        connection._audit_said = _said.get()
    result = execute(sql, params, many, context)
    if statement.startswith("ROLLBACK TO"):
        # What was said behind the savepoint is gone.
        connection._audit_said = _UNKNOWN
    return result
