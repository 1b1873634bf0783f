//! Writes one file of an export.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use audit_core::position::Position;
use audit_core::stored::Record;
use audit_lake::tenant_names;
use object_store::path::Path as ObjectPath;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::file::{Hashed, Out, Pending};
use super::form::{Encoder, Form};
use super::target::{Target, make_folder, object, other, private};
use super::{ExportError, ManifestFile};

/// Maximum length in bytes of a file's name without its endings. Most file systems accept 255.
const NAME_MAX: usize = 200;

/// The fields of a line that are needed to continue after it.
#[derive(Deserialize)]
struct Line {
    position: Position,
    committed_at: String,
}

/// Bytes of each piece that is uploaded. A store takes at most 10,000 pieces of an object.
const PIECE: usize = 16 << 20;

/// One file of an export that is being written.
pub struct Part {
    encoder: Encoder,
    /// Bytes so far, before compression.
    written: u64,
    spot: Spot,
    /// The file's name, as messages show it.
    shown: PathBuf,
    pub entry: ManifestFile,
}

/// Where the file is being written.
enum Spot {
    File {
        part: PathBuf,
        path: PathBuf,
    },
    Object {
        objects: Arc<dyn ObjectStore>,
        path: ObjectPath,
        pending: Pending,
        upload: Option<Box<dyn MultipartUpload>>,
    },
}

impl Part {
    /// Opens a new file. Lines that a broken off export left in it are kept if they can be continued.
    pub fn open(
        to: &Target,
        tenant: Option<&str>,
        table: &str,
        form: &Form,
        number: Option<u32>,
    ) -> Result<Part, ExportError> {
        let folder = tenant.map(folder_of);
        let number_of = number.map_or_else(String::new, |number| format!(".{number:06}"));
        let name = format!("{}{number_of}.{}", name_of(table), form.ending());
        let name = folder.iter().fold(name, |name, folder| format!("{folder}/{name}"));
        let mut entry = ManifestFile {
            path: name.clone(),
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
            e_tag: None,
        };
        let mut begin = || {
            let (out, spot) = open(to, &name, form, &mut entry)?;
            Ok((out.bytes, Encoder::begin(form, out)?, spot))
        };
        let (written, encoder, spot) = begin().map_err(to.failed(&name))?;
        Ok(Part { encoder, written, spot, shown: to.shown().join(&name), entry })
    }

    /// Whether the next version belongs to another file.
    pub fn is_full(&self, form: &Form) -> bool {
        form.part_bytes.is_some_and(|most| self.written >= most)
    }

    pub async fn push(&mut self, record: &Record) -> Result<(), ExportError> {
        self.written += self.encoder.push(record).map_err(failed(&self.shown))?;
        self.entry.count(record.position, record.committed_at.to_string());
        self.spot.upload().await.map_err(failed(&self.shown))?;
        fail::fail_point!("export::after_version");
        Ok(())
    }

    pub async fn finish(mut self) -> Result<ManifestFile, ExportError> {
        let out = self.encoder.finish().map_err(failed(&self.shown))?;
        self.entry.bytes = out.bytes;
        let digest = out.digest.clone();
        self.entry.sha256 = hex::encode(digest.finalize());
        self.entry.e_tag = self.spot.finish(out).await.map_err(failed(&self.shown))?;
        Ok(self.entry)
    }

    /// Removes the file, because there is nothing to write.
    pub fn discard(self) -> Result<(), ExportError> {
        match self.spot {
            Spot::File { part, .. } => fs::remove_file(part).map_err(failed(&self.shown)),
            // Nothing was uploaded yet.
            Spot::Object { .. } => Ok(()),
        }
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> ExportError {
    |source| ExportError::Write { path: path.to_path_buf(), source }
}

fn open(to: &Target, name: &str, form: &Form, entry: &mut ManifestFile) -> io::Result<(Hashed, Spot)> {
    match to {
        Target::Folder(folder) => {
            let (path, part) = (folder.join(name), folder.join(format!("{name}.part")));
            path.parent().map_or(Ok(()), make_folder)?;
            let file = private().read(true).create(true).truncate(!form.is_continued()).open(&part)?;
            let out = take_up(file, entry)?;
            Ok((out, Spot::File { part, path }))
        }
        Target::Bucket(store) => {
            let (path, pending) = (object(name)?, Pending::default());
            let out = Hashed::new(Out::Pending(pending.clone()));
            Ok((out, Spot::Object { objects: store.objects().clone(), path, pending, upload: None }))
        }
    }
}

impl Spot {
    /// Uploads the pieces that are whole.
    async fn upload(&mut self) -> io::Result<()> {
        let Spot::Object { objects, path, pending, upload } = self else { return Ok(()) };
        while let Some(piece) = pending.take(PIECE) {
            let begun = match upload.take() {
                Some(begun) => begun,
                None => objects.put_multipart(path).await.map_err(other)?,
            };
            upload.insert(begun).put_part(piece.into()).await.map_err(other)?;
        }
        Ok(())
    }

    /// Gives the file its name when all of it is stored. Returns the tag that the store gave it.
    async fn finish(&mut self, mut out: Hashed) -> io::Result<Option<String>> {
        self.upload().await?;
        match self {
            Spot::Object { objects, path, pending, upload } => {
                fail::fail_point!("export::before_named", |_| Ok(None));
                let rest = pending.take_all();
                let put = match upload {
                    None => objects.put(path, rest.into()).await,
                    Some(upload) => {
                        if !rest.is_empty() {
                            upload.put_part(rest.into()).await.map_err(other)?;
                        }
                        upload.complete().await
                    }
                };
                Ok(put.map_err(other)?.e_tag)
            }
            Spot::File { part, path } => {
                out.sync()?;
                fail::fail_point!("export::before_named", |_| Ok(None));
                fs::rename(part, path)?;
                Ok(None)
            }
        }
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
fn take_up(file: File, entry: &mut ManifestFile) -> io::Result<Hashed> {
    let (mut digest, mut bytes) = (Sha256::new(), 0);
    let mut reader = BufReader::with_capacity(1 << 20, file.try_clone()?);
    let mut text = Vec::new();
    loop {
        text.clear();
        reader.read_until(b'\n', &mut text)?;
        let line = text.strip_suffix(b"\n").and_then(|line| serde_json::from_slice::<Line>(line).ok());
        let Some(line) = line else { break };
        digest.update(&text);
        bytes += text.len() as u64;
        entry.count(line.position, line.committed_at);
    }
    file.set_len(bytes)?;
    let mut file = BufWriter::with_capacity(1 << 20, file);
    file.seek(SeekFrom::Start(bytes))?;
    Ok(Hashed { out: Out::File(file), digest, bytes })
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
