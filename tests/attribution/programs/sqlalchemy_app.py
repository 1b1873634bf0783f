"""Usage: python sqlalchemy_app.py FOLDER_OF_HELPER URL"""
import sys

folder, url = sys.argv[1:]
sys.path.insert(0, folder)
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy_audit_context import audit, audit_context


class Base(DeclarativeBase):
    pass


class T(Base):
    __tablename__ = "t"
    id: Mapped[int] = mapped_column(primary_key=True)


engine = create_engine(url.replace("postgres://", "postgresql+psycopg://"), pool_size=1, max_overflow=0)
audit(engine)


def add(*ids):
    with Session(engine) as session, session.begin():
        session.get(T, 0)
        for id in ids:
            session.add(T(id=id))
            session.flush()


with audit_context(actor_id="ann", reason="first"):
    add(1, 2)
add(3)
try:
    with audit_context(actor_id="bob"), Session(engine) as session, session.begin():
        session.add(T(id=4))
        session.flush()
        raise KeyError
except KeyError:
    pass
add(5)
with audit_context(actor_id="cleo"):
    with Session(engine) as session, session.begin():
        session.add(T(id=6))
        session.flush()
        try:
            with session.begin_nested():
                session.add(T(id=7))
                session.flush()
                raise KeyError
        except KeyError:
            pass
        session.add(T(id=8))
    add(9)
