//! Exports versions as JSON Lines, CSV or Parquet: one file or several for each table, in a folder for each tenant if
//! tenants have their own stores or tables, and a manifest that proves the files.
//!
//! A file gets its name only when it is whole and on disk, and the manifest is written last. So a folder with a
//! manifest has everything that the store had, and a file that was changed later does not match its digest. The
//! manifest also says how far the store had come.
//!
//! Until then the folder has a list of the files that are whole: an export that broke off continues after them, and in
//! plain JSON Lines after the last whole line of the file that it was writing.
//!
//! ⚠ An export ends at the positions that the sinks had reached when it began, so that one that broke off and was
//! continued is the same, byte for byte, as one that was not, whatever the daemon wrote meanwhile. That holds for every
//! version: rows of a baseline, gaps and quarantined changes that come later are not part of it either.

mod columns;
mod file;
mod form;
pub mod increment;
mod part;

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use audit_core::position::{Lsn, Micros, Position};
use audit_core::stored::Record;
use audit_lake::LakeError;
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use part::Part as FilePart;

pub use file::Compression;
pub use form::{Form, Format};

pub(crate) use file::Hashed;
pub(crate) use part::{folder_of, make_folder, name_of, private};

use crate::store::{GAPS, Part, Selection, StoreError};
use crate::timeline::{self, Reached, Span, Timeline};

/// The name of the manifest in the export's folder.
pub const MANIFEST: &str = "manifest.json";

/// The name of the list of an unfinished export: the manifest without files, then a line for each file that is whole.
const UNFINISHED: &str = "unfinished.jsonl";

/// That list before it says how the export began.
const BEGUN: &str = "unfinished.jsonl.part";

/// Describes what to export.
#[derive(Clone, Debug)]
pub struct ExportRequest {
    pub source: String,
    /// Names of tables; empty for all.
    pub tables: Vec<String>,
    /// Start of the commit times, inclusive.
    pub since: Option<Micros>,
    /// End of the commit times, exclusive.
    pub until: Option<Micros>,
    /// Only versions of these actors; empty for all.
    pub actors: Vec<String>,
    /// Only versions of these events; empty for all.
    pub events: Vec<String>,
    /// The export ends here, or where the sinks end.
    pub head: Option<Position>,
    /// Only versions after this position.
    pub after: Option<Position>,
    pub form: Form,
    /// A folder that is empty or does not exist, or with `resume` the folder of the same export that broke off.
    pub to: PathBuf,
    pub resume: bool,
    /// The name of the sink that is read.
    pub sink: String,
    /// The tenant, if only one tenant's versions are exported.
    pub tenant: Option<String>,
    /// The sink's lag, if the daemon reports it.
    pub lag: Option<Lag>,
}

/// The lag of a sink behind the source.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lag {
    /// Bytes of WAL.
    pub bytes: u64,
    pub seconds: f64,
}

/// Describes what was exported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: String,
    pub source: String,
    pub tables: Vec<String>,
    pub since: Option<String>,
    pub until: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actors: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<String>,
    /// The position after which the export begins, if it does not begin with the first version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Position>,
    #[serde(default)]
    pub form: Form,
    pub exported_at: String,
    /// The store from which the versions come, and how far it had come.
    pub store: ManifestStore,
    pub rows: u64,
    pub files: Vec<ManifestFile>,
    /// What the export covers.
    #[serde(default)]
    pub coverage: Coverage,
    /// Folders of the lake that looked like tables and contain none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
}

/// What an export covers, and what it lacks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Coverage {
    /// The position with which the export ends: the sink had everything up to here.
    pub head: Option<Position>,
    /// False if the export may lack something.
    pub complete: bool,
    /// What it lacks, each as a clause.
    #[serde(default)]
    pub lacks: Vec<String>,
    /// How far each sink was that was read.
    #[serde(default)]
    pub sinks: Vec<Reached>,
    /// The number of gaps that are recorded in the span. They are in the file of the table `cdc_audit.gap`.
    pub gaps: u64,
}

impl Coverage {
    fn of(found: timeline::Coverage) -> Coverage {
        let timeline::Coverage { head, complete, lacks, sinks, .. } = found;
        Coverage { head, complete, lacks, sinks, gaps: 0 }
    }

    /// Where a sink was when the export began.
    fn head_of(&self, sink: &str) -> Option<Position> {
        let reached = self.sinks.iter().find(|reached| reached.sink == sink);
        reached.map_or(self.head, |reached| reached.head)
    }

