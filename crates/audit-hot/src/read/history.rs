//! The trail of one row through changes of its key.
//!
//! The trail is a list of stretches: a key, and the range of positions in which the row had it. A version that changed
//! the key has the new key as `key` and the old one as `old_key`, and so joins two stretches:
//!
//! ```text
//! key A   ──created───updated──┐                        asked for: B
//!                              │ old_key A, key B
//! key B                        └──updated──┐
//!                                          │ old_key B, key C
//! key C                                    └──updated──deleted
//! ```

use audit_core::position::Position;
use audit_core::stored::Record;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

use super::places::{Places, Whose};
use super::row::record;
use super::{ReadError, failed};
use crate::layout::VERSIONS;

/// Maximum number of stretches. The trail of a row whose key changed more often is followed no further.
const STRETCHES_MAX: usize = 1_000;

/// Texts that sort before and after every position's text.
const START: &str = "";
const END: &str = "g";

/// The versions under `key` from position `from` until before `to`.
#[derive(Clone, Debug)]
struct Stretch {
    key: String,
    from: String,
    to: String,
}

/// A version that begins or ends a stretch.
struct Turn {
    position: String,
    event: String,
    key: Option<String>,
    old_key: Option<String>,
}

struct Trail<'t> {
    client: &'t Client,
    source: &'t str,
    table: &'t str,
    places: Places,
    /// The tables that belong to no tenant. They hold truncations, which concern all tenants.
    homes: Places,
}

pub(super) async fn history(
    client: &Client,
    whose: &Whose,
    (source, table): (&str, &str),
    key: &str,
    limit: u32,
) -> Result<Vec<Record>, ReadError> {
    let tables = [table.to_owned()];
    let (places, homes) = tokio::try_join!(
        Places::of(client, whose, source, &tables),
        Places::of(client, &Whose::Homes, source, &tables)
    )?;
    let trail = Trail { client, source, table, places, homes };
    let mut versions = Vec::new();
    for stretch in trail.stretches(key).await? {
        versions.extend(trail.versions(&stretch, limit).await?);
    }
    versions.sort_unstable_by_key(|version| version.position);
    versions.dedup_by_key(|version| version.position);
    // Versions that are beyond the limit must not decide which truncations are shown.
    let surplus = versions.len().saturating_sub(limit as usize);
    versions.drain(..surplus);
    if let Some(oldest) = versions.first() {
        let truncations = trail.truncations(oldest.position).await?;
        versions = with_truncations(versions, truncations);
    }
    versions.reverse();
    versions.truncate(limit as usize);
    Ok(versions)
}

/// Adds those truncations that removed the row. Both lists are in order of position.
fn with_truncations(versions: Vec<Record>, truncations: Vec<Record>) -> Vec<Record> {
    let mut all: Vec<Record> = versions.into_iter().chain(truncations).collect();
    all.sort_by_key(|version| version.position);
    let mut there = false;
    all.retain(|version| match version.event.as_str() {
        "truncated" => std::mem::take(&mut there),
        event => {
            there = event != "deleted";
            true
        }
    });
    all
}

