//! An export: JSON Lines, one file for each table, in a folder for each tenant where tenants have stores or tables of their own, and a manifest that proves
//! them.
//!
//! A file has its name only when it is whole and on disk; the manifest is written last. So a folder with a manifest is complete, and
//! what a hand changed later does not match its digest.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use audit_core::position::{Micros, Position};
use audit_core::stored::Record;
use audit_lake::tenants::folder_of;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::store::{Part, Selection, Store, StoreError};

/// The name of the manifest in the export's folder.
pub const MANIFEST: &str = "manifest.json";

/// The table of lost stretches: part of every export, for what is missing belongs to what is handed over.
const GAPS: &str = "cdc_audit.gap";

/// What to hand over.
#[derive(Clone, Debug)]
pub struct ExportRequest {
    pub source: String,
    /// Names of tables; empty for all.
    pub tables: Vec<String>,
    /// Committed at or after.
    pub since: Option<Micros>,
    /// Committed before.
    pub until: Option<Micros>,
    /// A folder that is empty or does not exist.
    pub to: PathBuf,
}

/// What was handed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: String,
    pub source: String,
    pub tables: Vec<String>,
    pub since: Option<String>,
    pub until: Option<String>,
    pub exported_at: String,
    pub rows: u64,
    pub files: Vec<ManifestFile>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    pub path: String,
    /// Whose versions these are, where tenants have stores or tables of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    pub table: String,
    pub rows: u64,
    pub bytes: u64,
    pub sha256: String,
    pub first_position: Option<Position>,
    pub last_position: Option<Position>,
    pub first_committed_at: Option<String>,
    pub last_committed_at: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the folder {path} is not empty")]
    NotEmpty { path: PathBuf },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("there are no versions of table {table} to export")]
    NoTable { table: String, known: Vec<String> },
}

impl ExportError {
    pub fn hint(&self) -> Option<String> {
        match self {
            ExportError::Store(error) => error.hint(),
            ExportError::NotEmpty { .. } => {
                Some("name a new folder: an export is never mixed with another".to_string())
            }
            ExportError::Write { .. } => {
                Some("see that the folder can be written and has room, then export again".to_string())
            }
            ExportError::NoTable { known, .. } => Some(format!("tables with versions: {}", known.join(", "))),
        }
    }
}

/// Writes the export. `progress` hears the rows so far. Memory does not grow with the size.
///
/// # Errors
/// Whatever was written before an error stays without a manifest.
pub async fn export(
    store: &Store,
    request: &ExportRequest,
    mut progress: impl FnMut(u64),
) -> Result<Manifest, ExportError> {
    let known = store.tables(&request.source).await?;
    if let Some(table) = request.tables.iter().find(|table| !known.contains(table)) {
        return Err(ExportError::NoTable { table: table.clone(), known });
    }
    prepare(&request.to)?;
    let mut wanted = Vec::new();
    for part in store.parts(&request.source).await? {
        let asked = |table: &String| {
            table == GAPS || (!part.gaps_only && (request.tables.is_empty() || request.tables.contains(table)))
        };
        let known = part.store.tables(&request.source).await?;
        wanted.push((known.into_iter().filter(asked).collect::<Vec<String>>(), part));
    }
    let tables: BTreeSet<String> = wanted.iter().flat_map(|(tables, _)| tables).cloned().collect();
    let mut manifest = Manifest {
        format: "cdc-audit export 1".to_string(),
        source: request.source.clone(),
        tables: tables.into_iter().collect(),
        since: request.since.map(|at| at.to_string()),
        until: request.until.map(|at| at.to_string()),
        exported_at: Micros::now().to_string(),
        rows: 0,
        files: Vec::new(),
    };
    for (tables, part) in wanted {
        for table in tables {
            let source = request.source.clone();
            let (since, until) = (request.since, request.until);
            let selection = Selection { source, table, since, until, unattributed: false };
            let before = manifest.rows;
            let file = one_table(&part, &selection, &request.to, |rows| progress(before + rows)).await?;
            manifest.rows += file.rows;
            manifest.files.push(file);
        }
    }
    write_manifest(&request.to, &manifest)?;
    Ok(manifest)
}

/// What is exported is for whoever exported it, whatever the umask.
fn make_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn make_file(path: &Path) -> io::Result<File> {
    File::options().write(true).create_new(true).mode(0o600).open(path)
}

fn prepare(to: &Path) -> Result<(), ExportError> {
    let failed = |source| ExportError::Write { path: to.to_path_buf(), source };
    make_folder(to).map_err(failed)?;
    match fs::read_dir(to).map_err(failed)?.next() {
        None => Ok(()),
        Some(_) => Err(ExportError::NotEmpty { path: to.to_path_buf() }),
    }
}