    fn lack(&mut self, what: String) {
        self.complete = false;
        self.lacks.push(what);
    }
}

/// One line for people.
impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = self.head.map_or("nothing".to_owned(), |head| head.to_string());
        match self.complete {
            true => write!(f, "up to {head} · complete"),
            false => write!(f, "up to {head} · incomplete: {}", self.lacks.join("; ")),
        }
    }
}

/// The state of a sink when the export began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ManifestStore {
    pub sink: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The sink's checkpoint: it had everything up to here, except what was not yet durable at the source.
    pub position: Option<Position>,
    pub flushed_lsn: Option<Lsn>,
    pub stored_at: Option<String>,
    /// The lag that the daemon reported; null if it did not answer.
    pub lag: Option<Lag>,
    /// Everything committed before this time was certainly in the store. It is the time of the export if the sink had
    /// no lag, or else the latest commit time among the versions that it had of these tables since `since`.
    pub complete_until: Option<String>,
}

impl Manifest {
    /// Tells whether versions that belong to the export may have come to the store later.
    pub fn is_ahead(&self) -> bool {
        let time = |text: &Option<String>| text.as_deref().and_then(|text| text.parse::<Micros>().ok());
        time(&self.until).is_some_and(|until| time(&self.store.complete_until).is_none_or(|reached| reached < until))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    pub path: String,
    /// The tenant to which the versions belong, if tenants have their own stores or tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    pub table: String,
    /// The number of the file among the table's files, if files have a bounded size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<u32>,
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
    #[error("an export into {path} broke off")]
    BrokeOff { path: PathBuf },
    #[error("there is nothing in {path} to go on with")]
    NothingToResume { path: PathBuf },
    #[error("{path} was begun with another {what}")]
    Another { path: PathBuf, what: &'static str },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("the sinks do not have what the export into {path} began with: {why}")]
    Gone { path: PathBuf, why: String },
    #[error("{name} is no name of a series of exports")]
    NoName { name: String },
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
            ExportError::BrokeOff { .. } => {
                Some("go on with it by the same command with --resume, or name a new folder".to_string())
            }
            ExportError::NothingToResume { .. } => Some("leave --resume out, and name a new folder".to_string()),
            ExportError::Another { .. } => {
                Some("the same export only is continued: give the same options, or name a new folder".to_string())
            }
            ExportError::Write { .. } => {
                Some("check that the folder can be written and has room, then export again".to_string())
            }
            ExportError::Gone { .. } => Some("export anew, into a new folder".to_string()),
            ExportError::NoName { .. } => Some("use letters, digits, `_` and `-`".to_string()),
            ExportError::NoTable { known, .. } => Some(format!("tables with versions: {}", known.join(", "))),
        }
    }
}

/// Writes the export, or the rest of one. `progress` gets the number of rows so far. Memory does not grow with the
/// size.
///
/// # Errors
/// Fails if the store cannot be read or the folder cannot be used. What was written before stays without a manifest.
pub async fn export(
    store: &Timeline,
    request: &ExportRequest,
    mut progress: impl FnMut(u64),
) -> Result<Manifest, ExportError> {
    let store = &as_begun(store, request)?;
    let known = store.tables(&request.source).await?;
    if let Some(table) = request.tables.iter().find(|table| !known.contains(table)) {
        return Err(ExportError::NoTable { table: table.clone(), known });
    }
    if !request.resume {
        prepare(&request.to)?;
    }
    let wanted = wanted(store, request).await?;
    let tables: BTreeSet<String> = wanted.iter().flat_map(|(tables, _)| tables).cloned().collect();
    let mut manifest = Manifest {
        format: "cdc-audit export 1".to_string(),
        source: request.source.clone(),
        tables: tables.into_iter().collect(),
        since: request.since.map(|at| at.to_string()),
        until: request.until.map(|at| at.to_string()),
        actors: request.actors.clone(),
        events: request.events.clone(),
        after: request.after,
        form: request.form,
        exported_at: Micros::now().to_string(),
        store: ManifestStore { sink: request.sink.clone(), tenant: request.tenant.clone(), ..ManifestStore::default() },
        rows: 0,
        files: Vec::new(),
        coverage: Coverage::default(),
        left_out: Vec::new(),
    };
    // Stores that keep tenants apart are not combined: then the parts say what is read.
    let store = wanted.first().map_or(store, |(_, part)| &part.store);
    let span = Span { since: request.since, until: request.until };
    let coverage = store.coverage_of(&request.source, span).await?;
    // A continued export takes this over: the files that are whole lack what was missing then.
    manifest.coverage = Coverage::of(request.head.map_or(coverage.clone(), |head| coverage.up_to(head)));
    manifest.store = manifest_store(store, request, &manifest).await?;
    let (mut unfinished, mut whole) = match request.resume {
        true => Unfinished::resume(&request.to, &mut manifest)?,
        false => (Unfinished::begin(&request.to, &manifest)?, Vec::new()),
    };
    let begun = manifest.tables.clone();
    for (tables, part) in &wanted {
        // A table that came later has nothing before the head.
        for table in tables.iter().filter(|table| begun.contains(table)) {
            let of_table =
                |file: &ManifestFile| file.table == *table && file.tenant.as_deref() == part.tenant.as_deref();
            let files: Vec<ManifestFile> = whole.extract_if(.., |file| of_table(file)).collect();
            let before = manifest.rows;
            let mut writer = TableFiles { part, request, table, unfinished: &mut unfinished };
            match writer.write(files, |rows| progress(before + rows)).await? {
                Some(files) => {
                    manifest.rows += files.iter().map(|file| file.rows).sum::<u64>();
                    manifest.files.extend(files);
                }
                None => manifest.left_out.push(table.clone()),
            }
        }
    }
    manifest.coverage.gaps = manifest.files.iter().filter(|file| file.table == GAPS).map(|file| file.rows).sum();
    if manifest.is_ahead() {
        manifest.coverage.lack("what was committed before --until may not have come to the sinks yet".to_owned());
    }
    manifest.tables.retain(|table| manifest.files.iter().any(|file| file.table == *table));
    write_manifest(&request.to, &manifest)?;
    Ok(manifest)
}

