//! The relations that the stream has described, and what is done with their changes: [`Target`].
//!
//! A description alone causes no look-up. Under `publish_via_partition_root` the server describes each partition after
//! its root, and sends every change as the root's. So a partition is never the target of a change: no rule is ever
//! applied to it, and it is not looked up in the catalog. Its description is used only to know which columns its old
//! rows have.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use audit_core::change::{Change, Old, Row, Value};
use audit_core::position::Position;
use audit_core::shape::Relation;
use audit_core::table::Table;

/// One relation.
#[derive(Debug)]
pub(super) struct Target {
    /// The relation as the stream last described it.
    pub relation: Relation,
    /// The digest of `relation`.
    pub digest: String,
    /// `None` until a change of it comes, and again once it may have another shape.
    pub known: Option<Known>,
    /// Whether the stream has described it again since then, in the same words.
    pub repeated: bool,
    pub leaves: Leaves,
}

/// What is done with a relation's changes.
#[derive(Clone, Debug)]
pub(super) enum Known {
    Record(Recorded),
    Skip,
}

#[derive(Clone, Debug)]
pub(super) struct Recorded {
    pub table: Arc<Table>,
    /// The position at which a sink has stored the table's next shape.
    pub next: Option<Position>,
    /// Whether the shape is the one that sinks have stored. Then it applies only up to the position that they have
    /// stored of the stream.
    pub again: bool,
}

impl Target {
    pub fn new(relation: Relation) -> Target {
        Target { digest: relation.digest(), relation, known: None, repeated: false, leaves: Leaves::default() }
    }

    /// The stream has described the relation again.
    pub fn describe(&mut self, relation: Relation) {
        if self.relation == relation {
            self.repeated = true;
            return;
        }
        self.leaves.named.clear();
        self.digest = relation.digest();
        self.relation = relation;
        self.known = None;
    }

    /// A change comes; it is of partition `leaf` if the server has just described that one. ⚠ Whatever a Relation
    /// message cannot show, such as a primary key under REPLICA IDENTITY FULL, may have changed when the message comes
    /// again. Only a root's message before a partition that is new here does not indicate a change.
    pub fn comes(&mut self, leaf: Option<&Relation>) {
        let new = leaf.is_some_and(|leaf| self.leaves.describe(leaf, &self.relation));
        if std::mem::take(&mut self.repeated) && !new {
            self.known = None;
            self.leaves.named = leaf.map(|leaf| leaf.oid).into_iter().collect();
        }
    }

    /// Whether what is known applies at `position`, when sinks have stored everything up to `stored`.
    pub fn holds(&self, position: Position, stored: Position) -> bool {
        match &self.known {
            None => false,
            Some(Known::Skip) => true,
            Some(Known::Record(Recorded { next, again, .. })) => {
                next.is_none_or(|next| position < next) && !(*again && position > stored)
            }
        }
    }

    /// Stores what is known from here on.
    pub fn knows(&mut self, known: Known) {
        self.known = Some(known);
        self.leaves.partial.values_mut().for_each(|partial| partial.fit(&self.relation));
    }
}

/// The partitions of one table that the stream has described.
#[derive(Debug, Default)]
pub(super) struct Leaves {
    /// The partitions that were described since the table was looked up.
    named: HashSet<u32>,
    /// The partitions without REPLICA IDENTITY FULL, by oid.
    partial: BTreeMap<u32, Partial>,
}

/// A partition whose old rows have only the columns of its replica identity.
#[derive(Debug)]
struct Partial {
    /// The names of its other columns. ⚠ They are kept when the root is described again, because a partition is not
    /// necessarily described again after that.
    outside: Vec<String>,
    /// The same columns as indexes into the root's rows.
    sources: Vec<usize>,
}

impl Partial {
    fn fit(&mut self, root: &Relation) {
        let source = |name: &String| root.columns.iter().position(|column| column.name == *name);
        self.sources = self.outside.iter().filter_map(source).collect();
    }
}

impl Leaves {
    /// Returns whether the partition is new since the last look-up.
    fn describe(&mut self, leaf: &Relation, root: &Relation) -> bool {
        let outside = leaf.columns.iter().filter(|column| !column.in_identity).map(|column| column.name.clone());
        let mut partial = Partial { outside: outside.collect(), sources: Vec::new() };
        partial.fit(root);
        match partial.outside.is_empty() {
            true => self.partial.remove(&leaf.oid),
            false => self.partial.insert(leaf.oid, partial),
        };
        self.named.insert(leaf.oid)
    }

    /// ⚠ The change, with an old row that is only trusted as far as possible. A root with REPLICA IDENTITY FULL marks
    /// every old row as whole, but the old row of a partition with another identity has NULL in all columns that were
    /// not sent. The server does not say which partition it comes from: it counts as whole if it has a value that no
    /// such partition would send.
    pub fn judge<'a>(&self, change: Change<'a>) -> Change<'a> {
        match change {
            Change::Update { old: Old::Full(old), new } if !self.is_whole(old) => {
                Change::Update { old: Old::Key(old), new }
            }
            Change::Delete { old: Old::Full(old) } if !self.is_whole(old) => Change::Delete { old: Old::Key(old) },
            change => change,
        }
    }

    fn is_whole(&self, row: Row<'_>) -> bool {
        let sent = |source: &usize| matches!(row.get(*source), Value::Text(_));
        self.partial.values().all(|partial| partial.sources.iter().any(sent))
    }
}
