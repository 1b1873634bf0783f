//! Checks the server's certificate as libpq's `sslmode`s do: [`ServerVerifier`].
//!
//! rustls' own verifier knows one mode, chain and name. We need two more modes and one exception: a file given as
//! `sslrootcert` may hold the server's own self-signed certificate, made as PostgreSQL's manual shows (section
//! "Creating Certificates"). Path building refuses such a certificate, because it is marked as a CA but used by a
//! server. So a server that presents exactly a certificate of that file is accepted by comparison, as long as the
//! certificate is valid.
//!
//! In every mode, the handshake must be signed by the key of the certificate that the server presented.

use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_cert::Certificate;
use x509_cert::der::Decode;

/// The trusted certificates in which a chain must end.
#[derive(Debug)]
pub(crate) struct Roots {
    pub(crate) store: RootCertStore,
    /// Certificates that are also accepted as the server's own.
    pub(crate) pinned: Vec<CertificateDer<'static>>,
}

#[derive(Debug)]
pub(crate) enum Checks {
    Nothing,
    Chain(Roots),
    ChainAndName(Roots),
}

#[derive(Debug)]
pub(crate) struct ServerVerifier {
    checks: Checks,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerVerifier {
    pub(crate) fn new(checks: Checks, provider: &CryptoProvider) -> ServerVerifier {
        ServerVerifier { checks, algorithms: provider.signature_verification_algorithms }
    }

    fn verify_chain(
        &self,
        roots: &Roots,
        shown: &CertificateDer<'_>,
        parsed: &ParsedCertificate<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        if roots.pinned.contains(shown) {
            return verify_dates(shown, now);
        }
        verify_server_cert_signed_by_trust_anchor(parsed, &roots.store, intermediates, now, self.algorithms.all)
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let (roots, with_name) = match &self.checks {
            Checks::Nothing => return Ok(ServerCertVerified::assertion()),
            Checks::Chain(roots) => (roots, false),
            Checks::ChainAndName(roots) => (roots, true),
        };
        let parsed = ParsedCertificate::try_from(end_entity)?;
        self.verify_chain(roots, end_entity, &parsed, intermediates, now)?;
        if with_name {
            verify_server_name(&parsed, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn verify_dates(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let parsed = Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let validity = parsed.tbs_certificate.validity;
    let now = Duration::from_secs(now.as_secs());
    if now < validity.not_before.to_unix_duration() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > validity.not_after.to_unix_duration() {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}
