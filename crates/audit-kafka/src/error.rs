//! What an error of librdkafka or of a broker means for the sink.

use audit_config::secret::SecretError;
use audit_core::sink::{Action, SinkError};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::context::Context;

/// An error code and its text. It never contains a message's content: brokers and librdkafka quote none.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Reason(String);

/// The error for a password or key that could not be read.
pub(crate) fn no_secret(error: SecretError) -> SinkError {
    let hint = error.hint();
    SinkError::stop("the sink's credentials cannot be read").hint(hint).source(error)
}

/// The error for a client that could not be made, because of a setting or a file that a setting names. The value is not
/// repeated, because it may be a secret.
pub(crate) fn not_created(error: &KafkaError) -> SinkError {
    let said = match error {
        KafkaError::ClientConfig(_, _, key, _) => format!("librdkafka refuses the setting {key}"),
        KafkaError::ClientCreation(said) => said.clone(),
        other => other.to_string(),
    };
    SinkError::stop("the client cannot be made")
        .hint("see `client`, `tls` and `sasl` in the sink's section, and that the files exist")
        .source(Reason(said))
}

/// The error for a failed action; `doing` names it, and `otherwise` is the action after an error that may be temporary.
pub(crate) fn failed(doing: &str, error: &KafkaError, context: &Context, otherwise: Action) -> SinkError {
    // The code of an administrator's client is in another variant.
    let code = match error {
        KafkaError::AdminOp(code) => Some(*code),
        other => other.rdkafka_error_code(),
    };
    // If no connection can be made, the error itself is only a time-out; the connection's last error says more.
    let vague = code.is_none_or(|code| {
        matches!(code, Code::OperationTimedOut | Code::BrokerTransportFailure | Code::MessageTimedOut)
    });
    match context.connection().filter(|_| vague) {
        Some((cause, said)) => of_code(doing, cause, Some(said), otherwise),
        None => of_code(doing, code.unwrap_or(Code::Unknown), Some(error.to_string()), otherwise),
    }
}

/// The same for a code alone.
pub(crate) fn of_code(doing: &str, code: Code, said: Option<String>, otherwise: Action) -> SinkError {
    let passing = if code == Code::SSL { UNVERIFIED } else { LOST };
    let (action, hint) = judge(code).unwrap_or((otherwise, passing));
    SinkError::new(action, format!("{doing} failed in Kafka"))
        .hint(hint)
        .source(Reason(said.unwrap_or(code.to_string())))
}

const LOST: &str = "check that the brokers run and can be reached; versions wait meanwhile";

/// TLS is the default: brokers without it answer nothing that could be understood.
const UNVERIFIED: &str = "name the brokers' port for TLS, and in tls.ca_file who vouches for them; for brokers without TLS set plain_text = true, \
                          by which anyone on the way can read the trail; versions wait meanwhile";

/// The action and the hint for an error that a person must resolve; `None` if it may be temporary.
fn judge(code: Code) -> Option<(Action, &'static str)> {
    let hint = match code {
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState => "see `sasl` in the sink's section: the brokers do not take these credentials",
        Code::TopicAuthorizationFailed => {
            "allow the sink's principal to DESCRIBE and WRITE its topics, to READ the checkpoint's, and to CREATE topics where \
             create_topics is true"
        }
        Code::TransactionalIdAuthorizationFailed => {
            "allow the sink's principal to DESCRIBE and WRITE the transactional id `cdc-audit.SOURCE.SINK`"
        }
        Code::ClusterAuthorizationFailed => {
            "allow the sink's principal IDEMPOTENT_WRITE and, to make topics, CREATE on the cluster"
        }
        Code::InvalidTransactionTimeout => {
            "lower transaction_timeout: the brokers' transaction.max.timeout.ms is shorter"
        }
        Code::InvalidTopic => {
            "choose another `topic`: it collides with a topic that differs in `.` and `_` only, or is not allowed"
        }
        Code::PolicyViolation => "the brokers' policy forbids it: make the topic by hand, or change topic_settings",
        Code::InvalidReplicationFactor => "set replication_factor to no more than there are brokers",
        Code::InvalidPartitions => "set partitions to a number that the brokers allow",
        Code::InvalidConfig => "see topic_settings: the brokers do not take one of them",
        Code::InvalidRecord => {
            "the topic refuses what it is given: one that is compacted takes no messages without a key; nothing is lost meanwhile"
        }
        Code::UnsupportedVersion | Code::UnsupportedFeature => {
            "the brokers are too old: transactions need Kafka 2.5 or later"
        }
        _ => return None,
    };
    Some((Action::Stop, hint))
}

/// Whether the error may mean that another client has our transactional id.
pub(crate) fn is_fence(code: Code) -> bool {
    matches!(code, Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch | Code::InvalidProducerIdMapping)
}
