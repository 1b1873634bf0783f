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
mod target;

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use audit_core::position::{Lsn, Micros, Position};
use audit_core::stored::Record;
use audit_lake::LakeError;
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use part::Part as FilePart;

pub use file::Compression;
pub use form::{Form, Format};
pub use target::Target;

pub(crate) use file::Hashed;
pub(crate) use part::{folder_of, name_of};
pub(crate) use target::{make_folder, prepare, pretty, private, write_whole};

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
    /// A place where nothing is, or with `resume` that of the same export that broke off.
    pub to: Target,
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
    /// In the list of an unfinished export: the tag that a bucket gave the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    e_tag: Option<String>,
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
    let store = &as_begun(store, request).await?;
    let known = store.tables(&request.source).await?;
    if let Some(table) = request.tables.iter().find(|table| !known.contains(table)) {
        return Err(ExportError::NoTable { table: table.clone(), known });
    }
    if !request.resume {
        request.to.prepare().await?;
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
        true => Unfinished::resume(&request.to, &mut manifest).await?,
        false => (Unfinished::begin(&request.to, &manifest).await?, Vec::new()),
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
    manifest.files.iter_mut().for_each(|file| file.e_tag = None);
    unfinished.end(&manifest).await?;
    Ok(manifest)
}

/// The timeline as it was when the export began.
async fn as_begun(store: &Timeline, request: &ExportRequest) -> Result<Timeline, ExportError> {
    let store = request.head.map_or(store.clone(), |head| store.up_to(head));
    if !request.resume {
        return Ok(store);
    }
    let (begun, _) = Unfinished::read(&request.to).await?;
    let gone = |why: String| ExportError::Gone { path: request.to.shown(), why };
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

/// Writes the files of one table.
struct TableFiles<'e, 't> {
    part: &'e Part<Timeline>,
    request: &'e ExportRequest,
    table: &'e str,
    unfinished: &'e mut Unfinished<'t>,
}

impl TableFiles<'_, '_> {
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
                self.close(file, &mut files).await?;
                file = self.open(files.len())?;
            }
            file.push(&version).await?;
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
            self.close(file, &mut files).await?;
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

    async fn close(&mut self, file: FilePart, files: &mut Vec<ManifestFile>) -> Result<(), ExportError> {
        let file = file.finish().await?;
        fail::fail_point!("export::before_listed");
        self.unfinished.add(&file).await?;
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
struct Unfinished<'e> {
    to: &'e Target,
    /// All of it, where it is put anew with each line.
    lines: Vec<u8>,
    /// Where it is continued.
    out: Option<File>,
}

impl<'e> Unfinished<'e> {
    /// ⚠ The list gets its name when it says how the export began: without that, nothing could be continued.
    async fn begin(to: &'e Target, manifest: &Manifest) -> Result<Unfinished<'e>, ExportError> {
        let lines = line(manifest).map_err(to.failed(UNFINISHED))?;
        to.write(UNFINISHED, lines.clone()).await.map_err(to.failed(UNFINISHED))?;
        Unfinished::open(to, lines)
    }

    fn open(to: &'e Target, lines: Vec<u8>) -> Result<Unfinished<'e>, ExportError> {
        let out = match to {
            Target::Bucket(_) => None,
            Target::Folder(folder) => {
                let out = File::options().append(true).open(folder.join(UNFINISHED));
                Some(out.map_err(to.failed(UNFINISHED))?)
            }
        };
        Ok(Unfinished { to, lines, out })
    }

    /// Reads how the export began, and the files that are whole.
    async fn read(to: &Target) -> Result<(Manifest, Vec<ManifestFile>), ExportError> {
        let nothing = || ExportError::NothingToResume { path: to.shown() };
        let text = to.read(UNFINISHED).await.map_err(to.failed(UNFINISHED))?.ok_or_else(nothing)?;
        let mut lines = text.split(|byte| *byte == b'\n');
        let begun: Manifest = lines.next().and_then(|line| serde_json::from_slice(line).ok()).ok_or_else(nothing)?;
        let mut files = Vec::new();
        // If a kill has cut a line, its file is written again.
        for file in lines.filter_map(|line| serde_json::from_slice::<ManifestFile>(line).ok()) {
            if to.has(&file).await? {
                files.push(file);
            }
        }
        Ok((begun, files))
    }

    /// Opens the existing list and returns it with the files that are whole. `manifest` takes over the state of the
    /// store when the export began.
    async fn resume(
        to: &'e Target,
        manifest: &mut Manifest,
    ) -> Result<(Unfinished<'e>, Vec<ManifestFile>), ExportError> {
        let (begun, files) = Unfinished::read(to).await?;
        let store = |manifest: &Manifest| (manifest.store.sink.clone(), manifest.store.tenant.clone());
        for (what, differs) in [
            ("source", begun.source != manifest.source),
            ("sink or tenant", store(&begun) != store(manifest)),
            ("--since", begun.since != manifest.since),
            ("--until", begun.until != manifest.until),
            ("--actor", begun.actors != manifest.actors),
            ("--event", begun.events != manifest.events),
            ("start", begun.after != manifest.after),
            ("--head", begun.coverage.head != manifest.coverage.head),
            ("--format, --compress or --part-size", begun.form != manifest.form),
            ("list of tables", begun.tables.iter().any(|table| !manifest.tables.contains(table))),
        ] {
            if differs {
                return Err(ExportError::Another { path: to.shown(), what });
            }
        }
        // The files of that time are as complete as the store was when the export began.
        manifest.exported_at = begun.exported_at.clone();
        manifest.store = begun.store.clone();
        manifest.coverage = begun.coverage.clone();
        manifest.tables = begun.tables.clone();
        let mut lines = line(&begun).map_err(to.failed(UNFINISHED))?;
        for file in &files {
            lines.extend(line(file).map_err(to.failed(UNFINISHED))?);
        }
        let mut unfinished = Unfinished::open(to, lines)?;
        unfinished.append(b"\n").map_err(to.failed(UNFINISHED))?;
        Ok((unfinished, files))
    }

    async fn add(&mut self, file: &ManifestFile) -> Result<(), ExportError> {
        let line = line(file).map_err(self.to.failed(UNFINISHED))?;
        self.append(&line).map_err(self.to.failed(UNFINISHED))?;
        if self.out.is_none() {
            self.lines.extend(line);
            self.to.write(UNFINISHED, self.lines.clone()).await.map_err(self.to.failed(UNFINISHED))?;
        }
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(out) = &mut self.out else { return Ok(()) };
        out.write_all(bytes)?;
        out.sync_data()
    }

    /// Writes the manifest, after which nothing is unfinished.
    async fn end(self, manifest: &Manifest) -> Result<(), ExportError> {
        let text = pretty(manifest).map_err(self.to.failed(MANIFEST))?;
        self.to.write(MANIFEST, text).await.map_err(self.to.failed(MANIFEST))?;
        fail::fail_point!("export::after_manifest");
        self.to.remove(UNFINISHED).await.map_err(self.to.failed(UNFINISHED))
    }
}

fn line(entry: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(entry)?;
    line.push(b'\n');
    Ok(line)
}
