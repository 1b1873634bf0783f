//! A table as it is recorded: one shape, with the rules that apply to it.

use std::fmt;
use std::sync::Arc;

pub use crate::companion::{companion_name, companion_of};
use crate::events::{Columns, EventSet, Required, RowEvent};
use crate::expand::Expansion;
use crate::inside::Inside;
use crate::mac::Space;
use crate::method::{Method, MethodRule};
use crate::rules::TableRules;
use crate::shape::{Shape, ShapeColumn};
use crate::value::Kind;
use crate::versions_table::{COMMON, VersionsTable};

/// A table in one shape. It is made once for each shape, and every version points to one.
#[derive(Clone, Debug)]
pub struct Table {
    /// `schema.table`; see [`crate::shape::TableName`].
    pub name: Arc<str>,
    pub item_type: String,
    pub shape: Arc<Shape>,
    /// The kept columns, in the table's order. Dropped columns, and those that are neither tracked nor included, are
    /// absent.
    pub columns: Vec<Column>,
    /// The key's columns in key order.
    pub key: Vec<KeyColumn>,
    /// The events that make versions.
    pub events: EventSet,
    /// Columns of the relation's rows by which the application marks a row as deleted.
    pub soft_delete: Vec<usize>,
    /// Index into `columns`.
    pub tenant: Option<usize>,
    /// Index, in the relation's rows, of the column that names the data subject; the column does not have to be kept.
    pub subject: Option<usize>,
    /// Columns whose values are authenticated together with ciphertexts, in the order of the rule, as indexes into
    /// `columns`.
    pub bound: Vec<usize>,
    /// Where hot sinks keep the table's versions; `None` stands for the common table.
    pub versions_table: Option<VersionsTable>,
    /// Index into `columns`.
    pub actor: Option<usize>,
    /// Index into `columns`.
    pub reason: Option<usize>,
    /// The events whose versions need an actor.
    pub require_actor: EventSet,
    /// The events whose versions need a reason.
    pub require_reason: EventSet,
    /// Columns that are absent until a rule decides about them: those of a strict table, and those that may have been
    /// protected under another name.
    pub withheld: Vec<String>,
    /// Columns that are protected or withheld because of an earlier name: no rule matches their present name.
    pub lost: Vec<String>,
    /// See [`TableRules::renamed_from`].
    pub renamed_from: Option<String>,
    /// The sinks that the table's versions go to; `None` stands for all.
    pub sinks: Option<Vec<String>>,
}

/// A kept column.
#[derive(Clone, Debug)]
pub struct Column {
    pub name: String,
    /// Index of the column in the relation's rows.
    pub source: usize,
    /// The form of the values as they are kept: text for a protected column.
    pub kind: Kind,
    pub type_name: String,
    pub protection: Option<Protection>,
    /// What is protected inside the values of a column that is itself kept as it is.
    pub inside: Option<Arc<Inside>>,
    /// Changes are recorded member by member. It is set only if the kept values are still documents.
    pub expansion: Option<Expansion>,
    /// Whether the column holds what a further method leaves of the column before it, whose `source` is the same.
    pub companion: bool,
    /// Whether it is part of `before`, `after` and `changes`.
    pub tracked: bool,
    /// Whether a change of this column makes a version.
    pub makes_version: bool,
    /// Whether it is part of `included`.
    pub included: bool,
}

impl Column {
    pub fn method(&self) -> Option<Method> {
        self.protection.as_ref().map(|protection| protection.rule.method)
    }

    /// Why ciphertexts cannot be bound to this column, if so. Opening a ciphertext needs the bound values, and a reader
    /// has only what is recorded, in the form that each sink stores.
    fn unbindable(&self) -> Option<String> {
        match (&self.protection, &self.kind) {
            (Some(protection), _) => Some(format!("protected with `{}`", protection.rule.method.name())),
            _ if !self.tracked => Some("not tracked".to_owned()),
            (None, Kind::Int2 | Kind::Int4 | Kind::Int8 | Kind::Text | Kind::Uuid) => None,
            _ => Some(format!("of type {}", self.type_name)),
        }
    }

    /// Whether its values, or parts of them, are kept as ciphertexts.
    fn encrypts(&self) -> bool {
        self.method() == Some(Method::Encrypt) || self.inside.as_ref().is_some_and(|inside| inside.encrypts())
    }
}

/// What happens to a column's values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protection {
    pub rule: MethodRule,
    /// The space within which equal values look alike.
    pub space: Space,
}

