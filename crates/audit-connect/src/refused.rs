//! The reason why we ended a login: [`Refused`].

/// The reason why we ended a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the server asks for the password in clear text, and its identity is not verified")]
    Password,
    #[error("the server asks for the password's MD5 hash, and its identity is not verified")]
    Md5,
    #[error("the server asks for a method that require_auth does not list")]
    Unlisted,
    #[error("the server asks for no password, and require_auth does not list `none`")]
    Nothing,
}

impl Refused {
    pub(crate) fn hint(self) -> String {
        let allowed = match self {
            Refused::Password => "password",
            Refused::Md5 => "md5",
            Refused::Unlisted | Refused::Nothing => {
                return "correct require_auth in the url, or pg_hba.conf".to_owned();
            }
        };
        format!(
            "use scram-sha-256 in pg_hba.conf, or sslmode=verify-full in the url; where nobody else can be on the way, \
             require_auth={allowed} in the url allows it"
        )
    }
}
