//! The hosts of a connection string: [`Target`].

use std::net::IpAddr;
use std::path::PathBuf;

/// One host of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// The host as written: the name that the certificate must have and that is looked up in the password file.
    pub(crate) name: String,
    pub(crate) place: Place,
    pub(crate) port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A host name or an address to resolve.
    Tcp(String),
    /// The folder of a Unix socket.
    Unix(PathBuf),
}

impl Target {
    /// Tells whether the host is on this machine, both by its name and by the address given with it.
    pub(crate) fn is_loopback(&self) -> bool {
        let is_loopback = |host: &str| host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        matches!(&self.place, Place::Tcp(place) if is_loopback(&self.name) && is_loopback(place))
    }
}