impl Protection {
    fn of(rule: &MethodRule, table: &str, column: &str) -> Protection {
        let space = match &rule.domain {
            Some(domain) => Space::domain(domain),
            None => Space::column(table, column),
        };
        Protection { rule: rule.clone(), space }
    }
}

#[derive(Clone, Debug)]
pub struct KeyColumn {
    pub name: String,
    pub source: usize,
    pub kind: Kind,
    /// Whether it appears as an HMAC under the row key.
    pub protected: bool,
    pub space: Space,
    /// Content whose occurrence in a single value makes that value a protected one.
    pub inside: Option<Arc<Inside>>,
}

/// Why a column of the key is not shown as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hidden {
    Method(Method),
    /// `ignore` names the column, or `only` does not name it.
    NotRecorded,
    /// The column may have been protected under another name.
    Renamed,
}

impl fmt::Display for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hidden::Method(method) => write!(f, "protected with `{}`", method.name()),
            Hidden::NotRecorded => f.write_str("not recorded (`only` or `ignore`)"),
            Hidden::Renamed => f.write_str("perhaps one that was protected under another name"),
        }
    }
}

/// Why the key does not show a column as it is; `None` if it does. ⚠ A value that is not recorded as it is must not be
/// recorded through the key either.
pub fn hides_in_key(rules: &TableRules, column: &ShapeColumn) -> Option<Hidden> {
    let decision = rules.decision(column);
    match decision.and_then(|decision| decision.methods.first()) {
        Some(rule) => Some(Hidden::Method(rule.method)),
        None if rules.may_be_lost(column) => Some(Hidden::Renamed),
        None if decision.is_none() && !rules.is_recorded(&column.name) => Some(Hidden::NotRecorded),
        None => None,
    }
}

/// The rules do not fit the table's shape.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    #[error(
        "table {table}: column {column} is part of the key and {why}, but there is no row key under which `key` could hold it"
    )]
    NoRowKey { table: String, column: String, why: Hidden },
    #[error("table {table}: the rules protect column {column}, and the table has no such column")]
    Unmet { table: String, column: String, nearest: Option<String>, columns: Vec<String> },
    #[error("table {table}: there is no column {column}, which the rules make {what}")]
    NoColumn { table: String, column: String, what: &'static str, nearest: Option<String>, columns: Vec<String> },
    #[error(
        "table {table}: column {column} has several methods of protection, and what one of them leaves belongs into {companion}, which the table has itself"
    )]
    Companion { table: String, column: String, companion: String },
    #[error("table {table}: ciphertexts cannot be bound to column {column}, which is {what}")]
    Unbindable { table: String, column: String, what: String },
    #[error("table {table} is strict, and no rule decides about column {column}, which is part of its key")]
    UndecidedKey { table: String, column: String },
}

impl TableError {
    pub fn hint(&self) -> String {
        match self {
            TableError::NoRowKey { column, why: Hidden::Method(_), .. } => format!(
                "set protection.row_key to a file or variable with a secret that never changes, or take {column} out of the protection rules"
            ),
            TableError::NoRowKey { column, why: Hidden::NotRecorded, .. } => format!(
                "name {column} in `allow` if `key` may hold it as it is, or set protection.row_key to a file or variable with a secret that never \
                 changes"
            ),
            TableError::NoRowKey { column, why: Hidden::Renamed, .. } => format!(
                "name {column} in `protect` or `allow` as it is called now, or set protection.row_key to a file or variable with a secret that \
                 never changes"
            ),
            TableError::Unmet { column, nearest, columns, .. } => {
                let columns = match nearest {
                    Some(nearest) => format!("did you mean `{nearest}`?"),
                    None => format!("its columns are {}.", columns.join(", ")),
                };
                format!(
                    "name the column in `protect` as it is called now: {columns} For a column that is still to come a pattern will do: `{column}*`"
                )
            }
            TableError::NoColumn { nearest: Some(nearest), .. } => format!("did you mean `{nearest}`?"),
            TableError::NoColumn { columns, .. } => format!("its columns are {}", columns.join(", ")),
            TableError::Companion { column, .. } => format!("give {column} one method only"),
            TableError::Unbindable { column, .. } => {
                format!(
                    "take {column} out of `bind`: it takes whole numbers, text and UUIDs that are recorded as they are, by which readers open"
                )
            }
            TableError::UndecidedKey { column, .. } => {
                format!("protect {column}, or name it in `allow`; `cdc-audit plan` shows what is undecided")
            }
        }
    }
}

