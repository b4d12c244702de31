//! What the program can record, and what it records now.
//!
//! Modules bring call sites, providers bring events; they come and go in any order. A *group* is
//! what belongs together by names and signature: its sites all have the same probes. An *entry* is
//! one event of one provider, under the number by which the daemons know it; its *bindings* are the
//! channels that record it.
//!
//! Program threads add and remove nodes of their own memory and allocate nothing here; the listener
//! does the rest ([`Registry::digest`], [`Registry::declare`]). What readers may still look at goes
//! to the garbage and is freed a grace period later.

use crate::channel::{Channel, Recorder};
use crate::lock::{Guard, Lock};
use crate::site::{Key, Probe, Site};
use crate::{rcu, thread};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::Cell;
use core::ffi::c_void;
use core::ptr::NonNull;
use sillage_model::Tracepoint;
use sillage_model::limits::{FIELDS_MAX, NAME_BYTES_MAX, TRACEPOINTS_MAX};
use sillage_protocol::program::EnabledEvent;

/// How a provider's events become probes.
pub struct Binder {
    /// A probe that records the provider's `event` with `recorder`. None: no memory.
    pub bind: unsafe fn(event: *const c_void, recorder: Recorder) -> Option<Probe>,
    /// Frees what `bind` made; no reader uses it any more.
    pub unbind: unsafe fn(probe: Probe),
}

/// One event as its provider describes it.
pub struct Described<'a> {
    /// What `bind` gets.
    pub event: *const c_void,
    /// Provider's name.
    pub provider: &'a [u8],
    /// Event's name.
    pub name: &'a [u8],
    /// Must equal that of the sites.
    pub signature: &'a [u8],
    /// What the daemon is told.
    pub tracepoint: Tracepoint,
}

