//! The lake's checkpoint: how far every table of the lake is, and who owns the lake.
//!
//! It is stored as `_cdc_audit/checkpoint/<20 digits>.json`; each file is written once, create-only, and the one with
//! the highest number is current. A daemon takes the lake over by writing the next number with the owner epoch raised
//! by one. The former owner then finds that its next number is taken by another daemon, and stops. The checkpoint may
//! lag behind the tables' own positions, but never run ahead of them.

use audit_core::batch::Progress;
use audit_core::position::Micros;
use audit_core::sink::{Checkpoint, Identity};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use serde::{Deserialize, Serialize};

use crate::error::{LakeError, fault};
use crate::layout::CHECKPOINTS;
use crate::store::Store;

/// Number of checkpoints that are kept.
const KEPT: u64 = 10;
/// Number of attempts when another daemon writes at the same time.
const RACES_MAX: u32 = 10;

/// A checkpoint as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    format: u32,
    source: String,
    owner_epoch: u64,
    /// Random. After an "exists" answer it shows whether the stored note is our own.
    owner_id: String,
    /// When it was written, as text for people.
    written_at: String,
    /// `null` before the lake's first checkpoint.
    checkpoint: Option<Checkpoint>,
}

/// The checkpoints of a lake that this daemon owns.
#[derive(Debug)]
pub struct Checkpoints {
    store: Store,
    number: u64,
    note: Note,
    identity: Identity,
}

impl Checkpoints {
    /// Takes the lake over.
    pub async fn take(store: &Store, identity: &Identity) -> Result<Checkpoints, LakeError> {
        for _ in 0..RACES_MAX {
            let last = newest(store).await?;
            let (number, owner, checkpoint) = match last {
                Some((number, note)) if note.source == identity.source => (number, note.owner_epoch, note.checkpoint),
                Some((_, note)) => {
                    let (path, wanted) = (store.shown().to_string(), identity.source.clone());
                    return Err(LakeError::OtherSource { path, found: note.source, wanted });
                }
                None => (0, 0, None),
            };
            let note = Note {
                format: 1,
                source: identity.source.clone(),
                owner_epoch: owner + 1,
                owner_id: uuid::Uuid::new_v4().to_string(),
                written_at: String::new(),
                checkpoint,
            };
            let mut taken = Checkpoints { store: store.clone(), number: number + 1, note, identity: identity.clone() };
            if taken.put().await?.is_none() {
                let again = serde_json::to_vec_pretty(&taken.note);
                let path = path_of(taken.number);
                let again = again.map_err(|error| LakeError::altered(&path, error.to_string()))?;
                prove_create_only(store, &path, again.into()).await?;
                return Ok(taken);
            }
        }
        Err(LakeError::Contended { table: CHECKPOINTS.to_string(), attempts: RACES_MAX })
    }

    pub fn owner(&self) -> u64 {
        self.note.owner_epoch
    }

    /// The stored checkpoint.
    pub fn stored(&self) -> Option<&Checkpoint> {
        self.note.checkpoint.as_ref()
    }

    /// Stores that every table has everything up to `progress`.
    pub async fn store(&mut self, progress: Progress) -> Result<(), LakeError> {
        fault!("lake::before_checkpoint");
        self.is_still_there().await?;
        let mut next = Checkpoints {
            store: self.store.clone(),
            number: self.number + 1,
            note: self.note.clone(),
            identity: self.identity.clone(),
        };
        next.note.checkpoint = Some(Checkpoint::new(&self.identity, progress));
        if let Some(theirs) = next.put().await? {
            return Err(self.fenced(&theirs));
        }
        *self = next;
        fault!("lake::after_checkpoint");
        self.forget().await;
        Ok(())
    }

    /// The last checkpoint must still exist: a next number after a gap would claim that the lake has what was lost.
    pub async fn is_still_there(&self) -> Result<(), LakeError> {
        let path = path_of(self.number);
        if read(&self.store, &path).await?.is_some_and(|note| note.owner_id == self.note.owner_id) {
            return Ok(());
        }
        match newest(&self.store).await? {
            // A later owner removed it because it was too old.
            Some((number, theirs)) if number > self.number => Err(self.fenced(&theirs)),
            _ => Err(LakeError::WentBack { path: self.store.show(&path) }),
        }
    }

    fn fenced(&self, theirs: &Note) -> LakeError {
        let what = format!("the lake {}", self.store.shown());
        LakeError::Fenced { what, theirs: theirs.owner_epoch, ours: self.owner() }
    }