/// The timeline as it was when the export began.
fn as_begun(store: &Timeline, request: &ExportRequest) -> Result<Timeline, ExportError> {
    let store = request.head.map_or(store.clone(), |head| store.up_to(head));
    if !request.resume {
        return Ok(store);
    }
    let (begun, _) = Unfinished::read(&request.to)?;
    let gone = |why: String| ExportError::Gone { path: request.to.clone(), why };
    if let Some(reached) = store.reached().iter().find(|now| now.head < begun.coverage.head_of(&now.sink)) {
        return Err(gone(format!("{} has gone back", reached.sink)));
    }
    let then = store.up_to_each(|sink| begun.coverage.head_of(sink));
    // Hot tables may have given up what a lake did not have at that time.
    match then.hole().filter(|_| begun.coverage.complete) {
        Some(hole) => Err(gone(hole)),
        None => Ok(then),
    }
}

/// Lists the wanted tables of each part of the store.
async fn wanted(store: &Timeline, request: &ExportRequest) -> Result<Vec<(Vec<String>, Part<Timeline>)>, ExportError> {
    let mut wanted = Vec::new();
    for part in store.parts(&request.source).await? {
        let asked = |table: &String| {
            table == GAPS || (!part.gaps_only && (request.tables.is_empty() || request.tables.contains(table)))
        };
        let known = part.store.tables(&request.source).await?;
        wanted.push((known.into_iter().filter(asked).collect::<Vec<String>>(), part));
    }
    Ok(wanted)
}

/// Reads how far the store has come.
async fn manifest_store(
    store: &Timeline,
    request: &ExportRequest,
    manifest: &Manifest,
) -> Result<ManifestStore, ExportError> {
    let head = store.head();
    let complete_until = match request.lag {
        Some(Lag { bytes: 0, .. }) => Some(manifest.exported_at.clone()),
        _ => store.newest(&request.source, &manifest.tables, request.since).await?.map(|at| at.to_string()),
    };
    Ok(ManifestStore {
        position: head.map(|head| head.checkpoint.position),
        flushed_lsn: head.map(|head| head.checkpoint.flushed_lsn),
        stored_at: head.and_then(|head| head.stored_at).map(|at| at.to_string()),
        lag: request.lag,
        complete_until,
        ..manifest.store.clone()
    })
}

pub(crate) fn prepare(to: &Path) -> Result<(), ExportError> {
    let failed = |source| ExportError::Write { path: to.to_path_buf(), source };
    make_folder(to).map_err(failed)?;
    let mut names = fs::read_dir(to).map_err(failed)?.map(|entry| entry.map(|entry| entry.file_name()));
    match names.find(|name| name.as_ref().map_or(true, |name| name != BEGUN)) {
        None => Ok(()),
        Some(Err(source)) => Err(failed(source)),
        Some(Ok(_)) if to.join(UNFINISHED).exists() => Err(ExportError::BrokeOff { path: to.to_path_buf() }),
        Some(Ok(_)) => Err(ExportError::NotEmpty { path: to.to_path_buf() }),
    }
}

