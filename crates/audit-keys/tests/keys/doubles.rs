//! Test doubles of key services: scripts that answer and refuse as the services' reference documentation says.

use std::collections::HashMap;

use audit_testkit::{Request, Said, Scripted};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// The keys that a double wrapped: the text that it returned, with the key and the context to which it is bound.
#[derive(Default)]
struct Wraps(HashMap<String, [String; 3]>);

impl Wraps {
    fn wrap(&mut self, prefix: &str, base64: &impl base64::Engine, wrapped: [String; 3]) -> String {
        let handle = base64.encode(format!("wrapped-{:032}", self.0.len()));
        self.0.insert(format!("{prefix}{handle}"), wrapped);
        format!("{prefix}{handle}")
    }

    fn unwrap(&self, text: &str, key: &str, context: &str) -> Option<String> {
        let [known, plain, bound] = self.0.get(text)?;
        (known == key && bound == context).then(|| plain.clone())
    }
}

fn text<'v>(body: &'v Value, name: &str) -> &'v str {
    body[name].as_str().unwrap_or_default()
}

/// Google Cloud KMS with the keys `pii` and `other`: <https://cloud.google.com/kms/docs/reference/rest>.
pub fn gcp() -> Scripted {
    let mut wraps = Wraps::default();
    Scripted::start(move |request| gcp_answer(&mut wraps, request))
}

fn gcp_answer(wraps: &mut Wraps, request: &Request) -> Said {
    let error = |code: u16, status: &str| {
        (code, json!({"error": {"code": code, "status": status, "message": "…"}}).to_string())
    };
    let Some((key, operation)) = request.target.rsplit_once(':') else { return error(404, "NOT_FOUND") };
    let key = key.trim_start_matches("/v1/");
    if !["pii", "other"].contains(&key.rsplit('/').next().unwrap()) {
        return error(404, "NOT_FOUND");
    }
    if !request.header("authorization").is_some_and(|value| value.starts_with("Bearer")) {
        return error(401, "UNAUTHENTICATED");
    }
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let aad = text(&body, "additionalAuthenticatedData");
    let sum = |bytes: &[u8]| crc(bytes).to_string();
    let summed =
        |name: &str, sum_name: &str| sum(&STANDARD.decode(text(&body, name)).unwrap()) == text(&body, sum_name);
    assert!(summed("additionalAuthenticatedData", "additionalAuthenticatedDataCrc32c"));
    match operation {
        "encrypt" => {
            assert!(summed("plaintext", "plaintextCrc32c"));
            let wrapped = [key.to_owned(), text(&body, "plaintext").to_owned(), aad.to_owned()];
            let ciphertext = wraps.wrap("", &STANDARD, wrapped);
            let answer = json!({
                "name": format!("{key}/cryptoKeyVersions/1"),
                "ciphertextCrc32c": sum(&STANDARD.decode(&ciphertext).unwrap()),
                "ciphertext": ciphertext,
                "verifiedPlaintextCrc32c": true,
                "verifiedAdditionalAuthenticatedDataCrc32c": true,
                "protectionLevel": "SOFTWARE",
            });
            (200, answer.to_string())
        }
        "decrypt" => match wraps.unwrap(text(&body, "ciphertext"), key, aad) {
            Some(plain) => {
                let crc = sum(&STANDARD.decode(&plain).unwrap());
                (200, json!({"plaintext": plain, "plaintextCrc32c": crc, "usedPrimary": true}).to_string())
            }
            None => error(400, "INVALID_ARGUMENT"),
        },
        _ => error(404, "NOT_FOUND"),
    }
}

/// CRC-32C computed in another way than the client does it, so that both must be right.
fn crc(bytes: &[u8]) -> u32 {
    let mut remainder = u32::MAX;
    for bit in bytes.iter().flat_map(|byte| (0..8).map(move |n| u32::from(byte >> n & 1))) {
        let out = (remainder ^ bit) & 1 == 1;
        remainder >>= 1;
        if out {
            remainder ^= 0x1EDC_6F41_u32.reverse_bits();
        }
    }
    !remainder
}

