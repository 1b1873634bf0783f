//! Finds the version that the server refuses: [`find`].

use audit_core::batch::Version;
use tokio_postgres::{Client, Error, Statement};

use crate::copy;
use crate::encode::Encoder;
use crate::error::may_be_a_row;

/// Tries smaller and smaller halves, each in a transaction that is rolled back, until one version is left. Returns
/// `None` if the server takes the versions now.
pub(crate) async fn find(
    client: &Client,
    statement: &Statement,
    encoder: &mut Encoder<'_>,
    versions: &[Version<'_>],
) -> Result<Option<usize>, Error> {
    let (mut start, mut end) = (0, versions.len());
    while end - start > 1 {
        let middle = start + (end - start) / 2;
        if is_refused(client, statement, encoder, &versions[start..middle]).await? {
            end = middle;
        } else {
            start = middle;
        }
    }
    let found = start < end && is_refused(client, statement, encoder, &versions[start..end]).await?;
    Ok(found.then_some(start))
}

async fn is_refused(
    client: &Client,
    statement: &Statement,
    encoder: &mut Encoder<'_>,
    versions: &[Version<'_>],
) -> Result<bool, Error> {
    let mut copy = copy::begin(client, statement).await?;
    copy::send(&mut copy, encoder, versions).await?;
    let finished = copy.as_mut().finish().await;
    client.batch_execute("ROLLBACK").await?;
    match finished {
        Ok(_) => Ok(false),
        Err(error) if may_be_a_row(&error) => Ok(true),
        Err(error) => Err(error),
    }
}
