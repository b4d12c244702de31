//! Iterating allocates per packet and per file, never per event. Alone in its file, because the
//! allocator is the whole process's.

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sillage_ctf::model::Scope;
use sillage_ctf::{FieldVisitor, Message, Node};
use sillage_pipeline::{Messages, Status};

struct Counting;

static COUNT: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes on to the system's allocator unchanged, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the caller of `alloc` upholds the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller of `dealloc` upholds the same contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[derive(Default)]
struct Sum(u64);

impl FieldVisitor for Sum {
    fn unsigned(&mut self, _: &Node, value: u64) {
        self.0 = self.0.wrapping_add(value);
    }
    fn text(&mut self, _: &Node, value: &[u8]) {
        self.0 = self.0.wrapping_add(value.len() as u64);
    }
}

#[test]
fn no_allocation_per_event() {
    let shared = std::env::var_os("SILLAGE_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../shared"), PathBuf::from);
    for (name, packets) in [("tc-memory", 14), ("tc-many-threads", 40)] {
        let path = shared.join("traces").join(name).join("trace");
        if !path.is_dir() {
            eprintln!("SKIPPED: {} is missing", path.display());
            return;
        }
        let source = sillage_pipeline::open(&path).unwrap();
        let mut messages = source.messages();
        let (mut events, mut sum) = (0u64, Sum::default());
        let before = COUNT.load(Ordering::SeqCst);
        while messages.advance().unwrap() == Status::Ready {
            if let Some(Message::Event(event)) = messages.current() {
                events += 1;
                event.visit(Scope::CommonContext, &mut sum);
                event.visit(Scope::Payload, &mut sum);
                // The table of random access uses the same memory again and again.
                if let Some(payload) = event.payload() {
                    sum.0 = sum.0.wrapping_add(payload.children().count() as u64);
                }
            }
        }
        let count = COUNT.load(Ordering::SeqCst) - before;
        assert!(events > 200_000 && sum.0 != 0);
        assert!(count < 40 * packets + 2000, "{name}: {count} allocations for {events} events");
    }
}
