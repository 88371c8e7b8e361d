//! The tap against bytes, whole and in pieces.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;

fn bulk(text: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", text.len()).as_bytes(), text, b"\r\n"].concat()
}

/// An entry's number and its fields.
type Entry = (u64, Vec<(&'static str, Vec<u8>)>);

/// An answer of Redis to XREAD.
fn answer(entries: &[Entry]) -> Vec<u8> {
    let mut out = b"*1\r\n*2\r\n".to_vec();
    out.extend(bulk(b"taskcast:events"));
    out.extend(format!("*{}\r\n", entries.len()).into_bytes());
    for (major, fields) in entries {
        out.extend(b"*2\r\n");
        out.extend(bulk(format!("{major}-7").as_bytes()));
        out.extend(format!("*{}\r\n", 2 * fields.len()).into_bytes());
        for (name, value) in fields {
            out.extend(bulk(name.as_bytes()));
            out.extend(bulk(value));
        }
    }
    out
}

fn event(number: u64) -> Entry {
    (number, vec![("event", format!(r#"{{"task_id":"{number}"}}"#).into_bytes())])
}

/// What the library gets of these bytes, written in pieces of so many, and the records that were taken.
async fn through(bytes: &[u8], piece: usize) -> (io::Result<Vec<u8>>, Option<Result<Vec<Record>, Foreign>>) {
    let harvest = Arc::<Harvest>::default();
    harvest.expect();
    let (mut near, far) = duplex(piece);
    let mut tap = Tap::new(far, harvest.clone());
    let write = async move { near.write_all(bytes).await };
    let mut passed = Vec::new();
    let read = async { tap.read_to_end(&mut passed).await };
    let (_, read) = tokio::join!(write, read);
    (read.map(|_| passed), harvest.take())
}

#[tokio::test]
async fn records_are_taken_and_the_library_gets_nothing_in_their_place() {
    let fields = vec![
        ("source", b"x".to_vec()),
        ("event", b"{}\r\n$1".to_vec()),
        ("content_type", b"application/protobuf".to_vec()),
    ];
    let bytes = answer(&[(5, fields), (6, vec![("other", b"y".to_vec())]), event(8)]);
    for piece in [1, 3, 50, 100_000] {
        let (passed, records) = through(&bytes, piece).await;
        let records = records.unwrap().unwrap();
        assert_eq!(passed.unwrap(), NOTHING);
        assert_eq!(records.len(), 3);
        assert_eq!(records[0].position, Position { major: 5, minor: 7 });
        assert_eq!((&records[0].payload[..], records[0].content_type), (&b"{}\r\n$1"[..], ContentType::Protobuf));
        assert!(records[1].payload.is_empty(), "an entry without an event has an empty payload");
        assert_eq!((records[2].appended_at_ms, records[2].content_type), (Some(8), ContentType::Json));
    }
}

#[tokio::test]
async fn an_entry_without_fields_has_an_empty_payload() {
    let bytes = b"*1\r\n*2\r\n$1\r\nk\r\n*1\r\n*2\r\n$3\r\n5-1\r\n*-1\r\n";
    let (_, records) = through(bytes, 7).await;
    assert!(records.unwrap().unwrap()[0].payload.is_empty());
}

#[tokio::test]
async fn what_is_no_answer_with_records_passes_as_it_came() {
    for other in [
        &b"*-1\r\n"[..],
        b"_\r\n",
        b"-NOAUTH Authentication required.\r\n",
        b"%1\r\n$1\r\nk\r\n*0\r\n",
        b"*2\r\n*2\r\n",
        b"*1\r\n*2\r\n:5\r\n",
        b"*1\r\n*2\r\n$99999999999999999999\r\n",
        b"$",
        b"",
    ] {
        for piece in [1, 100] {
            let (passed, records) = through(other, piece).await;
            assert_eq!(passed.unwrap(), other);
            assert!(records.is_none());
        }
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_or_turns_into_something_else_gives_no_records() {
    let whole = answer(&[event(1), event(2)]);
    let (_, records) = through(&whole[..whole.len() - 1], 40).await;
    assert!(records.is_none());
    let broken = [answer(&[event(1), event(2)]).as_slice()].concat();
    let broken = String::from_utf8(broken).unwrap().replacen("$3\r\n2-7", "$3\r\n2+7", 1);
    let (passed, records) = through(broken.as_bytes(), 40).await;
    assert!(passed.is_err() && matches!(records, Some(Err(Foreign))), "{records:?}");
}

#[tokio::test]
async fn answers_to_other_questions_pass_and_the_next_read_is_taken_again() {
    let harvest = Arc::<Harvest>::default();
    let (mut near, far) = duplex(100_000);
    let mut tap = Tap::new(far, harvest.clone());
    let mut passed = vec![0; 5];
    for number in 0..3 {
        near.write_all(b"+OK\r\n").await.unwrap();
        tap.read_exact(&mut passed).await.unwrap();
        assert_eq!(passed, b"+OK\r\n");
        harvest.expect();
        near.write_all(&answer(&[event(number)])).await.unwrap();
        tap.read_exact(&mut passed).await.unwrap();
        assert_eq!(passed, NOTHING);
        assert_eq!(harvest.take().unwrap().unwrap()[0].position.major, number);
    }
}

#[tokio::test]
async fn a_length_that_is_announced_takes_no_memory_before_its_bytes_come() {
    let harvest = Arc::<Harvest>::default();
    harvest.expect();
    let (mut near, far) = duplex(100);
    let mut tap = Tap::new(far, harvest);
    near.write_all(b"*1\r\n*2\r\n$1\r\nk\r\n*4000000000\r\n*2\r\n$3\r\n5-1\r\n*2\r\n$5\r\nevent\r\n$4000000000\r\n")
        .await
        .unwrap();
    let reading = tokio::time::timeout(std::time::Duration::from_millis(50), tap.read_u8()).await;
    assert!(reading.is_err(), "it waits for the rest");
    assert!(tap.buffer.len() <= READ_BYTES);
    assert!(tap.answer.unwrap().records.capacity() <= RECORDS_AT_FIRST);
}

proptest! {
    /// Whatever comes, nothing panics, and what is no answer of records passes unchanged.
    #[test]
    fn no_bytes_break_it(bytes in "[*$%:0-9\r\n_-]{0,60}", piece in 1..20_usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (passed, records) = runtime.block_on(through(bytes.as_bytes(), piece));
        if let (Ok(passed), None) = (passed, records) {
            prop_assert!(bytes.as_bytes().ends_with(&passed));
        }
    }
}
