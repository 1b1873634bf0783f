//! The operator's decisions about tables, `[[tables]]` and `[protection]`, and the one set of rules that results for a
//! table.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::content::Content;
use crate::events::{Columns, Required, RowEvent};
use crate::expand::JsonRule;
use crate::inside::{Form, Inside, Names};
use crate::method::{Method, MethodRule, Protect};
pub use crate::pattern::matches;
use crate::shape::{Former, TableName};
use crate::versions_table::VersionsTable;

pub use self::decide::{By, Decision, TableRules, is_path};
use self::decide::{ContentRule, Decider, Pattern, own};
pub use self::months::{Months, MonthsError};
pub use self::names::{Called, FormerNames};

mod decide;
mod months;
mod names;

/// Rules for the tables that `name` matches. Rules are read in order; a later one that matches adds to and overrides earlier ones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TableRule {
    /// `schema.table`, with `*` for any run of characters and `?` for one.
    #[schemars(extend("example" = "public.*"))]
    pub name: String,
    /// Names that the table had before it was renamed, or its schema was. The rule holds under them too: for what is still to be read of the time
    /// before, and for what `history` and others find under the old name.
    #[serde(default)]
    #[schemars(extend("example" = ["public.patients"]))]
    pub former_names: Vec<String>,
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
    /// Columns (names or patterns) that need no protection, whatever general and default rules say of their names and content. `allow` of several
    /// rules adds up.
    pub allow: Option<Vec<String>>,
    /// Leave out columns that no rule decides about (`protect`, `allow`, `only`, `ignore`, a general or a default rule), so that a new column is
    /// not recorded until somebody has looked at it. `cdc-audit plan` names them. Default: false.
    pub strict: Option<bool>,
    /// JSON columns (names or patterns) whose changes are recorded member by member, under paths: `{ config = { levels = 1 } }` shows
    /// `config.max_retries: [3, 5]`. `label` stands in place of the column's name, `separator` between the parts.
    #[serde(default)]
    #[schemars(extend("example" = {"config": {"levels": 1}}))]
    pub json: BTreeMap<String, JsonRule>,
    /// The column that names the tenant.
    pub tenant: Option<String>,
    /// The column that names the data subject, by the id that the application knows. What `encrypt` leaves of a row's values is then under a key of
    /// that person's own, so that `keys destroy --subject` makes it unreadable everywhere; where the column is null, under the
    /// class's. Tokens, masks and hashes are under no person's key.
    #[schemars(extend("example" = "customer_id"))]
    pub subject: Option<String>,
    /// Columns, by name, whose values are authenticated with every ciphertext of the row, so that it does not open once they are altered: `["provider_id"]`.
    /// Whole numbers, text or UUIDs, recorded as they are; they become part of `included`. Add new ones at the end, and take none out: what was
    /// encrypted before is bound to those before.
    #[schemars(extend("example" = ["provider_id"]))]
    pub bind: Option<Vec<String>>,
    /// In hot sinks, the table in schema `cdc_audit` that takes these tables' versions in place of the common one, `versions`. It is made on the first
    /// version, as the common one is. `{schema}`, `{table}` and `{tenant}` stand for what they say: `tenant_{tenant}_versions` gives each tenant a
    /// table of its own.
    #[schemars(extend("example" = "orders_versions"))]
    pub versions_table: Option<VersionsTable>,
    /// How long versions of these tables stay in hot tables, in whole months: `"12 mo"`, `"2 y"`. Older months are moved out by `cdc-audit archive`,
    /// and only after a lake was proved to have them. A partition that several tables share leaves when every one of them allows it. Default: for
    /// ever.
    #[schemars(extend("example" = "12 mo"))]
    pub hot: Option<Months>,
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
    /// Whether `undo` and `rollback` may write these tables: `allowed`, `never`. Default: allowed, with the rights of who does it.
    pub undo: Option<UndoRule>,
}

/// Whether rows of a table may be put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UndoRule {
    Allowed,
    Never,
}

