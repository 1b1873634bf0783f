//! From a Relation message to a table with its rules.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use audit_core::context::{Author, Contexts};
use audit_core::mac::MacKey;
use audit_core::position::{Lsn, Position};
use audit_core::rules::{FormerNames, TableRules};
use audit_core::shape::{CatalogTable, Former, History, Relation, Shape, ShapeRules, TableName};
use audit_core::table::Table;
use audit_pgoutput::Message;
use tracing::warn;

use super::target::{Known, Recorded, Target};
use super::{OWN_SCHEMA, Stage, StageError};

type Histories = HashMap<TableName, History>;
type Lineage = HashMap<u32, Vec<(Arc<Shape>, bool)>>;

/// What sinks have stored, by name and by oid. ⚠ Where shapes are sealed, one that is not may be anybody's, and says nothing of what columns and tables
/// were called: else its author could have any column withheld.
pub(super) fn restored(shapes: Vec<Shape>, contexts: &Contexts, names: &FormerNames) -> (Histories, Lineage) {
    let (mut histories, mut lineage, mut foreign) = (Histories::new(), Lineage::new(), BTreeSet::new());
    for shape in shapes {
        let author = contexts.author(&shape.unsealed(), shape.seal.as_deref());
        if author == Author::Foreign && shape.oid.is_some() {
            foreign.insert(shape.name().to_string());
        }
        histories.entry(shape.name()).or_default().restore(shape, author);
    }
    for (shape, author) in histories.values().flat_map(History::shapes).filter(|(_, by)| *by != Author::Foreign) {
        if let Some(oid) = shape.oid {
            lineage.entry(oid).or_default().push((shape.clone(), author == Author::Own));
        }
    }
    for (oid, shapes) in &mut lineage {
        shapes.sort_by_key(|(shape, _)| shape.first);
        shapes.iter().filter(|(_, own)| *own).for_each(|(shape, _)| names.called(*oid, &shape.name(), Lsn::ZERO));
    }
    if !foreign.is_empty() {
        let (tables, first) = (foreign.len(), foreign.first());
        let hint = "look who may write to the sinks; if the keys of cdc_audit.set_context were made after these were stored, name columns and \
                    tables in the rules as they are called now";
        warn!(
            hint,
            tables,
            first,
            "sinks have shapes that no daemon of this source sealed: what they say of former names is not believed"
        );
    }
    (histories, lineage)
}

impl Stage {
    /// Handles the server's description of a relation.
    pub(super) fn relation(&mut self, relation: Relation) {
        self.described = [self.described[1], Some(relation.oid)];
        self.unreadable.remove(&relation.oid);
        match self.targets.get_mut(&relation.oid) {
            Some(target) => target.describe(relation),
            None => {
                self.targets.insert(relation.oid, Target::new(relation));
            }
        }
    }

    /// The relation that has to be looked up before the stage can process `message`.
    pub(super) fn wanted(&mut self, message: &Message<'_>) -> Option<Relation> {
        let leaf = match message {
            // The server describes a relation's types before it, so they come between a root and its partition.
            Message::Relation(_) | Message::Type { .. } => return None,
            _ => std::mem::take(&mut self.described),
        };
        // A change that comes again with its key was already looked up.
        if self.pending.is_some() {
            return None;
        }
        match message {
            Message::Insert { relation, .. } | Message::Update { relation, .. } | Message::Delete { relation, .. } => {
                // ⚠ A partition is described after its root, directly before a change that is sent as the root's.
                let leaf = leaf[1].filter(|last| last != relation && leaf[0] == Some(*relation));
                let leaf = leaf.and_then(|leaf| self.targets.remove(&leaf)).map(|target| target.relation);
                if let (Some(leaf), Some(root)) = (&leaf, self.targets.get(relation)) {
                    let at = self.assembler.next_position().commit_lsn;
                    self.names.part(leaf.oid, *relation, &root.relation.name, at);
                }
                self.settle(*relation, leaf.as_ref())
            }
            Message::Truncate { relations } => relations.iter().find_map(|relation| self.settle(*relation, None)),
            _ => None,
        }
    }

    /// Prepares for a change of the relation. Returns the relation if it has to be looked up first.
    fn settle(&mut self, oid: u32, leaf: Option<&Relation>) -> Option<Relation> {
        let (position, stored) = (self.assembler.next_position(), self.stored);
        let target = self.targets.get_mut(&oid)?;
        target.comes(leaf);
        if target.holds(position, stored) {
            return None;
        }
        let relation = target.relation.clone();
        if relation.name.schema != OWN_SCHEMA {
            let rules = self.rules(&relation.name, relation.oid);
            if rules.captured() {
                return Some(relation);
            }
            if let Some(former) = &rules.renamed_from
                && self.rules.for_table(&relation.name).captured()
            {
                let hint = "name it in a rule of `[[tables]]` as it is called now, which then decides";
                warn!(
                    hint,
                    table = %relation.name,
                    "no change of the table is recorded: it was called {former} before, and the rules leave that out"
                );
            }
        }
        self.targets.get_mut(&oid)?.knows(Known::Skip);
        None
    }

    /// Stores what a look-up found now about a relation that [`Stage::message`] returned.
    ///
    /// # Errors
    /// Returns [`StageError::Table`] if the rules do not fit the table.
    pub fn describe(&mut self, relation: &Relation, catalog: Option<&CatalogTable>) -> Result<(), StageError> {
        let position = self.assembler.next_position();
        let table = self.table(relation, catalog, position)?;
        let next = self.histories.get(&relation.name).and_then(|history| history.next_after(position));
        let known = Known::Record(Recorded { table, next, again: position <= self.stored });
        if let Some(target) = self.targets.get_mut(&relation.oid) {
            target.knows(known);
        }
        Ok(())
    }

