//! The settings of librdkafka that follow from the configuration.

use audit_config::secret::SecretError;
use rdkafka::ClientConfig;

use crate::config::KafkaConfig;

/// The settings that all clients of these brokers share. Secrets are read now.
pub(crate) fn client(config: &KafkaConfig) -> Result<ClientConfig, SecretError> {
    let mut client = ClientConfig::new();
    for (key, value) in &config.client {
        client.set(key, value);
    }
    client.set("bootstrap.servers", config.brokers.join(","));
    client.set("client.id", "cdc-audit");
    client.set("allow.auto.create.topics", "false");
    let tls = config.tls();
    let protocol = match (&tls, &config.sasl) {
        (None, None) => "plaintext",
        (Some(_), None) => "ssl",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    client.set("security.protocol", protocol);
    if let Some(tls) = &tls {
        if let Some(key) = &tls.key_file {
            audit_config::secret::guarded(key)?;
        }
        let files = [
            ("ssl.ca.location", &tls.ca_file),
            ("ssl.certificate.location", &tls.certificate_file),
            ("ssl.key.location", &tls.key_file),
        ];
        for (key, file) in files {
            if let Some(file) = file {
                client.set(key, file.to_string_lossy());
            }
        }
        if let Some(password) = &tls.key_password {
            client.set("ssl.key.password", password.resolve()?.expose());
        }
        client.set("enable.ssl.certificate.verification", tls.verify.to_string());
        client.set("ssl.endpoint.identification.algorithm", if tls.verify { "https" } else { "none" });
    }
    if let Some(sasl) = &config.sasl {
        client.set("sasl.mechanism", sasl.mechanism.name());
        if let (Some(username), Some(password)) = (&sasl.username, &sasl.password) {
            client.set("sasl.username", username);
            client.set("sasl.password", password.resolve()?.expose());
        }
    }
    Ok(client)
}