/// Protects columns by name, by type, or by both, in every table; or sensitive content inside of them.
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
    /// What the columns' text, or documents, may hold: it is replaced in place, in columns that no other rule decides about.
    pub content: Option<Content>,
    /// What happens to the column, or to the content, as in `protect` of `[[tables]]`.
    pub method: Protect,
}

/// Names that commonly hold secrets: the default rule set, always `full`. They match names in every style: `api_key`
/// also matches `apiKey` and `api-key`. A rule of the operator's own comes first.
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
    "*privatekey*",
    "*access_key*",
    "*accesskey*",
    "*credential*",
    "authorization",
    "proxy_authorization",
    "cookie",
    "cookies",
    "*_cookie",
    "jwt",
    "*_jwt",
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

/// Columns that by default make no version on their own.
pub const DEFAULT_IGNORE_ALONE: &[&str] = &["updated_at", "modified_at", "lock_version"];

impl TableRule {
    /// Whether the rule applies to a table of this name.
    pub fn covers(&self, table: &str) -> bool {
        std::iter::once(&self.name).chain(&self.former_names).any(|pattern| matches(pattern, table))
    }

    /// Whether the rule names this table exactly, and not by a pattern.
    fn names_exactly(&self, table: &str) -> bool {
        std::iter::once(&self.name).chain(&self.former_names).any(|name| name == table && !is_pattern(name))
    }
}

/// All rules, in the operator's order.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    pub tables: Vec<TableRule>,
    pub protection: Vec<ProtectionRule>,
    /// Whether [`DEFAULT_PROTECTED`] applies, and card numbers inside text are masked if no rule for them says
    /// otherwise.
    pub default_protection: bool,
    /// Names of a context's fields, each with what happens to it; these come before general and default rules.
    pub context: BTreeMap<String, Protect>,
}

impl Rules {
    /// Merges the rules that match `table`: scalars and lists of a later rule replace those of an earlier one,
    /// `protect` is combined.
    pub fn for_table(&self, table: &TableName) -> TableRules {
        self.for_name(table.to_string())
    }

    /// The same for a table that had other names when it was last seen: rules for those names apply to it until a rule
    /// uses its present name. A rename is not a decision about what is protected.
    pub fn for_renamed(&self, table: &TableName, former: &[TableName]) -> TableRules {
        let name = table.to_string();
        let named = self.tables.iter().any(|rule| rule.names_exactly(&name));
        let former: Vec<String> = former.iter().filter(|_| !named).map(TableName::to_string).collect();
        let kept = |former: &&String| self.tables.iter().any(|rule| rule.covers(former) && !rule.covers(&name));
        let renamed_from = former.iter().find(kept).cloned();
        let names = std::iter::once(name.clone()).chain(former).collect();
        TableRules { renamed_from, ..self.for_names(names) }
    }

    /// The same for a table's name as records contain it.
    pub fn for_name(&self, name: String) -> TableRules {
        self.for_names(vec![name])
    }