impl Trail<'_> {
    async fn stretches(&self, key: &str) -> Result<Vec<Stretch>, ReadError> {
        let mut stretches = vec![Stretch { key: key.to_owned(), from: START.to_owned(), to: END.to_owned() }];
        for turn in self.turns("AND old_key IS NOT NULL", "key", key, START, END, "").await? {
            self.backward(&mut stretches, turn.old_key, turn.position).await?;
        }
        for turn in self.turns("", "old_key", key, START, END, "").await? {
            self.forward(&mut stretches, turn.key, turn.position).await?;
        }
        Ok(stretches)
    }

    /// Follows the row, which had `key` before position `to`, into its past.
    async fn backward(&self, stretches: &mut Vec<Stretch>, key: Option<String>, to: String) -> Result<(), ReadError> {
        let (mut next, mut to) = (key, to);
        while let Some(key) = next.take().filter(|_| stretches.len() < STRETCHES_MAX) {
            let own = "AND (event IN ('created', 'deleted') OR old_key IS NOT NULL)";
            let own = self.turns(own, "key", &key, START, &to, "DESC LIMIT 1").await?;
            let left = self.turns("", "old_key", &key, START, &to, "DESC LIMIT 1").await?;
            let turn = own.into_iter().chain(left).max_by(|a, b| a.position.cmp(&b.position));
            let mut from = START.to_owned();
            if let Some(turn) = turn {
                // An earlier row that was deleted, or that gave this key up, has its own history.
                let another = turn.event == "deleted" || turn.old_key.as_deref() == Some(&key);
                from = if another { after(&turn.position) } else { turn.position.clone() };
                next = if another { None } else { turn.old_key };
            }
            stretches.push(Stretch { key, from: from.clone(), to: std::mem::replace(&mut to, from) });
        }
        Ok(())
    }

    /// Follows the row, which has `key` from position `from` on, into its future.
    async fn forward(&self, stretches: &mut Vec<Stretch>, key: Option<String>, from: String) -> Result<(), ReadError> {
        let (mut next, mut from) = (key, from);
        while let Some(key) = next.take().filter(|_| stretches.len() < STRETCHES_MAX) {
            let later = after(&from);
            let own = self.turns("AND event IN ('created', 'deleted')", "key", &key, &later, END, "LIMIT 1").await?;
            let left = self.turns("", "old_key", &key, &later, END, "LIMIT 1").await?;
            let turn = own.into_iter().chain(left).min_by(|a, b| a.position.cmp(&b.position));
            let mut to = END.to_owned();
            if let Some(turn) = turn {
                to = if turn.event == "deleted" { after(&turn.position) } else { turn.position };
                next = turn.key.filter(|_| turn.old_key.as_deref() == Some(&key));
            }
            stretches.push(Stretch { key, from: std::mem::replace(&mut from, to.clone()), to });
        }
        Ok(())
    }

    async fn turns(
        &self,
        condition: &str,
        column: &str,
        key: &str,
        from: &str,
        to: &str,
        order: &str,
    ) -> Result<Vec<Turn>, ReadError> {
        let columns = "position, event, key, old_key";
        let order = format!("ORDER BY position {order}");
        let rows = self.rows(columns, column, condition, &order, (key, from, to)).await?;
        let turn = |row: &Row| Turn { position: row.get(0), event: row.get(1), key: row.get(2), old_key: row.get(3) };
        Ok(rows.iter().map(turn).collect())
    }

    async fn versions(&self, stretch: &Stretch, limit: u32) -> Result<Vec<Record>, ReadError> {
        let order = format!("ORDER BY position DESC LIMIT {limit}");
        let range = (stretch.key.as_str(), stretch.from.as_str(), stretch.to.as_str());
        let rows = self.rows(&VERSIONS.names(), "key", "", &order, range).await?;
        rows.iter().map(record).collect()
    }

    /// Reads rows by `column`, which is `key` or `old_key`; both have an index on their first 200 characters. A limit
    /// and an order in `order` apply to each part of the places separately.
    async fn rows(
        &self,
        columns: &str,
        column: &str,
        condition: &str,
        order: &str,
        (key, from, to): (&str, &str, &str),
    ) -> Result<Vec<Row>, ReadError> {
        let parameters: [&(dyn ToSql + Sync); 5] = [&self.source, &self.table, &key, &from, &to];
        let mut rows = Vec::new();
        for places in self.places.parts() {
            let statement = format!(
                "SELECT {columns} FROM {places} WHERE source = $1 AND table_name = $2 AND left({column}, 200) = left($3, 200) \
                 AND {column} = $3 AND position >= $4 AND position < $5 {condition} {order}"
            );
            let found = self.client.query(&statement, &parameters).await;
            rows.extend(found.map_err(failed("reading a row's history"))?);
        }
        Ok(rows)
    }

    /// The table's truncations after a position.
    async fn truncations(&self, after: Position) -> Result<Vec<Record>, ReadError> {
        let statement = format!(
            "SELECT {} FROM {} WHERE source = $1 AND table_name = $2 AND left(key, 200) IS NULL AND position > $3 \
             AND event = 'truncated' ORDER BY position",
            VERSIONS.names(),
            self.homes.all()
        );
        let parameters: [&(dyn ToSql + Sync); 3] = [&self.source, &self.table, &after.to_string()];
        let rows = self.client.query(&statement, &parameters).await.map_err(failed("reading truncations"))?;
        rows.iter().map(record).collect()
    }
}

/// A text that sorts immediately after a position's text.
fn after(position: &str) -> String {
    format!("{position}0")
}
