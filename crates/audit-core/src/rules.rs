//! What the operator decided about tables: `[[tables]]` and `[protection]`, and the one set of rules that results for a table.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::events::{Columns, Required, RowEvent};
use crate::method::{Method, MethodRule, Protect};
use crate::shape::{ShapeColumn, TableName};

/// Rules for the tables that `name` matches. Rules are read in order; a later one that matches adds to and overrides earlier ones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TableRule {
    /// `schema.table`, with `*` for any run of characters and `?` for one.
    #[schemars(extend("example" = "public.*"))]
    pub name: String,
    /// `false` leaves these tables out. `true` takes them; as soon as one rule says so, tables that no rule takes are left out.
    /// Without either every table is captured.
    pub capture: Option<bool>,
    /// The label of a row in the trail. Default: the table's name.
    pub item_type: Option<String>,
    /// Track only these columns (names or patterns). Not together with `ignore`.
    pub only: Option<Vec<String>>,
    /// Do not record these columns (names or patterns).
    pub ignore: Option<Vec<String>>,
    /// Capture only rows for which this is true, an SQL expression over the table's columns: `status <> 'draft'`. `setup` gives it to the publication
    /// (PostgreSQL 15 and later). A row that comes to fulfil it is `created`, one that no longer does is `deleted`.
    #[serde(rename = "where")]
    #[schemars(extend("example" = "status <> 'draft'"))]
    pub row_filter: Option<String>,
    /// Make versions of these events only: `created`, `updated`, `deleted`, `truncated`, `discarded`, `restored`. Default: all.
    #[schemars(extend("example" = ["created", "deleted"]))]
    pub events: Option<Vec<RowEvent>>,
    /// Columns that name a row in the trail, for tables without a primary key that serves. Each must be one of the table's.
    #[schemars(extend("example" = ["code"]))]
    pub key: Option<Vec<String>>,
    /// The column, or columns, by which the application marks a row as deleted: from null, or false, to anything else is event `discarded`, the way
    /// back `restored`. The old value has to be known (REPLICA IDENTITY FULL).
    #[schemars(extend("example" = "discarded_at"))]
    pub soft_delete: Option<Columns>,
    /// Record these columns, but make no version where nothing else changed. Default: `updated_at`, `modified_at`, `lock_version`.
    pub ignore_alone: Option<Vec<String>>,
    /// Columns to keep on every version, changed or not: owner, parent, tenant.
    pub include: Option<Vec<String>>,
    /// Column (name or pattern) to what happens to it: a method (`full`, `partial`, `hash`, `token`, `encrypt`, `drop`), a table with a method and
    /// what it is told, or a list of those: `{ email = "hash", ssn = ["partial", "encrypt"], phone = { method = "hash", domain = "phone" } }`.
    #[serde(default)]
    #[schemars(extend("example" = {"email": "hash", "ssn": ["partial", "encrypt"]}))]
    pub protect: BTreeMap<String, Protect>,
    /// Columns (names or patterns) that need no protection, whatever the general and the default rules say of their names.
    pub allow: Option<Vec<String>>,
    /// The column that names the tenant.
    pub tenant: Option<String>,
    /// The column that names who changed the row, for applications that send no context.
    pub actor_column: Option<String>,
    /// The column that says why the row was changed.
    pub reason_column: Option<String>,
    /// Flag and count versions that have no actor: `true`, or only those of some events, `["deleted", "updated"]`. `cdc-audit check
    /// --attribution` lists them.
    pub require_actor: Option<Required>,
    /// The same for versions without a reason.
    pub require_reason: Option<Required>,
    /// Record the rows that existed before capture began. Default: true.
    pub baseline: Option<bool>,
    /// The sinks that versions of these tables go to, by name. Default: all.
    pub sinks: Option<Vec<String>>,
}

/// Protects columns by name, by type, or by both, in every table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProtectionRule {
    /// The column's name, with `*` and `?`; case does not matter.
    #[schemars(extend("example" = "*_token"))]
    pub column: Option<String>,
    /// The column's type as PostgreSQL prints it, without its modifier and with `*` and `?`: `inet`, `character varying`. A type whose name is
    /// not known any more counts as every type.
    #[serde(rename = "type")]
    #[schemars(extend("example" = "inet"))]
    pub type_name: Option<String>,
    /// What happens to the column, as in `protect` of `[[tables]]`.
    pub method: Protect,
}

