//! The trail of one row: how [`audit_core::trail`] reads the hot tables ([`RowTrail`]).

use std::sync::Arc;

use audit_core::position::{Position, Window};
use audit_core::stored::Record;
use audit_core::trail::{Stretch, Trail, Turn};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::places::{Places, Whose};
use super::row::record;
use super::session::Session;
use super::{ReadError, snapshot};
use crate::layout::VERSIONS;

/// The versions of one table.
pub struct RowTrail {
    client: Arc<Session>,
    source: String,
    table: String,
    window: Window,
    places: Places,
    /// The tables that belong to no tenant. They hold truncations, which concern all tenants.
    homes: Places,
}

impl RowTrail {
    pub(super) async fn open(
        client: &Arc<Session>,
        whose: &Whose,
        (source, table): (&str, &str),
        window: Window,
    ) -> Result<RowTrail, ReadError> {
        let tables = [table.to_owned()];
        let (places, homes) = tokio::try_join!(
            Places::of(client, whose, source, &tables),
            Places::of(client, &Whose::Homes, source, &tables)
        )?;
        let (client, source, table) = (client.clone(), source.to_owned(), table.to_owned());
        Ok(RowTrail { client, source, table, window, places, homes })
    }
}

impl Trail for RowTrail {
    type Error = ReadError;

    async fn changes(&mut self, key: &str) -> Result<Vec<Turn>, ReadError> {
        let mut turns = self.turns("AND old_key IS NOT NULL", "key", key, Window::ALL, "").await?;
        turns.extend(self.turns("", "old_key", key, Window::ALL, "").await?);
        turns.sort_by_key(|turn| turn.position);
        Ok(turns)
    }

    async fn last_turn(&mut self, key: &str, window: Window) -> Result<Option<Turn>, ReadError> {
        let own = "AND (event IN ('created', 'deleted') OR old_key IS NOT NULL)";
        let own = self.turns(own, "key", key, window, "DESC LIMIT 1").await?;
        let left = self.turns("", "old_key", key, window, "DESC LIMIT 1").await?;
        Ok(own.into_iter().chain(left).max_by_key(|turn| turn.position))
    }

    async fn first_turn(&mut self, key: &str, window: Window) -> Result<Option<Turn>, ReadError> {
        let own = self.turns("AND event IN ('created', 'deleted')", "key", key, window, "LIMIT 1").await?;
        let left = self.turns("", "old_key", key, window, "LIMIT 1").await?;
        Ok(own.into_iter().chain(left).min_by_key(|turn| turn.position))
    }

    async fn newest(&mut self, stretches: &[Stretch], limit: usize) -> Result<Vec<Record>, ReadError> {
        let order = format!("ORDER BY position DESC LIMIT {limit}");
        let mut versions = Vec::new();
        for stretch in stretches {
            let rows = self.rows(&VERSIONS.names(), "key", "", &order, &stretch.key, stretch.window).await?;
            for row in &rows {
                versions.push(record(row)?);
            }
            // Each stretch gives as many as the limit, and there may be a thousand.
            versions.sort_unstable_by_key(|version| version.position);
            versions.dedup_by_key(|version| version.position);
            versions.drain(..versions.len().saturating_sub(limit));
        }
        Ok(versions)
    }

    async fn truncations(&mut self, window: Window) -> Result<Vec<Record>, ReadError> {
        let statement = format!(
            "SELECT {} FROM {} WHERE source = $1 AND table_name = $2 AND left(key, 200) IS NULL AND position >= $3 \
             AND position < $4 AND event = 'truncated' ORDER BY position",
            VERSIONS.names(),
            self.homes.all()
        );
        let (from, to) = bounds(window.within(self.window));
        let parameters: [&(dyn ToSql + Sync); 4] = [&self.source, &self.table, &from, &to];
        let rows = self.client.read("reading truncations", &statement, &parameters).await?;
        rows.iter().map(record).collect()
    }
}

impl RowTrail {
    /// The stretches' snapshot rows: position, baseline and key.
    ///
    /// # Errors
    /// Fails if the database cannot be read.
    pub async fn snapshots(&self, stretches: &[Stretch]) -> Result<Vec<(Position, (u32, String))>, ReadError> {
        let (columns, condition) = ("baseline, key, position", "AND event = 'snapshot' AND baseline IS NOT NULL");
        let mut found = Vec::new();
        for Stretch { key, window } in stretches {
            for row in self.rows(columns, "key", condition, "", key, *window).await? {
                found.push((position(&row, 2)?, snapshot(&row)));
            }
        }
        Ok(found)
    }

    /// In order of position, if `order` does not reverse it and there are not too many places for one statement.
    async fn turns(
        &self,
        condition: &str,
        column: &str,
        key: &str,
        window: Window,
        order: &str,
    ) -> Result<Vec<Turn>, ReadError> {
        let columns = "position, event, key, old_key";
        let order = format!("ORDER BY position {order}");
        let rows = self.rows(columns, column, condition, &order, key, window).await?;
        rows.iter().map(turn).collect()
    }

    /// Reads rows by `column`, which is `key` or `old_key`; both have an index on their first 200 characters. A limit
    /// and an order in `order` apply to each part of the places separately.
    async fn rows(
        &self,
        columns: &str,
        column: &str,
        condition: &str,
        order: &str,
        key: &str,
        window: Window,
    ) -> Result<Vec<Row>, ReadError> {
        let (from, to) = bounds(window.within(self.window));
        let parameters: [&(dyn ToSql + Sync); 5] = [&self.source, &self.table, &key, &from, &to];
        let mut rows = Vec::new();
        for places in self.places.parts() {
            let statement = format!(
                "SELECT {columns} FROM {places} WHERE source = $1 AND table_name = $2 AND left({column}, 200) = left($3, 200) \
                 AND {column} = $3 AND position >= $4 AND position < $5 {condition} {order}"
            );
            rows.extend(self.client.read("reading a row's history", &statement, &parameters).await?);
        }
        Ok(rows)
    }
}

fn turn(row: &Row) -> Result<Turn, ReadError> {
    let position = position(row, 0)?;
    Ok(Turn { position, deleted: row.get::<_, &str>(1) == "deleted", key: row.get(2), old_key: row.get(3) })
}

fn position(row: &Row, column: usize) -> Result<Position, ReadError> {
    let position = row.get::<_, &str>(column).parse();
    position.map_err(|_| ReadError::Stored { what: "position".to_owned() })
}

/// The window as texts that sort like positions. For a bound that is missing it has a text that sorts before every
/// position, or after every position.
pub(super) fn bounds(window: Window) -> (String, String) {
    let text = |bound: Option<Position>, none: &str| bound.map_or_else(|| none.to_owned(), |bound| bound.to_string());
    (text(window.from, ""), text(window.to, "g"))
}
