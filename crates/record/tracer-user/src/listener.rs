//! The one thread of ours: it talks with the daemons and changes what the program records.
//!
//! It is made at the first registration, late and small, with all signals blocked. It gives up the
//! program's table of file descriptors for one of its own, so that neither can close, inherit or
//! count the other's; where the kernel forbids that, the identity of each descriptor is compared
//! before use. It sleeps in `poll` on the sockets, on the watch for daemons that come later, and on
//! a signalfd: program threads wake it with a signal that nobody else uses, sent to its thread,
//! where it is blocked and reaches no handler.
//!
//! Program threads wait for it in constructors, at most as long as `LTTNG_UST_REGISTER_TIMEOUT`
//! allows, and not at all when no daemon has made its socket.

use crate::connection::{Connection, End, OwnFd, connect};
use crate::registry::{self, Registry};
use crate::settings::{self, SocketPath, say};
use crate::watch::Watch;
use crate::{lock, rcu, start, sys};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicI32, AtomicU32, Ordering};

/// Stack of the thread.
const STACK_BYTES: usize = 128 * 1024;
/// Wakes the listener. Linux never sends it, and sent to one thread it reaches no other.
const WAKE_SIGNAL: libc::c_int = libc::SIGSTKFLT;
/// Where the program shares our descriptors it can close them while we sleep on them: look so often, ms.
const SHARED_CHECK_MS: i32 = 2000;
/// How long one try of a grace period may hold the listener up, ns.
const GRACE_SLICE_NS: u64 = 20_000_000;
/// Pause between such tries, ms.
const GRACE_RETRY_MS: i32 = 10;
/// Programs that end sooner are spared the watch for daemons, whose end costs them milliseconds, ns.
const WATCH_AFTER_NS: u64 = 1_000_000_000;
/// When the kernel gives no inotify instance: period of looking for a daemon, ms.
const BLIND_RETRY_MS: i32 = 5000;
/// A socket whose daemon does not listen yet is tried again after 10, 20, 40 … ms.
const BUSY_RETRIES_MAX: u32 = 8;
/// A forked child that runs another program at once never gets to speak to the daemon, ns.
const CHILD_PAUSE_NS: u64 = 5_000_000;

/// Numbers of the descriptors that are ours: two sockets, the watch, the signalfd; −1 for none.
static FDS: [AtomicI32; 4] = [const { AtomicI32::new(-1) }; 4];
/// 1 once the thread was made (or could not be).
static RUNNING: AtomicU32 = AtomicU32::new(0);
/// Counts registrations.
static REQUESTED: AtomicU32 = AtomicU32::new(0);
/// The registration up to which everything is in place; a futex word.
static DONE: AtomicU32 = AtomicU32::new(0);
/// Not 0 while the listener has not yet tried a socket that is there.
static EXPECTED: AtomicU32 = AtomicU32::new(0);
/// Not 0 once the listener has a table of descriptors of its own.
static ISOLATED: AtomicU32 = AtomicU32::new(0);
/// Daemons that are connected.
static CONNECTED: AtomicU32 = AtomicU32::new(0);
/// Not 0 after a wait that was in vain: the next ones do not wait.
static IMPATIENT: AtomicU32 = AtomicU32::new(0);
/// The kernel's number of the thread.
static THREAD_ID: AtomicU32 = AtomicU32::new(0);

/// What the thread works on.
struct Work {
    sockets: [Option<SocketPath>; 2],
    connections: [Connection; 2],
    watch: Watch,
    wake: Option<OwnFd>,
    /// Tries left for a socket that exists but refuses, and whether to look for it now.
    busy: [u32; 2],
    look: bool,
    /// Registrations in front of this one are digested.
    digested: u32,
    /// In a forked child, before anything else.
    pause_ns: u64,
    /// When the thread began.
    started_ns: u64,
}

struct Shared(UnsafeCell<Work>);
// SAFETY: used by the thread that makes the listener, and then by the listener alone (`RUNNING`).
unsafe impl Sync for Shared {}