/// Names that commonly hold secrets: the default rule set, always `full`. A rule of the operator's own comes first.
pub const DEFAULT_PROTECTED: &[&str] = &[
    "*password*",
    "*passwd*",
    "*passphrase*",
    "*pwd*",
    "*secret*",
    "*token",
    "*_tokens",
    "*token_hash*",
    "*api_key*",
    "*apikey*",
    "*private_key*",
    "*access_key*",
    "*credential*",
    "ssn",
    "*_ssn",
    "ssn_*",
    "*social_security*",
    "*card_number*",
    "*cardnumber*",
    "pan",
    "cvv",
    "cvv2",
    "cvc",
    "*_cvv",
    "*_cvc",
    "*_pin",
    "pin",
    "pin_*",
    "*iban*",
    "*otp_*",
    "*encrypted_*",
    "*_salt",
    "salt",
];

/// Columns that by default make no version by themselves.
pub const DEFAULT_IGNORE_ALONE: &[&str] = &["updated_at", "modified_at", "lock_version"];

/// Every rule, in the operator's order.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    pub tables: Vec<TableRule>,
    pub protection: Vec<ProtectionRule>,
    /// Whether [`DEFAULT_PROTECTED`] applies.
    pub default_protection: bool,
}

/// The rules that hold for one table.
#[derive(Clone, Debug)]
pub struct TableRules {
    pub rule: TableRule,
    captured: bool,
    /// In the order in which they are asked.
    deciders: Vec<Decider>,
}

/// A rule about columns.
#[derive(Clone, Debug)]
struct Decider {
    column: Pattern,
    type_name: Option<String>,
    /// Nothing where the rule leaves the column as it is.
    protect: Option<Protect>,
    by: By,
}

#[derive(Clone, Debug)]
enum Pattern {
    /// As it is written.
    Exact(String),
    /// Lower case; matched without regard to case.
    Like(String),
}

/// The rule that decides about a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// `protect` of `[[tables]]`, counted from 0, and its key.
    Table(usize, String),
    /// `allow` of `[[tables]]`, and the pattern.
    Allowed(usize, String),
    /// `[[protection.rules]]`, counted from 0.
    Rule(usize),
    /// A name of [`DEFAULT_PROTECTED`].
    Default(&'static str),
}

/// Where it stands in the configuration.
impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            By::Table(index, column) => write!(f, "tables[{index}].protect.{column}"),
            By::Allowed(index, column) => write!(f, "tables[{index}].allow: {column}"),
            By::Rule(index) => write!(f, "protection.rules[{index}]"),
            By::Default(name) => write!(f, "default set: {name}"),
        }
    }
}

/// What the rules say of a column.
#[derive(Clone, Copy, Debug)]
pub struct Decision<'r> {
    /// Empty where the column stays as it is.
    pub methods: &'r [MethodRule],
    pub by: &'r By,
}

impl Rules {
    /// Merges what matches `table`: scalars and lists of a later rule replace those of an earlier one, `protect` adds up.
    pub fn for_table(&self, table: &TableName) -> TableRules {
        let name = table.to_string();
        let mut merged = TableRule { name: name.clone(), ..TableRule::default() };
        let matching = || self.tables.iter().enumerate().filter(|(_, rule)| matches(&rule.name, &name));
        for (_, rule) in matching() {
            let TableRule {
                name: _,
                capture,
                item_type,
                only,
                ignore,
                row_filter,
                events,
                key,
                soft_delete,
                ignore_alone,
                include,
                protect,
                allow,
                tenant,
                actor_column,
                reason_column,
                require_actor,
                require_reason,
                baseline,
                sinks,
            } = rule.clone();
            merged.capture = capture.or(merged.capture);
            merged.item_type = item_type.or(merged.item_type);
            merged.only = only.or(merged.only);
            merged.ignore = ignore.or(merged.ignore);
            merged.row_filter = row_filter.or(merged.row_filter);
            merged.events = events.or(merged.events);
            merged.key = key.or(merged.key);
            merged.soft_delete = soft_delete.or(merged.soft_delete);
            merged.ignore_alone = ignore_alone.or(merged.ignore_alone);
            merged.include = include.or(merged.include);
            merged.protect.extend(protect);
            merged.allow = allow.or(merged.allow);
            merged.tenant = tenant.or(merged.tenant);
            merged.actor_column = actor_column.or(merged.actor_column);
            merged.reason_column = reason_column.or(merged.reason_column);
            merged.require_actor = require_actor.or(merged.require_actor);
            merged.require_reason = require_reason.or(merged.require_reason);
            merged.baseline = baseline.or(merged.baseline);
            merged.sinks = sinks.or(merged.sinks);
        }
        let mut deciders = Vec::new();
        for (index, rule) in matching() {
            deciders.extend(own(index, rule));
        }
        // An exact name before a pattern, a later rule before an earlier one, `protect` before `allow`, a longer pattern before a shorter one.
        deciders.sort_by_key(|(rank, _)| std::cmp::Reverse(*rank));
        let mut deciders: Vec<Decider> = deciders.into_iter().map(|(_, decider)| decider).collect();
        deciders.extend(self.protection.iter().enumerate().map(|(index, rule)| Decider {
            column: Pattern::Like(rule.column.as_deref().unwrap_or("*").to_lowercase()),
            type_name: rule.type_name.clone(),
            protect: Some(rule.method.clone()),
            by: By::Rule(index),
        }));
        deciders.extend(DEFAULT_PROTECTED.iter().filter(|_| self.default_protection).map(|name| Decider {
            column: Pattern::Like(name.to_string()),
            type_name: None,
            protect: Some(Method::Full.into()),
            by: By::Default(name),
        }));
        // A rule that protects or labels one table must not leave the others out: only `capture = true` does.
        let captured = merged.capture.unwrap_or(!self.tables.iter().any(|rule| rule.capture == Some(true)));
        TableRules { rule: merged, captured, deciders }
    }
}

