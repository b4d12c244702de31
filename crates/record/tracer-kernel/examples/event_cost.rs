//! What a recorded event costs: our events and ftrace's in turns, in one run, so that whatever else the
//! machine does meets both. To be run pinned (`taskset -c 1`) and as root. Prints a line for each case:
//! its name and the median of what it adds in nanoseconds (or takes, for floors and beginnings),
//! separated by a tab. With the argument `spin` it makes system calls until it is killed.

use sillage_bpf::{Assembler, Reg};
use sillage_consumer::DoorbellMemory;
use sillage_ring::{Geometry, HeaderForm, Kind};
use sillage_tracer_kernel::filters::Filter;
use sillage_tracer_kernel::sys::ProgramKind;
use sillage_tracer_kernel::syscalls::{self, Abi, Side};
use sillage_tracer_kernel::{Bell, Channel, Code, Field, Kernel, Recipe, contexts, events, statedump, sys};
use std::error::Error;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

type Outcome<T> = Result<T, Box<dyn Error>>;

const CALLS: u32 = 10_000;
const SWITCHES: u32 = 1_000;
const ROUNDS: usize = 31;
/// Processes of the state dump, beside those that are there.
const PROCESSES: usize = 1000;
/// Forty bytes, the zero included.
const PATH: &std::ffi::CStr = c"/no/such/file/of/thirty-nine/characters";

/// A thing that happens, in nanoseconds for one.
type Work = fn() -> f64;

fn getpid_ns() -> f64 {
    let start = Instant::now();
    for _ in 0..CALLS {
        std::hint::black_box(std::process::id());
    }
    start.elapsed().as_nanos() as f64 / f64::from(CALLS)
}

fn status_ns() -> f64 {
    let start = Instant::now();
    for _ in 0..CALLS {
        std::hint::black_box(PATH.to_str().map(std::path::Path::new).map(std::path::Path::exists).ok());
    }
    start.elapsed().as_nanos() as f64 / f64::from(CALLS)
}

/// Arms a timer for a day from now: a tracepoint that is not the system calls', for each call.
fn arm_ns() -> f64 {
    const DAY_S: i64 = 86_400;
    // SAFETY: no addresses in it.
    let timer = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC) };
    if timer < 0 {
        return 0.0;
    }
    // SAFETY: the kernel has just given it to us.
    let timer = unsafe { OwnedFd::from_raw_fd(timer) };
    let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let when =
        libc::itimerspec { it_interval: never, it_value: libc::timespec { tv_sec: DAY_S, tv_nsec: 0 } };
    let start = Instant::now();
    for _ in 0..CALLS {
        // SAFETY: the time lives through the call, and the old one is not asked for.
        unsafe { libc::timerfd_settime(timer.as_raw_fd(), 0, &raw const when, std::ptr::null_mut()) };
    }
    start.elapsed().as_nanos() as f64 / f64::from(CALLS)
}

/// Half a turn of two threads that wake each other: one switch.
fn switch_ns() -> f64 {
    let Ok((mut near, mut far)) = std::os::unix::net::UnixStream::pair() else { return 0.0 };
    let echo = std::thread::spawn(move || {
        let mut byte = [0];
        while far.read(&mut byte).is_ok_and(|read| read == 1) && far.write_all(&byte).is_ok() {}
    });
    let start = Instant::now();
    let mut byte = [0];
    for _ in 0..SWITCHES {
        if near.write_all(&byte).and_then(|()| near.read_exact(&mut byte)).is_err() {
            return 0.0;
        }
    }
    let took = start.elapsed().as_nanos() as f64;
    drop(near);
    let _ = echo.join();
    took / f64::from(2 * SWITCHES)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Something that can be switched on and off.
trait Tracer {
    fn switch(&mut self, on: bool) -> Outcome<()>;
}

struct Ours<'a> {
    channel: Channel,
    recipe: Recipe,
    contexts: Vec<Field>,
    filter: Option<&'a Filter>,
}

