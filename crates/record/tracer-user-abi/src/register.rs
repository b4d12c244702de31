//! Registration of providers, of modules with call sites, and of probes that programs bring
//! themselves; the library's constructor.

use crate::layout::{EventDesc, ProbeDesc};
use crate::{describe, log, memory, recorder, urcu};
use alloc::alloc::{Layout, alloc, dealloc};
use core::arch::asm;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};
use sillage_tracer_user::listener::{self, Wait};
use sillage_tracer_user::registry::{self, Binder, ManualNode, ModuleNode, ProviderNode};
use sillage_tracer_user::site::{Probe, Site, bytes};
use sillage_tracer_user::{fork, start};

/// Provider versions that we understand.
const MAJORS: core::ops::RangeInclusive<u32> = 3..=4;
/// A module that was opened by this name alone has call sites and perhaps no provider.
const CALL_SITES_ONLY: &[u8] = b"liblttng-ust-tracepoint.so";

/// Programs refer to it to make sure that the library is linked.
#[unsafe(no_mangle)]
pub static lttng_ust_loaded: AtomicU32 = AtomicU32::new(1);

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = construct;

static CONSTRUCTED: AtomicU32 = AtomicU32::new(0);

extern "C" fn construct() {
    if CONSTRUCTED.swap(1, Ordering::SeqCst) != 0 {
        return;
    }
    fork::set_allocator_hooks(memory::hold, memory::release);
    start::init();
    urcu::connect();
    // SAFETY: a function without arguments; ours, or the malloc wrapper's under the same name, which
    // the dynamic linker put into our table.
    unsafe {
        asm!("call qword ptr [rip + lttng_ust_libc_wrapper_malloc_ctor@GOTPCREL]", clobber_abi("C"),);
    }
    log::register();
    if !is_for_call_sites() {
        listener::announce(Wait::Daemons);
    }
}

/// The malloc wrapper has its own, which takes the place of this one.
#[unsafe(no_mangle)]
pub extern "C" fn lttng_ust_libc_wrapper_malloc_ctor() {}

/// Helpers that come before us may want the tracer set up.
#[unsafe(no_mangle)]
pub extern "C" fn lttng_ust_common_ctor() {
    construct();
}

/// True if a module opened the library for its call sites: without a provider there is nothing to record.
fn is_for_call_sites() -> bool {
    // SAFETY: dladdr fills the structure; the name is a C string of the loader's.
    unsafe {
        let mut info: libc::Dl_info = core::mem::zeroed();
        let found = libc::dladdr((&raw const CONSTRUCTED).cast(), &mut info) != 0;
        if !found || info.dli_fname.is_null() {
            return false;
        }
        let name = CStr::from_ptr(info.dli_fname).to_bytes();
        let file = name.rsplit(|b| *b == b'/').next().unwrap_or(name);
        file.starts_with(CALL_SITES_ONLY)
    }
}

/// Memory for a node, without failing when there is none.
fn node<T>(value: T) -> Option<&'static mut T> {
    // SAFETY: nodes have a size; the block is filled before it is referred to.
    unsafe {
        let at = NonNull::new(alloc(Layout::new::<T>()).cast::<T>())?;
        at.write(value);
        Some(&mut *at.as_ptr())
    }
}

/// # Safety
/// `node` made it, and nothing refers to it any more.
unsafe fn free_node<T>(at: NonNull<T>) {
    // SAFETY: the caller's promise.
    unsafe { dealloc(at.as_ptr().cast(), Layout::new::<T>()) };
}

/// The handle of providers that cannot be recorded. (Null would make the program abort.)
static REFUSED: ProviderNode = ProviderNode::new(core::ptr::null(), describe_nothing, &recorder::BINDER);

unsafe fn describe_nothing(_: *const c_void, _: &mut dyn FnMut(registry::Described<'_>)) {}

/// Registers a provider; waits for the daemons' answer.
///
/// # Safety
/// `desc` and what it leads to stay valid until [`lttng_ust_probe_unregister`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lttng_ust_probe_register(desc: *const ProbeDesc) -> *const ProviderNode {
    construct();
    // SAFETY: the caller's promise.
    let major = unsafe { (*desc).major };
    let binder: &'static Binder = &recorder::BINDER;
    let made = MAJORS
        .contains(&major)
        .then(|| node(ProviderNode::new(desc.cast(), describe::describe, binder)))
        .flatten();
    let Some(provider) = made else { return &raw const REFUSED };
    let provider: &'static ProviderNode = provider;
    // SAFETY: the caller's promise.
    unsafe { registry::add_provider(provider) };
    listener::announce(Wait::Daemons);
    provider
}

/// Removes a provider; afterwards no thread runs in its probes.
///
/// # Safety
/// `handle` came from [`lttng_ust_probe_register`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lttng_ust_probe_unregister(handle: *const ProviderNode) {
    if handle.is_null() || core::ptr::eq(handle, &raw const REFUSED) {
        return;
    }
    // SAFETY: the caller's promise.
    registry::remove_provider(unsafe { &*handle });
    listener::announce(Wait::No);
    if let Some(node) = NonNull::new(handle.cast_mut()) {
        // SAFETY: it is out of the registry.
        unsafe { free_node(node) };
    }
}

