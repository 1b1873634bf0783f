//! What can go wrong in a lake, and what to do about it.

use std::error::Error;
use std::fmt;
use std::io::ErrorKind;

use audit_config::SecretError;
use audit_core::position::Position;
use audit_core::sink::{Action, SinkError};

/// Why a lake could not be read or written. Messages name tables, paths and positions, never a value.
#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    #[error("{url:?} is no place for a lake")]
    Place { url: String },
    #[error("cannot open {path}")]
    Open {
        path: String,
        #[source]
        source: Cause,
    },
    #[error("the key store.secret_key cannot be read")]
    Secret {
        #[source]
        source: SecretError,
    },
    #[error("{path} overwrites where it is told to create: the store ignores conditional puts")]
    Overwrites { path: String },
    #[error("cannot {doing} {path}")]
    Store {
        doing: &'static str,
        path: String,
        #[source]
        source: Cause,
    },
    #[error("cannot open the lake's folder {path}")]
    Folder {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot read the Delta log of {table}")]
    Log {
        table: String,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("the settings of Parquet files are not possible")]
    Settings {
        #[source]
        source: parquet::errors::ParquetError,
    },
    #[error("cannot encode rows of table {table} as Parquet")]
    Parquet {
        table: String,
        #[source]
        source: parquet::errors::ParquetError,
    },
    #[error("cannot sort the rows of files that are merged")]
    Sort(#[source] arrow::error::ArrowError),
    #[error("cannot read {path}")]
    Read {
        path: String,
        #[source]
        source: parquet::errors::ParquetError,
    },
    #[error("the lake at {path} belongs to source {found:?}, not to {wanted:?}")]
    OtherSource { path: String, found: String, wanted: String },
    #[error("another daemon owns {what} now: it wrote there as owner {theirs}, this one is owner {ours}")]
    Fenced { what: String, theirs: u64, ours: u64 },
    #[error("the lake went back to an earlier state than this process has stored: {path} is gone")]
    WentBack { path: String },
    /// `has` is the last version that the table still has.
    #[error("a table of the lake went back to an earlier state than this process has stored: {path} is gone")]
    TableWentBack { path: String, has: Position },
    #[error("{path} is not as cdc-audit wrote it: {what}")]
    Altered { path: String, what: String },
    #[error("the lake holds no table {table}")]
    NoTable { table: String },
    #[error("the lake knows no tenant {tenant:?}")]
    NoTenant { tenant: String },
    #[error("the store of tenant {tenant:?} cannot be used")]
    Tenant {
        tenant: String,
        #[source]
        source: Box<LakeError>,
    },
    #[error("{path} says that this tenant's store is {was}, and not {is}")]
    Moved { path: String, was: String, is: String },
    #[error("the upload of a file of table {table} broke off")]
    UploadLost {
        table: String,
        #[source]
        source: Cause,
    },
    #[error("rows of table {table} were committed up to {position} by an earlier owner meanwhile")]
    Overtaken { table: String, position: Position },
    #[error("another tool has rewritten or removed files of table {table} that were to be rolled")]
    Rewritten { table: String },
    #[error("table {table}: a commit lost the race for its version {attempts} times")]
    Contended { table: String, attempts: u32 },
    #[error("a task of the lake broke off")]
    Task(#[source] tokio::task::JoinError),
    #[error("fault point {0}")]
    Fault(&'static str),
}

type Cause = Box<dyn Error + Send + Sync>;

/// The cause of a store's error, in one line. The store's own text repeats itself, names a path that is named already,
/// and contains whole answers, in which some stores repeat what was signed.
#[derive(Debug)]
struct Said(object_store::Error);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cause: &dyn Error = &self.0;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        let text = cause.to_string();
        let (line, answer) = text.split_once('<').unwrap_or((&text, ""));
        let tag = |name: &str| Some(answer.split_once(&format!("{name}>"))?.1.split_once('<')?.0);
        f.write_str(line.trim().trim_end_matches(':'))?;
        [tag("Code"), tag("Message")]
            .into_iter()
            .flatten()
            .try_for_each(|part| write!(f, ": {}", part.lines().next().unwrap_or_default()))
    }
}

impl Error for Said {}

fn cause(error: object_store::Error) -> Cause {
    Said(error).into()
}

/// The cause of an error, even if its text does not show it.
fn deeper<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    match error.downcast_ref::<Said>() {
        Some(said) => Some(&said.0),
        None => error.source(),
    }
}

