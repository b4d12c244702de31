//! The library's own memory: power-of-two blocks from mapped chunks, larger ones mapped by
//! themselves. Never the host's `malloc`, which may be traced. Used on slow paths alone.

use alloc::alloc::{GlobalAlloc, Layout};
use sillage_tracer_user::lock::Lock;
use sillage_tracer_user::sys;

/// Smallest block, log2.
const SHIFT_MIN: u32 = 5;
/// Largest block from a chunk, log2.
const SHIFT_MAX: u32 = 14;
/// Bytes of a chunk.
const CHUNK_BYTES: usize = 128 * 1024;
const PAGE_BYTES: usize = 4096;

struct Free {
    next: *mut Free,
}

struct Heap {
    /// Free blocks of each size.
    free: [*mut Free; (SHIFT_MAX - SHIFT_MIN + 1) as usize],
    /// Rest of the newest chunk.
    at: usize,
    end: usize,
}

// SAFETY: the memory that the addresses lead to is the heap's own.
unsafe impl Send for Heap {}

static HEAP: Lock<Heap> =
    Lock::new(Heap { free: [core::ptr::null_mut(); (SHIFT_MAX - SHIFT_MIN + 1) as usize], at: 0, end: 0 });

/// Before a fork.
pub(crate) fn hold() {
    HEAP.hold();
}

/// After it, in the parent and in the child.
pub(crate) fn release() {
    // SAFETY: `hold` ran before the fork.
    unsafe { HEAP.release() };
}

struct Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// log2 of the block for a layout; None: it is mapped by itself.
fn shift(layout: Layout) -> Option<u32> {
    let bytes = layout.size().max(layout.align()).max(1 << SHIFT_MIN).next_power_of_two();
    let shift = bytes.trailing_zeros();
    (shift <= SHIFT_MAX).then_some(shift)
}

impl Heap {
    fn take(&mut self, shift: u32) -> *mut u8 {
        let list = &mut self.free[(shift - SHIFT_MIN) as usize];
        if !list.is_null() {
            let block = *list;
            // SAFETY: blocks in the list are free and hold the next one's address.
            *list = unsafe { (*block).next };
            return block.cast();
        }
        let bytes = 1usize << shift;
        let at = self.at.next_multiple_of(bytes);
        if at + bytes <= self.end {
            self.at = at + bytes;
            return at as *mut u8;
        }
        let Some(chunk) = sys::map_private(CHUNK_BYTES, sys::Wipe::Never) else {
            return core::ptr::null_mut();
        };
        // The chunk's start is aligned to a page, and larger blocks find their place inside it.
        let at = (chunk as usize).next_multiple_of(bytes);
        (self.at, self.end) = (at + bytes, chunk as usize + CHUNK_BYTES);
        at as *mut u8
    }
}

// SAFETY: blocks are disjoint, at least as large and aligned as asked for, and stay until freed.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match shift(layout) {
            Some(shift) => HEAP.lock().map_or(core::ptr::null_mut(), |mut heap| heap.take(shift)),
            None if layout.align() > PAGE_BYTES => core::ptr::null_mut(),
            None => sys::map_private(layout.size(), sys::Wipe::Never).unwrap_or(core::ptr::null_mut()),
        }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        match shift(layout) {
            Some(shift) => {
                if let Some(mut heap) = HEAP.lock() {
                    let list = &mut heap.free[(shift - SHIFT_MIN) as usize];
                    let block = at.cast::<Free>();
                    // SAFETY: the caller gives a block of this size back.
                    unsafe { block.write(Free { next: *list }) };
                    *list = block;
                }
            }
            None => sys::unmap(at, layout.size()),
        }
    }
}