    /// Merges the rules for a table with several names; `names` begins with its present name.
    fn for_names(&self, names: Vec<String>) -> TableRules {
        let mut merged = TableRule { name: names.first().cloned().unwrap_or_default(), ..TableRule::default() };
        let fits = |rule: &TableRule| names.iter().any(|name| rule.covers(name));
        let matching = || self.tables.iter().enumerate().filter(|(_, rule)| fits(rule));
        for (_, rule) in matching() {
            let TableRule {
                name: _,
                former_names: _,
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
                strict,
                json,
                tenant,
                subject,
                bind,
                versions_table,
                hot,
                actor_column,
                reason_column,
                require_actor,
                require_reason,
                baseline,
                sinks,
                undo,
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
            merged.strict = strict.or(merged.strict);
            merged.json.extend(json);
            if let Some(allow) = allow {
                merged.allow.get_or_insert_default().extend(allow);
            }
            merged.tenant = tenant.or(merged.tenant);
            merged.subject = subject.or(merged.subject);
            merged.bind = bind.or(merged.bind);
            merged.versions_table = versions_table.or(merged.versions_table);
            merged.hot = hot.or(merged.hot);
            merged.actor_column = actor_column.or(merged.actor_column);
            merged.reason_column = reason_column.or(merged.reason_column);
            merged.require_actor = require_actor.or(merged.require_actor);
            merged.require_reason = require_reason.or(merged.require_reason);
            merged.baseline = baseline.or(merged.baseline);
            merged.sinks = sinks.or(merged.sinks);
            merged.undo = undo.or(merged.undo);
        }
        let mut deciders = Vec::new();
        for (index, rule) in matching() {
            deciders.extend(own(index, rule));
        }
        // An exact name comes before a pattern, a later rule before an earlier one, `protect` before `allow`, a longer
        // pattern before a shorter one.
        deciders.sort_by_key(|(rank, _)| std::cmp::Reverse(*rank));
        let mut deciders: Vec<Decider> = deciders.into_iter().map(|(_, decider)| decider).collect();
        let general = || self.protection.iter().enumerate().filter(|(_, rule)| rule.content.is_none());
        deciders.extend(general().map(|(index, rule)| Decider {
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
        // A rule that protects or labels one table must not exclude the others; only `capture = true` does.
        let captured = merged.capture.unwrap_or(!self.tables.iter().any(|rule| rule.capture == Some(true)));
        let own = matching().filter(|(_, rule)| names.iter().any(|name| rule.names_exactly(name)));
        let own = own.flat_map(|(_, rule)| rule.protect.keys().filter(|name| !is_pattern(name)).cloned()).collect();
        TableRules {
            rule: merged,
            captured,
            deciders,
            names: OnceLock::new(),
            content: self.content(),
            own,
            former: Former::default(),
            renamed_from: None,
        }
    }

    /// What is protected inside a transaction's context.
    pub fn for_context(&self) -> Inside {
        let own = self.context.iter().map(|(name, protect)| (name.as_str(), protect.methods()));
        let named = |rule: &'_ ProtectionRule| rule.content.is_none() && rule.type_name.is_none();
        let general = self.protection.iter().filter(|rule| named(rule));
        let general = general.filter_map(|rule| Some((rule.column.as_deref()?, rule.method.methods())));
        let full = [MethodRule::from(Method::Full)];
        let defaults =
            DEFAULT_PROTECTED.iter().filter(|_| self.default_protection).map(|name| (*name, full.as_slice()));
        let everywhere = self.content().into_iter().filter(|rule| rule.column == "*" && rule.type_name.is_none());
        let mut content: Vec<(Content, MethodRule)> = Vec::new();
        for rule in everywhere {
            if content.iter().all(|(known, _)| *known != rule.content) {
                content.push((rule.content, rule.method));
            }
        }
        let names = Arc::new(Names::new(own.chain(general), defaults));
        Inside { form: Form::Document, names, content, ..Inside::default() }
    }

    /// The first rules with more names than can be searched for together, by their place in the configuration.
    pub fn too_many_names(&self) -> Option<String> {
        if self.for_context().names.too_many() {
            return Some("protection".to_owned());
        }
        let own = |rule: &&TableRule| {
            let mut names = rule.protect.keys().chain(rule.allow.iter().flatten());
            names.any(|name| name.contains(['*', '?']))
        };
        let tables = self.tables.iter().filter(own);
        tables.map(|rule| &rule.name).find(|name| self.for_name((*name).clone()).names().too_many()).cloned()
    }

    /// The rules about content, in their order, and the default one.
    fn content(&self) -> Vec<ContentRule> {
        let of = |rule: &ProtectionRule| {
            let column = rule.column.as_deref().unwrap_or("*").to_lowercase();
            let method = rule.method.methods().first()?.clone();
            Some(ContentRule { column, type_name: rule.type_name.clone(), content: rule.content?, method })
        };
        let cards = || ContentRule {
            column: "*".to_owned(),
            type_name: None,
            content: Content::Card,
            method: Method::Partial.into(),
        };
        self.protection.iter().filter_map(of).chain(self.default_protection.then(cards)).collect()
    }
}

/// Whether a name in a rule stands for several names.
pub fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?'])
}

fn any_matches(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, name))
}

#[cfg(test)]
mod tests;