async fn one_table(
    part: &Part,
    selection: &Selection,
    to: &Path,
    mut progress: impl FnMut(u64),
) -> Result<ManifestFile, ExportError> {
    let mut file = JsonLines::create(to, part.tenant.as_deref(), &selection.table)?;
    let mut versions = part.store.versions(selection).await?;
    while let Some(version) = versions.next().await {
        file.push(&version?)?;
        if file.entry.rows.is_multiple_of(1024) {
            progress(file.entry.rows);
        }
    }
    progress(file.entry.rows);
    file.finish()
}

/// One file under way.
struct JsonLines {
    out: BufWriter<File>,
    digest: Sha256,
    line: Vec<u8>,
    part: PathBuf,
    path: PathBuf,
    entry: ManifestFile,
}

impl JsonLines {
    fn create(to: &Path, tenant: Option<&str>, table: &str) -> Result<JsonLines, ExportError> {
        let folder = tenant.map(|tenant| format!("tenant={}", folder_of(tenant)));
        let name = format!("{}.jsonl", file_name(table));
        let name = folder.iter().fold(name, |name, folder| format!("{folder}/{name}"));
        if let Some(folder) = folder.map(|folder| to.join(folder)) {
            make_folder(&folder).map_err(|source| ExportError::Write { path: folder, source })?;
        }
        let (path, part) = (to.join(&name), to.join(format!("{name}.part")));
        let out = make_file(&part).map_err(|source| ExportError::Write { path: part.clone(), source })?;
        Ok(JsonLines {
            out: BufWriter::with_capacity(1 << 20, out),
            digest: Sha256::new(),
            line: Vec::new(),
            part,
            path,
            entry: ManifestFile {
                path: name,
                tenant: tenant.map(str::to_string),
                table: table.to_string(),
                rows: 0,
                bytes: 0,
                sha256: String::new(),
                first_position: None,
                last_position: None,
                first_committed_at: None,
                last_committed_at: None,
            },
        })
    }

    fn push(&mut self, record: &Record) -> Result<(), ExportError> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, record)
            .map_err(|error| ExportError::Write { path: self.part.clone(), source: error.into() })?;
        self.line.push(b'\n');
        self.digest.update(&self.line);
        self.out.write_all(&self.line).map_err(|source| ExportError::Write { path: self.part.clone(), source })?;
        let entry = &mut self.entry;
        entry.rows += 1;
        entry.bytes += self.line.len() as u64;
        entry.first_position.get_or_insert(record.position);
        entry.last_position = Some(record.position);
        let at = record.committed_at.to_string();
        // Snapshots and commits of concurrent sessions need not be in the order of their times.
        entry.first_committed_at =
            Some(entry.first_committed_at.take().map_or(at.clone(), |first| first.min(at.clone())));
        entry.last_committed_at = Some(entry.last_committed_at.take().map_or(at.clone(), |last| last.max(at)));
        Ok(())
    }

    fn finish(mut self) -> Result<ManifestFile, ExportError> {
        let failed = |source| ExportError::Write { path: self.path.clone(), source };
        self.out.flush().map_err(failed)?;
        self.out.get_ref().sync_all().map_err(failed)?;
        fs::rename(&self.part, &self.path).map_err(failed)?;
        self.entry.sha256 = hex::encode(self.digest.finalize());
        Ok(self.entry)
    }
}

fn write_manifest(to: &Path, manifest: &Manifest) -> Result<(), ExportError> {
    let (path, part) = (to.join(MANIFEST), to.join(format!("{MANIFEST}.part")));
    let write = || {
        let mut file = make_file(&part)?;
        serde_json::to_writer_pretty(&mut file, manifest)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&part, &path)?;
        File::open(to)?.sync_all()
    };
    write().map_err(|source: io::Error| ExportError::Write { path: path.clone(), source })
}

/// A table's name as a file's: letters, digits, `_`, `-` and `.` as they are, anything else as `%` and two hex digits for each byte.
fn file_name(table: &str) -> String {
    table
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' => char::from(byte).to_string(),
            byte => format!("%{byte:02x}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::file_name;

    #[test]
    fn tables_that_differ_have_files_that_differ() {
        assert_eq!(file_name("public.orders"), "public.orders");
        assert_eq!(file_name("\"a.b\".c d"), "%22a.b%22.c%20d");
        assert_ne!(file_name("\"a.b\".c"), file_name("a.\"b.c\""));
    }
}