static WORK: Shared = Shared(UnsafeCell::new(Work {
    sockets: [None, None],
    connections: [Connection::new(&FDS[0]), Connection::new(&FDS[1])],
    watch: Watch::new(&FDS[2]),
    wake: None,
    busy: [0; 2],
    look: true,
    digested: 0,
    pause_ns: 0,
    started_ns: 0,
}));

/// Whether [`announce`] waits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    No,
    /// Until the daemons that are there have said what to record.
    Daemons,
    /// Until the listener has done its own part.
    Listener,
}

/// True if the descriptor is one of ours, which the program should leave alone.
pub fn is_own_fd(fd: i32) -> bool {
    fd >= 0
        && ISOLATED.load(Ordering::Acquire) == 0
        && FDS.iter().any(|own| own.load(Ordering::Acquire) == fd)
}

/// True in the listener's thread.
pub fn is_current_thread() -> bool {
    THREAD_ID.load(Ordering::Relaxed) == sys::thread_id()
}

/// Tells the listener that the registry changed, makes it when it is not there yet, and waits.
pub fn announce(wait: Wait) {
    start::init();
    let request = REQUESTED.fetch_add(1, Ordering::SeqCst) + 1;
    if RUNNING.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
        // SAFETY: the exchange made this thread the only one that uses the work until it is handed over.
        unsafe {
            (*WORK.0.get()).prepare();
            launch();
        }
    } else {
        wake();
    }
    let limit_ns = match wait {
        Wait::No => return,
        Wait::Daemons if CONNECTED.load(Ordering::SeqCst) + EXPECTED.load(Ordering::SeqCst) == 0 => return,
        _ if IMPATIENT.load(Ordering::Relaxed) != 0 || THREAD_ID.load(Ordering::SeqCst) == u32::MAX => return,
        Wait::Daemons => settings::register_timeout_ns(),
        Wait::Listener => 1_000_000_000,
    };
    let start_ns = crate::clock::monotonic_ns();
    loop {
        let done = DONE.load(Ordering::SeqCst);
        if done.wrapping_sub(request) as i32 >= 0 || lock::is_dead() {
            return;
        }
        let waited_ns = crate::clock::monotonic_ns().saturating_sub(start_ns);
        if waited_ns >= limit_ns {
            IMPATIENT.store(1, Ordering::Relaxed);
            return;
        }
        sys::futex_wait(DONE.as_ptr(), done, (limit_ns - waited_ns).min(100_000_000));
    }
}

fn wake() {
    let thread = THREAD_ID.load(Ordering::SeqCst);
    // Before it has a number it has not looked at the registry either.
    if thread != 0 && thread != u32::MAX {
        let process = sys::process_id() as usize;
        // SAFETY: no pointers.
        unsafe {
            sys::syscall(libc::SYS_tgkill, [process, thread as usize, WAKE_SIGNAL as usize, 0, 0, 0]);
        }
    }
}

/// Makes the thread, with all signals blocked in it.
///
/// # Safety
/// Nobody else uses the work from here on.
unsafe fn launch() {
    // SAFETY: the sets and attributes are initialised before use; the thread's function has its type.
    let made = unsafe {
        let (mut all, mut before): (libc::sigset_t, libc::sigset_t) = core::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let mut attributes: libc::pthread_attr_t = core::mem::zeroed();
        libc::pthread_attr_init(&mut attributes);
        libc::pthread_attr_setstacksize(&mut attributes, STACK_BYTES);
        libc::pthread_attr_setdetachstate(&mut attributes, libc::PTHREAD_CREATE_DETACHED);
        let mut thread: libc::pthread_t = 0;
        let made = libc::pthread_create(&mut thread, &attributes, listen, core::ptr::null_mut());
        libc::pthread_attr_destroy(&mut attributes);
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, core::ptr::null_mut());
        made == 0
    };
    if !made {
        // Nothing will be recorded; nobody waits.
        THREAD_ID.store(u32::MAX, Ordering::SeqCst);
        EXPECTED.store(0, Ordering::SeqCst);
    }
}

