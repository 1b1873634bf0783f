//! What somebody did in a span of time.

use audit_core::stored::Record;
use audit_history::question::filter::{Attribute, Filter};
use audit_history::question::matcher::Matcher;
use audit_history::search::wanted;

use super::later::is_change;
use super::question::Question;
use crate::cli::filters::clock;
use crate::config::Config;
use crate::error::{CliError, code};

/// More versions are too many for one transaction.
const VERSIONS: usize = 100_000;

/// Whether a word is a filter, and neither a transaction nor a position.
pub fn is_filter(word: &str) -> bool {
    word.starts_with(|first: char| first.is_ascii_alphabetic() || first == '-')
        && word.contains([':', '~'])
        && !word.starts_with("xid:")
}

impl Question {
    /// The versions that the filters name, of these tables.
    pub async fn span(&self, words: &[String], tables: Vec<String>, config: &Config) -> Result<Vec<Record>, CliError> {
        let usage = |what: &str| CliError::new(what).code(code::USAGE);
        let filter = Filter::read(words, &clock(None, config)?)
            .map_err(|error| CliError::of(&error).hint(error.hint()).code(code::USAGE))?;
        if filter.only(Attribute::Actor).is_empty() || filter.span().0.is_none() {
            return Err(usage("it is not clear what to undo")
                .hint("say whose changes, and from when on: actor:31 since:09:00; or also until:10:00".to_owned()));
        }
        if filter.columns().next().is_some() || !filter.only(Attribute::Table).is_empty() {
            return Err(usage("an undo is not chosen by values").hint("tables are named by --table".to_owned()));
        }
        let (wanted, matcher) = (wanted(&self.source, tables, &filter), Matcher::new(&filter));
        let matches = |record: &Record| is_change(record) && matcher.matches(record);
        let mut records = self.store.search(&wanted, &matches, VERSIONS + 1).await?;
        if records.len() > VERSIONS {
            return Err(usage(&format!("these are more than {VERSIONS} versions; choose a shorter span")));
        }
        if records.is_empty() {
            return Err(CliError::new("the trail has no such versions").code(code::NOT_FOUND));
        }
        records.sort_by_key(|record| record.position);
        Ok(records)
    }
}
