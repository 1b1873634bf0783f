//! Checks whether the daemon could write now: [`probe`].

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};

use crate::checkpoint;
use crate::config::LakeConfig;
use crate::error::LakeError;
use crate::layout::TMP;
use crate::tenants::Stores;

/// Checks which source the lake belongs to, then writes an object that holds no data, checks that it cannot be created
/// again, reads it back and removes it. Returns the number of tenants that the lake knows; their stores are not
/// checked. No daemon is fenced; the lake's folder is made if it is missing. Nothing else stays, unless the probe
/// itself is killed; the next start removes what it left.
///
/// # Errors
/// Returns the first of these steps that failed.
pub async fn probe(config: &LakeConfig, source: &str) -> Result<usize, LakeError> {
    let stores = Stores::open(config, true)?;
    let store = stores.home();
    let tenants = stores.known().await?.len();
    if let Some(found) = checkpoint::source(store).await?.filter(|found| found != source) {
        return Err(LakeError::OtherSource { path: store.shown().to_owned(), found, wanted: source.to_owned() });
    }
    let content = uuid::Uuid::new_v4().to_string();
    let path = Path::from(format!("{TMP}/probe-{content}"));
    let shown = store.show(&path);
    let failed = |doing| {
        let shown = shown.clone();
        move |error| LakeError::store(doing, shown, error)
    };
    match store.objects().put_opts(&path, content.clone().into(), PutMode::Create.into()).await {
        // `AlreadyExists` means that the client's own second attempt found the result of the first; the content is
        // checked below.
        Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => {}
        Err(error) => return Err(failed("write")(error)),
    }
    let proved = checkpoint::prove_create_only(store, &path, content.clone().into()).await;
    let read = match store.objects().get(&path).await {
        Ok(found) => found.bytes().await,
        Err(error) => Err(error),
    };
    let removed = store.objects().delete(&path).await;
    proved?;
    if read.map_err(failed("read"))? != content.as_bytes() {
        return Err(LakeError::altered(store.show(&path), "what was written is not what is read"));
    }
    removed.map_err(failed("remove")).map(|()| tenants)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use audit_core::position::Lsn;
    use audit_core::sink::Identity;

    use super::*;
    use crate::checkpoint::Checkpoints;
    use crate::store::Store;

    #[tokio::test]
    async fn a_probe_leaves_nothing_and_knows_whose_the_lake_is() {
        let folder = tempfile::tempdir().unwrap();
        let config = LakeConfig::at(folder.path().join("lake").to_str().unwrap());
        probe(&config, "shop").await.unwrap();
        let tmp = std::fs::read_dir(folder.path().join("lake").join(TMP)).unwrap();
        assert_eq!(tmp.count(), 0);

        let store = Store::open(&config, false).unwrap();
        let identity = Identity { source: "shop".into(), system_id: 1, timeline: 1, timeline_start: Lsn::ZERO };
        Checkpoints::take(&store, &identity).await.unwrap();
        probe(&config, "shop").await.unwrap();
        let error = probe(&config, "other").await.unwrap_err();
        assert!(error.to_string().contains("belongs to source \"shop\", not to \"other\""), "{error}");
    }

    #[tokio::test]
    async fn a_place_that_cannot_be_written_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let config = LakeConfig::at(file.join("lake").to_str().unwrap());
        assert!(probe(&config, "shop").await.is_err());
    }
}
