//! Finds the rule that decides about a column: [`TableRules`].

use std::fmt;
use std::sync::{Arc, OnceLock};

use super::{DEFAULT_IGNORE_ALONE, TableRule, any_matches, matches};
use crate::content::Content;
use crate::expand::Expansion;
use crate::inside::{Form, Inside, Names, PathRule, snake_case};
use crate::method::{MethodRule, Protect};
use crate::shape::{Former, Shape, ShapeColumn};
use crate::value::Kind;

/// The rules that apply to one table.
#[derive(Clone, Debug)]
pub struct TableRules {
    pub rule: TableRule,
    pub(super) captured: bool,
    /// The rules about columns; the first one that matches decides.
    pub(super) deciders: Vec<Decider>,
    /// The rules for members of documents, by name.
    pub(super) names: OnceLock<Arc<Names>>,
    pub(super) content: Vec<ContentRule>,
    /// Columns that rules for exactly this table protect by name.
    pub(super) own: Vec<String>,
    /// The earlier names of its columns.
    pub(super) former: Former,
    /// The table's former name, if rules apply to it only because of that name.
    pub renamed_from: Option<String>,
}

/// Content to search for, the columns to search, and what happens to the content.
#[derive(Clone, Debug)]
pub(super) struct ContentRule {
    pub(super) column: String,
    pub(super) type_name: Option<String>,
    pub(super) content: Content,
    pub(super) method: MethodRule,
}

/// A rule about columns.
#[derive(Clone, Debug)]
pub(super) struct Decider {
    pub(super) column: Pattern,
    pub(super) type_name: Option<String>,
    /// `None` if the rule leaves the column as it is.
    pub(super) protect: Option<Protect>,
    pub(super) by: By,
}

#[derive(Clone, Debug)]
pub(super) enum Pattern {
    /// The name as it is written.
    Exact(String),
    /// A pattern in lower case; case does not matter in matching.
    Like(String),
}

/// The rule that decides about a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// `protect` of `[[tables]]`: the table's index from 0, and the key.
    Table(usize, String),
    /// `allow` of `[[tables]]`: the table's index from 0, and the pattern.
    Allowed(usize, String),
    /// `[[protection.rules]]`: the rule's index from 0.
    Rule(usize),
    /// A name of [`super::DEFAULT_PROTECTED`].
    Default(&'static str),
}

impl By {
    /// ⚠ A pattern that allows many columns was not written for a column that got its name later: it does not end the
    /// protection that the column had before.
    fn permits_by_pattern(&self) -> bool {
        matches!(self, By::Allowed(_, pattern) if pattern.contains(['*', '?']))
    }
}

/// Prints the rule's place in the configuration.
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

/// What the rules decide about a column.
#[derive(Clone, Copy, Debug)]
pub struct Decision<'r> {
    /// Empty if the column stays as it is.
    pub methods: &'r [MethodRule],
    pub by: &'r By,
}

/// The order of rules: exactness, index of the rule, whether it protects, length of the pattern.
pub(super) type Rank = (bool, usize, bool, usize);

/// The rules about columns in a rule for tables. A name without a wildcard is meant exactly; if no column has exactly
/// that name, `protect` also matches a name that differs only in case.
pub(super) fn own(index: usize, rule: &TableRule) -> Vec<(Rank, Decider)> {
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
    /// The rule for members of documents: patterns that apply to any column, whatever its type.
    fn as_name(&self) -> Option<(&str, &[MethodRule])> {
        match (&self.column, &self.type_name, &self.by) {
            // Exact names in a table's own rules mean its columns, not members.
            (Pattern::Like(pattern), None, By::Table(_, written) | By::Allowed(_, written)) => {
                written.contains(['*', '?']).then_some((pattern, self.methods()))
            }
            (Pattern::Like(pattern), None, _) => Some((pattern, self.methods())),
            _ => None,
        }
    }

    fn is_default(&self) -> bool {
        matches!(self.by, By::Default(_))
    }

    fn methods(&self) -> &[MethodRule] {
        self.protect.as_ref().map_or(&[], Protect::methods)
    }

    fn decides(&self, column: &ShapeColumn, lower: &str) -> bool {
        let named = match &self.column {
            Pattern::Exact(name) => *name == column.name,
            Pattern::Like(pattern) => {
                let styled =
                    || self.is_default() && snake_case(&column.name).is_some_and(|name| matches(pattern, &name));
                matches(pattern, lower) || styled()
            }
        };
        named && self.type_name.as_ref().is_none_or(|pattern| is_type(pattern, column))
    }
}