/// Registers a module's call sites.
///
/// # Safety
/// The array and the sites stay valid until [`lttng_ust_tracepoint_module_unregister`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lttng_ust_tracepoint_module_register(
    sites: *const *const Site,
    count: c_int,
) -> c_int {
    construct();
    let Some(module) = node(ModuleNode::new(sites, usize::try_from(count).unwrap_or(0))) else {
        return -libc::ENOMEM;
    };
    // SAFETY: the caller's promise.
    unsafe { registry::add_module(module) };
    0
}

/// Removes a module's call sites.
///
/// # Safety
/// They were registered.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lttng_ust_tracepoint_module_unregister(sites: *const *const Site) -> c_int {
    if let Some(node) = registry::remove_module(sites) {
        // SAFETY: it is out of the registry.
        unsafe { free_node(node) };
    }
    0
}

/// Registers a probe of the program's own with all sites of an event.
///
/// # Safety
/// The strings stay valid, and the function has the type that the sites call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lttng_ust_tracepoint_provider_register(
    provider: *const c_char,
    event: *const c_char,
    function: *const c_void,
    data: *mut c_void,
    signature: *const c_char,
) -> c_int {
    construct();
    if provider.is_null() || event.is_null() || function.is_null() {
        return -libc::EINVAL;
    }
    let Some(manual) = node(ManualNode::new([provider, event, signature], Probe { function, data })) else {
        return -libc::ENOMEM;
    };
    // SAFETY: the caller's promise.
    unsafe { registry::add_manual(NonNull::from(manual)) };
    listener::announce(Wait::Listener);
    0
}

/// Removes such a probe; afterwards no thread runs in it.
///
/// # Safety
/// The strings are valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lttng_ust_tracepoint_provider_unregister(
    provider: *const c_char,
    event: *const c_char,
    function: *const c_void,
    data: *mut c_void,
) -> c_int {
    // SAFETY: the caller's promise.
    let (provider, event) = unsafe { (bytes(provider), bytes(event)) };
    let Some(node) = registry::remove_manual(provider, event, Probe { function, data }) else {
        return -libc::ENOENT;
    };
    listener::announce(Wait::Listener);
    sillage_tracer_user::rcu::wait_for_readers(u64::MAX);
    // SAFETY: it is out of the registry, and the listener has seen that.
    unsafe { free_node(node) };
    0
}

/// The batched form of registration: the same here.
///
/// # Safety
/// As [`lttng_ust_tracepoint_provider_register`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lttng_ust_tp_probe_register_queue_release(
    provider: *const c_char,
    event: *const c_char,
    function: *const c_void,
    data: *mut c_void,
    signature: *const c_char,
) -> c_int {
    // SAFETY: passed on.
    unsafe { lttng_ust_tracepoint_provider_register(provider, event, function, data, signature) }
}

/// The batched form of removal: the same here.
///
/// # Safety
/// As [`lttng_ust_tracepoint_provider_unregister`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lttng_ust_tp_probe_unregister_queue_release(
    provider: *const c_char,
    event: *const c_char,
    function: *const c_void,
    data: *mut c_void,
) -> c_int {
    // SAFETY: passed on.
    unsafe { lttng_ust_tracepoint_provider_unregister(provider, event, function, data) }
}

/// Nothing is queued here.
#[unsafe(no_mangle)]
pub extern "C" fn lttng_ust_tp_probe_prune_release_queue() {}

static DESTRUCTORS: AtomicU32 = AtomicU32::new(1);

/// The program wants its modules' destructors to leave the library alone.
#[unsafe(no_mangle)]
pub extern "C" fn lttng_ust_tp_disable_destructors() {
    DESTRUCTORS.store(0, Ordering::SeqCst);
}

/// Not 0: modules' destructors may close the library.
#[unsafe(no_mangle)]
pub extern "C" fn lttng_ust_tp_get_destructors_state() -> c_int {
    DESTRUCTORS.load(Ordering::SeqCst) as c_int
}

/// The first function of the ABI of liblttng-ust.so.0: refused.
#[unsafe(no_mangle)]
pub extern "C" fn tracepoint_register_lib(_: *const *const EventDesc, _: c_int) -> c_int {
    -libc::ENOSYS
}
