//! Writes `format = "cloudevents"`: the version record in a CloudEvent in structured mode
//! ([CloudEvents 1.0.2, JSON format][1]).
//!
//! [1]: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md

use std::io::Write as _;

use audit_core::batch::Version;
use audit_core::position::Micros;
use audit_core::value::write_json_string;

use crate::record::RecordWriter;
use crate::stamp::{Stamp, write_position};

/// Writes events of one source.
#[derive(Debug)]
pub(crate) struct CloudEventsWriter {
    /// `{"specversion":"1.0","source":"…","id":"…/`
    head: Vec<u8>,
    time: Stamp,
    subject: String,
    record: RecordWriter,
}

impl CloudEventsWriter {
    pub fn new(source: &str, full_changes: bool) -> CloudEventsWriter {
        let mut head = br#"{"specversion":"1.0","source":"/cdc-audit/"#.to_vec();
        // The source must be a URI reference, so other characters are percent-encoded.
        for byte in source.bytes() {
            match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                true => head.push(byte),
                false => {
                    // Writing into a Vec cannot fail.
                    let _ = write!(head, "%{byte:02X}");
                }
            }
        }
        head.extend_from_slice(br#"","id":"#);
        write_json_string(&mut head, &format!("{source}/"));
        // Remove the closing quote: the position follows.
        head.pop();
        let record = RecordWriter::new(source, full_changes);
        CloudEventsWriter { head, time: Stamp::default(), subject: String::new(), record }
    }

    /// Appends the event of a version.
    pub fn write(&mut self, out: &mut Vec<u8>, version: &Version<'_>, recorded_at: Micros) {
        out.extend_from_slice(&self.head);
        write_position(out, version.position());
        out.extend_from_slice(br#"","type":"cdc-audit.version."#);
        out.extend_from_slice(version.event().name().as_bytes());
        out.extend_from_slice(br#"","subject":"#);
        self.subject.clear();
        self.subject.push_str(&version.table().name);
        if let Some(key) = version.key() {
            self.subject.push('/');
            self.subject.push_str(key);
        }
        write_json_string(out, &self.subject);
        out.extend_from_slice(br#","time":""#);
        out.extend_from_slice(self.time.text(version.transaction().committed_at));
        out.extend_from_slice(br#"","datacontenttype":"application/json","data":"#);
        self.record.write(out, version, recorded_at);
        out.push(b'}');
    }
}