/// What the thread does. (Not `main`: a debugger told to stop there would stop here as well.)
extern "C" fn listen(_: *mut libc::c_void) -> *mut libc::c_void {
    THREAD_ID.store(sys::thread_id(), Ordering::SeqCst);
    // SAFETY: a name ended by NUL; the work was handed over to this thread.
    unsafe {
        let name = c"sillage".as_ptr() as usize;
        sys::syscall(libc::SYS_prctl, [libc::PR_SET_NAME as usize, name, 0, 0, 0, 0]);
        isolate();
        (*WORK.0.get()).run();
    }
    core::ptr::null_mut()
}

/// Gives the calling thread an empty table of descriptors (with stderr, if we are to speak).
fn isolate() {
    let flags = CLOSE_RANGE_UNSHARE;
    let close = |first: usize, last: usize, flags: usize| {
        // SAFETY: with `flags` the thread gets a table of its own first; the program's is not touched.
        unsafe { sys::syscall(libc::SYS_close_range, [first, last, flags, 0, 0, 0]) == 0 }
    };
    let all = u32::MAX as usize;
    let done = match settings::debug() {
        true => close(3, all, flags) && close(0, 1, 0),
        false => close(0, all, flags),
    };
    ISOLATED.store(u32::from(done), Ordering::Release);
}

/// `CLOSE_RANGE_UNSHARE` of the kernel.
const CLOSE_RANGE_UNSHARE: usize = 2;

/// In the handler of a forked child: the parent's listener and its connections are not here.
pub(crate) fn forget_in_child() {
    let shared = ISOLATED.swap(0, Ordering::Relaxed) == 0;
    for fd in &FDS {
        let fd = fd.swap(-1, Ordering::Relaxed);
        // SAFETY: this thread is the only one.
        if fd >= 0 && shared && unsafe { (*WORK.0.get()).knows(fd) } {
            sys::close(fd);
        }
    }
    // SAFETY: as above.
    unsafe {
        let work = &mut *WORK.0.get();
        work.connections.iter_mut().for_each(Connection::abandon);
        work.watch.abandon();
        core::mem::forget(work.wake.take());
        work.busy = [0; 2];
        work.look = true;
    }
    THREAD_ID.store(0, Ordering::Relaxed);
    CONNECTED.store(0, Ordering::Relaxed);
    EXPECTED.store(0, Ordering::Relaxed);
    IMPATIENT.store(0, Ordering::Relaxed);
    RUNNING.store(0, Ordering::SeqCst);
}

/// In the handler of a forked child: registers it as a program of its own.
pub(crate) fn start_in_child() {
    if RUNNING.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
        // SAFETY: as in `announce`.
        unsafe {
            let work = &mut *WORK.0.get();
            work.pause_ns = CHILD_PAUSE_NS;
            launch();
        }
    }
}

impl Work {
    /// In the thread that makes the listener: only if there is a daemon's socket will it wait.
    fn prepare(&mut self) {
        self.sockets = settings::sockets();
        let exists = |socket: &SocketPath| sys::exists(socket.as_c_str());
        let expected = self.sockets.iter().flatten().any(exists);
        EXPECTED.store(expected.into(), Ordering::SeqCst);
        self.look = true;
        self.pause_ns = 0;
    }

    fn make_wake(&mut self) {
        let flags = (libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) as usize;
        let set: u64 = 1 << (WAKE_SIGNAL - 1);
        let at = (&raw const set) as usize;
        // SAFETY: the kernel reads the eight bytes of the set.
        let fd = unsafe {
            sys::syscall(libc::SYS_signalfd4, [usize::MAX, at, size_of_val(&set), flags, 0, 0]) as i32
        };
        self.wake = (fd >= 0).then(|| OwnFd::new(fd, &FDS[3]));
    }

