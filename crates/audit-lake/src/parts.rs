//! Uploads large objects in parts.

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Attributes, Error as StoreError, ObjectStore, PutMultipartOptions, PutPayload};

/// Bytes of a part. The clouds require at least 5 MiB, and some require parts of equal size.
pub const PART_BYTES: usize = 8 << 20;
/// Number of parts of one object that are uploaded at a time.
const CONCURRENT: usize = 4;

/// Puts a large object. A failed upload is aborted together with its parts; the bucket's own rules remove what a kill
/// leaves.
pub async fn put(
    objects: &dyn ObjectStore,
    path: &Path,
    payload: PutPayload,
    attributes: Attributes,
) -> Result<(), StoreError> {
    let options = PutMultipartOptions { attributes, ..PutMultipartOptions::default() };
    let mut upload = objects.put_multipart_opts(path, options).await?;
    let under_way: Vec<_> = divided(payload).into_iter().map(|part| upload.put_part(part)).collect();
    let sent = futures::stream::iter(under_way).buffer_unordered(CONCURRENT).try_collect::<Vec<()>>().await;
    let done = match sent {
        Ok(_) => upload.complete().await.map(|_| ()),
        Err(error) => Err(error),
    };
    if done.is_err() {
        // This is best effort: if the upload was completed but its answer was lost, there is nothing to abort.
        let _ = upload.abort().await;
    }
    done
}

/// The same bytes in parts of equal size; the last one may be smaller.
fn divided(payload: PutPayload) -> Vec<PutPayload> {
    let (mut parts, mut part, mut room) = (Vec::new(), Vec::new(), PART_BYTES);
    for mut piece in payload {
        while piece.len() >= room {
            part.push(piece.split_to(room));
            parts.push(part.drain(..).collect());
            room = PART_BYTES;
        }
        if !piece.is_empty() {
            room -= piece.len();
            part.push(piece);
        }
    }
    if !part.is_empty() {
        parts.push(part.into_iter().collect());
    }
    parts
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn parts_are_of_one_size_and_nothing_is_lost_between_them() {
        let mut pieces: Vec<Bytes> = Vec::new();
        for length in [PART_BYTES - 1, 1, 3 * PART_BYTES + 5, 0, 7, PART_BYTES] {
            pieces.push(vec![pieces.len() as u8; length].into());
        }
        let whole = pieces.concat();
        let parts = divided(pieces.into_iter().collect());
        let sizes: Vec<usize> = parts.iter().map(PutPayload::content_length).collect();
        assert_eq!(sizes, [PART_BYTES, PART_BYTES, PART_BYTES, PART_BYTES, PART_BYTES, 12]);
        assert_eq!(parts.into_iter().flatten().collect::<Vec<_>>().concat(), whole);
        assert!(divided(PutPayload::new()).is_empty());
    }
}