/// Writes the files of one table.
struct TableFiles<'e> {
    part: &'e Part<Timeline>,
    request: &'e ExportRequest,
    table: &'e str,
    unfinished: &'e mut Unfinished,
}

impl TableFiles<'_> {
    /// Writes what is missing after the files that are whole. `None` if a folder of the lake only looked like a table:
    /// its first file may exist before its first commit.
    async fn write(
        &mut self,
        whole: Vec<ManifestFile>,
        mut progress: impl FnMut(u64),
    ) -> Result<Option<Vec<ManifestFile>>, ExportError> {
        let form = &self.request.form;
        let mut files = in_order(whole);
        if form.part_bytes.is_none() && !files.is_empty() {
            return Ok(Some(files));
        }
        let mut rows: u64 = files.iter().map(|file| file.rows).sum();
        let done = files.last().and_then(|file| file.last_position);
        // Lines that are there already say where to go on.
        let mut file = self.open(files.len())?;
        let after = file.entry.last_position.or(done).or(self.request.after);
        let mut versions = match self.part.store.versions(&self.selection(after)).await {
            Err(StoreError::Lake(LakeError::NoTable { .. })) if self.request.tables.is_empty() => {
                file.discard()?;
                return Ok(None);
            }
            versions => versions?,
        };
        while let Some(version) = versions.next().await {
            let version = version?;
            if !self.is_asked(&version) {
                continue;
            }
            if file.is_full(form) {
                self.close(file, &mut files)?;
                file = self.open(files.len())?;
            }
            file.push(&version)?;
            rows += 1;
            if rows.is_multiple_of(1024) {
                progress(rows);
            }
        }
        progress(rows);
        // The first file says that there is nothing; an increment says it by having none. ⚠ A table that had no version
        // yet where the export ends has none either, because it may not be known yet when the export begins.
        let is_empty = file.entry.rows == 0;
        if is_empty && (!files.is_empty() || self.request.after.is_some() || !self.has_begun().await?) {
            file.discard()?;
        } else {
            self.close(file, &mut files)?;
        }
        Ok(Some(files))
    }

    /// Whether the table has any version before the export's end.
    async fn has_begun(&self) -> Result<bool, ExportError> {
        let all = Selection { since: None, until: None, ..self.selection(None) };
        Ok(self.part.store.versions(&all).await?.try_next().await?.is_some())
    }

    fn open(&self, whole: usize) -> Result<FilePart, ExportError> {
        let number = self.request.form.part_bytes.map(|_| whole as u32 + 1);
        FilePart::open(&self.request.to, self.part.tenant.as_deref(), self.table, &self.request.form, number)
    }

    fn close(&mut self, file: FilePart, files: &mut Vec<ManifestFile>) -> Result<(), ExportError> {
        let file = file.finish()?;
        fail::fail_point!("export::before_listed");
        self.unfinished.add(&file)?;
        fail::fail_point!("export::after_listed");
        files.push(file);
        Ok(())
    }

    fn selection(&self, after: Option<Position>) -> Selection {
        Selection {
            source: self.request.source.clone(),
            table: self.table.to_string(),
            since: self.request.since,
            until: self.request.until,
            unattributed: false,
            after,
        }
    }

    /// ⚠ What is missing concerns every reader, so gaps are not filtered.
    fn is_asked(&self, version: &Record) -> bool {
        let ExportRequest { actors, events, .. } = self.request;
        let by = || actors.is_empty() || version.actor_id.as_ref().is_some_and(|actor| actors.contains(actor));
        self.table == GAPS || ((events.is_empty() || events.contains(&version.event)) && by())
    }
}

/// The files from the first one on without one missing.
fn in_order(mut files: Vec<ManifestFile>) -> Vec<ManifestFile> {
    files.sort_by_key(|file| file.part);
    let whole = files.iter().zip(1..).take_while(|(file, number)| file.part.is_none_or(|part| part == *number)).count();
    files.truncate(whole);
    files
}

/// The list of an unfinished export.
struct Unfinished {
    path: PathBuf,
    out: File,
}

