//! A record's policy: there is one way to write each, and what was read is within the library's limits.

use crate::error::ErrorKind;
use crate::format::codec::{Reader, Writer};
use crate::format::policy::{GenerationLimits, RecordPolicy};

/// The bytes are a policy, and nothing after it.
pub fn policy(data: &[u8]) {
    let mut reader = Reader::new(data);
    let policy = RecordPolicy::parse(&mut reader).and_then(|policy| reader.finish().map(|()| policy));
    match policy {
        Err(error) => assert_eq!(error.kind(), ErrorKind::Format),
        Ok(policy) => {
            let mut writer = Writer::default();
            policy.write(&mut writer);
            assert_eq!(writer.as_bytes(), data, "parse, then write");
            let limits = policy.limits();
            let again = GenerationLimits::new(limits.seals(), limits.bytes(), limits.age_days());
            assert_eq!(again.ok(), Some(limits), "no limit is read that nobody could ask for");
        }
    }
}