impl Tracer for Ours<'_> {
    fn switch(&mut self, on: bool) -> Outcome<()> {
        if !on {
            self.channel.disable(1);
            return Ok(());
        }
        let filter = self.filter;
        let guard = |code: &mut Code<'_>, no| filter.map_or(Ok(()), |filter| filter.guard(code, no));
        Ok(self.channel.enable(&self.recipe, 1, &self.contexts, &[&guard])?)
    }
}

struct Ftrace {
    instance: PathBuf,
    event: &'static str,
}

impl Tracer for Ftrace {
    fn switch(&mut self, on: bool) -> Outcome<()> {
        let enable = self.instance.join("events").join(self.event).join("enable");
        Ok(std::fs::write(enable, if on { "1" } else { "0" })?)
    }
}

/// Medians of what each adds, in turns.
fn added(work: Work, tracers: &mut [(&str, Box<dyn Tracer + '_>)]) -> Outcome<Vec<f64>> {
    let mut differences = vec![Vec::new(); tracers.len()];
    for _ in 0..ROUNDS {
        for ((_, tracer), differences) in tracers.iter_mut().zip(&mut differences) {
            let without = work();
            tracer.switch(true)?;
            work();
            let with = work();
            tracer.switch(false)?;
            differences.push(with - without);
        }
    }
    Ok(differences.into_iter().map(median).collect())
}

fn show(work: Work, floor: &str, mut tracers: Vec<(&str, Box<dyn Tracer + '_>)>) -> Outcome<()> {
    if !floor.is_empty() {
        println!("{floor}\t{:.1}", median((0..ROUNDS).map(|_| work()).collect()));
    }
    let costs = added(work, &mut tracers)?;
    for ((name, _), cost) in tracers.iter().zip(&costs) {
        println!("{name}\t{cost:.1}");
    }
    Ok(())
}

/// A program that does nothing on a tracepoint: the kernel's own part.
struct Empty(&'static str, Option<OwnedFd>);

impl Tracer for Empty {
    fn switch(&mut self, on: bool) -> Outcome<()> {
        self.1 = None;
        if on {
            let mut asm = Assembler::new();
            asm.mov(Reg::R0, 0);
            asm.exit();
            let program = sys::load_program(ProgramKind::RawTracepoint, &asm.finish()?, "empty")?;
            self.1 = Some(sys::attach_raw(program.as_fd(), self.0)?);
        }
        Ok(())
    }
}

/// Other processes, gone when this is.
struct Others(Vec<Child>);

impl Drop for Others {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn main() -> Outcome<()> {
    if std::env::args().nth(1).as_deref() == Some("spin") {
        loop {
            getpid_ns();
        }
    }
    let kernel = Arc::new(Kernel::running()?);
    let tracefs = kernel.tracefs().ok_or("no tracefs")?;
    let instance = tracefs.join("instances").join(format!("sillage-cost-{}", std::process::id()));
    std::fs::create_dir(&instance)?;
    let outcome = measure(&kernel, &instance);
    std::fs::remove_dir(&instance)?;
    outcome
}

fn measure(kernel: &Arc<Kernel>, instance: &std::path::Path) -> Outcome<()> {
    let (cpus, _) = sys::cpus();
    let geometry = Geometry {
        kind: Kind::Ebpf,
        cpus,
        subbuf_shift: 18,
        subbuf_count: 8,
        overwrite: true,
        ordered: false,
        header: HeaderForm::Compact,
    };
    let bell = Bell::start(Arc::new(DoorbellMemory::create()?))?;
    let channel = || {
        let memory = Arc::new(Channel::rings(geometry, 1)?);
        Channel::new(Arc::clone(kernel), memory, &bell)
    };
    let ftrace = |event| -> Box<dyn Tracer> { Box::new(Ftrace { instance: instance.into(), event }) };
    let entry = |name: &str| {
        syscalls::find(Abi::Native, name).map(|call| call.recipe(Side::Entry)).ok_or("no such call")
    };
    let seven = ["procname", "prio", "nice", "ppid", "vtid", "uid", "pid_ns"];
    let seven: Vec<Field> =
        seven.iter().map(|name| contexts::find(name).map(|found| found.field)).collect::<Result<_, _>>()?;
    let ours = |recipe: &Recipe, contexts: &[Field]| -> Outcome<Box<dyn Tracer>> {
        let (recipe, contexts) = (recipe.clone(), contexts.to_vec());
        Ok(Box::new(Ours { channel: channel()?, recipe, contexts, filter: None }))
    };
    let getpid = entry("getpid")?;
    let other = entry("mkdir")?;
    let status = entry("statx")?;
    let switch = events::find("sched_switch").ok_or("no such event")?;
    show(
        getpid_ns,
        "floor: getpid",
        vec![
            ("floor: empty program on the hook", Box::new(Empty("sys_enter", None))),
            ("getpid's entry, ours", ours(&getpid, &[])?),
            ("getpid's entry, ftrace", ftrace("raw_syscalls/sys_enter")),
            ("getpid's entry, ftrace's event of the call", ftrace("syscalls/sys_enter_getpid")),
            ("getpid's entry with seven contexts", ours(&getpid, &seven)?),
            ("a call that nobody asked for", ours(&other, &[])?),
        ],
    )?;
    {
        let mut spinning = Command::new("taskset");
        spinning.args(["-c", "0"]).arg(std::env::current_exe()?).arg("spin");
        let _others = Others(vec![spinning.spawn()?]);
        show(
            getpid_ns,
            "",
            vec![
                ("two CPUs: empty program on the hook", Box::new(Empty("sys_enter", None))),
                ("two CPUs: getpid's entry, ours", ours(&getpid, &[])?),
                ("two CPUs: getpid's entry, ftrace", ftrace("raw_syscalls/sys_enter")),
            ],
        )?;
    }
    let filter = Filter::new(kernel, &status, "mask == 77")?;
    let (recipe, filter) = (status.clone(), Some(&filter));
    let rejecting: Box<dyn Tracer + '_> =
        Box::new(Ours { channel: channel()?, recipe, contexts: Vec::new(), filter });
    show(
        status_ns,
        "floor: statx",
        vec![
            ("statx: empty program on the hook", Box::new(Empty("sys_enter", None))),
            ("statx: entry with a path of 40 bytes, ours", ours(&status, &[])?),
            ("statx: rejected by a filter", rejecting),
            ("statx: ftrace, without the path", ftrace("raw_syscalls/sys_enter")),
        ],
    )?;
    let armed = events::find("timer_hrtimer_start").ok_or("no such event")?;
    let filter = Filter::new(kernel, armed, "expires == 77")?;
    let (recipe, filter) = (armed.clone(), Some(&filter));
    let rejecting: Box<dyn Tracer + '_> =
        Box::new(Ours { channel: channel()?, recipe, contexts: Vec::new(), filter });
    show(
        arm_ns,
        "floor: arming a timer",
        vec![
            ("timer: empty program on the hook", Box::new(Empty("hrtimer_start", None))),
            ("timer: rejected by a filter", rejecting),
        ],
    )?;
    show(
        switch_ns,
        "floor: a switch",
        vec![
            ("sched_switch, ours", ours(switch, &[])?),
            ("sched_switch, ftrace", ftrace("sched/sched_switch")),
            ("sched_switch with seven contexts", ours(switch, &seven)?),
        ],
    )?;
    dump(&mut channel()?)
}

/// The state dump of a machine with a thousand processes, in milliseconds.
fn dump(channel: &mut Channel) -> Outcome<()> {
    let sleeper = |_| Command::new("sleep").arg("600").stdout(Stdio::null()).spawn();
    let _others = Others((0..PROCESSES).map(sleeper).collect::<Result<_, _>>()?);
    let times = (0..5).map(|_| {
        let start = Instant::now();
        statedump::run(channel, &statedump::Processes::Iterators, &[], |_| Some(1))
            .map(|_| start.elapsed().as_secs_f64() * 1e3)
    });
    println!("state dump, ms\t{:.1}", median(times.collect::<Result<_, _>>()?));
    Ok(())
}