/// Describes the events that it finds at its context.
pub type Describe = unsafe fn(context: *const c_void, take: &mut dyn FnMut(Described<'_>));

/// A provider: somebody who can describe events.
pub struct ProviderNode {
    next: Cell<Option<NonNull<ProviderNode>>>,
    context: *const c_void,
    describe: Describe,
    binder: &'static Binder,
    described: Cell<bool>,
}

// SAFETY: the cells are used with the registry locked.
unsafe impl Sync for ProviderNode {}

impl ProviderNode {
    /// A provider whose events `describe` tells from `context`.
    pub const fn new(context: *const c_void, describe: Describe, binder: &'static Binder) -> ProviderNode {
        ProviderNode { next: Cell::new(None), context, describe, binder, described: Cell::new(false) }
    }
}

/// A module: somebody with call sites.
pub struct ModuleNode {
    next: Cell<Option<NonNull<ModuleNode>>>,
    sites: *const *const Site,
    count: usize,
    indexed: Cell<bool>,
}

// SAFETY: as for `ProviderNode`.
unsafe impl Sync for ModuleNode {}

impl ModuleNode {
    /// The `count` sites whose addresses lie at `sites`.
    pub const fn new(sites: *const *const Site, count: usize) -> ModuleNode {
        ModuleNode { next: Cell::new(None), sites, count, indexed: Cell::new(false) }
    }

    fn each(&self, mut take: impl FnMut(&'static Site)) {
        for i in 0..self.count {
            // SAFETY: who registered the module promised `count` addresses of sites, valid until it
            // is removed; entries may be null.
            if let Some(site) = unsafe { (*self.sites.add(i)).as_ref() } {
                take(site);
            }
        }
    }
}

/// A probe that the program brings itself.
pub struct ManualNode {
    next: Cell<Option<NonNull<ManualNode>>>,
    names: [*const core::ffi::c_char; 3],
    probe: Probe,
    indexed: Cell<bool>,
}

impl ManualNode {
    /// A probe for the event `names[0]`:`names[1]` with the signature `names[2]`.
    pub const fn new(names: [*const core::ffi::c_char; 3], probe: Probe) -> ManualNode {
        ManualNode { next: Cell::new(None), names, probe, indexed: Cell::new(false) }
    }
}

struct Group {
    provider: Box<[u8]>,
    event: Box<[u8]>,
    signature: Box<[u8]>,
    sites: Vec<&'static Site>,
    entries: Vec<u32>,
    manual: Vec<Probe>,
    /// Published now; empty when nobody records.
    probes: Box<[Probe]>,
    dirty: bool,
}

impl Group {
    fn key(&self) -> Key<'_> {
        Key { provider: &self.provider, event: &self.event, signature: &self.signature }
    }

    fn published(&self) -> *mut Probe {
        if self.probes.is_empty() { core::ptr::null_mut() } else { self.probes.as_ptr().cast_mut() }
    }

    fn publish(&self) {
        let probes = self.published();
        self.sites.iter().for_each(|site| site.publish(probes));
    }
}

struct Entry {
    group: usize,
    event: *const c_void,
    binder: &'static Binder,
    provider: *const ProviderNode,
    tracepoint: Tracepoint,
    bindings: Vec<Binding>,
    gone: bool,
}

struct Binding {
    /// The listener's key of the channel.
    channel_key: u64,
    event_id: u32,
    channel: Arc<Channel>,
    probe: Probe,
}

/// What readers may still look at.
#[derive(Default)]
pub(crate) struct Garbage {
    arrays: Vec<Box<[Probe]>>,
    probes: Vec<(&'static Binder, Probe)>,
    channels: Vec<Arc<Channel>>,
}

impl Garbage {
    /// Frees everything.
    ///
    /// # Safety
    /// A grace period has passed since the garbage was taken.
    pub(crate) unsafe fn free(self) {
        if thread::some_without_memory() {
            // Such threads take part in no grace period.
            return core::mem::forget(self);
        }
        for (binder, probe) in self.probes {
            // SAFETY: made by this binder, unpublished, and no reader is left.
            unsafe { (binder.unbind)(probe) };
        }
    }

    /// True if there is nothing to free.
    pub(crate) fn is_empty(&self) -> bool {
        self.arrays.is_empty() && self.probes.is_empty() && self.channels.is_empty()
    }

    /// Adds what could not be freed yet.
    pub(crate) fn merge(&mut self, mut other: Garbage) {
        self.arrays.append(&mut other.arrays);
        self.probes.append(&mut other.probes);
        self.channels.append(&mut other.channels);
    }

    pub(crate) fn keep(&mut self, channel: Arc<Channel>) {
        self.channels.push(channel);
    }
}

/// Everything, under one lock.
pub(crate) struct Registry {
    modules: Option<NonNull<ModuleNode>>,
    providers: Option<NonNull<ProviderNode>>,
    manual: Option<NonNull<ManualNode>>,
    groups: Vec<Group>,
    by_name: BTreeMap<u64, Vec<usize>>,
    entries: BTreeMap<u32, Entry>,
    next_index: u32,
    /// Some entries are gone and were not taken out yet.
    some_gone: bool,
    pub(crate) garbage: Garbage,
}

// SAFETY: nodes and sites outlive their registration, and are used with the lock held.
unsafe impl Send for Registry {}

static REGISTRY: Lock<Registry> = Lock::new(Registry {
    modules: None,
    providers: None,
    manual: None,
    groups: Vec::new(),
    by_name: BTreeMap::new(),
    entries: BTreeMap::new(),
    next_index: 0,
    some_gone: false,
    garbage: Garbage { arrays: Vec::new(), probes: Vec::new(), channels: Vec::new() },
});

/// The registry, locked. None: the tracer is dead.
pub(crate) fn lock() -> Option<Guard<'static, Registry>> {
    REGISTRY.lock()
}

/// Before a fork.
pub(crate) fn hold() {
    REGISTRY.hold();
}

/// After a fork, in the parent and in the child.
///
/// # Safety
/// This thread, or its parent, called `hold` before the fork.
pub(crate) unsafe fn release() {
    // SAFETY: passed on.
    unsafe { REGISTRY.release() };
}

/// True while somebody holds the registry.
pub(crate) fn is_held() -> bool {
    REGISTRY.is_held()
}

/// True if nothing was ever registered.
pub(crate) fn is_empty() -> bool {
    lock().is_none_or(|r| r.modules.is_none() && r.providers.is_none())
}

/// In a forked child: locked rings are not mapped here.
pub(crate) fn without_locked_channels() {
    if let Some(mut registry) = lock() {
        registry.unbind(|binding| binding.channel.is_locked());
        registry.rebuild();
    }
}

/// Adds a module; its sites record at once what is enabled already.
///
/// # Safety
/// The node, the array and the sites stay valid until [`remove_module`].
pub unsafe fn add_module(node: &'static ModuleNode) {
    let Some(mut registry) = lock() else { return };
    node.next.set(registry.modules);
    registry.modules = Some(NonNull::from(node));
    node.each(|site| {
        // SAFETY: the caller's promise.
        let found = registry.find(unsafe { site.key() });
        if let Some(group) = found.map(|g| &registry.groups[g]).filter(|g| !g.probes.is_empty()) {
            site.publish(group.published());
        }
    });
}

/// Removes the module whose array is at `sites`; returns its node.
pub fn remove_module(sites: *const *const Site) -> Option<NonNull<ModuleNode>> {
    let mut registry = lock()?;
    let node = take(&mut registry.modules, |n| n.sites == sites, |n| &n.next)?;
    // SAFETY: nodes stay valid until they are removed, which is now.
    let module = unsafe { node.as_ref() };
    module.each(|site| {
        // SAFETY: the module's strings are still there.
        if let Some(group) = registry.find(unsafe { site.key() }) {
            registry.groups[group].sites.retain(|s| !core::ptr::eq(*s, site));
        }
        site.publish(core::ptr::null_mut());
    });
    Some(node)
}

/// Adds a provider; the listener must be told.
///
/// # Safety
/// The node and what it describes stay valid until [`remove_provider`].
pub unsafe fn add_provider(node: &'static ProviderNode) {
    let Some(mut registry) = lock() else { return };
    node.next.set(registry.providers);
    registry.providers = Some(NonNull::from(node));
}

/// How long the removal of a provider waits for threads in its probes, ns: a thread that left one by
/// `siglongjmp` and never traces again, or that a debugger holds, must not keep a program from ending.
const REMOVAL_PATIENCE_NS: u64 = 3_000_000_000;

/// Removes a provider. When it returns, no thread runs in its probes any more (none that moved in
/// the last three seconds).
pub fn remove_provider(node: &ProviderNode) {
    let was_bound = {
        let Some(mut registry) = lock() else { return };
        let same = |n: &ProviderNode| core::ptr::eq(n, node);
        if take(&mut registry.providers, same, |n| &n.next).is_none() {
            return;
        }
        registry.disable_entries_of(node)
    };
    if was_bound {
        rcu::wait_for_readers(REMOVAL_PATIENCE_NS);
    }
}

/// Adds a probe of the program's own; the listener must be told.
///
/// # Safety
/// The node and its names stay valid until [`remove_manual`], the probe's function has the type
/// that the sites call.
pub unsafe fn add_manual(node: NonNull<ManualNode>) {
    let Some(mut registry) = lock() else { return };
    // SAFETY: the caller's promise.
    unsafe { node.as_ref() }.next.set(registry.manual);
    registry.manual = Some(node);
}

/// Removes a probe of the program's own; returns its node. The listener must be told.
pub fn remove_manual(provider: &[u8], event: &[u8], probe: Probe) -> Option<NonNull<ManualNode>> {
    let mut registry = lock()?;
    let same = |n: &ManualNode| {
        // SAFETY: the node's names are valid while it is registered.
        let names = n.names.map(|name| unsafe { crate::site::bytes(name) });
        names[0] == provider
            && names[1] == event
            && n.probe.function == probe.function
            && n.probe.data == probe.data
    };
    let node = take(&mut registry.manual, same, |n| &n.next)?;
    let equal = |p: &Probe| p.function == probe.function && p.data == probe.data;
    for group in &mut registry.groups {
        if *group.provider == *provider
            && *group.event == *event
            && let Some(at) = group.manual.iter().position(equal)
        {
            group.manual.remove(at);
            group.dirty = true;
        }
    }
    Some(node)
}

/// Takes the first node that `same` accepts out of a list.
fn take<T>(
    first: &mut Option<NonNull<T>>,
    same: impl Fn(&T) -> bool,
    next: impl Fn(&T) -> &Cell<Option<NonNull<T>>>,
) -> Option<NonNull<T>> {
    let mut previous: Option<NonNull<T>> = None;
    let mut at = *first;
    while let Some(node) = at {
        // SAFETY: nodes in the list are valid (promise of those who added them).
        let this = unsafe { node.as_ref() };
        let after = next(this).get();
        if same(this) {
            match previous {
                // SAFETY: as above.
                Some(previous) => next(unsafe { previous.as_ref() }).set(after),
                None => *first = after,
            }
            return Some(node);
        }
        previous = at;
        at = after;
    }
    None
}

impl Registry {
    fn find(&self, key: Key<'_>) -> Option<usize> {
        let groups = self.by_name.get(&key.hash())?;
        groups.iter().copied().find(|g| self.groups[*g].key() == key)
    }

    fn group(&mut self, key: Key<'_>) -> usize {
        if let Some(group) = self.find(key) {
            return group;
        }
        self.groups.push(Group {
            provider: key.provider.into(),
            event: key.event.into(),
            signature: key.signature.into(),
            sites: Vec::new(),
            entries: Vec::new(),
            manual: Vec::new(),
            probes: Box::new([]),
            dirty: false,
        });
        self.by_name.entry(key.hash()).or_default().push(self.groups.len() - 1);
        self.groups.len() - 1
    }

    /// Switches off what the provider's entries record; true if a reader may have seen it.
    fn disable_entries_of(&mut self, node: &ProviderNode) -> bool {
        let mut was_bound = false;
        for entry in self.entries.values_mut().filter(|e| core::ptr::eq(e.provider, node) && !e.gone) {
            entry.gone = true;
            self.some_gone = true;
            let group = &mut self.groups[entry.group];
            was_bound |= !entry.bindings.is_empty() || !group.probes.is_empty();
            group.sites.iter().for_each(|site| site.publish(core::ptr::null_mut()));
            group.dirty = true;
        }
        if was_bound {
            self.silence_new_modules();
        }
        was_bound
    }

    /// Sites that the listener has not seen yet wait for it, disabled.
    fn silence_new_modules(&self) {
        let mut at = self.modules;
        while let Some(node) = at {
            // SAFETY: nodes in the list are valid.
            let module = unsafe { node.as_ref() };
            at = module.next.get();
            if !module.indexed.get() {
                module.each(|site| site.publish(core::ptr::null_mut()));
            }
        }
    }

    /// The listener's part of every registration: sites into groups, events into entries, what is gone out
    /// of both. Returns the numbers of entries that are gone.
    pub(crate) fn digest(&mut self) -> Vec<u32> {
        let gone = self.take_out_gone();
        self.index_modules();
        self.index_manual();
        self.describe_providers();
        self.rebuild();
        gone
    }

    fn take_out_gone(&mut self) -> Vec<u32> {
        if !core::mem::take(&mut self.some_gone) {
            return Vec::new();
        }
        let gone: Vec<u32> = self.entries.iter().filter(|(_, e)| e.gone).map(|(i, _)| *i).collect();
        for index in &gone {
            if let Some(entry) = self.entries.remove(index) {
                self.groups[entry.group].entries.retain(|e| e != index);
                self.groups[entry.group].dirty = true;
                for binding in entry.bindings {
                    self.garbage.probes.push((entry.binder, binding.probe));
                    self.garbage.channels.push(binding.channel);
                }
            }
        }
        gone
    }

    fn index_modules(&mut self) {
        let mut at = self.modules;
        while let Some(node) = at {
            // SAFETY: nodes in the list are valid.
            let module = unsafe { node.as_ref() };
            at = module.next.get();
            if module.indexed.replace(true) {
                continue;
            }
            module.each(|site| {
                // SAFETY: the module is registered, so its strings are there.
                let group = self.group(unsafe { site.key() });
                self.groups[group].sites.push(site);
                site.publish(self.groups[group].published());
            });
        }
    }

    fn index_manual(&mut self) {
        let mut at = self.manual;
        while let Some(node) = at {
            // SAFETY: nodes in the list are valid.
            let manual = unsafe { node.as_ref() };
            at = manual.next.get();
            if manual.indexed.replace(true) {
                continue;
            }
            // SAFETY: its names are valid while it is registered.
            let [provider, event, signature] = manual.names.map(|n| unsafe { crate::site::bytes(n) });
            let group = self.group(Key { provider, event, signature });
            self.groups[group].manual.push(manual.probe);
            self.groups[group].dirty = true;
        }
    }

    fn describe_providers(&mut self) {
        let mut at = self.providers;
        while let Some(node) = at {
            // SAFETY: nodes in the list are valid.
            let provider = unsafe { node.as_ref() };
            at = provider.next.get();
            if provider.described.replace(true) {
                continue;
            }
            // SAFETY: what the node describes is valid while it is registered.
            unsafe { (provider.describe)(provider.context, &mut |event| self.add_entry(provider, event)) };
        }
    }

    fn add_entry(&mut self, provider: &ProviderNode, event: Described<'_>) {
        let t = &event.tracepoint;
        let name_fits = t.name.len() <= 2 * NAME_BYTES_MAX;
        let fields_fit =
            t.fields.len() <= FIELDS_MAX && t.fields.iter().all(|f| f.name.len() <= NAME_BYTES_MAX);
        if !name_fits || !fields_fit || self.entries.len() >= TRACEPOINTS_MAX {
            crate::settings::say(format_args!("{} exceeds a limit and cannot be recorded", t.name));
            return;
        }
        let key = Key { provider: event.provider, event: event.name, signature: event.signature };
        let group = self.group(key);
        let index = self.next_index;
        self.next_index += 1;
        self.groups[group].entries.push(index);
        self.entries.insert(
            index,
            Entry {
                group,
                event: event.event,
                binder: provider.binder,
                provider,
                tracepoint: event.tracepoint,
                bindings: Vec::new(),
                gone: false,
            },
        );
    }

    /// The entries from number `first` on.
    pub(crate) fn entries_from(&self, first: u32) -> impl Iterator<Item = (u32, &Tracepoint)> {
        self.entries.range(first..).filter(|(_, e)| !e.gone).map(|(i, e)| (*i, &e.tracepoint))
    }

    /// The number that the next entry will get.
    pub(crate) fn next_index(&self) -> u32 {
        self.next_index
    }

    /// The channel with this key records exactly `events` from now on.
    pub(crate) fn declare(&mut self, channel_key: u64, channel: &Arc<Channel>, events: &[EnabledEvent]) {
        let wanted: BTreeMap<u32, u32> = events.iter().map(|e| (e.index, e.event_id)).collect();
        self.unbind_where(|index, binding| {
            binding.channel_key == channel_key
                && !(Arc::ptr_eq(&binding.channel, channel) && wanted.get(&index) == Some(&binding.event_id))
        });
        for (index, event_id) in wanted {
            let Some(entry) = self.entries.get_mut(&index).filter(|e| !e.gone) else { continue };
            if entry.bindings.iter().any(|b| b.channel_key == channel_key) {
                continue;
            }
            // SAFETY: the entry's provider is registered; the channel is kept by the binding, and a grace
            // period longer by the garbage.
            let probe = unsafe { (entry.binder.bind)(entry.event, Recorder::new(channel, event_id)) };
            if let Some(probe) = probe {
                entry.bindings.push(Binding { channel_key, event_id, channel: channel.clone(), probe });
                self.groups[entry.group].dirty = true;
            }
        }
        self.rebuild();
    }

    /// The channel with this key records nothing any more.
    pub(crate) fn forget_channel(&mut self, channel_key: u64) {
        self.unbind(|binding| binding.channel_key == channel_key);
        self.rebuild();
    }

    fn unbind(&mut self, remove: impl Fn(&Binding) -> bool) {
        self.unbind_where(|_, binding| remove(binding));
    }

    fn unbind_where(&mut self, remove: impl Fn(u32, &Binding) -> bool) {
        for (index, entry) in &mut self.entries {
            let mut at = 0;
            while at < entry.bindings.len() {
                if !remove(*index, &entry.bindings[at]) {
                    at += 1;
                    continue;
                }
                let binding = entry.bindings.remove(at);
                self.garbage.probes.push((entry.binder, binding.probe));
                self.garbage.channels.push(binding.channel);
                self.groups[entry.group].dirty = true;
            }
        }
    }

    /// Publishes the probes of every group that changed.
    fn rebuild(&mut self) {
        // A site that is in no group yet would keep the old probes.
        self.index_modules();
        for group in self.groups.iter_mut().filter(|g| g.dirty) {
            group.dirty = false;
            let entries = group.entries.iter().filter_map(|index| self.entries.get(index));
            let recorded = entries.filter(|e| !e.gone).flat_map(|e| e.bindings.iter().map(|b| b.probe));
            let mut probes: Vec<Probe> = group.manual.iter().copied().chain(recorded).collect();
            if !probes.is_empty() {
                probes.push(Probe::END);
            }
            let before = core::mem::replace(&mut group.probes, probes.into_boxed_slice());
            group.publish();
            if !before.is_empty() {
                self.garbage.arrays.push(before);
            }
        }
    }
}
