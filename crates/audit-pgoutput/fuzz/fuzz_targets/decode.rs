//! The decoder takes any bytes without a panic.
#![no_main]

use audit_pgoutput::{Scratch, decode};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut scratch = Scratch::default();
    if let Err(error) = decode(data, &mut scratch) {
        assert!(error.offset <= data.len());
    }
});