impl Table {
    /// Applies the rules to a shape. `row_key` says whether a key for protected key columns is configured.
    ///
    /// # Errors
    /// Returns a [`TableError`] if the rules do not fit the shape.
    pub fn new(shape: Arc<Shape>, rules: &TableRules, row_key: bool) -> Result<Table, TableError> {
        let name = shape.name().to_string();
        let (mut columns, mut withheld) = (Vec::new(), Vec::new());
        for (source, column) in shape.columns.iter().enumerate() {
            let methods = rules.methods(column);
            let tracked = rules.is_tracked(&column.name);
            let included = rules.keeps(&column.name);
            let dropped = methods.iter().any(|rule| rule.method == Method::Drop);
            if dropped || !rules.is_recorded(&column.name) {
                continue;
            }
            if !rules.is_decided(column) {
                withheld.push(column.name.clone());
                continue;
            }
            let protection = methods.first().map(|rule| Protection::of(rule, &name, &column.name));
            columns.push(Column {
                name: column.name.clone(),
                source,
                kind: if protection.is_some() { Kind::Text } else { column.kind.clone() },
                type_name: column.type_name.clone(),
                inside: rules.inside(column),
                expansion: rules.expansion(column).filter(|_| tracked && protection.is_none()),
                protection,
                companion: false,
                tracked,
                makes_version: tracked && !rules.is_ignored_alone(&column.name),
                included,
            });
            if tracked {
                companions(&shape, column, methods, &mut columns)?;
            }
        }
        // The rule of a pattern may name a column that only some of its tables have.
        let find = |wanted: &Option<String>| columns.iter().position(|c: &Column| wanted.as_ref() == Some(&c.name));
        let (tenant, actor, reason) =
            (find(&rules.rule.tenant), find(&rules.rule.actor_column), find(&rules.rule.reason_column));
        let mut key = Vec::new();
        let source_of = |wanted: &String| shape.columns.iter().position(|c| c.name == *wanted);
        let no_column = |column: &String, what| {
            let columns: Vec<String> = shape.columns.iter().map(|column| column.name.clone()).collect();
            let nearest = nearest(column, &columns);
            TableError::NoColumn { table: name.clone(), column: column.clone(), what, nearest, columns }
        };
        if let Some(column) = rules.rule.key.iter().flatten().find(|wanted| source_of(wanted).is_none()) {
            return Err(no_column(column, "part of its key"));
        }
        // Under the key of the class nobody could erase a person's values, which is what the rule is for.
        let subject = rules.rule.subject.as_ref().filter(|_| columns.iter().any(Column::encrypts));
        let subject = subject.map(|column| source_of(column).ok_or_else(|| no_column(column, "its data subject's")));
        let subject = subject.transpose()?;
        let mut bound = Vec::new();
        for column in rules.rule.bind.iter().flatten().filter(|_| columns.iter().any(Column::encrypts)) {
            source_of(column).ok_or_else(|| no_column(column, "part of what its ciphertexts are bound to"))?;
            let at = columns.iter().position(|kept| kept.name == *column);
            let unbindable = |what| TableError::Unbindable { table: name.clone(), column: column.clone(), what };
            bound.push(at.ok_or_else(|| unbindable("not recorded".to_owned()))?);
            if let Some(what) = at.and_then(|at| columns[at].unbindable()) {
                return Err(unbindable(what));
            }
        }
        for wanted in rules.rule.key.as_ref().unwrap_or(&shape.key) {
            let Some(source) = source_of(wanted) else { continue };
            let hidden = hides_in_key(rules, &shape.columns[source]);
            if hidden.is_none() && !rules.is_decided(&shape.columns[source]) {
                return Err(TableError::UndecidedKey { table: name, column: wanted.clone() });
            }
            if let Some(why) = hidden.filter(|_| !row_key) {
                return Err(TableError::NoRowKey { table: name, column: wanted.clone(), why });
            }
            key.push(KeyColumn {
                name: wanted.clone(),
                source,
                kind: shape.columns[source].kind.clone(),
                protected: hidden.is_some(),
                space: Space::column(&name, wanted),
                inside: rules.inside(&shape.columns[source]),
            });
        }
        let item_type = rules.rule.item_type.clone().unwrap_or_else(|| shape.table.clone());
        let required = |required: &Option<Required>| required.as_ref().map(Required::events).unwrap_or_default();
        let require_actor = required(&rules.rule.require_actor);
        let require_reason = required(&rules.rule.require_reason);
        let sinks = rules.rule.sinks.clone();
        let lost = rules.lost(&shape);
        let versions_table = rules.rule.versions_table.clone().filter(|own| own.literal() != Some(COMMON));
        let events = EventSet::of(rules.rule.events.as_deref().unwrap_or(&RowEvent::ALL)).with_snapshots();
        let marks = rules.rule.soft_delete.as_ref().map(Columns::names).unwrap_or_default();
        let soft_delete = marks.iter().filter_map(source_of).collect();
        Ok(Table {
            name: name.into(),
            item_type,
            shape,
            columns,
            key,
            events,
            soft_delete,
            tenant,
            subject,
            bound,
            versions_table,
            actor,
            reason,
            require_actor,
            require_reason,
            withheld,
            lost,
            renamed_from: rules.renamed_from.clone(),
            sinks,
        })
    }

