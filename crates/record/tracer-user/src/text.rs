//! Copies into a payload, without calls: the few bytes of a typical field are moved in registers.
//!
//! Strings keep LTTng's rule: text ends at a NUL that appears before its measured end, and the rest
//! is padded, so that no byte behind the text is taken for another field.

use core::arch::x86_64::{__m128i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_setzero_si128};
use core::arch::x86_64::{_mm_or_si128, _mm_storeu_si128};

/// Bytes behind the end of a copy that may be written.
pub const OVERRUN_BYTES: usize = 8;

/// Copies `count` bytes. Up to [`OVERRUN_BYTES`] behind them may be overwritten.
///
/// # Safety
/// `from` has `count` readable bytes, `to` has `count + OVERRUN_BYTES` writable ones; apart.
#[inline(always)]
pub unsafe fn copy_bytes(to: *mut u8, from: *const u8, count: usize) {
    // SAFETY: every load lies inside `count` bytes, every store inside `count + OVERRUN_BYTES`.
    unsafe {
        match count {
            // Whole words: the ring loads words, which the store buffer can then forward.
            8 => to.cast::<u64>().write_unaligned(from.cast::<u64>().read_unaligned()),
            4 => to.cast::<u64>().write_unaligned(u64::from(from.cast::<u32>().read_unaligned())),
            2 => to.cast::<u64>().write_unaligned(u64::from(from.cast::<u16>().read_unaligned())),
            1 => to.cast::<u64>().write_unaligned(u64::from(*from)),
            0 => {}
            _ => copy_any(to, from, count),
        }
    }
}

/// # Safety
/// As [`copy_bytes`].
#[inline]
unsafe fn copy_any(to: *mut u8, from: *const u8, count: usize) {
    // SAFETY: as above; halves overlap when `count` is no power of two.
    unsafe {
        if count > 32 {
            return core::ptr::copy_nonoverlapping(from, to, count);
        }
        if count >= 16 {
            let (head, tail) = (load(from), load(from.add(count - 16)));
            store(to, head);
            store(to.add(count - 16), tail);
        } else if count > 8 {
            let tail = from.add(count - 8).cast::<u64>().read_unaligned();
            to.cast::<u64>().write_unaligned(from.cast::<u64>().read_unaligned());
            to.add(count - 8).cast::<u64>().write_unaligned(tail);
        } else {
            to.cast::<u64>().write_unaligned(gather(from, count));
        }
    }
}

/// # Safety
/// 16 readable bytes.
#[inline(always)]
unsafe fn load(from: *const u8) -> __m128i {
    // SAFETY: the caller's promise.
    unsafe { _mm_loadu_si128(from.cast()) }
}

/// # Safety
/// 16 writable bytes.
#[inline(always)]
unsafe fn store(to: *mut u8, value: __m128i) {
    // SAFETY: the caller's promise.
    unsafe { _mm_storeu_si128(to.cast(), value) };
}

/// 1 to 8 bytes as a word, zeroes above.
///
/// # Safety
/// `count` readable bytes.
#[inline(always)]
unsafe fn gather(from: *const u8, count: usize) -> u64 {
    // SAFETY: each load lies inside `count` bytes.
    unsafe {
        if count == 8 {
            return from.cast::<u64>().read_unaligned();
        }
        if count >= 4 {
            let low = u64::from(from.cast::<u32>().read_unaligned());
            let high = u64::from(from.add(count - 4).cast::<u32>().read_unaligned());
            return low | high << (8 * (count - 4));
        }
        let (first, middle, last) = (*from, *from.add(count / 2), *from.add(count - 1));
        u64::from(first) | u64::from(middle) << (8 * (count / 2)) | u64::from(last) << (8 * (count - 1))
    }
}

const ONES: u64 = 0x0101_0101_0101_0101;

#[inline(always)]
fn has_zero(word: u64) -> bool {
    word.wrapping_sub(ONES) & !word & (ONES << 7) != 0
}

