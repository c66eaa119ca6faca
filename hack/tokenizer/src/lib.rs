//! HuggingFace's tokenizers for a host that shares nothing with it but linear memory: runtime/preprocess/text.
//!
//! The module imports nothing. An instance has one tokenizer and is used by one thread at a time. A function that can fail
//! returns 0, and `error` tells why; after a trap the instance is not to be used again, but for `error`. A string or a list
//! that is returned is `pointer << 32 | length`, and stands until the next call.
use std::cell::UnsafeCell;

use tokenizers::{EncodeInput, InputSequence, Tokenizer, TruncationDirection, TruncationParams, TruncationStrategy};

struct Instance {
    tokenizer: Option<Tokenizer>,
    error: Vec<u8>,
    words: Vec<u32>,
    text: Vec<u8>,
    seed: u64,
}

struct OneThread(UnsafeCell<Instance>);

// Safety: the host has one thread in an instance.
unsafe impl Sync for OneThread {}

static INSTANCE: OneThread = OneThread(UnsafeCell::new(Instance {
    tokenizer: None,
    error: Vec::new(),
    words: Vec::new(),
    text: Vec::new(),
    seed: 0,
}));

#[allow(clippy::mut_from_ref)]
fn instance() -> &'static mut Instance {
    unsafe { &mut *INSTANCE.0.get() }
}

fn packed(pointer: *const u8, length: usize) -> u64 {
    ((pointer as usize as u64) << 32) | length as u64
}

fn failed(why: impl ToString) -> u64 {
    instance().error = why.to_string().into_bytes();
    0
}

unsafe fn bytes(pointer: *const u8, length: usize) -> &'static [u8] {
    if length == 0 {
        return &[]; // an empty string may come from nowhere
    }
    std::slice::from_raw_parts(pointer, length)
}

/// Random numbers, which hash tables ask for: splitmix64 (Steele et al., doi:10.1145/2714064.2660195) from the host's seed.
#[no_mangle]
unsafe extern "Rust" fn __getrandom_v03_custom(to: *mut u8, length: usize) -> Result<(), getrandom::Error> {
    let seed = &mut instance().seed;
    for i in 0..length {
        *seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = *seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        *to.add(i) = (z ^ (z >> 31)) as u8;
    }
    Ok(())
}

/// Is called once, before all others.
#[no_mangle]
pub extern "C" fn begin(seed: u64) {
    instance().seed = seed;
    std::panic::set_hook(Box::new(|info| {
        failed(info);
    }));
}

/// Why the last call failed or trapped.
#[no_mangle]
pub extern "C" fn error() -> u64 {
    let error = &instance().error;
    packed(error.as_ptr(), error.len())
}

/// Room for so many bytes; 0 if there is none.
#[no_mangle]
pub extern "C" fn allocate(length: usize) -> *mut u8 {
    let mut room = Vec::<u8>::new();
    if room.try_reserve_exact(length).is_err() {
        return std::ptr::null_mut();
    }
    let pointer = room.as_mut_ptr();
    std::mem::forget(room);
    pointer
}

/// # Safety
/// The room is one of `allocate(length)`, and not used again.
#[no_mangle]
pub unsafe extern "C" fn release(pointer: *mut u8, length: usize) {
    drop(Vec::from_raw_parts(pointer, 0, length));
}

/// Reads a tokenizer.json. What it says of padding and truncation does not count. Returns its vocabulary's size with the
/// added tokens.
///
/// # Safety
/// The bytes are readable.
#[no_mangle]
pub unsafe extern "C" fn load(json: *const u8, length: usize) -> u64 {
    match Tokenizer::from_bytes(bytes(json, length)) {
        Ok(mut tokenizer) => {
            tokenizer.with_padding(None);
            if let Err(why) = tokenizer.with_truncation(None) {
                return failed(why);
            }
            let size = tokenizer.get_vocab_size(true) as u64;
            if size == 0 {
                return failed("an empty vocabulary");
            }
            instance().tokenizer = Some(tokenizer);
            size
        }
        Err(why) => failed(why),
    }
}

