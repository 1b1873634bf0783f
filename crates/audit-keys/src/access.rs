//! Who wants to see which value, or destroys a key: [`Access`] and [`Ask`].

/// The person who wants to see values or destroys keys, and the purpose. The database adds the role that logged in, and
/// the time.
#[derive(Clone, Debug)]
pub struct Access {
    /// The user of the operating system.
    pub os_user: String,
    /// The person in whose name it is done, if that is another one.
    pub requested_by: Option<String>,
    /// The action: `history`, `decrypt` or `destroy`.
    pub action: String,
    pub purpose: Option<String>,
}

/// A stored value that a person wants to see, and the place where it was found.
#[derive(Clone, Debug)]
pub struct Ask {
    pub text: String,
    /// For an encrypted value, the context that it was found in; several if its side of the change is not known.
    pub aads: Vec<Vec<u8>>,
    /// For a token, the domains that it may have been made for.
    pub domains: Vec<Vec<u8>>,
    pub source: String,
    pub table: String,
    /// The row's key as it is stored.
    pub key: Option<String>,
    pub position: String,
    pub field: String,
}

/// How often a person did something.
#[derive(Clone, Debug)]
pub struct Accesses {
    /// The person in whose name it was done, else the user of the operating system.
    pub user: String,
    pub action: String,
    pub count: u64,
}