/// Copies `count` bytes of text; from a NUL among them on, `padding` takes their place. What is
/// overwritten behind them becomes zero.
///
/// # Safety
/// As [`copy_bytes`].
#[inline(always)]
pub unsafe fn copy_text(to: *mut u8, from: *const u8, count: usize, padding: u8) {
    // SAFETY: as in `copy_any`.
    let ends_early = unsafe {
        if count > 32 {
            copy_long(to, from, count)
        } else if count >= 16 {
            let (head, tail) = (load(from), load(from.add(count - 16)));
            store(to, head);
            store(to.add(count - 16), tail);
            let zero = _mm_setzero_si128();
            let found = _mm_or_si128(_mm_cmpeq_epi8(head, zero), _mm_cmpeq_epi8(tail, zero));
            _mm_movemask_epi8(found) != 0
        } else if count >= 8 {
            let head = from.cast::<u64>().read_unaligned();
            let tail = from.add(count - 8).cast::<u64>().read_unaligned();
            to.cast::<u64>().write_unaligned(head);
            to.add(count - 8).cast::<u64>().write_unaligned(tail);
            has_zero(head) || has_zero(tail)
        } else if count > 0 {
            let word = gather(from, count);
            to.cast::<u64>().write_unaligned(word);
            has_zero(word | u64::MAX << (8 * count))
        } else {
            false
        }
    };
    if ends_early {
        // SAFETY: passed on.
        unsafe { pad(to, count, padding) };
    }
}

/// Returns whether a NUL was among the bytes.
///
/// # Safety
/// As [`copy_bytes`], `count` at least 16.
#[inline(never)]
unsafe fn copy_long(to: *mut u8, from: *const u8, count: usize) -> bool {
    // SAFETY: whole chunks below `count`, then one that ends at `count`.
    unsafe {
        let zero = _mm_setzero_si128();
        let tail = load(from.add(count - 16));
        let mut found = _mm_cmpeq_epi8(tail, zero);
        let mut at = 0;
        while at + 16 < count {
            let chunk = load(from.add(at));
            store(to.add(at), chunk);
            found = _mm_or_si128(found, _mm_cmpeq_epi8(chunk, zero));
            at += 16;
        }
        store(to.add(count - 16), tail);
        _mm_movemask_epi8(found) != 0
    }
}

/// # Safety
/// `count` writable bytes, initialised.
#[cold]
#[inline(never)]
unsafe fn pad(to: *mut u8, count: usize, padding: u8) {
    // SAFETY: the caller's promise.
    let copied = unsafe { core::slice::from_raw_parts_mut(to, count) };
    if let Some(end) = copied.iter().position(|b| *b == 0) {
        copied[end..].fill(padding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    extern crate std;
    use std::vec;
    use std::vec::Vec;

    fn text(from: &[u8], padding: u8) -> Vec<u8> {
        let mut to = vec![0xee; from.len() + OVERRUN_BYTES];
        // SAFETY: `to` is as long as asked for.
        unsafe { copy_text(to.as_mut_ptr(), from.as_ptr(), from.len(), padding) };
        to.truncate(from.len());
        to
    }

    #[test]
    fn every_length_is_copied_and_ends_at_each_possible_nul() {
        for count in 0..100 {
            let from: Vec<u8> = (0..count).map(|i| 1 + i as u8).collect();
            assert_eq!(text(&from, b'#'), from);
            let mut to = vec![0; count + OVERRUN_BYTES];
            // SAFETY: as above.
            unsafe { copy_bytes(to.as_mut_ptr(), from.as_ptr(), count) };
            assert_eq!(to[..count], from);
            for nul in 0..count {
                let mut cut = from.clone();
                cut[nul] = 0;
                let mut want = from.clone();
                want[nul..].fill(b'#');
                assert_eq!(text(&cut, b'#'), want, "{count} bytes with a NUL at {nul}");
            }
        }
    }
}
