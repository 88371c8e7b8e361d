//! The reader against RFC 6455, whole and in pieces.

use proptest::prelude::*;

use super::*;

const LIMIT: usize = 1_000;

/// A client's frame.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let mut out = vec![first];
    match payload.len() {
        short @ 0..=125 => out.push(MASKED | short as u8),
        medium @ 126..=0xffff => {
            out.push(MASKED | 0x7e);
            out.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            out.push(MASKED | 0x7f);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    out.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ mask[index % 4]));
    out
}

/// Everything that the reader says of these bytes, handed over in pieces of `piece`.
fn read_all(bytes: &[u8], piece: usize) -> Result<Vec<Inbound>, Violation> {
    let mut reader = Reader::new(LIMIT);
    let mut said = Vec::new();
    for chunk in bytes.chunks(piece.max(1)) {
        let mut input = chunk;
        while let Some(inbound) = reader.read(&mut input)? {
            said.push(inbound);
        }
        assert!(input.is_empty());
    }
    Ok(said)
}

fn code(bytes: &[u8]) -> CloseCode {
    read_all(bytes, bytes.len()).expect_err("a violation").0
}

#[test]
fn fragments_make_one_message_and_control_frames_may_come_between() {
    let bytes =
        [masked(0x01, b"hel"), masked(0x89, b"now"), masked(0x00, b"lo "), masked(0x80, "wörld".as_bytes())].concat();
    let expected = vec![Inbound::Ping(b"now".to_vec()), Inbound::Text("hello wörld".into())];
    for piece in [1, 2, 7, 1000] {
        assert_eq!(read_all(&bytes, piece).unwrap(), expected, "in pieces of {piece}");
    }
}

#[test]
fn a_message_over_the_limit_is_skipped_and_the_next_one_is_read() {
    let bytes = [masked(0x81, &vec![b'x'; 1_000_000]), masked(0x81, b"ok")].concat();
    assert_eq!(read_all(&bytes, 4096).unwrap(), [Inbound::TooLong(1_000_000), Inbound::Text("ok".into())]);
    let fragments = [masked(0x01, &[b'x'; 600]), masked(0x80, &[b'x'; 600]), masked(0x81, b"ok")].concat();
    assert_eq!(read_all(&fragments, 64).unwrap(), [Inbound::TooLong(1_200), Inbound::Text("ok".into())]);
}

#[test]
fn a_message_beyond_all_reason_ends_the_connection_before_it_arrives() {
    let mut header = vec![0x82, MASKED | 0x7f];
    header.extend_from_slice(&u64::MAX.to_be_bytes());
    header.extend_from_slice(&[0; 4]);
    assert_eq!(code(&header), CloseCode::TooLarge);
}

#[test]
fn what_the_rfc_forbids_is_refused_with_its_code() {
    let cases: [(&str, Vec<u8>, CloseCode); 11] = [
        ("an unmasked frame", vec![0x81, 0x02, b'h', b'i'], CloseCode::ProtocolError),
        ("a reserved bit", masked(0xc1, b"x"), CloseCode::ProtocolError),
        ("an unknown opcode", masked(0x83, b"x"), CloseCode::ProtocolError),
        ("a fragmented ping", masked(0x09, b"x"), CloseCode::ProtocolError),
        ("a long ping", masked(0x89, &[0; 126]), CloseCode::ProtocolError),
        ("a continuation of nothing", masked(0x80, b"x"), CloseCode::ProtocolError),
        ("a message within a message", [masked(0x01, b"a"), masked(0x81, b"b")].concat(), CloseCode::ProtocolError),
        ("text that is not UTF-8", masked(0x81, &[0xff, 0xfe]), CloseCode::InvalidPayload),
        ("half a close code", masked(0x88, &[3]), CloseCode::ProtocolError),
        ("a close code that must not be sent", masked(0x88, &1006_u16.to_be_bytes()), CloseCode::ProtocolError),
        ("a close reason that is not UTF-8", masked(0x88, &[3, 232, 0xff]), CloseCode::InvalidPayload),
    ];
    for (what, bytes, expected) in cases {
        assert_eq!(code(&bytes), expected, "{what}");
    }
}

