//! Writes one file of an export.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use audit_core::position::Position;
use audit_core::stored::Record;
use audit_lake::tenant_names;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::file::Hashed;
use super::form::{Encoder, Form};
use super::{ExportError, ManifestFile};

/// Maximum length in bytes of a file's name without its endings. Most file systems accept 255.
const NAME_MAX: usize = 200;

/// The fields of a line that are needed to continue after it.
#[derive(Deserialize)]
struct Line {
    position: Position,
    committed_at: String,
}

/// Makes a folder that only the exporting user can read, whatever the umask.
pub fn make_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Returns the options for writing a file that only the exporting user can read.
pub fn private() -> OpenOptions {
    let mut options = File::options();
    options.write(true).mode(0o600);
    options
}

/// One file of an export that is being written.
pub struct Part {
    encoder: Encoder,
    /// Bytes so far, before compression.
    written: u64,
    part: PathBuf,
    path: PathBuf,
    pub entry: ManifestFile,
}

impl Part {
    /// Opens a new file. Lines that a broken off export left in it are kept if they can be continued.
    pub fn open(
        to: &Path,
        tenant: Option<&str>,
        table: &str,
        form: &Form,
        number: Option<u32>,
    ) -> Result<Part, ExportError> {
        let folder = tenant.map(folder_of);
        let number_of = number.map_or_else(String::new, |number| format!(".{number:06}"));
        let name = format!("{}{number_of}.{}", name_of(table), form.ending());
        let name = folder.iter().fold(name, |name, folder| format!("{folder}/{name}"));
        if let Some(folder) = folder.map(|folder| to.join(folder)) {
            make_folder(&folder).map_err(|source| ExportError::Write { path: folder, source })?;
        }
        let (path, part) = (to.join(&name), to.join(format!("{name}.part")));
        let mut entry = ManifestFile {
            path: name,
            tenant: tenant.map(str::to_string),
            table: table.to_string(),
            part: number,
            rows: 0,
            bytes: 0,
            sha256: String::new(),
            first_position: None,
            last_position: None,
            first_committed_at: None,
            last_committed_at: None,
        };
        let mut begin = || {
            let file = private().read(true).create(true).truncate(!form.is_continued()).open(&part)?;
            let out = Hashed { file: BufWriter::with_capacity(1 << 20, file), digest: Sha256::new(), bytes: 0 };
            let out = take_up(out, &mut entry)?;
            Ok((out.bytes, Encoder::begin(form, out)?))
        };
        let (written, encoder) = begin().map_err(|source| ExportError::Write { path: part.clone(), source })?;
        Ok(Part { encoder, written, part, path, entry })
    }

    /// Whether the next version belongs to another file.
    pub fn is_full(&self, form: &Form) -> bool {
        form.part_bytes.is_some_and(|most| self.written >= most)
    }

    pub fn push(&mut self, record: &Record) -> Result<(), ExportError> {
        let written = self.encoder.push(record);
        self.written += written.map_err(|source| ExportError::Write { path: self.part.clone(), source })?;
        self.entry.count(record.position, record.committed_at.to_string());
        fail::fail_point!("export::after_version");
        Ok(())
    }

    pub fn finish(mut self) -> Result<ManifestFile, ExportError> {
        let path = self.path.clone();
        let failed = |source| ExportError::Write { path: path.clone(), source };
        let mut out = self.encoder.finish().map_err(failed)?;
        out.flush().map_err(failed)?;
        out.file.get_ref().sync_all().map_err(failed)?;
        fail::fail_point!("export::before_named");
        fs::rename(&self.part, &self.path).map_err(failed)?;
        self.entry.bytes = out.bytes;
        self.entry.sha256 = hex::encode(out.digest.finalize());
        Ok(self.entry)
    }

    /// Removes the file, because there is nothing to write.
    pub fn discard(self) -> Result<(), ExportError> {
        fs::remove_file(&self.part).map_err(|source| ExportError::Write { path: self.part.clone(), source })
    }
}

impl ManifestFile {
    fn count(&mut self, position: Position, at: String) {
        self.rows += 1;
        self.first_position.get_or_insert(position);
        self.last_position = Some(position);
        // Positions need not be in the order of commit times, for snapshots and for commits of concurrent sessions.
        self.first_committed_at =
            Some(self.first_committed_at.take().map_or(at.clone(), |first| first.min(at.clone())));
        self.last_committed_at = Some(self.last_committed_at.take().map_or(at.clone(), |last| last.max(at)));
    }
}

/// Counts the whole lines of the file, and cuts off what follows them.
fn take_up(mut out: Hashed, entry: &mut ManifestFile) -> io::Result<Hashed> {
    let mut reader = BufReader::with_capacity(1 << 20, out.file.get_ref().try_clone()?);
    let mut text = Vec::new();
    loop {
        text.clear();
        reader.read_until(b'\n', &mut text)?;
        let line = text.strip_suffix(b"\n").and_then(|line| serde_json::from_slice::<Line>(line).ok());
        let Some(line) = line else { break };
        out.digest.update(&text);
        out.bytes += text.len() as u64;
        entry.count(line.position, line.committed_at);
    }
    let file = out.file.get_mut();
    file.set_len(out.bytes)?;
    file.seek(SeekFrom::Start(out.bytes))?;
    Ok(out)
}

/// The name of a tenant's folder.
pub fn folder_of(tenant: &str) -> String {
    format!("tenant={}", bounded(tenant_names::folder_of(tenant), tenant))
}

/// Makes a file's name from a table's: letters, digits, `_`, `-` and `.` stay, every other byte becomes `%` and two hex
/// digits.
pub fn name_of(table: &str) -> String {
    let name = table
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' => char::from(byte).to_string(),
            byte => format!("%{byte:02x}"),
        })
        .collect();
    bounded(name, table)
}

/// Cuts an ASCII name that is too long for a file. A hash of `of` then distinguishes it from others.
fn bounded(mut name: String, of: &str) -> String {
    if name.len() > NAME_MAX {
        let digest = hex::encode(&Sha256::digest(of)[..8]);
        name.truncate(NAME_MAX - digest.len() - 1);
        name = format!("{name}~{digest}");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::{NAME_MAX, bounded, name_of};

    #[test]
    fn tables_that_differ_have_files_that_differ() {
        assert_eq!(name_of("public.orders"), "public.orders");
        assert_eq!(name_of("\"a.b\".c d"), "%22a.b%22.c%20d");
        assert_ne!(name_of("\"a.b\".c"), name_of("a.\"b.c\""));
    }

    #[test]
    fn names_of_files_are_bounded() {
        let long = |last: &str| format!("{}.{}{last}", "ü".repeat(31), "ß".repeat(30));
        assert!(name_of(&long("a")).len() <= NAME_MAX);
        assert_ne!(name_of(&long("a")), name_of(&long("b")));
        assert_eq!(bounded("short".to_string(), "short"), "short");
    }
}