impl Unfinished {
    /// ⚠ The list gets its name when it says how the export began: without that, nothing could be continued.
    fn begin(to: &Path, manifest: &Manifest) -> Result<Unfinished, ExportError> {
        let (path, part) = (to.join(UNFINISHED), to.join(BEGUN));
        let failed = |source| ExportError::Write { path: path.clone(), source };
        let out = private().create(true).truncate(true).open(&part).map_err(failed)?;
        let mut unfinished = Unfinished { path: path.clone(), out };
        unfinished.add(manifest)?;
        fail::fail_point!("export::before_begun");
        fs::rename(&part, &path).map_err(failed)?;
        Ok(unfinished)
    }

    /// Reads how the export began, and the files that are whole.
    fn read(to: &Path) -> Result<(Manifest, Vec<ManifestFile>), ExportError> {
        let nothing = || ExportError::NothingToResume { path: to.to_path_buf() };
        let text = fs::read_to_string(to.join(UNFINISHED)).map_err(|_| nothing())?;
        let mut lines = text.lines();
        let begun: Manifest = lines.next().and_then(|line| serde_json::from_str(line).ok()).ok_or_else(nothing)?;
        // If a kill has cut a line, its file is written again.
        let files = lines.filter_map(|line| serde_json::from_str::<ManifestFile>(line).ok());
        let is_there =
            |file: &ManifestFile| fs::metadata(to.join(&file.path)).is_ok_and(|found| found.len() == file.bytes);
        Ok((begun, files.filter(is_there).collect()))
    }

    /// Opens the existing list and returns it with the files that are whole. `manifest` takes over the state of the
    /// store when the export began.
    fn resume(to: &Path, manifest: &mut Manifest) -> Result<(Unfinished, Vec<ManifestFile>), ExportError> {
        let path = to.join(UNFINISHED);
        let (begun, files) = Unfinished::read(to)?;
        let store = |manifest: &Manifest| (manifest.store.sink.clone(), manifest.store.tenant.clone());
        for (what, differs) in [
            ("source", begun.source != manifest.source),
            ("sink or tenant", store(&begun) != store(manifest)),
            ("--since", begun.since != manifest.since),
            ("--until", begun.until != manifest.until),
            ("--actor", begun.actors != manifest.actors),
            ("--event", begun.events != manifest.events),
            ("start", begun.after != manifest.after),
            ("--format, --compress or --part-size", begun.form != manifest.form),
            ("list of tables", begun.tables.iter().any(|table| !manifest.tables.contains(table))),
        ] {
            if differs {
                return Err(ExportError::Another { path: to.to_path_buf(), what });
            }
        }
        let out = File::options().append(true).open(&path);
        let out = out.map_err(|source| ExportError::Write { path: path.clone(), source })?;
        // The files of that time are as complete as the store was when the export began.
        manifest.exported_at = begun.exported_at;
        manifest.store = begun.store;
        manifest.coverage = begun.coverage;
        manifest.tables = begun.tables;
        let mut unfinished = Unfinished { path, out };
        unfinished.write(b"\n")?;
        Ok((unfinished, files))
    }

    fn add(&mut self, entry: &impl Serialize) -> Result<(), ExportError> {
        let failed = |error: serde_json::Error| ExportError::Write { path: self.path.clone(), source: error.into() };
        let mut line = serde_json::to_vec(entry).map_err(failed)?;
        line.push(b'\n');
        self.write(&line)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ExportError> {
        let written = self.out.write_all(bytes).and_then(|()| self.out.sync_data());
        written.map_err(|source| ExportError::Write { path: self.path.clone(), source })
    }
}

fn write_manifest(to: &Path, manifest: &Manifest) -> Result<(), ExportError> {
    write_whole(to, MANIFEST, manifest)?;
    fail::fail_point!("export::after_manifest");
    let path = to.join(UNFINISHED);
    let removed = fs::remove_file(&path).and_then(|()| File::open(to)?.sync_all());
    removed.map_err(|source| ExportError::Write { path, source })
}

/// Writes a file of JSON that is there as a whole, or not at all.
pub(crate) fn write_whole(to: &Path, name: &str, value: &impl Serialize) -> Result<(), ExportError> {
    let (path, part) = (to.join(name), to.join(format!("{name}.part")));
    let write = || {
        let mut file = private().create(true).truncate(true).open(&part)?;
        serde_json::to_writer_pretty(&mut file, value)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fail::fail_point!("export::before_manifest");
        fs::rename(&part, &path)?;
        File::open(to)?.sync_all()
    };
    write().map_err(|source: io::Error| ExportError::Write { path: path.clone(), source })
}
