//! The login methods that are accepted from a server ([`Methods`]), and the check of what it asks for ([`Watch`]).
//!
//! A server that asks for the password itself, or for its MD5 hash, has it afterwards, or has enough to log in with. So
//! has anyone who impersonates the server. Therefore we answer such a request only if the server's identity was
//! verified, or if the connection string allows the method with libpq's `require_auth`. SCRAM reveals nothing. The
//! check reads the bytes of the stream, because the driver answers the server by itself.

use std::io;

use crate::error::ConnectError;
use crate::refused::Refused;

/// The login methods that a connection string accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Methods {
    password: bool,
    md5: bool,
    scram: bool,
    none: bool,
}

impl Methods {
    /// Returns the default. `trusted` means that only the server can read what is sent.
    pub(crate) fn usual(trusted: bool) -> Methods {
        Methods { password: trusted, md5: trusted, scram: true, none: true }
    }

    /// Parses a list of accepted methods, or of methods that are not accepted, each after a `!`.
    pub(crate) fn parse(text: &str) -> Result<Methods, ConnectError> {
        let negated = text.starts_with('!');
        let mut methods = Methods { password: negated, md5: negated, scram: negated, none: negated };
        for word in text.split(',') {
            let name = if negated { word.strip_prefix('!').unwrap_or_default() } else { word };
            let method = match name {
                "password" => &mut methods.password,
                "md5" => &mut methods.md5,
                "scram-sha-256" => &mut methods.scram,
                "none" => &mut methods.none,
                _ => {
                    let hint =
                        "it takes a list of scram-sha-256, md5, password and none, or of the same with ! before each";
                    return Err(ConnectError::config("invalid value of the connection option require_auth", hint));
                }
            };
            *method = !negated;
        }
        Ok(methods)
    }
}

/// Follows the bytes from the server until it accepts the login.
#[derive(Debug)]
pub(crate) struct Watch {
    methods: Methods,
    /// True if the methods are those of `require_auth`.
    listed: bool,
    /// The start of the current message: its type, its length and, in an authentication request, the kind.
    head: [u8; 9],
    known: usize,
    /// Bytes of its body that are not yet read.
    rest: usize,
    asked: bool,
    done: bool,
}

impl Watch {
    pub(crate) fn new(methods: Option<Methods>, trusted: bool) -> Watch {
        Watch {
            methods: methods.unwrap_or_else(|| Methods::usual(trusted)),
            listed: methods.is_some(),
            head: [0; 9],
            known: 0,
            rest: 0,
            asked: false,
            done: false,
        }
    }

    /// Takes the bytes that were read.
    pub(crate) fn read(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !self.done && !bytes.is_empty() {
            if self.rest > 0 {
                let skipped = self.rest.min(bytes.len());
                bytes = &bytes[skipped..];
                self.rest -= skipped;
                continue;
            }
            self.head[self.known] = bytes[0];
            self.known += 1;
            bytes = &bytes[1..];
            self.message().map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Checks a message when enough of it was read.
    fn message(&mut self) -> Result<(), Refused> {
        let [kind, a, b, c, d, code @ ..] = self.head;
        let wanted = if kind == b'R' { 9 } else { 5 };
        if self.known < wanted {
            return Ok(());
        }
        // The length field counts itself.
        let body = (u32::from_be_bytes([a, b, c, d]) as usize).saturating_sub(4);
        (self.known, self.rest) = (0, body.saturating_sub(wanted - 5));
        if kind != b'R' {
            return Ok(());
        }
        match u32::from_be_bytes(code) {
            0 if !self.asked && !self.methods.none => return Err(Refused::Nothing),
            0 => self.done = true,
            3 if !self.methods.password => return Err(if self.listed { Refused::Unlisted } else { Refused::Password }),
            5 if !self.methods.md5 => return Err(if self.listed { Refused::Unlisted } else { Refused::Md5 }),
            10 if !self.methods.scram => return Err(Refused::Unlisted),
            _ => self.asked = true,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(code: u32, body: &[u8]) -> Vec<u8> {
        let length = (8 + body.len() as u32).to_be_bytes();
        [b"R", &length[..], &code.to_be_bytes(), body].concat()
    }

    fn notice() -> Vec<u8> {
        [b"N", &9u32.to_be_bytes()[..], b"SLOG\0"].concat()
    }

    fn refused(methods: Option<&str>, trusted: bool, bytes: &[u8]) -> Option<Refused> {
        let methods = methods.map(|text| Methods::parse(text).expect("methods"));
        let told =
            |result: io::Result<()>| result.err().and_then(|error| error.get_ref()?.downcast_ref::<Refused>().copied());
        let whole = told(Watch::new(methods, trusted).read(bytes));
        // The result is the same if the bytes come one by one.
        let mut watch = Watch::new(methods, trusted);
        assert_eq!(bytes.iter().find_map(|byte| told(watch.read(&[*byte]))), whole);
        whole
    }

    #[test]
    fn a_password_is_given_only_to_a_server_that_is_known() {
        let (password, md5, scram, ok) =
            (request(3, &[]), request(5, &[1; 4]), request(10, b"SCRAM-SHA-256\0\0"), request(0, &[]));
        for (methods, trusted, bytes, expected) in [
            (None, false, &password, Some(Refused::Password)),
            (None, false, &[notice(), md5.clone()].concat(), Some(Refused::Md5)),
            (None, false, &[scram.clone(), ok.clone(), password.clone()].concat(), None),
            (None, false, &ok, None),
            (None, true, &password, None),
            (None, true, &md5, None),
            (Some("password"), false, &password, None),
            (Some("md5"), false, &password, Some(Refused::Unlisted)),
            (Some("scram-sha-256"), true, &password, Some(Refused::Unlisted)),
            (Some("scram-sha-256"), true, &ok, Some(Refused::Nothing)),
            (Some("scram-sha-256"), true, &[scram, ok.clone()].concat(), None),
            (Some("!password,!md5"), true, &md5, Some(Refused::Unlisted)),
            (Some("none,password"), true, &ok, None),
        ] {
            assert_eq!(refused(methods, trusted, bytes), expected, "{methods:?} {trusted} {bytes:?}");
        }
        for text in ["", "passwort", "password,", "!password,md5"] {
            assert!(Methods::parse(text).is_err(), "{text}");
        }
    }
}
