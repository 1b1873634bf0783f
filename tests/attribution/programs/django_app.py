"""Usage: python django_app.py FOLDER_OF_HELPER HOST PORT DATABASE"""
import sys

from django.conf import settings

folder, host, port, database = sys.argv[1:]
sys.path.insert(0, folder)
settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql", "HOST": host, "PORT": port, "NAME": database, "USER": "postgres",
            "CONN_MAX_AGE": None,
        }
    }
)
import django

django.setup()
from django.db import models, transaction
from django_audit_context import AuditMiddleware, audit_context


class T(models.Model):
    class Meta:
        app_label = "app"
        db_table = "t"


class User:
    pk = "ann"
    is_authenticated = True

    def get_username(self):
        return "Ann"


class Request:
    user = User()
    META = {"REMOTE_ADDR": "192.0.2.1"}
    headers = {}


def view(request):
    with audit_context(reason="first"), transaction.atomic():
        T.objects.exists()
        T.objects.create(id=1)
        T.objects.create(id=2)


AuditMiddleware(view)(Request())
T.objects.create(id=3)
try:
    with audit_context(actor_id="bob"), transaction.atomic():
        T.objects.create(id=4)
        raise KeyError
except KeyError:
    pass
T.objects.create(id=5)
with audit_context(actor_id="cleo"):
    with transaction.atomic():
        T.objects.create(id=6)
        try:
            with transaction.atomic():
                T.objects.create(id=7)
                raise KeyError
        except KeyError:
            pass
        T.objects.create(id=8)
    T.objects.create(id=9)