#[test]
fn text_that_cannot_become_utf8_is_refused_before_its_message_ends() {
    for beginning in [
        masked(0x01, b"caf\xc3("),
        [masked(0x01, b"caf\xc3"), masked(0x00, b"("), masked(0x80, b"")].concat(),
        masked(0x81, b"\xf4\x90 and more")[..8].to_vec(),
        // A surrogate.
        masked(0x01, b"\xed\xa0"),
    ] {
        assert_eq!(code(&beginning), CloseCode::InvalidPayload, "{beginning:x?}");
    }
    // Half a character may still become a whole one, but not at the end of its message.
    assert_eq!(read_all(&masked(0x01, b"caf\xc3"), 1).unwrap(), []);
    assert_eq!(code(&[masked(0x01, b"caf\xc3"), masked(0x80, b"")].concat()), CloseCode::InvalidPayload);
}

#[test]
fn a_text_that_is_skipped_is_not_checked_and_leaves_nothing_to_the_next_one() {
    let long = [masked(0x01, &[b'x'; 900]), masked(0x80, &[0xff; 900])].concat();
    let bytes = [long, masked(0x01, "ö".as_bytes()), masked(0x80, "ä".as_bytes())].concat();
    for piece in [1, 64, 4096] {
        assert_eq!(read_all(&bytes, piece).unwrap(), [Inbound::TooLong(1_800), Inbound::Text("öä".into())]);
    }
}

#[test]
fn a_close_frame_tells_its_code() {
    assert_eq!(read_all(&masked(0x88, &1000_u16.to_be_bytes()), 3).unwrap(), [Inbound::Close(Some(1000))]);
    assert_eq!(read_all(&masked(0x88, b""), 3).unwrap(), [Inbound::Close(None)]);
}

#[test]
fn what_stands_behind_a_close_frame_is_discarded() {
    let bytes = [masked(0x88, b""), masked(0x89, b"ping"), masked(0x88, b""), vec![0xff; 20]].concat();
    for piece in [1, 6, 100] {
        assert_eq!(read_all(&bytes, piece).unwrap(), [Inbound::Close(None)]);
    }
}

#[test]
fn an_idle_reader_holds_no_buffer() {
    let mut reader = Reader::new(LIMIT);
    let bytes = masked(0x82, &[7; 900]);
    let mut input = bytes.as_slice();
    assert!(reader.read(&mut input).unwrap().is_some());
    assert_eq!(reader.message.capacity() + reader.header.capacity() + reader.control.capacity(), 0);
}

proptest! {
    #[test]
    fn any_cut_of_any_messages_reads_the_same(
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1500), 1..5),
        piece in 1..200_usize,
    ) {
        let bytes: Vec<u8> = messages.iter().flat_map(|message| masked(0x82, message)).collect();
        prop_assert_eq!(read_all(&bytes, piece).unwrap(), read_all(&bytes, bytes.len()).unwrap());
    }

    /// Bytes that are often UTF-8, but for a cut or a changed byte.
    #[test]
    fn text_in_any_fragments_is_what_the_standard_library_makes_of_the_whole(
        text in "[aö€𝄞]{0,40}",
        changed in prop::option::of((0..160_usize, any::<u8>())),
        fragment in 1..9_usize,
        piece in 1..30_usize,
    ) {
        let mut bytes = text.into_bytes();
        if let Some((at, byte)) = changed && let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        let mut sent: Vec<u8> = Vec::new();
        for (index, part) in bytes.chunks(fragment).enumerate() {
            sent.extend(masked(u8::from(index == 0), part));
        }
        sent.extend(masked(if bytes.is_empty() { 0x81 } else { 0x80 }, b""));
        let read = read_all(&sent, piece).map_err(|violation| violation.0);
        let expected = String::from_utf8(bytes).map(|text| vec![Inbound::Text(text)]);
        prop_assert_eq!(read, expected.map_err(|_| CloseCode::InvalidPayload));
    }

    #[test]
    fn no_bytes_make_the_reader_panic_or_keep_much(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        let mut reader = Reader::new(LIMIT);
        let mut input = bytes.as_slice();
        while let Ok(Some(_)) = reader.read(&mut input) {}
        prop_assert!(reader.message.len() <= LIMIT + 4096);
    }
}