/// Cuts what is encoded from now on to so many tokens, special ones included: of a pair from the longer text, at its end or,
/// if left, its beginning. 0: not at all. Returns 1.
#[no_mangle]
pub extern "C" fn truncate(most: usize, left: u32) -> u64 {
    let Some(tokenizer) = &mut instance().tokenizer else { return failed("no tokenizer") };
    let truncation = (most > 0).then_some(TruncationParams {
        max_length: most,
        strategy: TruncationStrategy::LongestFirst,
        stride: 0,
        direction: if left == 0 { TruncationDirection::Right } else { TruncationDirection::Left },
    });
    match tokenizer.with_truncation(truncation) {
        Ok(_) => 1,
        Err(why) => failed(why),
    }
}

/// Encodes a text, or a pair of texts. Returns the number of tokens, at a list of five numbers each: its id, its type, 1 if
/// it is special, and the characters of its text that it begins and ends at.
///
/// # Safety
/// The bytes are readable.
#[no_mangle]
pub unsafe extern "C" fn encode(
    text: *const u8,
    length: usize,
    pair: *const u8,
    pair_length: usize,
    is_pair: u32,
    offsets: u32,
) -> u64 {
    let Some(tokenizer) = &instance().tokenizer else { return failed("no tokenizer") };
    let text = match std::str::from_utf8(bytes(text, length)) {
        Ok(text) => text,
        Err(why) => return failed(why),
    };
    let input: EncodeInput = if is_pair == 0 {
        EncodeInput::Single(InputSequence::from(text))
    } else {
        match std::str::from_utf8(bytes(pair, pair_length)) {
            Ok(pair) => EncodeInput::Dual(InputSequence::from(text), InputSequence::from(pair)),
            Err(why) => return failed(why),
        }
    };
    let encoding = if offsets == 0 { tokenizer.encode_fast(input, true) } else { tokenizer.encode_char_offsets(input, true) };
    match encoding {
        Ok(encoding) => {
            let words = &mut instance().words;
            words.clear();
            let n = encoding.len();
            for i in 0..n {
                let (start, end) = encoding.get_offsets()[i];
                words.extend_from_slice(&[
                    encoding.get_ids()[i],
                    encoding.get_type_ids()[i],
                    encoding.get_special_tokens_mask()[i],
                    start as u32,
                    end as u32,
                ]);
            }
            packed(words.as_ptr() as *const u8, n)
        }
        Err(why) => failed(why),
    }
}

/// One more than the id of a token, by its text; 0 if there is none.
///
/// # Safety
/// The bytes are readable.
#[no_mangle]
pub unsafe extern "C" fn token(name: *const u8, length: usize) -> u64 {
    let Some(tokenizer) = &instance().tokenizer else { return failed("no tokenizer") };
    match std::str::from_utf8(bytes(name, length)).ok().and_then(|name| tokenizer.token_to_id(name)) {
        Some(id) => u64::from(id) + 1,
        None => failed("no such token"),
    }
}

/// The text that tokens stand for, as transformers' convert_tokens_to_string makes it. Each is 4 bytes of its id and 4 of a
/// length, and so many bytes of text that stand in place of the token's own; the length is u32::MAX where none do.
///
/// # Safety
/// The bytes are readable.
#[no_mangle]
pub unsafe extern "C" fn text(tokens: *const u8, length: usize) -> u64 {
    let Some(tokenizer) = &instance().tokenizer else { return failed("no tokenizer") };
    let mut rest = bytes(tokens, length);
    let mut words = Vec::new();
    while !rest.is_empty() {
        let Some((head, tail)) = rest.split_at_checked(8) else { return failed("a token cut off") };
        let id = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        rest = tail;
        if length == u32::MAX {
            match tokenizer.id_to_token(id) {
                Some(word) => words.push(word),
                None => return failed(format!("no token {id}")),
            }
            continue;
        }
        let Some((word, tail)) = rest.split_at_checked(length as usize) else { return failed("a token cut off") };
        rest = tail;
        words.push(String::from_utf8_lossy(word).into_owned());
    }
    let joined = match tokenizer.get_decoder() {
        Some(decoder) => match tokenizers::Decoder::decode(decoder, words) {
            Ok(text) => text,
            Err(why) => return failed(why),
        },
        None => words.join(" "),
    };
    let text = &mut instance().text;
    *text = joined.into_bytes();
    packed(text.as_ptr(), text.len())
}
