//! Converts a row of `versions` into a [`Record`].

use std::error::Error;

use audit_core::position::{Lsn, Micros, Position};
use audit_core::stored::{Json, Record};
use bytes::{BufMut, BytesMut};
use tokio_postgres::Row;
use tokio_postgres::types::{self, FromSql, IsNull, PgLsn, ToSql, Type, accepts, to_sql_checked};

use super::ReadError;

/// Reads a row. Its columns must be all of [`crate::layout::VERSIONS`], in the same order.
pub(super) fn record(row: &Row) -> Result<Record, ReadError> {
    let mut columns = Columns { row, next: 0 };
    let record = Record {
        source: columns.get()?,
        position: columns.position()?,
        table_name: columns.get()?,
        item_type: columns.get()?,
        key: columns.get()?,
        old_key: columns.get()?,
        event: columns.get()?,
        changes: columns.json()?,
        before: columns.json()?,
        after: columns.json()?,
        changed: columns.get()?,
        before_known: columns.get()?,
        unknown: columns.get::<Option<_>>()?.unwrap_or_default(),
        carried: columns.get::<Option<_>>()?.unwrap_or_default(),
        included: columns.json()?,
        actor_id: columns.get()?,
        actor: columns.json()?,
        reason: columns.get()?,
        context: columns.json()?,
        actor_source: columns.get()?,
        context_verified: columns.get()?,
        xid: columns.number()?,
        commit_lsn: columns.lsn()?,
        lsn: columns.lsn()?,
        seq: columns.number()?,
        committed_at: columns.get::<Time>()?.0,
        recorded_at: columns.get::<Time>()?.0,
        schema_version: columns.get::<i32>()? as u32,
        baseline: columns.get::<Option<i32>>()?.map(|number| number as u32),
        tenant: columns.get()?,
        summary: String::new(),
    };
    Ok(record.complete())
}

struct Columns<'r> {
    row: &'r Row,
    next: usize,
}

impl<'r> Columns<'r> {
    fn get<T: FromSql<'r>>(&mut self) -> Result<T, ReadError> {
        let column = self.next;
        self.next += 1;
        let name = || self.row.columns().get(column).map_or("a missing column", |column| column.name()).to_owned();
        self.row.try_get(column).map_err(|_| ReadError::Stored { what: name() })
    }

    fn position(&mut self) -> Result<Position, ReadError> {
        let position = self.get::<&str>()?.parse();
        position.map_err(|_| ReadError::Stored { what: "position".to_owned() })
    }

    fn json(&mut self) -> Result<Option<Json>, ReadError> {
        Ok(self.get::<Option<types::Json<Json>>>()?.map(|json| json.0))
    }

    fn lsn(&mut self) -> Result<Lsn, ReadError> {
        Ok(Lsn(self.get::<PgLsn>()?.into()))
    }

    fn number(&mut self) -> Result<u32, ReadError> {
        let number: i64 = self.get()?;
        u32::try_from(number).map_err(|_| ReadError::Stored { what: "a number out of range".to_owned() })
    }
}

/// A `timestamptz`, which is sent as microseconds since 2000-01-01.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Time(pub Micros);

impl<'a> FromSql<'a> for Time {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Time, Box<dyn Error + Sync + Send>> {
        Ok(Time(Micros::from_postgres(i64::from_be_bytes(raw.try_into()?))))
    }

    accepts!(TIMESTAMPTZ);
}

impl ToSql for Time {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.put_i64(self.0.to_postgres());
        Ok(IsNull::No)
    }

    accepts!(TIMESTAMPTZ);
    to_sql_checked!();
}