    /// Whether changes of some column are recorded member by member. If so, `changes` is stored for whole rows too, so
    /// that readers need no rules.
    pub fn expands(&self) -> bool {
        self.columns.iter().any(|column| column.expansion.is_some())
    }

    /// Whether versions of the table go to this sink.
    pub fn goes_to(&self, sink: &str) -> bool {
        self.sinks.as_ref().is_none_or(|sinks| sinks.iter().any(|name| name == sink))
    }

    /// The same table in another shape, which now applies.
    pub fn in_shape(&self, shape: Arc<Shape>) -> Table {
        Table { shape, ..self.clone() }
    }

    /// The error for rules that cannot apply, because they protect a column by name that the table does not have. See
    /// [`TableRules::unmet`].
    pub fn unmet(shape: &Shape, column: &str) -> TableError {
        let columns: Vec<String> = shape.columns.iter().map(|column| column.name.clone()).collect();
        let nearest = nearest(column, &columns);
        TableError::Unmet { table: shape.name().to_string(), column: column.to_owned(), nearest, columns }
    }

    /// The pseudo-table for `gap` records, and for errors in changes whose table is not known.
    pub fn pseudo(name: &str) -> Table {
        let (schema, table) = name.split_once('.').unwrap_or(("cdc_audit", name));
        Table {
            name: name.into(),
            item_type: table.to_string(),
            shape: Arc::new(Shape {
                schema: schema.to_string(),
                table: table.to_string(),
                schema_version: 1,
                digest: String::new(),
                first: crate::position::Position::default(),
                columns: Vec::new(),
                key: Vec::new(),
                key_source: crate::shape::KeySource::None,
                oid: None,
                partitioned: None,
                rules: None,
                seal: None,
            }),
            columns: Vec::new(),
            key: Vec::new(),
            events: EventSet::default(),
            soft_delete: Vec::new(),
            tenant: None,
            subject: None,
            bound: Vec::new(),
            versions_table: None,
            actor: None,
            reason: None,
            require_actor: EventSet::default(),
            require_reason: EventSet::default(),
            withheld: Vec::new(),
            lost: Vec::new(),
            renamed_from: None,
            sinks: None,
        }
    }
}

/// Adds the companion columns for the methods after the first; `columns` ends with the column itself. They are ordered
/// by name, so that a reader without the rules can put them into the same order.
fn companions(
    shape: &Shape,
    column: &ShapeColumn,
    methods: &[MethodRule],
    columns: &mut Vec<Column>,
) -> Result<(), TableError> {
    let Some(own) = columns.last().cloned() else { return Ok(()) };
    let mut others: Vec<&MethodRule> = methods.iter().skip(1).collect();
    others.sort_by_key(|rule| rule.method.name());
    for rule in others {
        let companion = companion_name(&column.name, rule.method);
        let table = shape.name().to_string();
        if shape.columns.iter().any(|column| column.name == companion) {
            return Err(TableError::Companion { table, column: column.name.clone(), companion });
        }
        let protection = Some(Protection::of(rule, &table, &column.name));
        columns.push(Column { name: companion, protection, companion: true, included: false, ..own.clone() });
    }
    Ok(())
}

/// The name that was probably meant.
fn nearest(name: &str, columns: &[String]) -> Option<String> {
    const ALIKE: f64 = 0.8;
    let likeness = |column: &String| strsim::jaro_winkler(name, column);
    let best = columns.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(best) > ALIKE).then(|| best.clone())
}