    /// The table that `relation` shows at `position`, with the rules that apply to it.
    pub(super) fn table(
        &mut self,
        relation: &Relation,
        catalog: Option<&CatalogTable>,
        position: Position,
    ) -> Result<Arc<Table>, StageError> {
        let history = self.histories.entry(relation.name.clone()).or_default();
        let shape = history.shape(relation, catalog, position, position <= self.stored);
        let mut rules = self.rules(&relation.name, relation.oid);
        let root = self.root(relation);
        let earlier = self.lineage.get(&relation.oid).map(Vec::as_slice).unwrap_or(&root);
        let mut former = Former::of(&shape, earlier.iter().map(|(shape, trusted)| (shape.as_ref(), *trusted)));
        if let Some(now) = catalog.filter(|table| table.oid == relation.oid && !table.matches(relation)) {
            let trusted = earlier.iter().filter(|(_, trusted)| *trusted).map(|(shape, _)| shape.as_ref());
            former.ahead(&shape, trusted, now);
        }
        rules.remember(former);
        let columns = catalog.filter(|table| table.oid == relation.oid).map(|table| &table.columns);
        let later: Vec<String> = columns.into_iter().flatten().map(|column| column.name.clone()).collect();
        if let Some(column) = rules.unmet(&shape, &later) {
            return Err(Table::unmet(&shape, column).into());
        }
        let table = Table::new(shape.clone(), &rules, self.policy.row_key.is_some())?;
        let hash_key = self.policy.hash_key.as_ref().map(MacKey::id);
        let recorded = ShapeRules::of(&table, rules.rule.row_filter.as_deref(), hash_key);
        // ⚠ What is derived from earlier versions depends on the rules, so other rules are another shape.
        let shape = match shape.rules.as_ref() == Some(&recorded) {
            true => shape,
            false => Arc::new(shape.under(recorded, relation, position)),
        };
        let table = Arc::new(table.in_shape(shape.clone()));
        let before = self.lineage.get(&relation.oid).and_then(|earlier| earlier.last()).map(|(shape, _)| shape);
        if before.is_none_or(|before| before.digest != shape.digest || !before.has_numbers_of(&shape)) {
            say(&table, before.map(|before| before.key.as_slice()));
            self.lineage.entry(relation.oid).or_default().push((shape, true));
            self.names.called(relation.oid, &relation.name, position.commit_lsn);
        }
        Ok(table)
    }

    /// The rules for a table, which may have had another name.
    fn rules(&self, name: &TableName, oid: u32) -> TableRules {
        self.names.rules(&self.rules, name, oid, self.assembler.next_position().commit_lsn)
    }

    /// What was a partition has no shapes of its own: those of its root say which columns it had, but not by which number.
    fn root(&self, relation: &Relation) -> Vec<(Arc<Shape>, bool)> {
        let former = self.names.of(relation.oid, self.assembler.next_position().commit_lsn);
        let histories =
            former.iter().filter(|name| **name != relation.name).filter_map(|name| self.histories.get(name));
        let shapes = histories.flat_map(History::shapes).filter(|(_, author)| *author == Author::Own);
        shapes.map(|(shape, _)| (Arc::new(shape.without_numbers()), true)).collect()
    }

    /// Counts a table's shape just before the first version in it is made.
    pub(super) fn count_shape(&mut self, oid: u32, position: Position) {
        let Some(Known::Record(recorded)) = self.targets.get(&oid).and_then(|target| target.known.clone()) else {
            return;
        };
        let table = self.counted(&recorded.table, position);
        if let Some(target) = self.targets.get_mut(&oid) {
            target.known = Some(Known::Record(Recorded { table, ..recorded }));
        }
    }

    pub(super) fn counted(&mut self, table: &Arc<Table>, position: Position) -> Arc<Table> {
        if table.shape.schema_version > 0 {
            return table.clone();
        }
        let history = self.histories.entry(table.shape.name()).or_default();
        let seal = |shape: &Shape| self.contexts.seal(&shape.unsealed());
        Arc::new(table.in_shape(history.number(&table.shape, position, seal)))
    }
}

/// Logs what an operator has to know about a table in a new shape.
fn say(table: &Table, key_before: Option<&[String]>) {
    let name = &table.name;
    if let Some(former) = &table.renamed_from {
        let hint = "name it in `[[tables]]` as it is called now; with the name before in `former_names`, unless it was a partition of that table";
        warn!(hint, table = %name, "the table was captured as {former} before: the rules for that are applied to it still");
    }
    if !table.lost.is_empty() {
        let columns = table.lost.join(", ");
        let hint = "name them in `protect`, `ignore` or `allow` as they are called now";
        warn!(hint, table = %name, columns, "columns were renamed, and no rule names them: what protected them before does so still");
    }
    if table.withheld.iter().any(|column| !table.lost.contains(column)) {
        let columns = table.withheld.join(", ");
        warn!(table = %name, columns, "columns that no rule decides about are not recorded: see `cdc-audit plan`");
    }
    if let Some(before) = key_before.filter(|before| *before != table.shape.key) {
        let (before, key) = (before.join(", "), table.shape.key.join(", "));
        let hint =
            "name the columns in `key` of `[[tables]]` if the rows are to be followed by the same columns as before";
        warn!(hint, table = %name, before, key, "the table has another key: its rows stand under other keys from here on");
    }
}