    /// True if the number still stands for our descriptor.
    fn knows(&self, fd: i32) -> bool {
        let sockets = self.connections.iter().filter_map(|c| c.poll().and_then(|(fd, _)| fd));
        let others = [self.watch.poll(), self.wake.as_ref().and_then(OwnFd::get)];
        sockets.chain(others.into_iter().flatten()).any(|own| own == fd)
    }

    fn connect_all(&mut self) {
        for i in 0..self.sockets.len() {
            let Some(path) = self.sockets[i].filter(|_| !self.connections[i].is_connected()) else {
                continue;
            };
            match connect(&path) {
                Ok(fd) => {
                    self.busy[i] = 0;
                    self.connections[i].begin(fd);
                    CONNECTED.fetch_add(1, Ordering::SeqCst);
                }
                // Its daemon has made the socket and does not listen yet, or it was killed.
                Err(error) if -error == libc::ECONNREFUSED || -error == libc::EAGAIN => {
                    self.busy[i] = (self.busy[i] + 1).min(BUSY_RETRIES_MAX + 1);
                }
                Err(_) => self.busy[i] = 0,
            }
        }
    }

    fn run(&mut self) {
        // No sleep at all unless one is asked for: one of 0 ns takes what the thread's timers may be late.
        if self.pause_ns > 0 {
            sys::sleep_ns(self.pause_ns);
        }
        self.started_ns = crate::clock::monotonic_ns();
        say(format_args!("listener started, producer {:?}", settings::producer_kind()));
        loop {
            let wait_ms = self.turn();
            if lock::is_dead() {
                return;
            }
            self.sleep(wait_ms);
        }
    }

    /// Does everything that can be done now; returns how long to sleep, ms, −1 for ever.
    fn turn(&mut self) -> i32 {
        let mut wait_ms = self.find_daemons();
        EXPECTED.store(0, Ordering::SeqCst);
        let requested = REQUESTED.load(Ordering::SeqCst);
        {
            let Some(mut registry) = registry::lock() else { return 0 };
            let gone = registry.digest();
            for connection in &mut self.connections {
                connection.tell_gone(&gone);
            }
            for i in 0..self.connections.len() {
                let result = self.connections[i].send(&registry);
                self.check(i, result);
            }
        }
        self.digested = requested;
        if !self.collect() {
            wait_ms = GRACE_RETRY_MS;
        }
        if self.connections.iter().all(Connection::is_settled) {
            DONE.store(self.digested, Ordering::SeqCst);
            IMPATIENT.store(0, Ordering::Relaxed);
            sys::futex_wake(DONE.as_ptr());
        }
        wait_ms
    }

    /// Looks for daemons, and watches for those that are not there.
    fn find_daemons(&mut self) -> i32 {
        let mut wait_ms = -1;
        if self.look {
            self.look = false;
            let missing = |work: &Work| {
                let pairs = work.sockets.iter().zip(&work.connections);
                pairs.filter(|(s, c)| s.is_some() && !c.is_connected()).count()
            };
            self.connect_all();
            let age_ns = crate::clock::monotonic_ns().saturating_sub(self.started_ns);
            if missing(self) > 0 && age_ns < WATCH_AFTER_NS {
                self.look = true;
                wait_ms = (1 + (WATCH_AFTER_NS - age_ns) / 1_000_000) as i32;
            } else if missing(self) > 0 {
                let sockets = self.sockets;
                if !self.watch.start(sockets.iter().flatten()) {
                    self.look = true;
                    wait_ms = BLIND_RETRY_MS;
                }
                // A socket that appeared before the watch began.
                self.connect_all();
            }
        }
        for busy in self.busy {
            if (1..=BUSY_RETRIES_MAX).contains(&busy) {
                self.look = true;
                let pause = 10 << (busy - 1);
                wait_ms = if wait_ms < 0 { pause } else { wait_ms.min(pause) };
            }
        }
        wait_ms
    }