/// The store's error among the causes of an error.
pub(crate) fn from_store<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e object_store::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(store) = error.downcast_ref() {
            return Some(store);
        }
        next = deeper(error);
    }
    None
}

impl LakeError {
    pub(crate) fn store(doing: &'static str, path: impl std::fmt::Display, source: object_store::Error) -> LakeError {
        LakeError::Store { doing, path: path.to_string(), source: cause(source) }
    }

    pub(crate) fn upload_lost(table: &str, source: object_store::Error) -> LakeError {
        LakeError::UploadLost { table: table.to_string(), source: cause(source) }
    }

    pub(crate) fn log(table: &str, source: impl Into<Box<dyn Error + Send + Sync>>) -> LakeError {
        LakeError::Log { table: table.to_string(), source: source.into() }
    }

    pub(crate) fn altered(path: impl std::fmt::Display, what: impl Into<String>) -> LakeError {
        LakeError::Altered { path: path.to_string(), what: what.into() }
    }

    /// The same error, in this tenant's store.
    pub(crate) fn of_tenant(self, tenant: &str) -> LakeError {
        match self {
            LakeError::Tenant { .. } => self,
            error => LakeError::Tenant { tenant: tenant.to_string(), source: Box::new(error) },
        }
    }

    /// Whether the bucket or folder itself is missing.
    pub(crate) fn is_missing(&self) -> bool {
        // The error of a list request has no kind for this.
        let said = |error: &object_store::Error| error.to_string().contains("status code: 404");
        let missing =
            |error: &object_store::Error| matches!(error, object_store::Error::NotFound { .. }) || said(error);
        self.io_kind() == Some(ErrorKind::NotFound) || from_store(self).is_some_and(missing)
    }

    /// Whether the store of a tenant is missing or refuses access.
    pub(crate) fn has_no_store(&self) -> bool {
        matches!(self, LakeError::Tenant { .. }) && (self.is_missing() || self.refused())
    }

    /// Whether another daemon was faster, so that what this one knows of the lake is out of date.
    pub(crate) fn is_lost_race(&self) -> bool {
        match self {
            LakeError::Fenced { .. } | LakeError::Overtaken { .. } => true,
            LakeError::Tenant { source, .. } => source.is_lost_race(),
            _ => false,
        }
    }

    /// What is still there of a table that went back.
    pub(crate) fn table_went_back(&self) -> Option<Position> {
        match self {
            LakeError::TableWentBack { has, .. } => Some(*has),
            LakeError::Tenant { source, .. } => source.table_went_back(),
            _ => None,
        }
    }

    /// Whether a file that a log named was removed before it could be read: the log, read again, names the file that
    /// replaced it.
    pub(crate) fn is_gone(&self) -> bool {
        let missing = |error: &object_store::Error| matches!(error, object_store::Error::NotFound { .. });
        matches!(self, LakeError::Read { .. }) && from_store(self).is_some_and(missing)
    }

    pub(crate) fn is_retry(&self) -> bool {
        self.action() == Action::Retry
    }