    /// Puts the note under its number. `Some` is the note that another daemon has put there.
    async fn put(&mut self) -> Result<Option<Note>, LakeError> {
        self.note.written_at = Micros::now().to_string();
        let path = path_of(self.number);
        let failed = |error| LakeError::store("write", self.store.show(&path), error);
        let json =
            serde_json::to_vec_pretty(&self.note).map_err(|error| LakeError::altered(&path, error.to_string()))?;
        match self.store.objects().put_opts(&path, json.into(), PutMode::Create.into()).await {
            Ok(_) => Ok(None),
            Err(error) => match read(&self.store, &path).await? {
                // It is ours: a put that was answered late or not at all, or that failed at its last step. It may have
                // another time of writing, and the progress of an earlier attempt.
                Some(note) if note.owner_id == self.note.owner_id && note.checkpoint == self.note.checkpoint => {
                    self.store.sync(&path).await.map(|()| None)
                }
                Some(note) if note.owner_id == self.note.owner_id => {
                    self.number += 1;
                    Box::pin(self.put()).await
                }
                Some(note) => Ok(Some(note)),
                None => Err(failed(error)),
            },
        }
    }

    /// Removes the checkpoint that is no longer kept. One that is left over does no harm.
    async fn forget(&self) {
        if let Some(old) = self.number.checked_sub(KEPT).filter(|old| *old > 0) {
            let path = path_of(old);
            if let Err(error) = self.store.objects().delete(&path).await
                && !matches!(error, StoreError::NotFound { .. })
            {
                tracing::warn!(path = %self.store.show(&path), %error, "could not remove an old checkpoint");
            }
        }
    }
}

/// Checks that an existing object cannot be created again. A store that overwrites it gives no fence between two
/// daemons, and nothing in the lake would be safe.
pub(crate) async fn prove_create_only(store: &Store, path: &Path, content: PutPayload) -> Result<(), LakeError> {
    match store.objects().put_opts(path, content, PutMode::Create.into()).await {
        Err(StoreError::AlreadyExists { .. }) => Ok(()),
        Ok(_) | Err(StoreError::NotImplemented { .. }) => {
            Err(LakeError::Overwrites { path: store.shown().to_string() })
        }
        Err(error) => Err(LakeError::store("write", store.show(path), error)),
    }
}

/// The newest checkpoint, and when it was written, whoever owns the lake.
pub async fn stored(store: &Store) -> Result<Option<(Checkpoint, Option<Micros>)>, LakeError> {
    let note = newest(store).await?.map(|(_, note)| note);
    Ok(note.and_then(|note| Some((note.checkpoint?, note.written_at.parse().ok()))))
}

/// The source that the lake belongs to, according to its newest checkpoint.
pub async fn source(store: &Store) -> Result<Option<String>, LakeError> {
    Ok(newest(store).await?.map(|(_, note)| note.source))
}

fn path_of(number: u64) -> Path {
    Path::from(format!("{CHECKPOINTS}/{number:020}.json"))
}

async fn newest(store: &Store) -> Result<Option<(u64, Note)>, LakeError> {
    let folder = Path::from(CHECKPOINTS);
    for _ in 0..RACES_MAX {
        let listed: Vec<_> = store
            .objects()
            .list(Some(&folder))
            .try_collect()
            .await
            .map_err(|error| LakeError::store("list", store.show(&folder), error))?;
        let number = |path: &Path| path.filename()?.strip_suffix(".json")?.parse::<u64>().ok();
        let Some(number) = listed.iter().filter_map(|meta| number(&meta.location)).max() else { return Ok(None) };
        // The daemon that still owns the lake may have removed it since it was listed.
        if let Some(note) = read(store, &path_of(number)).await? {
            return Ok(Some((number, note)));
        }
    }
    Err(LakeError::Contended { table: CHECKPOINTS.to_string(), attempts: RACES_MAX })
}

async fn read(store: &Store, path: &Path) -> Result<Option<Note>, LakeError> {
    let failed = |error| LakeError::store("read", store.show(path), error);
    let bytes = match store.objects().get(path).await {
        Ok(found) => found.bytes().await.map_err(failed)?,
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let note =
        serde_json::from_slice(&bytes).map_err(|error| LakeError::altered(store.show(path), error.to_string()))?;
    Ok(Some(note))
}