/// Azure Key Vault with the keys `pii` and `other`, and the authority that issues tokens for it:
/// <https://learn.microsoft.com/rest/api/keyvault/keys/wrap-key>.
pub fn azure() -> Scripted {
    let mut wraps = Wraps::default();
    let script = Scripted::start(|_| (500, String::new()));
    let port = script.port();
    script.say(move |request| azure_answer(&mut wraps, port, request));
    script
}

fn azure_answer(wraps: &mut Wraps, port: u16, request: &Request) -> Said {
    let error = |status: u16, code: &str| (status, json!({"error": {"code": code, "message": "…"}}).to_string());
    if request.target == "/tenant/oauth2/v2.0/token" {
        let form = String::from_utf8(request.body.clone()).unwrap();
        let expected = "grant_type=client_credentials&client_id=client&scope=https%3A%2F%2Fvault.azure.net%2F.default";
        return match form == format!("{expected}&client_secret=s3cret") {
            true => (200, json!({"token_type": "Bearer", "expires_in": 3599, "access_token": "given"}).to_string()),
            false => (401, json!({"error": "invalid_client"}).to_string()),
        };
    }
    if request.header("authorization") != Some("Bearer given") {
        return error(401, "Unauthorized");
    }
    let path = request.target.strip_suffix("?api-version=7.4").expect("a version of the API");
    let parts: Vec<&str> = path.trim_start_matches("/keys/").split('/').collect();
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(body["alg"], "RSA-OAEP-256");
    let kid = |key: &str| format!("http://127.0.0.1:{port}/keys/{key}/0123456789abcdef");
    match parts.as_slice() {
        [key @ ("pii" | "other"), "wrapkey"] => {
            let wrapped = [(*key).to_owned(), text(&body, "value").to_owned(), String::new()];
            let value = wraps.wrap("", &URL_SAFE_NO_PAD, wrapped);
            (200, json!({"kid": kid(key), "value": value}).to_string())
        }
        [key @ ("pii" | "other"), "0123456789abcdef", "unwrapkey"] => match wraps.unwrap(text(&body, "value"), key, "")
        {
            Some(value) => (200, json!({"kid": kid(key), "value": value}).to_string()),
            None => error(400, "BadParameter"),
        },
        _ => error(404, "KeyNotFound"),
    }
}

/// Vault's transit engine with the keys `pii` and `other`, for machines on which the real one is not compiled.
pub fn vault() -> Scripted {
    let mut wraps = Wraps::default();
    Scripted::start(move |request| vault_answer(&mut wraps, request))
}

fn vault_answer(wraps: &mut Wraps, request: &Request) -> Said {
    let error = |status: u16, said: &str| (status, json!({"errors": [said]}).to_string());
    if request.header("x-vault-token") != Some(audit_testkit::VAULT_TOKEN) {
        return error(403, "permission denied");
    }
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let aad = text(&body, "associated_data").to_owned();
    match request.target.split('/').skip(2).collect::<Vec<_>>().as_slice() {
        ["transit", "encrypt", key @ ("pii" | "other")] => {
            let wrapped = [(*key).to_owned(), text(&body, "plaintext").to_owned(), aad];
            let ciphertext = wraps.wrap("vault:v1:", &STANDARD, wrapped);
            (200, json!({"data": {"ciphertext": ciphertext, "key_version": 1}}).to_string())
        }
        ["transit", "decrypt", key @ ("pii" | "other")] => match wraps.unwrap(text(&body, "ciphertext"), key, &aad) {
            Some(plaintext) => (200, json!({"data": {"plaintext": plaintext}}).to_string()),
            None => error(400, "cipher: message authentication failed"),
        },
        ["transit", ..] => error(400, "encryption key not found"),
        _ => error(404, "no handler for route"),
    }
}
