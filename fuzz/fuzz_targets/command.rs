//! What a client says, in JSON or in protobuf: the first byte says which.
#![no_main]

use libfuzzer_sys::fuzz_target;
use taskcast::proto::{Command, REQUEST_ID_MAX_BYTES, RequestId};

/// More than any answer needs.
const ANSWER_MAX_BYTES: usize = 1_024;

fuzz_target!(|input: &[u8]| {
    let Some((form, bytes)) = input.split_first() else { return };
    let outcome = if form % 2 == 0 {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        Command::from_json(text)
    } else {
        Command::from_protobuf(bytes)
    };
    let id = match &outcome {
        Ok(command) => &command.id,
        Err(error) => {
            assert!(error.message.len() <= ANSWER_MAX_BYTES, "an answer that quotes at length: {error:?}");
            &error.id
        }
    };
    if let Some(id) = id {
        assert!(id.as_json().len() <= REQUEST_ID_MAX_BYTES);
        assert_eq!(RequestId::from_json(id.as_json()).as_ref(), Some(id));
    }
});
