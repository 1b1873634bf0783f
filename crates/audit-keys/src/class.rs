//! A class of keys in use: [`Class`].

use std::collections::BTreeMap;

use audit_cipher::SecretKey;

use crate::config::KeyClass;
use crate::error::KeyError;
use crate::master::{MasterKey, Place, Wrapped};

/// A class's master key, and its former master keys.
#[derive(Debug)]
pub(crate) struct Class {
    pub master: MasterKey,
    former: Vec<MasterKey>,
}

impl Class {
    pub fn new(config: &KeyClass) -> Result<Class, KeyError> {
        let former = config.former.iter().map(MasterKey::new).collect::<Result<_, _>>()?;
        Ok(Class { master: MasterKey::new(&config.master)?, former })
    }

    pub fn all(configs: &BTreeMap<String, KeyClass>) -> Result<BTreeMap<String, Class>, KeyError> {
        configs.iter().map(|(name, config)| Ok((name.clone(), Class::new(config)?))).collect()
    }

    /// Unwraps a key with the master key that wrapped it. If none has that name (an alias may now mean another key), it
    /// uses the present one.
    pub async fn unwrap(&self, wrapped: &Wrapped, place: &Place<'_>) -> Result<SecretKey, KeyError> {
        let mut known = std::iter::once(&self.master).chain(&self.former);
        let master = known.find(|master| master.wrapped(wrapped)).unwrap_or(&self.master);
        master.unwrap(wrapped, place).await
    }
}
