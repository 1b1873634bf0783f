//! Describes a table's columns from its log, for programs that generate statements about it.

use audit_core::position::Micros;
use audit_core::shape::Shape;
use futures::StreamExt;
use object_store::path::Path;

use crate::commit::TableLog;
use crate::error::LakeError;
use crate::layout::DATA;
use crate::schema::{SOURCE_COLUMN, SOURCE_KIND};

/// A table of a lake.
#[derive(Clone, Debug)]
pub struct TableDescription {
    /// The folder, relative to the lake's.
    pub folder: String,
    /// The partition columns, in the order of the folders.
    pub partition_columns: Vec<String>,
    /// The columns, in the order of the Delta schema, partition columns included.
    pub fields: Vec<FieldDescription>,
    /// The shapes, oldest first; the table of gaps has none.
    pub shapes: Vec<Shape>,
    /// The year of the oldest partition that readers list; the current year if there is none.
    pub first_year: i32,
    /// Whether the table has a file that readers list.
    pub listed: bool,
}

/// A column of the Delta schema.
#[derive(Clone, Debug)]
pub struct FieldDescription {
    pub name: String,
    /// The name of the primitive type (Delta protocol, "Schema Serialization Format"), otherwise `array` or `struct`.
    pub kind: String,
    /// Name and kind of the source's column that this one holds; `None` for the record's own columns.
    pub source: Option<(String, String)>,
}

pub async fn describe(log: &TableLog) -> Result<TableDescription, LakeError> {
    let state = log.state.as_ref().ok_or_else(|| LakeError::NoTable { table: log.table.to_string() })?;
    let fields = state.fields.iter().map(|field| {
        let text = |key: &str| field.metadata.get(key)?.as_str().map(str::to_string);
        let kind = field.kind.as_str().or_else(|| field.kind.get("type")?.as_str());
        FieldDescription {
            name: field.name.clone(),
            kind: kind.unwrap_or_default().to_string(),
            source: text(SOURCE_COLUMN).zip(text(SOURCE_KIND)),
        }
    });
    Ok(TableDescription {
        folder: log.folder.to_string(),
        partition_columns: state.partitioning.names(),
        fields: fields.collect(),
        shapes: state.shapes.clone(),
        first_year: first_year(log).await?,
        listed: is_listed(log).await?,
    })
}

async fn is_listed(log: &TableLog) -> Result<bool, LakeError> {
    let data = Path::from(format!("{}/{DATA}", log.folder));
    let mut files = log.store().objects().list(Some(&data));
    while let Some(file) = files.next().await {
        let file = file.map_err(|error| LakeError::store("list", log.store().show(&data), error))?;
        if file.location.extension() == Some("parquet") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Reads the oldest year from the names of the folders: `year=2026` or `date=2026-03-01`.
async fn first_year(log: &TableLog) -> Result<i32, LakeError> {
    let data = Path::from(format!("{}/{DATA}", log.folder));
    let listed = log.store().objects().list_with_delimiter(Some(&data)).await;
    let listed = listed.map_err(|error| LakeError::store("list", log.store().show(&data), error))?;
    let year = |folder: &Path| folder.filename()?.split_once('=')?.1.split('-').next()?.parse().ok();
    Ok(listed.common_prefixes.iter().filter_map(year).min().unwrap_or_else(|| Micros::now().date().0))
}