/// Whether a column has the type that a rule names, or its values contain values of that type, as a domain, an array, a
/// row or a range does. ⚠ If the catalog no longer knew the type, its OID is stored in place of its name; then it
/// cannot be excluded that the rule means it.
fn is_type(pattern: &str, column: &ShapeColumn) -> bool {
    let names = [&column.type_name].into_iter().chain(&column.holds);
    names.map(|name| without_modifier(&name.to_lowercase())).any(|name| {
        let unknown = !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit());
        let is = |name: &str| matches(&pattern.to_lowercase(), name);
        unknown || is(&name) || is(name.trim_end_matches("[]"))
    })
}

/// A type's name without its modifier, which may be in the middle: `timestamp(3) with time zone`.
fn without_modifier(name: &str) -> String {
    match (name.find('('), name.find(')')) {
        (Some(open), Some(close)) if open < close => format!("{}{}", name[..open].trim_end(), &name[close + 1..]),
        _ => name.trim_end().to_owned(),
    }
}

/// Whether a name is a path into the documents of a column.
pub fn is_path(written: &str, column: &str) -> bool {
    written.strip_prefix(column).is_some_and(|rest| rest.starts_with('.'))
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
        listed(&self.rule.only).unwrap_or(true)
            && !listed(&self.rule.ignore).unwrap_or(false)
            && !self.was_ignored(column)
    }

    /// Whether the column was left out under an earlier name, and no rule names it by its present name. A list of
    /// `only` leaves out every new name anyway.
    fn was_ignored(&self, column: &str) -> bool {
        let named = self.rule.allow.iter().flatten().chain(self.rule.protect.keys()).any(|name| name == column);
        let listed = |name: &String| self.rule.ignore.as_ref().is_some_and(|list| any_matches(list, name));
        !named && self.former_names(column).any(listed)
    }

    fn former_names(&self, column: &str) -> impl Iterator<Item = &String> {
        self.former.names.get(column).into_iter().flatten()
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

    /// Whether the column is part of `included`.
    pub fn keeps(&self, column: &str) -> bool {
        self.is_included(column) || self.rule.tenant.as_deref() == Some(column) || self.is_bound(column)
    }

    /// Whether a version contains the column's value anywhere, unless a protection method prevents it.
    pub fn is_recorded(&self, column: &str) -> bool {
        let attributes = [&self.rule.actor_column, &self.rule.reason_column];
        self.is_tracked(column)
            || self.keeps(column)
            || attributes.into_iter().any(|name| name.as_deref() == Some(column))
    }

    /// Whether ciphertexts of the table's rows are bound to the column's value.
    pub fn is_bound(&self, column: &str) -> bool {
        self.rule.bind.iter().flatten().any(|name| name == column)
    }

    /// The table's own `protect` and `allow` decide first, then the general rules, then the default set; `None` if no
    /// rule matches.
    pub fn decision(&self, column: &ShapeColumn) -> Option<Decision<'_>> {
        match self.decision_now(column) {
            Some(now) if !now.by.permits_by_pattern() => Some(now),
            now => self.decision_before(column).or(now),
        }
    }

    fn decision_now(&self, column: &ShapeColumn) -> Option<Decision<'_>> {
        let lower = column.name.to_lowercase();
        let decider = self.deciders.iter().find(|decider| decider.decides(column, &lower))?;
        Some(Decision { methods: decider.methods(), by: &decider.by })
    }

    /// ⚠ What protected the column under an earlier name still protects it: renaming a column is not a decision about
    /// it. Permission is not carried over.
    fn decision_before(&self, column: &ShapeColumn) -> Option<Decision<'_>> {
        let before = |name: &String| self.decision_now(&ShapeColumn { name: name.clone(), ..column.clone() });
        self.former_names(&column.name).filter_map(before).find(|decision| !decision.methods.is_empty())
    }

    /// Stores what earlier shapes say about the table's columns.
    pub fn remember(&mut self, former: Former) {
        self.former = former;
    }

    /// The columns that are protected or left out only because of an earlier name, and the columns that are withheld
    /// because one of them may be such a column.
    pub fn lost(&self, shape: &Shape) -> Vec<String> {
        let carried = |column: &&ShapeColumn| {
            let before = self.decision_before(column).is_some();
            match self.decision_now(column) {
                None => before || self.was_ignored(&column.name),
                Some(now) => before && now.by.permits_by_pattern(),
            }
        };
        let lost = |column: &&ShapeColumn| carried(column) || self.may_be_lost(column);
        shape.columns.iter().filter(lost).map(|column| column.name.clone()).collect()
    }

    /// Whether the column may be one that was protected under another name. It is then withheld until a rule decides
    /// about it.
    pub fn may_be_lost(&self, column: &ShapeColumn) -> bool {
        let was_protected = |name: &String| {
            let before = ShapeColumn { name: name.clone(), ..column.clone() };
            self.decision_now(&before).is_some_and(|decision| !decision.methods.is_empty())
                || !self.paths(name).is_empty()
                || self.rule.ignore.as_ref().is_some_and(|list| any_matches(list, name))
        };
        let among = |(name, new): (&String, &Vec<String>)| new.contains(&column.name) && was_protected(name);
        self.decision(column).is_none() && self.former.unclear.iter().any(among)
    }

    /// A column that rules for exactly this table protect by name, that the table does not have, and that is not known
    /// to have been dropped. `later` are columns that the table has by now.
    pub fn unmet(&self, shape: &Shape, later: &[String]) -> Option<&str> {
        let has = |written: &str| {
            let is = |name: &str| name.to_lowercase() == written.to_lowercase() || is_path(written, name);
            let now = shape.columns.iter().map(|column| &column.name);
            now.chain(later).chain(&self.former.seen).any(|name| is(name))
        };
        self.own.iter().map(String::as_str).find(|written| !has(written))
    }

    pub fn methods(&self, column: &ShapeColumn) -> &[MethodRule] {
        self.decision(column).map_or(&[], |decision| decision.methods)
    }

    /// How a column's documents are taken apart; an exact name comes before a pattern.
    pub fn expansion(&self, column: &ShapeColumn) -> Option<Expansion> {
        if !matches!(column.kind, Kind::Json | Kind::Jsonb) {
            return None;
        }
        let pattern = || self.rule.json.iter().find(|(name, _)| matches(name, &column.name)).map(|(_, rule)| rule);
        let rule = self.rule.json.get(&column.name).or_else(pattern)?;
        Some(Expansion::of(rule, &column.name))
    }

    /// Whether a rule says what happens to the column. This is always true if the table is not strict.
    pub fn is_decided(&self, column: &ShapeColumn) -> bool {
        if self.may_be_lost(column) {
            return false;
        }
        let rule = &self.rule;
        let named = [&rule.tenant, &rule.actor_column, &rule.reason_column].into_iter().flatten();
        let lists = [&rule.only, &rule.ignore, &rule.include, &rule.bind].into_iter().flatten();
        !rule.strict.unwrap_or(false)
            || self.decision(column).is_some()
            || !self.paths(&column.name).is_empty()
            || named.into_iter().any(|name| *name == column.name)
            || lists.into_iter().any(|patterns| any_matches(patterns, &column.name))
    }

    /// What is protected inside a column that is itself kept; `None` if there is nothing to search for.
    pub fn inside(&self, column: &ShapeColumn) -> Option<Arc<Inside>> {
        // A rule that decides about the column also decides about its contents.
        let form = Form::of(column).filter(|_| self.decision(column).is_none())?;
        let lower = column.name.to_lowercase();
        let mut content: Vec<(Content, MethodRule)> = Vec::new();
        for rule in &self.content {
            let typed = rule.type_name.as_ref().is_none_or(|pattern| is_type(pattern, column));
            if typed && matches(&rule.column, &lower) && content.iter().all(|(known, _)| *known != rule.content) {
                content.push((rule.content, rule.method.clone()));
            }
        }
        let (paths, names) = (self.paths_now_and_before(&column.name), self.names().clone());
        Some(Inside { form, paths, names, content }).filter(|inside| !inside.is_empty()).map(Arc::new)
    }

    /// The rules for members, by their names.
    pub(super) fn names(&self) -> &Arc<Names> {
        self.names.get_or_init(|| {
            let named = |default| {
                let deciders = self.deciders.iter().filter(move |decider| decider.is_default() == default);
                deciders.filter_map(Decider::as_name)
            };
            Arc::new(Names::new(named(false), named(true)))
        })
    }

    /// The path rules of the column, including those under its earlier names if they protect something.
    fn paths_now_and_before(&self, column: &str) -> Vec<PathRule> {
        let before = self.former_names(column).flat_map(|name| self.paths(name));
        let before = before.filter(|path| !path.methods.is_empty());
        self.paths(column).into_iter().chain(before).collect()
    }

    /// Entries of `protect` and `allow` that are paths into the documents of one column: `config.password`.
    fn paths(&self, column: &str) -> Vec<PathRule> {
        let keys = |path: &str| {
            let rest = path.strip_prefix(column)?.strip_prefix('.')?;
            Some(rest.split('.').map(str::to_owned).collect())
        };
        let protected = self.rule.protect.iter().map(|(path, protect)| (path, protect.methods()));
        let allowed = self.rule.allow.iter().flatten().map(|path| (path, &[][..]));
        let all = protected.chain(allowed);
        let rule = |(path, methods): (&String, &[MethodRule])| {
            Some((path.contains(['*', '?']), PathRule { keys: keys(path)?, methods: methods.to_vec() }))
        };
        let mut paths: Vec<(bool, PathRule)> = all.filter_map(rule).collect();
        // Exact paths come before patterns.
        paths.sort_by_key(|(pattern, _)| *pattern);
        paths.into_iter().map(|(_, path)| path).collect()
    }
}