    fn action(&self) -> Action {
        match self {
            LakeError::Store { .. } | LakeError::Folder { .. } | LakeError::Log { .. } | LakeError::Read { .. } => {
                match self.io_kind() {
                    Some(ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => Action::Stop,
                    _ => Action::Retry,
                }
            }
            LakeError::Tenant { source, .. } => source.action(),
            LakeError::Contended { .. } => Action::Retry,
            LakeError::UploadLost { .. }
            | LakeError::Overtaken { .. }
            | LakeError::Rewritten { .. }
            | LakeError::Parquet { .. }
            | LakeError::WentBack { .. }
            | LakeError::TableWentBack { .. } => Action::Restart,
            LakeError::Fault(_) => Action::Retry,
            LakeError::Fenced { .. } => Action::Fenced,
            _ => Action::Stop,
        }
    }

    /// A hint on what a person can do about the error.
    pub fn hint(&self) -> Option<String> {
        let io = match self.io_kind() {
            Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                Some("the disk is full: make room; the daemon goes on by itself, and the slot keeps the WAL meanwhile")
            }
            Some(ErrorKind::ReadOnlyFilesystem) => {
                Some("the file system is mounted read-only: mount it writable, then start again")
            }
            Some(ErrorKind::FileTooLarge) => Some(
                "a limit on the size of files is in the way (ulimit -f, LimitFSIZE): lift it; the daemon goes on by itself, \
                 and the slot keeps the WAL meanwhile",
            ),
            Some(ErrorKind::PermissionDenied) => {
                Some("give the daemon's user write permission on the lake's folder and everything in it")
            }
            _ => None,
        };
        let own = match self {
            LakeError::OtherSource { .. } => "give each source a lake of its own: change `url` of this sink",
            LakeError::Fenced { .. } => "stop one of the two daemons; the one that started last owns the lake",
            LakeError::WentBack { .. } | LakeError::TableWentBack { .. } => {
                "a backup, or earlier versions of its objects, were restored. What is missing there is sent again as far as the slot \
                 still has it; else the daemon stops and names the gap"
            }
            LakeError::Altered { .. } => {
                "restore what was changed or removed, from a backup or with `RESTORE`; the daemon does not guess what the lake holds"
            }
            LakeError::Tenant { .. } if self.is_missing() => {
                "make the bucket, or the folder; the daemon goes on by itself, and the slot keeps the WAL meanwhile"
            }
            LakeError::Tenant { source, .. } => return source.hint(),
            LakeError::Moved { .. } => {
                "a tenant's store stays where it is: give `url` as it was, or this tenant's rows a lake of their own"
            }
            LakeError::NoTenant { .. } => {
                "`cdc-audit check` says how many tenants there are; their names lie in the home, in `_cdc_audit/tenants`"
            }
            LakeError::Folder { .. } => {
                "the lake's folder is made when the daemon runs for the first time; check that `url` names it"
            }
            LakeError::Store { .. } | LakeError::Log { .. } | LakeError::UploadLost { .. } => match self.refused() {
                true => {
                    "the store refuses these credentials: let them list, read, write and delete there; the daemon tries again by itself"
                }
                false => "check that the lake's place can be reached and is whole; the daemon tries again by itself",
            },
            LakeError::Place { .. } => {
                "write an absolute path, file:///path, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or \
                 abfss://container@account.dfs.core.windows.net/prefix"
            }
            LakeError::Open { .. } => {
                "see `url` and the section `store` of this sink, and the variables that it leaves to the environment"
            }
            LakeError::Secret { source } => source.hint(),
            LakeError::Overwrites { .. } => {
                "two daemons would overwrite each other's commits there: use a store, or a version of it, that honours `If-None-Match`"
            }
            _ => "",
        };
        io.or(Some(own).filter(|own| !own.is_empty())).map(str::to_string)
    }

    /// Whether a bucket refuses access.
    fn refused(&self) -> bool {
        use object_store::Error::{PermissionDenied, Unauthenticated};
        // The error of a list request has no kind for this.
        let said = |error: &object_store::Error| error.to_string().contains("status code: 403");
        from_store(self)
            .is_some_and(|error| matches!(error, PermissionDenied { .. } | Unauthenticated { .. }) || said(error))
    }

    fn io_kind(&self) -> Option<ErrorKind> {
        let mut next = Error::source(self);
        while let Some(error) = next {
            if let Some(io) = error.downcast_ref::<std::io::Error>() {
                return Some(io.kind());
            }
            next = deeper(error);
        }
        None
    }
}

impl From<LakeError> for SinkError {
    fn from(error: LakeError) -> SinkError {
        let sink = SinkError::new(error.action(), error.to_string());
        let sink = match error.hint() {
            Some(hint) => sink.hint(hint),
            None => sink,
        };
        match error {
            LakeError::Store { source, .. } | LakeError::UploadLost { source, .. } => sink.source(source),
            LakeError::Folder { source, .. } => sink.source(source),
            LakeError::Log { source, .. } => sink.source(source),
            LakeError::Settings { source } | LakeError::Parquet { source, .. } | LakeError::Read { source, .. } => {
                sink.source(source)
            }
            LakeError::Task(source) => sink.source(source),
            LakeError::Sort(source) => sink.source(source),
            LakeError::Open { source, .. } => sink.source(source),
            LakeError::Secret { source } => sink.source(source),
            LakeError::Tenant { source, .. } => sink.source(source),
            _ => sink,
        }
    }
}

/// Returns an error here if a test demands it. Without the feature `fault-points` this does nothing.
macro_rules! fault {
    ($name:literal) => {
        fail::fail_point!($name, |_| Err($crate::error::LakeError::Fault($name)));
    };
}
pub(crate) use fault;
