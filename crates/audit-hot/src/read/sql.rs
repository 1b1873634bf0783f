//! Runs a person's SQL over the views of [`super::views`], in a transaction that only reads.
//!
//! ⚠ The person's text stands in parentheses, where only a query can stand, and the whole is prepared before it runs: a
//! text of several statements is refused, so none of it can end the transaction. A transaction that only reads cannot
//! be made to write once it has read, and what functions do in spite of that is rolled back.

use std::time::Duration;

use audit_core::rules::Rules;
use futures::stream::{BoxStream, StreamExt};
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::types::Type;

use super::places::Places;
use super::views::{View, values, view_name};
use super::{HotReader, ReadError, failed};

/// How a value is written as JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// As it is: a number or JSON.
    Bare,
    Bool,
    Text,
}

/// A row; `None` is NULL.
pub type SqlRow = Vec<Option<String>>;

/// The answer to a person's SQL.
pub struct SqlAnswer {
    pub columns: Vec<(String, Written)>,
    pub rows: BoxStream<'static, Result<SqlRow, ReadError>>,
}

impl HotReader {
    /// The views that SQL can name. `rules` say which renames of columns the operator declared.
    ///
    /// # Errors
    /// Fails if the database cannot be read.
    pub async fn views(&self, source: &str, rules: &Rules) -> Result<Vec<View>, ReadError> {
        let all = self.tables(source).await?;
        let places = Places::of(&self.client, &self.whose, source, &[]).await?;
        let mut views = vec![View::versions(source, &places)];
        for table in &all {
            let shapes = self.shapes(source, table).await?;
            if !shapes.is_empty() {
                let places = Places::of(&self.client, &self.whose, source, std::slice::from_ref(table)).await?;
                let renames = rules.for_name(table.clone()).rule.renames;
                let values = values(&shapes, &renames);
                views.push(View::of_table(view_name(table, &all), source, table, values, &places));
            }
        }
        Ok(views)
    }

    /// Runs a query, which sees one state of the database. The reader must not be used for anything else until all rows
    /// have been read.
    ///
    /// # Errors
    /// Fails if the query is refused; later errors are items of the stream.
    pub async fn sql(
        &self,
        source: &str,
        rules: &Rules,
        query: &str,
        timeout: Duration,
    ) -> Result<SqlAnswer, ReadError> {
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = {}; \
             SET LOCAL search_path = pg_catalog",
            timeout.as_millis().clamp(1, i32::MAX as u128)
        );
        self.client.batch_execute(&begin).await.map_err(failed("beginning to read"))?;
        // This also takes the snapshot, after which nothing can make the transaction write.
        let views = self.views(source, rules).await?;
        let named = views.iter().filter(|view| view.is_named_in(query)).map(View::expression);
        let named: Vec<String> = named.collect();
        let with = if named.is_empty() { String::new() } else { format!("WITH {}\n", named.join(",\n")) };
        let statement = format!("{with}SELECT * FROM (\n{}\n) AS answer", query.trim().trim_end_matches(';'));
        let refused = |error: tokio_postgres::Error| match error.as_db_error() {
            Some(server) if server.code().code().starts_with("42") => {
                ReadError::Query { what: server.message().to_owned(), hint: server.hint().map(str::to_owned) }
            }
            _ => failed("the query")(error),
        };
        let prepared = self.client.prepare(&statement).await.map_err(refused)?;
        let columns = prepared.columns().iter().map(|column| (column.name().to_owned(), written(column.type_())));
        let columns = columns.collect();
        let rows = self.client.simple_query_raw(&statement).await.map_err(failed("the query"))?;
        let rows = rows.filter_map(|message| std::future::ready(row(message).transpose()));
        let client = self.client.clone();
        let end = futures::stream::once(async move { client.batch_execute("ROLLBACK").await });
        let end =
            end.filter_map(|ended| std::future::ready(ended.err().map(|error| Err(failed("ending the query")(error)))));
        Ok(SqlAnswer { columns, rows: rows.chain(end).boxed() })
    }
}

fn row(message: Result<SimpleQueryMessage, tokio_postgres::Error>) -> Result<Option<SqlRow>, ReadError> {
    Ok(match message.map_err(failed("the query"))? {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect()),
        _ => None,
    })
}

fn written(of: &Type) -> Written {
    match *of {
        Type::INT2 | Type::INT4 | Type::INT8 | Type::OID | Type::JSON | Type::JSONB => Written::Bare,
        Type::BOOL => Written::Bool,
        _ => Written::Text,
    }
}