/// Exactness, index of the rule, whether it protects, length of the pattern.
type Rank = (bool, usize, bool, usize);

/// What a rule for tables says of columns. A name without a star is meant exactly; where no column has it exactly, `protect` means the one that
/// differs in case.
fn own(index: usize, rule: &TableRule) -> Vec<(Rank, Decider)> {
    let mut deciders = Vec::new();
    let mut add = |name: &String, protect: Option<&Protect>, by: By| {
        let exact = !name.contains(['*', '?']);
        let decider = |column| Decider { column, type_name: None, protect: protect.cloned(), by: by.clone() };
        if exact {
            deciders.push(((true, index, protect.is_some(), 0), decider(Pattern::Exact(name.clone()))));
        }
        if !exact || protect.is_some() {
            let rank = (false, index, protect.is_some(), name.len());
            deciders.push((rank, decider(Pattern::Like(name.to_lowercase()))));
        }
    };
    for (name, protect) in &rule.protect {
        add(name, Some(protect), By::Table(index, name.clone()));
    }
    for name in rule.allow.iter().flatten() {
        add(name, None, By::Allowed(index, name.clone()));
    }
    deciders
}

impl Decider {
    fn decides(&self, column: &ShapeColumn, lower: &str) -> bool {
        let named = match &self.column {
            Pattern::Exact(name) => *name == column.name,
            Pattern::Like(pattern) => matches(pattern, lower),
        };
        named && self.type_name.as_ref().is_none_or(|pattern| is_type(pattern, &column.type_name))
    }
}

/// Whether a column's type is the one that a rule names. ⚠ Where the catalog had forgotten the type, its OID stands in place of its name: then nobody
/// can say that the rule does not mean it.
fn is_type(pattern: &str, type_name: &str) -> bool {
    let name = type_name.split('(').next().unwrap_or_default().trim_end();
    let unknown = !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit());
    unknown || matches(&pattern.to_lowercase(), &name.to_lowercase())
}

impl TableRules {
    pub fn captured(&self) -> bool {
        self.captured
    }

    pub fn wants_baseline(&self) -> bool {
        self.captured() && self.rule.baseline.unwrap_or(true)
    }

    pub fn goes_to(&self, sink: &str) -> bool {
        self.rule.sinks.as_ref().is_none_or(|sinks| sinks.iter().any(|name| name == sink))
    }

    pub fn is_tracked(&self, column: &str) -> bool {
        let listed = |patterns: &Option<Vec<String>>| patterns.as_ref().map(|list| any_matches(list, column));
        listed(&self.rule.only).unwrap_or(true) && !listed(&self.rule.ignore).unwrap_or(false)
    }

    pub fn is_ignored_alone(&self, column: &str) -> bool {
        match &self.rule.ignore_alone {
            Some(patterns) => any_matches(patterns, column),
            None => DEFAULT_IGNORE_ALONE.contains(&column),
        }
    }

    pub fn is_included(&self, column: &str) -> bool {
        self.rule.include.as_ref().is_some_and(|patterns| any_matches(patterns, column))
    }

    /// The table's own `protect` and `allow` decide first, then the general rules, then the default set; `None` where nobody does.
    pub fn decision(&self, column: &ShapeColumn) -> Option<Decision<'_>> {
        let lower = column.name.to_lowercase();
        let decider = self.deciders.iter().find(|decider| decider.decides(column, &lower))?;
        Some(Decision { methods: decider.protect.as_ref().map_or(&[], Protect::methods), by: &decider.by })
    }

    pub fn methods(&self, column: &ShapeColumn) -> &[MethodRule] {
        self.decision(column).map_or(&[], |decision| decision.methods)
    }
}

fn any_matches(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, name))
}

/// Whether `name` fits `pattern`, where `*` stands for any run of characters and `?` for one.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where to go on if the text after the last star does not fit: the star takes one character more.
    let mut retry = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                retry = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match retry {
                Some((star, taken)) => {
                    retry = Some((star, taken + 1));
                    p = star + 1;
                    n = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests;