    /// Frees garbage and answers syncs, after a grace period. False: it is not over yet.
    fn collect(&mut self) -> bool {
        let garbage = match registry::lock() {
            Some(mut registry) => core::mem::take(&mut registry.garbage),
            None => return true,
        };
        let awaited = self.connections.iter().any(Connection::awaits_grace);
        if garbage.is_empty() && !awaited {
            return true;
        }
        let syncs = [0, 1].map(|i: usize| self.connections[i].take_syncs());
        if !rcu::wait_for_readers(GRACE_SLICE_NS) {
            if let Some(mut registry) = registry::lock() {
                registry.garbage.merge(garbage);
            }
            for (connection, syncs) in self.connections.iter_mut().zip(syncs) {
                connection.give_back_syncs(syncs);
            }
            return false;
        }
        // SAFETY: the grace period began after the garbage was taken.
        unsafe { garbage.free() };
        for (i, syncs) in syncs.iter().enumerate() {
            let result = self.connections[i].answer(syncs);
            self.check(i, result);
        }
        true
    }

    /// Ends a connection that failed.
    fn check(&mut self, i: usize, result: Result<(), End>) {
        let Err(end) = result else { return };
        say(format_args!("connection {i} ended: {end:?}"));
        self.connections[i].end();
        CONNECTED.fetch_sub(1, Ordering::SeqCst);
        // A daemon that refused would do so again: wait for the next one.
        self.look = true;
        self.busy[i] = if end == End::Refused { BUSY_RETRIES_MAX + 1 } else { 0 };
        if end == End::Refused {
            self.look = false;
            let sockets = self.sockets;
            self.watch.start(sockets.iter().flatten());
        }
    }

    /// Sleeps until something happens, and takes what happened.
    fn sleep(&mut self, wait_ms: i32) {
        let mut polled = [libc::pollfd { fd: -1, events: libc::POLLIN, revents: 0 }; 4];
        for (i, polled) in polled.iter_mut().enumerate().take(2) {
            match self.connections[i].poll() {
                Some((Some(fd), writes)) => {
                    polled.fd = fd;
                    polled.events |= if writes { libc::POLLOUT } else { 0 };
                }
                Some((None, _)) => self.check(i, Err(End::Stolen)),
                None => {}
            }
        }
        polled[2].fd = self.watch.poll().unwrap_or(-1);
        if self.wake.as_ref().and_then(OwnFd::get).is_none() {
            self.make_wake();
        }
        polled[3].fd = self.wake.as_ref().and_then(OwnFd::get).unwrap_or(-1);
        let at_most = |limit: i32| if wait_ms < 0 { limit } else { wait_ms.min(limit) };
        let wait_ms = match (polled[3].fd < 0, ISOLATED.load(Ordering::Relaxed)) {
            // Without signalfd, registrations are found by looking.
            (true, _) => at_most(100),
            (false, 0) => at_most(SHARED_CHECK_MS),
            (false, _) => wait_ms,
        };
        let wait_ms = if self.needs_turn() { 0 } else { wait_ms };
        // SAFETY: four entries of our own.
        unsafe {
            let at = polled.as_mut_ptr() as usize;
            sys::syscall(libc::SYS_poll, [at, polled.len(), wait_ms as usize, 0, 0, 0]);
        }
        if polled[3].revents & libc::POLLIN != 0 && self.wake.as_ref().and_then(OwnFd::get).is_some() {
            sys::read(polled[3].fd, &mut [0; 1024]);
        }
        if polled[2].revents != 0 {
            self.watch.drain();
            self.busy = [0; 2];
            self.look = true;
        }
        for (i, polled) in polled.iter().enumerate().take(2) {
            if polled.revents != 0 {
                self.receive(i);
            }
        }
    }

    /// True if something was left to do before sleeping.
    fn needs_turn(&self) -> bool {
        REQUESTED.load(Ordering::SeqCst) != self.digested
    }

    fn receive(&mut self, i: usize) {
        let result = match registry::lock() {
            Some(mut registry) => self.receive_into(i, &mut registry),
            None => return,
        };
        self.check(i, result);
    }

    fn receive_into(&mut self, i: usize, registry: &mut Registry) -> Result<(), End> {
        self.connections[i].receive(registry)
    }
}
