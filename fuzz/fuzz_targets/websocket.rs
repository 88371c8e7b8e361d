//! What a socket brings, whole and cut into pieces: the first byte says how long a piece is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use taskcast::session::fuzzing::read_frames;

const MESSAGE_MAX_BYTES: usize = 300;

fuzz_target!(|input: &[u8]| {
    let Some((piece, bytes)) = input.split_first() else { return };
    let whole = read_frames(bytes, usize::MAX, MESSAGE_MAX_BYTES);
    let cut = read_frames(bytes, usize::from(*piece).max(1), MESSAGE_MAX_BYTES);
    assert_eq!(whole, cut);
});
