//! Events and revocations as workers write them, in each of the three forms: the first byte says which.
#![no_main]

use libfuzzer_sys::fuzz_target;
use taskcast::proto::{ContentType, Event, Revocation};

fuzz_target!(|input: &[u8]| {
    let Some((form, bytes)) = input.split_first() else { return };
    let form = match form % 3 {
        0 => ContentType::Json,
        1 => ContentType::CloudEvents,
        _ => ContentType::Protobuf,
    };
    let Ok(event) = Event::decode(form, bytes) else {
        // What is no event may be a revocation.
        if let Some(Ok(revocation)) = Revocation::from_record(bytes) {
            assert_eq!(Revocation::from_record(&revocation.to_record()), Some(Ok(revocation)));
        }
        return;
    };
    let event = Event { unknown_fields: 0, ..event };
    // What is written is read again as the same, unless it grew too large on the way.
    if event.fits_the_log().is_ok() {
        assert_eq!(Event::decode(ContentType::Json, &event.to_json()).as_ref(), Ok(&event));
    }
    let protobuf = event.to_protobuf();
    if protobuf.len() <= taskcast::proto::EVENT_MAX_BYTES {
        assert_eq!(Event::decode(ContentType::Protobuf, &protobuf).as_ref(), Ok(&event));
    }
});
