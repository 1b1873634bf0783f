//! One COPY. Versions are encoded and sent piece by piece, so that the server works on one piece while the next is
//! made.

use std::pin::Pin;

use audit_core::batch::Version;
use bytes::Bytes;
use futures::SinkExt;
use tokio_postgres::{Client, CopyInSink, Error, Statement};

use crate::connection::BEGIN;
use crate::encode::Encoder;

/// Bytes of one `CopyData` message: large enough that its overhead does not matter, small enough that its memory does
/// not either.
const PIECE: usize = 128 << 10;

/// Extra capacity of a piece in bytes. The last row of a piece begins before the piece is full; this much of it fits
/// without growing the buffer.
const SLACK: usize = 16 << 10;

pub(crate) type Copy = Pin<Box<CopyInSink<Bytes>>>;

/// Begins a transaction and a COPY in it, in one round trip.
pub(crate) async fn begin(client: &Client, copy: &Statement) -> Result<Copy, Error> {
    let begin = client.batch_execute(BEGIN);
    let (_, copy) = tokio::try_join!(begin, start(client, copy))?;
    Ok(copy)
}

/// Begins a COPY in the current transaction.
pub(crate) async fn start(client: &Client, copy: &Statement) -> Result<Copy, Error> {
    client.copy_in(copy).await.map(Box::pin)
}

/// Sends the versions and returns the number of their bytes. The server's answer arrives when the caller finishes the
/// COPY.
pub(crate) async fn send(copy: &mut Copy, encoder: &mut Encoder<'_>, versions: &[Version<'_>]) -> Result<u64, Error> {
    let mut out = Vec::with_capacity(PIECE + SLACK);
    let mut bytes = 0;
    Encoder::header(&mut out);
    for version in versions {
        encoder.row(&mut out, version);
        if out.len() >= PIECE {
            let full = std::mem::replace(&mut out, Vec::with_capacity(PIECE + SLACK));
            bytes += full.len() as u64;
            feed(copy, full.into()).await?;
        }
    }
    Encoder::trailer(&mut out);
    bytes += out.len() as u64;
    feed(copy, out.into()).await?;
    Ok(bytes)
}

/// Sends even a row of hundreds of megabytes in pieces, because each piece is copied once more on its way to the
/// socket.
async fn feed(copy: &mut Copy, mut bytes: Bytes) -> Result<(), Error> {
    while bytes.len() > 2 * PIECE {
        copy.feed(bytes.split_to(PIECE)).await?;
    }
    copy.feed(bytes).await
}
